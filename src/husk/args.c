#include "husk/args.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/str.h"

enum {
    NEAR_WORD_MAX = 32,    /* longer words are not compared */
    NEAR_DISTANCE_MAX = 3, /* more slips than this are another word */
    MEGABYTE = 1 << 20,
};

/* ---- suggestions ---------------------------------------------------------------------------- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, other letters and swaps of two neighbours, each of which is one slip
 * (optimal string alignment); capitals are none. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t d[NEAR_WORD_MAX + 1][NEAR_WORD_MAX + 1], m = strlen(a), n = strlen(b);
    if (m > NEAR_WORD_MAX || n > NEAR_WORD_MAX)
        return NEAR_WORD_MAX;
    for (size_t i = 0; i <= m; i++)
        for (size_t j = 0; j <= n; j++) {
            int x = i ? tolower((unsigned char)a[i - 1]) : 0, y = j ? b[j - 1] : 0;
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] = least(d[i - 1][j - 1] + (x != y), least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && x == b[j - 2] && tolower((unsigned char)a[i - 2]) == y)
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[m][n];
}

const char *nearest(const char *typed, const char *(*candidate)(size_t index, void *arg), void *arg)
{
    const char *best = NULL, *name;
    size_t limit = strlen(typed) / 2, best_distance;
    best_distance = (limit < NEAR_DISTANCE_MAX ? limit : NEAR_DISTANCE_MAX) + 1;
    for (size_t i = 0; (name = candidate(i, arg)); i++) {
        size_t distance = edit_distance(typed, name);
        if (distance < best_distance) {
            best = name;
            best_distance = distance;
        }
    }
    return best;
}

/* The i-th option of a verb, by name. */
static const char *option_candidate(size_t index, void *arg)
{
    const struct verb *verb = arg;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (option_is_of(&OPTIONS[i], verb->id) && index-- == 0)
            return OPTIONS[i].name;
    return NULL;
}

/* ---- values --------------------------------------------------------------------------------- */

int signal_number(const char *text)
{
    uint64_t number;
    if (str_to_u64(text, 1, (uint64_t)SIGRTMAX, &number))
        return (int)number;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (int i = 1; i < NSIG; i++) {
        const char *name = sigabbrev_np(i);
        if (name && strcasecmp(name, text) == 0)
            return i;
    }
    return 0;
}

static bool is_one_of(const char *text, const char *choices)
{
    CLEANUP_STRV char **words = str_split(choices, '|');
    return strv_contains((const char *const *)words, text);
}

static bool is_number(const char *text)
{
    uint64_t number;
    return str_to_u64(text, 1, UINT32_MAX, &number);
}

static bool is_memory(const char *text)
{
    uint64_t bytes;
    return str_to_size(text, MEGABYTE, &bytes) && bytes > 0;
}

static bool is_seconds(const char *text)
{
    uint64_t ms;
    return str_to_duration_ms(text, &ms);
}

static bool is_pair(const char *text)
{
    return *text != '=' && strchr(text, '=');
}

static bool is_signal(const char *text)
{
    return signal_number(text) != 0;
}

/* What the types without an entry here accept is everything but the empty string. */
static const struct {
    bool (*valid)(const char *text);
    const char *expected;
} TYPES[] = {
    [OPTION_PAIR] = {is_pair, "in 'key=value' format"},
    [OPTION_NUMBER] = {is_number, "a number above 0"},
    [OPTION_MEMORY] = {is_memory, "a size in megabytes, such as 512, 64M or 1G"},
    [OPTION_SECONDS] = {is_seconds, "a time such as 10, 30s or 2m"},
    [OPTION_SIGNAL] = {is_signal, "a signal"},
};

static int value_check(const struct option *option, const char *text, struct error **ret_error)
{
    if (option->type == OPTION_WORD && !is_one_of(text, option->argument))
        return error_set(ret_error, ERROR_INVALID, 0, "option '--%s': '%s' is not one of %s",
                         option->name, text, option->argument);
    if (option->type < ARRAY_SIZE(TYPES) && TYPES[option->type].valid &&
        !TYPES[option->type].valid(text))
        return error_set(ret_error, ERROR_INVALID, 0, "option '--%s': '%s' is not %s", option->name,
                         text, TYPES[option->type].expected);
    bool name = option->type == OPTION_FILE || strcmp(option->name, "name") == 0;
    if (!*text && name)
        return error_set(ret_error, ERROR_INVALID, 0, "option '--%s': the name is empty",
                         option->name);
    return 0;
}

/* ---- parsing -------------------------------------------------------------------------------- */

struct parser {
    struct args *args;
    char **at; /* the next string of argv */
};

static const struct option *option_find(const struct verb *verb, char letter, const char *name,
                                        size_t size)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &OPTIONS[i];
        if (!option_is_of(o, verb->id))
            continue;
        if (name ? strlen(o->name) == size && memcmp(o->name, name, size) == 0
                 : o->letter == letter)
            return o;
    }
    return NULL;
}

static int value_add(struct parser *p, const struct option *option, const char *text,
                     struct error **ret_error)
{
    struct args *args = p->args;
    if (option->type != OPTION_FLAG) {
        if (!text && !*p->at)
            return error_set(ret_error, ERROR_INVALID, 0, "option '--%s' needs a value: %s",
                             option->name, option->argument);
        if (!text)
            text = *p->at++;
        if (value_check(option, text, ret_error) < 0)
            return -1;
    }
    if (args->value_count >= ARGS_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "more than %d options", ARGS_MAX);
    args->values = xrealloc(args->values, (args->value_count + 1) * sizeof(*args->values));
    args->values[args->value_count++] = (struct args_value){.option = option, .text = text};
    return 0;
}

static int unknown_option(const struct verb *verb, const char *typed, size_t size,
                          struct error **ret_error)
{
    CLEANUP_FREE char *name = xstrndup(typed, size);
    const char *near =
        strlen(name) > 1 ? nearest(name, option_candidate, (void *)(uintptr_t)verb) : NULL;
    const char *dashes = strlen(name) > 1 ? "--" : "-";
    if (near)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "unknown option '%s%s' of '%s'; did you mean '--%s'?", dashes, name,
                         verb->name, near);
    return error_set(ret_error, ERROR_INVALID, 0,
                     "unknown option '%s%s' of '%s'; see 'husk help %s'", dashes, name, verb->name,
                     verb->name);
}

/* "--name", "--name=value" or "--name value". */
static int parse_long(struct parser *p, const char *text, struct error **ret_error)
{
    size_t size = strcspn(text, "=");
    const struct option *option = option_find(p->args->verb, 0, text, size);
    if (!option)
        return unknown_option(p->args->verb, text, size, ret_error);
    if (text[size] && option->type == OPTION_FLAG)
        return error_set(ret_error, ERROR_INVALID, 0, "option '--%s' takes no value", option->name);
    return value_add(p, option, text[size] ? text + size + 1 : NULL, ret_error);
}

/* "-abc", "-xVALUE" or "-x VALUE". */
static int parse_letters(struct parser *p, const char *text, struct error **ret_error)
{
    for (; *text; text++) {
        const struct option *option = option_find(p->args->verb, *text, NULL, 0);
        if (!option)
            return unknown_option(p->args->verb, text, 1, ret_error);
        const char *rest = option->type != OPTION_FLAG && text[1] ? text + 1 : NULL;
        if (value_add(p, option, rest, ret_error) < 0)
            return -1;
        if (option->type != OPTION_FLAG)
            break;
    }
    return 0;
}

static int words_check(const struct args *args, struct error **ret_error)
{
    const struct verb *verb = args->verb;
    size_t count = args_word_count(args);
    if (args_has(args, "help"))
        return 0;
    if (count < verb->words_min)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' needs more arguments: husk %s %s",
                         verb->name, verb->name, verb->arguments);
    /* No object has an empty name; a command that follows one may well have empty words. */
    for (size_t i = 0; i < (verb->command_follows && count ? 1 : count); i++)
        if (!*args->words[i])
            return error_set(ret_error, ERROR_INVALID, 0, "'%s': a name is empty: husk %s %s",
                             verb->name, verb->name, verb->arguments);
    if (count > verb->words_max)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' has no use for '%s': husk %s %s",
                         verb->name, args->words[verb->words_max], verb->name, verb->arguments);
    return 0;
}

/* The options of a command that follows are not ours. It follows one word, but with 'create -c' a
 * pod and an image. */
static size_t words_before_command(const struct args *args)
{
    return args_has(args, "container") ? 2 : 1;
}

int args_parse(struct args *ret, const struct verb *verb, char **argv, struct error **ret_error)
{
    struct parser p = {.args = ret, .at = argv};
    bool options = true;
    size_t words = 0;

    *ret = (struct args){.verb = verb};
    ret->words = xcalloc(strv_count((const char *const *)argv) + 1, sizeof(char *));
    while (*p.at) {
        char *text = *p.at++;
        int rc = 0;
        if (!options || *text != '-' || !text[1]) {
            ret->words[words++] = text;
            options = options && (!verb->command_follows || words < words_before_command(ret));
        } else if (strcmp(text, "--") == 0) {
            options = false;
        } else {
            rc = text[1] == '-' ? parse_long(&p, text + 2, ret_error)
                                : parse_letters(&p, text + 1, ret_error);
        }
        if (rc < 0)
            return -1;
    }
    return words_check(ret, ret_error);
}

void args_done(struct args *args)
{
    free(args->values);
    free(args->words);
    *args = (struct args){0};
}

/* ---- asking --------------------------------------------------------------------------------- */

static const struct args_value *value_find(const struct args *args, const char *name)
{
    for (size_t i = args->value_count; i-- > 0;)
        if (strcmp(args->values[i].option->name, name) == 0)
            return &args->values[i];
    return NULL;
}

bool args_has(const struct args *args, const char *name)
{
    return value_find(args, name) != NULL;
}

const char *args_text(const struct args *args, const char *name)
{
    const struct args_value *value = value_find(args, name);
    return value ? value->text : NULL;
}

char **args_all(const struct args *args, const char *name)
{
    char **all = NULL;
    for (size_t i = 0; i < args->value_count; i++)
        if (strcmp(args->values[i].option->name, name) == 0)
            strv_push(&all, args->values[i].text);
    return all;
}

uint64_t args_number(const struct args *args, const char *name, uint64_t otherwise)
{
    uint64_t number = otherwise;
    str_to_u64(args_text(args, name), 0, UINT64_MAX, &number);
    return number;
}

uint64_t args_memory_mb(const struct args *args, const char *name, uint64_t otherwise)
{
    uint64_t bytes;
    if (!str_to_size(args_text(args, name), MEGABYTE, &bytes))
        return otherwise;
    return (bytes + MEGABYTE - 1) / MEGABYTE;
}

size_t args_word_count(const struct args *args)
{
    return strv_count((const char *const *)args->words);
}
