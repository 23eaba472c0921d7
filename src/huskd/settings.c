#include "huskd/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "huskd/shapes.h"
#include "image/mirror.h"

enum setting_type { SIZE, DURATION, NUMBER, CHOICE, TEXT, PATH };

struct setting {
    const char *name;
    enum setting_type type;
    size_t offset; /* in struct settings */
    const char *def, *min, *max, *values, *doc;
};

static const struct setting table[] = {
#define SETTING(type, name, def, min, max, values, doc)                                            \
    {#name, type, offsetof(struct settings, name), def, min, max, values, doc},
#include "huskd/settings.def"
#undef SETTING
};

static const char *const type_words[] = {
    [SIZE] = "a size such as 64M or 10GiB",
    [DURATION] = "a duration such as 10s or 1m30s",
    [NUMBER] = "a number",
};

static uint64_t *number_of(struct settings *s, const struct setting *row)
{
    return (uint64_t *)(void *)((char *)s + row->offset);
}

static char **text_of(struct settings *s, const struct setting *row)
{
    return (char **)(void *)((char *)s + row->offset);
}

static bool name_is(const char *name, const char *given)
{
    for (; *name && *given; name++, given++)
        if (*name != (*given == '-' ? '_' : *given))
            return false;
    return !*name && !*given;
}

static const struct setting *setting_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (name_is(table[i].name, name))
            return &table[i];
    return NULL;
}

static bool number_read(enum setting_type type, const char *text, uint64_t *ret)
{
    if (type == SIZE)
        return str_to_size(text, 1, ret);
    if (type == DURATION)
        return str_to_duration_ms(text, ret);
    return str_to_u64(text, 0, UINT64_MAX, ret);
}

static int number_set(struct settings *s, const struct setting *row, const char *value,
                      struct error **ret_error)
{
    uint64_t number, bound;
    if (!number_read(row->type, value, &number))
        return error_set(ret_error, ERROR_INVALID, 0, "%s: '%s' is not %s", row->name, value,
                         type_words[row->type]);
    if (number_read(row->type, row->min, &bound) && number < bound)
        return error_set(ret_error, ERROR_INVALID, 0, "%s: '%s' is less than %s", row->name, value,
                         row->min);
    if (number_read(row->type, row->max, &bound) && number > bound)
        return error_set(ret_error, ERROR_INVALID, 0, "%s: '%s' is more than %s", row->name, value,
                         row->max);
    *number_of(s, row) = number;
    return 0;
}

static int choice_set(struct settings *s, const struct setting *row, const char *value,
                      struct error **ret_error)
{
    CLEANUP_STRV char **values = str_split(row->values, '|');
    if (!strv_contains((const char *const *)values, value))
        return error_set(ret_error, ERROR_INVALID, 0, "%s: '%s' is not one of %s", row->name, value,
                         row->values);
    str_set(text_of(s, row), value);
    return 0;
}

static int path_set(struct settings *s, const struct setting *row, const char *value,
                    struct error **ret_error)
{
    if (!*value)
        return error_set(ret_error, ERROR_INVALID, 0, "%s: a path is missing", row->name);
    if (*value == '/') {
        str_set(text_of(s, row), value);
        return 0;
    }
    CLEANUP_FREE char *here = getcwd(NULL, 0);
    if (!here)
        return error_set(ret_error, ERROR_IO, errno, "%s: the current directory has no name",
                         row->name);
    CLEANUP_FREE char *path = str_printf("%s/%s", here, value);
    str_set(text_of(s, row), path);
    return 0;
}

bool settings_has(const char *name)
{
    return setting_find(name) != NULL;
}

int settings_set(struct settings *s, const char *name, const char *value, struct error **ret_error)
{
    const struct setting *row = setting_find(name);
    if (!row)
        return error_set(ret_error, ERROR_INVALID, 0, "there is no setting '%s'", name);
    if (row->type == CHOICE)
        return choice_set(s, row, value, ret_error);
    if (row->type == PATH)
        return path_set(s, row, value, ret_error);
    if (row->type != TEXT)
        return number_set(s, row, value, ret_error);
    str_set(text_of(s, row), value);
    return 0;
}

/* ---- defaults ------------------------------------------------------------------------------- */

/* $variable/name, or fallback/name where the variable is not set. */
static char *place(const char *variable, const char *fallback, const char *name)
{
    return str_printf("%s/%s", str_or(getenv(variable), fallback), name);
}

static void places_init(struct settings *s)
{
    if (geteuid() == 0) {
        str_set(&s->root, "/var/lib/husk");
        str_set(&s->socket, "/run/husk.sock");
        str_set(&s->registries, "/etc/husk/registries");
        str_set(&s->qemu_user, "nobody"); /* a guest that breaks out of QEMU is nobody */
        return;
    }
    CLEANUP_FREE char *data = place("HOME", "", ".local/share");
    CLEANUP_FREE char *run = str_printf("/run/user/%u", (unsigned)geteuid());
    free(s->root);
    s->root = place("XDG_DATA_HOME", data, "husk");
    free(s->socket);
    s->socket = place("XDG_RUNTIME_DIR", run, "husk.sock");
    CLEANUP_FREE char *config = place("HOME", "", ".config");
    free(s->registries);
    s->registries = place("XDG_CONFIG_HOME", config, "husk/registries");
}

void settings_init(struct settings *s)
{
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].type >= CHOICE)
            str_set(text_of(s, &table[i]), table[i].def);
        else
            number_read(table[i].type, table[i].def, number_of(s, &table[i]));
    }
    places_init(s);
}

void settings_done(struct settings *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (table[i].type >= CHOICE)
            str_set(text_of(s, &table[i]), NULL);
}

char *settings_default_file(void)
{
    if (geteuid() == 0)
        return xstrdup("/etc/husk/huskd.conf");
    CLEANUP_FREE char *config = place("HOME", "", ".config");
    return place("XDG_CONFIG_HOME", config, "husk/huskd.conf");
}

/* ---- huskd.conf ----------------------------------------------------------------------------- */

static char *trim(char *s)
{
    static const char blanks[] = " \t\r";
    s += strspn(s, blanks);
    size_t len = strlen(s);
    while (len > 0 && strchr(blanks, s[len - 1]))
        s[--len] = '\0';
    return s;
}

static int line_parse(struct settings *s, char *line, struct error **ret_error)
{
    line = trim(line);
    if (!*line || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (!equals)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not of the form 'name = value'",
                         line);
    *equals = '\0';
    return settings_set(s, trim(line), trim(equals + 1), ret_error);
}

int settings_parse(struct settings *s, const char *file, const char *text, size_t size,
                   struct error **ret_error)
{
    const char *end = text + size;
    for (unsigned number = 1; text < end; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t len = (size_t)((newline ? newline : end) - text);
        if (len > SETTINGS_LINE_MAX)
            return error_set(ret_error, ERROR_TOO_LARGE, 0,
                             "%s:%u: the line is longer than %d bytes", file, number,
                             SETTINGS_LINE_MAX);
        if (memchr(text, '\0', len))
            return error_set(ret_error, ERROR_INVALID, 0, "%s:%u: the line has a NUL byte", file,
                             number);
        CLEANUP_FREE char *line = xstrndup(text, len);
        CLEANUP_ERROR struct error *error = NULL;
        if (line_parse(s, line, &error) < 0) {
            error_wrap(&error, "%s:%u", file, number);
            return error_move(ret_error, &error);
        }
        text += len + 1;
    }
    return 0;
}

static void closep(FILE **f)
{
    if (*f)
        fclose(*f);
}

int settings_load(struct settings *s, const char *file, struct error **ret_error)
{
    __attribute__((cleanup(closep))) FILE *f = fopen(file, "re");
    if (!f)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", file);
    CLEANUP_FREE char *text = xmalloc(SETTINGS_FILE_MAX + 1);
    size_t size = fread(text, 1, SETTINGS_FILE_MAX + 1, f);
    if (ferror(f))
        return error_set(ret_error, ERROR_IO, errno, "read '%s'", file);
    if (size > SETTINGS_FILE_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "'%s' is larger than %d bytes", file,
                         SETTINGS_FILE_MAX);
    return settings_parse(s, file, text, size, ret_error);
}

static int template_size_add(const struct settings *s, uint64_t ret[SETTINGS_SIZES_MAX],
                             size_t *count, const char *word, struct error **ret_error)
{
    enum { STEP = 2 << 20, LEAST = 48 << 20 };
    uint64_t bytes;
    if (!str_to_size(word, 1, &bytes) || bytes % STEP)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "template_sizes: '%s' is not a size in steps of 2 MiB such as 128MiB",
                         word);
    if (bytes < LEAST || (s->memory_max && bytes > s->memory_max))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "template_sizes: '%s' is less than 48MiB or more than memory_max", word);
    if (*count == SETTINGS_SIZES_MAX || *count >= s->templates_max)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "template_sizes: more than templates_max, or than %d", SETTINGS_SIZES_MAX);
    for (size_t i = 0; i < *count; i++)
        if (ret[i] == bytes)
            return error_set(ret_error, ERROR_INVALID, 0, "template_sizes: '%s' is named twice",
                             word);
    if (bytes >= shape_memory_needed(s))
        ret[(*count)++] = bytes;
    return 0;
}

int settings_template_sizes(const struct settings *s, uint64_t ret[SETTINGS_SIZES_MAX],
                            size_t *ret_count, struct error **ret_error)
{
    const char *rest = str_or(s->template_sizes, "");
    *ret_count = 0;
    while (*(rest += strspn(rest, ", "))) {
        CLEANUP_FREE char *word = xstrndup(rest, strcspn(rest, ", "));
        if (template_size_add(s, ret, ret_count, word, ret_error) < 0)
            return -1;
        rest += strlen(word);
    }
    return 0;
}

static int mirrors_check(const struct settings *s, struct error **ret_error)
{
    const char *rest = str_or(s->registry_mirrors, "");
    while (*(rest += strspn(rest, ", \t"))) {
        CLEANUP_FREE char *word = xstrndup(rest, strcspn(rest, ", \t"));
        CLEANUP_MIRROR struct mirror mirror = {0};
        CLEANUP_ERROR struct error *error = NULL;
        if (mirror_parse(word, &mirror, &error) < 0) {
            error_wrap(&error, "registry_mirrors");
            return error_move(ret_error, &error);
        }
        rest += strlen(word);
    }
    return 0;
}

int settings_check(const struct settings *s, struct error **ret_error)
{
    if (s->memory_max && s->memory_max < s->memory_min)
        return error_set(ret_error, ERROR_INVALID, 0, "memory_max is less than memory_min");
    if (s->memory_default < s->memory_min)
        return error_set(ret_error, ERROR_INVALID, 0, "memory_default is less than memory_min");
    if (s->memory_default < shape_memory_min(s))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "memory_default is less than the 80MiB that a microvm needs");
    if (s->memory_max && s->memory_default > s->memory_max)
        return error_set(ret_error, ERROR_INVALID, 0, "memory_default is more than memory_max");
    if (s->restart_delay_max < s->restart_delay_min)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "restart_delay_max is less than restart_delay_min");
    if (str_empty(s->qemu))
        return error_set(ret_error, ERROR_INVALID, 0, "qemu: the name of a program is missing");
    struct pool_shape shapes[POOL_SHAPES_MAX];
    uint64_t sizes[SETTINGS_SIZES_MAX];
    size_t count;
    if (settings_template_sizes(s, sizes, &count, ret_error) < 0 || mirrors_check(s, ret_error) < 0)
        return -1;
    return shapes_read(s, shapes, &count, ret_error);
}

/* ---- showing -------------------------------------------------------------------------------- */

/* The text in lines of at most `width` characters, each after the prefix. */
static void print_wrapped(FILE *out, const char *prefix, int width, const char *text)
{
    while (*text) {
        int len = (int)strlen(text);
        if (len > width)
            for (len = width; len > 0 && text[len] != ' '; len--)
                ;
        if (len == 0)
            len = (int)strcspn(text, " ");
        fprintf(out, "%s%.*s\n", prefix, len, text);
        text += len;
        text += strspn(text, " ");
    }
}

static void print_bounds(FILE *out, const char *prefix, const struct setting *row)
{
    if (row->type == CHOICE)
        fprintf(out, "%sone of: %s\n", prefix, row->values);
    else if (*row->min || *row->max)
        fprintf(out, "%sfrom %s to %s\n", prefix, row->min, row->max);
}

void settings_print_sample(FILE *out)
{
    fputs("# huskd.conf: the settings of huskd. Each is also a flag: --name=value.\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        fputc('\n', out);
        print_wrapped(out, "# ", 90, table[i].doc);
        print_bounds(out, "# ", &table[i]);
        fprintf(out, "#%s =%s%s\n", table[i].name, *table[i].def ? " " : "", table[i].def);
    }
}

void settings_print_help(FILE *out)
{
    static const char *const value_words[] = {
        [SIZE] = "SIZE", [DURATION] = "TIME", [NUMBER] = "N",
        [CHOICE] = "",   [TEXT] = "TEXT",     [PATH] = "PATH",
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const struct setting *row = &table[i];
        fprintf(out, "  --%s=%s", row->name, *row->values ? row->values : value_words[row->type]);
        if (*row->def)
            fprintf(out, "  (%s)", row->def);
        fputc('\n', out);
        print_wrapped(out, "        ", 80, row->doc);
    }
}

/* A number in the largest unit that keeps it whole, as it could stand in huskd.conf. */
static char *number_text(enum setting_type type, uint64_t number)
{
    static const struct {
        enum setting_type type;
        uint64_t factor;
        const char *unit;
    } units[] = {
        {SIZE, 1ULL << 30, "GiB"}, {SIZE, 1ULL << 20, "MiB"}, {SIZE, 1ULL << 10, "KiB"},
        {DURATION, 3600000, "h"},  {DURATION, 60000, "m"},    {DURATION, 1000, "s"},
        {DURATION, 1, "ms"},
    };
    for (size_t i = 0; number && i < ARRAY_SIZE(units); i++)
        if (units[i].type == type && number % units[i].factor == 0)
            return str_printf("%llu%s", (unsigned long long)(number / units[i].factor),
                              units[i].unit);
    return str_printf("%llu", (unsigned long long)number);
}

char **settings_list(const struct settings *s)
{
    char **list = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct settings *all = (struct settings *)(uintptr_t)s;
        strv_push(&list, table[i].name);
        if (table[i].type >= CHOICE)
            strv_push(&list, str_or(*text_of(all, &table[i]), ""));
        else
            strv_push_take(&list, number_text(table[i].type, *number_of(all, &table[i])));
    }
    return list;
}
