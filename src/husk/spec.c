#include "husk/spec.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "husk/cli.h"

/* ---- files ---------------------------------------------------------------------------------- */

static int file_read(const char *path, size_t max, struct buf *ret, struct error **ret_error)
{
    enum { READ_SIZE = 64 << 10 };
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && ret->len <= max) {
        n = read(fd, buf_reserve(ret, READ_SIZE), READ_SIZE);
        if (n > 0)
            ret->len += (size_t)n;
    }
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, err, "read '%s'", path);
    if (ret->len > max)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "'%s' is over %zu kB", path, max >> 10);
    return 0;
}

/* ---- environment ---------------------------------------------------------------------------- */

char *env_value(const char *text)
{
    if (strchr(text, '='))
        return xstrdup(text);
    const char *ours = getenv(text);
    return ours ? str_printf("%s=%s", text, ours) : NULL;
}

static int env_line(const char *line, size_t size, char ***env, struct error **ret_error)
{
    while (size && isspace((unsigned char)*line)) {
        line++;
        size--;
    }
    if (size && line[size - 1] == '\r')
        size--;
    if (!size || *line == '#')
        return 0;
    if (memchr(line, 0, size))
        return error_set(ret_error, ERROR_INVALID, 0, "there is a zero byte in it");
    CLEANUP_FREE char *text = xstrndup(line, size);
    size_t name = strcspn(text, "=");
    if (name == 0 || strcspn(text, " \t") < name)
        return error_set(ret_error, ERROR_INVALID, 0, "'%.*s' is not the name of a variable",
                         (int)name, text);
    char *value = env_value(text);
    if (value)
        strv_push_take(env, value);
    return 0;
}

int env_file_parse(const char *path, const char *text, size_t size, char ***env,
                   struct error **ret_error)
{
    static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8, by some editors */
    const char *end = text + size;
    if (size >= strlen(mark) && memcmp(text, mark, strlen(mark)) == 0)
        text += strlen(mark);
    for (unsigned number = 1; text < end; number++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((stop ? stop : end) - text);
        CLEANUP_ERROR struct error *error = NULL;
        if (env_line(text, length, env, &error) < 0) {
            error_wrap(&error, "'%s': line %u", path, number);
            return error_move(ret_error, &error);
        }
        text += length + 1;
    }
    return 0;
}

enum { ENVS_MAX = 4096 }; /* as huskd */

/* Leaves of the variables that are there more than once the last. */
static void env_unite(char **env)
{
    size_t kept = 0;
    for (size_t i = 0; env && env[i]; i++) {
        size_t name = strcspn(env[i], "=") + 1;
        bool again = false;
        for (size_t j = i + 1; env[j] && !again; j++)
            again = strncmp(env[i], env[j], name) == 0;
        if (again)
            free(env[i]);
        else
            env[kept++] = env[i];
    }
    if (env)
        env[kept] = NULL;
}

int env_all(const struct args *args, char ***ret, struct error **ret_error)
{
    CLEANUP_STRV char **files = args_all(args, "env-file"), **given = args_all(args, "env");
    STRV_FOREACH(path, files) {
        CLEANUP_BUF struct buf text = {0};
        if (file_read(*path, ENV_FILE_MAX, &text, ret_error) < 0 ||
            env_file_parse(*path, (const char *)text.data, text.len, ret, ret_error) < 0)
            return -1;
    }
    STRV_FOREACH(text, given) {
        if (!**text || **text == '=')
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not in 'key=value' format",
                             *text);
        char *value = env_value(*text);
        if (value)
            strv_push_take(ret, value);
    }
    if (strv_count((const char *const *)*ret) > ENVS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "there are more than %d variables", ENVS_MAX);
    env_unite(*ret);
    return 0;
}

/* ---- a container and its pod ---------------------------------------------------------------- */

char *spec_name(const char *image)
{
    enum { DIGITS = 10, BASE_MAX = 50 };
    char digits[DIGITS + 1];
    const char *slash = strrchr(image, '/');
    const char *last = slash ? slash + 1 : image;
    /* A digest says nothing to people. */
    size_t length = strcspn(last, "@");
    CLEANUP_FREE char *base = xstrndup(last, length < BASE_MAX ? length : BASE_MAX);
    for (char *at = base; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
            *at = '-';
    str_random(digits, DIGITS, "0123456789");
    return str_printf("%s-%s", base, digits);
}

int words_json(char *const *words, json_t **ret, struct error **ret_error)
{
    CLEANUP_JSON json_t *array = json_array();
    STRV_FOREACH(word, words)
        if (json_array_append_new(array, json_string(*word)) < 0)
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not UTF-8", *word);
    *ret = take(array);
    return 0;
}

int options_check_utf8(const struct args *args, struct error **ret_error)
{
    for (size_t i = 0; i < args->value_count; i++) {
        const struct args_value *value = &args->values[i];
        bool sent = value->text && value->option->type != OPTION_FILE;
        CLEANUP_JSON json_t *text = sent ? json_string(value->text) : NULL;
        if (sent && !text)
            return error_set(ret_error, ERROR_INVALID, 0, "option '--%s': '%s' is not UTF-8",
                             value->option->name, value->text);
    }
    return 0;
}

static json_t *json_envs(char *const *env)
{
    json_t *array = json_array();
    STRV_FOREACH(pair, env) {
        size_t name = strcspn(*pair, "=");
        json_array_append_new(
            array, json_pack("{s:s%, s:s}", "env", *pair, name, "value", *pair + name + 1));
    }
    return array;
}

/* "user" or "user:group". */
static json_t *json_user(const char *text)
{
    size_t name = strcspn(text, ":");
    json_t *user = json_pack("{s:s%}", "name", text, name);
    if (text[name])
        json_object_set_new(user, "group", json_string(text + name + 1));
    return user;
}

static void set_text(json_t *object, const char *name, const char *text)
{
    if (text)
        json_object_set_new(object, name, json_string(text));
}

static void set_true(json_t *object, const char *name, bool yes)
{
    if (yes)
        json_object_set_new(object, name, json_true());
}

/* The entry point and what goes after it. An empty one is none, not even the image's: then the
 * command's first word is what runs. */
static int set_command(json_t *container, const struct args *args, char *const *command,
                       struct error **ret_error)
{
    const char *entrypoint = args_text(args, "entrypoint");
    if (entrypoint && !*entrypoint) {
        if (!command[0])
            return error_set(ret_error, ERROR_INVALID, 0,
                             "with an empty '--entrypoint' a command is needed after the image");
        entrypoint = *command++;
    }
    json_t *words = NULL;
    if (words_json(command, &words, ret_error) < 0)
        return -1;
    if (command[0])
        json_object_set(container, "command", words);
    json_decref(words);
    if (entrypoint)
        json_object_set_new(container, "entrypoint", json_pack("[s]", entrypoint));
    return 0;
}

int spec_container(const struct cli *cli, const struct args *args, char *const *words, json_t **ret,
                   struct error **ret_error)
{
    CLEANUP_STRV char **env = NULL;
    CLEANUP_JSON json_t *checked = NULL;
    const char *name = args_text(args, "name"), *user = args_text(args, "user");
    CLEANUP_FREE char *made = name ? NULL : spec_name(words[0]);

    if (env_all(args, &env, ret_error) < 0 || options_check_utf8(args, ret_error) < 0 ||
        words_json(words, &checked, ret_error) < 0)
        return -1;
    json_decref(take(checked));
    if (words_json(env, &checked, ret_error) < 0)
        return -1;
    json_t *container = json_pack("{s:s, s:s}", "name", name ? name : made, "image", words[0]);
    if (set_command(container, args, words + 1, ret_error) < 0) {
        json_decref(container);
        return -1;
    }
    if (env)
        json_object_set_new(container, "envs", json_envs(env));
    if (user)
        json_object_set_new(container, "user", json_user(user));
    set_text(container, "workdir", args_text(args, "workdir"));
    set_true(container, "tty", args_has(args, "tty"));
    set_true(container, "stdin", cli->hyper || args_has(args, "interactive"));
    set_true(container, "readOnly", args_has(args, "read-only"));
    *ret = container;
    return 0;
}

static void set_labels(json_t *pod, const struct args *args)
{
    CLEANUP_STRV char **labels = args_all(args, "label");
    if (!labels)
        return;
    json_t *object = json_object();
    STRV_FOREACH(pair, labels) {
        size_t name = strcspn(*pair, "=");
        json_object_setn_new(object, *pair, name, json_string(*pair + name + 1));
    }
    json_object_set_new(pod, "labels", object);
}

static void set_resource(json_t *pod, const struct cli *cli, const struct args *args)
{
    enum { HYPER_MEMORY_MB = 128 };
    json_t *resource = json_object();
    if (cli->hyper || args_has(args, "cpu"))
        json_object_set_new(resource, "vcpu",
                            json_integer((json_int_t)args_number(args, "cpu", 1)));
    if (cli->hyper || args_has(args, "memory"))
        json_object_set_new(
            resource, "memory",
            json_integer((json_int_t)args_memory_mb(args, "memory", HYPER_MEMORY_MB)));
    if (json_object_size(resource))
        json_object_set(pod, "resource", resource);
    json_decref(resource);
}

/* Docker's name for it, which has one meaning here. */
static int set_storage(json_t *pod, const struct args *args, struct error **ret_error)
{
    CLEANUP_STRV char **options = args_all(args, "storage-opt");
    uint64_t bytes = 0;
    STRV_FOREACH(option, options) {
        if (!str_starts(*option, "size="))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "storage option '%s' is not known, only size=SIZE", *option);
        if (!str_to_size(*option + strlen("size="), 1, &bytes) || bytes == 0)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "storage option '%s' is not a size like size=20G", *option);
    }
    if (bytes > 0)
        json_object_set_new(
            pod, "storage",
            json_pack("{s:I}", "size", (json_int_t)(bytes / (1 << 20) + (bytes % (1 << 20) != 0))));
    return 0;
}

int spec_pod(const struct cli *cli, const struct args *args, char *const *words, json_t **ret,
             struct error **ret_error)
{
    json_t *container;
    if (spec_container(cli, args, words, &container, ret_error) < 0)
        return -1;
    json_t *pod =
        json_pack("{s:s, s:s, s:[o]}", "id", json_text(container, "name"), "restartPolicy",
                  str_or(args_text(args, "restart"), "never"), "containers", container);
    set_text(pod, "hostname", args_text(args, "hostname"));
    set_labels(pod, args);
    set_resource(pod, cli, args);
    if (set_storage(pod, args, ret_error) < 0) {
        json_decref(pod);
        return -1;
    }
    *ret = pod;
    return 0;
}

/* ---- podfiles ------------------------------------------------------------------------------- */

/* The pod's options say what the file says already. */
static int options_check(const struct args *args, struct error **ret_error)
{
    static const char *const allowed[] = {"podfile", "name", "detach",    "rm",
                                          "attach",  "vm",   "socket",    "file",
                                          "old",     "new",  "container", "timing"};
    for (size_t i = 0; i < args->value_count; i++) {
        const char *name = args->values[i].option->name;
        bool ok = false;
        for (size_t j = 0; j < ARRAY_SIZE(allowed); j++)
            ok = ok || strcmp(name, allowed[j]) == 0;
        if (!ok)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "option '--%s' does not go with a podfile: say it in the file", name);
    }
    return 0;
}

int spec_podfile(const struct args *args, const char *path, json_t **ret, struct error **ret_error)
{
    CLEANUP_BUF struct buf text = {0};
    json_error_t why;
    if (options_check(args, ret_error) < 0 || file_read(path, PODFILE_MAX, &text, ret_error) < 0)
        return -1;
    if (!text.len)
        return error_set(ret_error, ERROR_INVALID, 0, "podfile '%s' is empty", path);
    CLEANUP_JSON json_t *pod =
        json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &why);
    if (!pod)
        return error_set(ret_error, ERROR_INVALID, 0, "podfile '%s': line %d, column %d: %s", path,
                         why.line, why.column,
                         strstr(why.text, "JSON_ALLOW_NUL") ? "a string has \\u0000 in it"
                                                            : why.text);
    if (!json_is_object(pod))
        return error_set(ret_error, ERROR_INVALID, 0, "podfile '%s': it is not a JSON object",
                         path);
    if (args_text(args, "name"))
        json_object_set_new(pod, "id", json_string(args_text(args, "name")));
    *ret = take(pod);
    return 0;
}
