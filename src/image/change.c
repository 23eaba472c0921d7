#include "image/change.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/str.h"

enum { PORT_MAX = 65535, QUOTE_MAX = 60 };

struct change {
    json_t *config;
    const char *rest; /* of its line */
    char **words;     /* of the rest: quotes taken off, variables put in */
    bool is_json;     /* the rest is a JSON list, and words are its items */
    bool has_command; /* one of the changes is a CMD */
};

/* ---- words ---------------------------------------------------------------------------------- */

/* The value of a variable of the image; NULL if it has none. */
static const char *env_get(const json_t *config, const char *name, size_t length)
{
    const json_t *env = json_object_get(config, "Env"), *item;
    size_t i;

    json_array_foreach(env, i, item) {
        const char *text = json_string_value(item);
        if (text && strncmp(text, name, length) == 0 && text[length] == '=')
            return text + length + 1;
    }
    return NULL;
}

static size_t name_length(const char *s)
{
    size_t n = 0;

    if (isalpha((unsigned char)*s) || *s == '_')
        while (isalnum((unsigned char)s[n]) || s[n] == '_')
            n++;
    return n;
}

/* "$NAME", "${NAME}", "${NAME:-WORD}" (if it has no value), "${NAME:+WORD}" (if it has one).
 * Returns what is behind it; what is none of these stays as it is. */
static const char *variable_put(const json_t *config, const char *s, struct buf *out)
{
    bool braces = s[1] == '{';
    const char *name = s + 1 + braces;
    size_t length = name_length(name);
    const char *end = braces ? strchr(name, '}') : name + length;
    const char *value = env_get(config, name, length);
    const char *rest = name + length;
    bool plain = end == rest;

    if (length == 0 || !end || (!plain && (rest[0] != ':' || (rest[1] != '-' && rest[1] != '+')))) {
        buf_append(out, s, 1);
        return s + 1;
    }
    bool wants_word = !plain && (str_empty(value) == (rest[1] == '-'));
    if (wants_word)
        buf_append(out, rest + 2, (size_t)(end - rest - 2));
    else if (value && (plain || rest[1] == '-'))
        buf_append_str(out, value);
    return end + braces;
}

/* One word: ended by a blank that is not in quotes. NULL: a quote has no end. */
static const char *word_read(const json_t *config, const char *s, struct buf *out)
{
    char quote = '\0';

    while (*s && (quote || !isspace((unsigned char)*s))) {
        if (*s == quote) {
            quote = '\0';
            s++;
        } else if (!quote && (*s == '"' || *s == '\'')) {
            quote = *s++;
        } else if (*s == '\\' && quote != '\'' && s[1]) {
            buf_append(out, s + 1, 1);
            s += 2;
        } else if (*s == '$' && quote != '\'') {
            s = variable_put(config, s, out);
        } else {
            buf_append(out, s++, 1);
        }
        if (out->len > CHANGE_MAX)
            return NULL;
    }
    return quote ? NULL : s;
}

static int words_read(struct change *c, struct error **ret_error)
{
    const char *s = c->rest;
    size_t count = 0;

    while (*s) {
        CLEANUP_BUF struct buf word = {0};
        s = word_read(c->config, s, &word);
        if (!s)
            return error_set(ret_error, ERROR_INVALID, 0, "a quote in it has no end");
        if (++count > CHANGE_WORDS_MAX)
            return error_set(ret_error, ERROR_LIMIT, 0, "it has more than %d words",
                             CHANGE_WORDS_MAX);
        strv_push_take(&c->words, buf_take_str(&word));
        s += strspn(s, " \t\r\n");
    }
    return 0;
}

/* A JSON list of strings is one; anything else is a line. */
static bool list_read(struct change *c)
{
    json_t *list = *c->rest == '[' ? json_loads(c->rest, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool fits = json_is_array(list) && json_array_size(list) <= CHANGE_WORDS_MAX;

    for (size_t i = 0; fits && i < json_array_size(list); i++)
        fits = json_is_string(json_array_get(list, i));
    for (size_t i = 0; fits && i < json_array_size(list); i++)
        strv_push(&c->words, json_string_value(json_array_get(list, i)));
    json_decref(list);
    return fits;
}

/* ---- the instructions ----------------------------------------------------------------------- */

/* What is typed may be no UTF-8: then jansson gives NULL, and it is refused. */
static int set_new(json_t *object, const char *key, json_t *value, struct error **ret_error)
{
    if (value && json_object_set_new(object, key, value) == 0)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0, "it is no UTF-8");
}

static json_t *object_of(json_t *config, const char *key)
{
    json_t *object = json_object_get(config, key);

    if (json_is_object(object))
        return object;
    json_object_set_new(config, key, json_object());
    return json_object_get(config, key);
}

static json_t *list_of(char *const *words)
{
    json_t *list = json_array();

    STRV_FOREACH(word, words)
        if (json_array_append_new(list, json_string(*word)) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* A list as it is, a line for the image's shell. */
static json_t *command_of(const struct change *c)
{
    const json_t *shell = json_object_get(c->config, "Shell");

    if (c->is_json)
        return list_of(c->words);
    json_t *line = json_string(c->rest);
    json_t *list = json_array_size(shell) ? json_copy((json_t *)(uintptr_t)shell)
                                          : json_pack("[s, s]", "/bin/sh", "-c");
    if (line && json_array_append_new(list, line) == 0)
        return list;
    json_decref(list);
    return NULL;
}

static int change_command(struct change *c, struct error **ret_error)
{
    return set_new(c->config, "Cmd", command_of(c), ret_error);
}

static int change_entrypoint(struct change *c, struct error **ret_error)
{
    if (!c->has_command)
        json_object_del(c->config, "Cmd");
    return set_new(c->config, "Entrypoint", command_of(c), ret_error);
}

int config_env_set(json_t *config, const char *name, const char *value, struct error **ret_error)
{
    size_t length = strlen(name), i;
    json_t *env = json_object_get(config, "Env");
    CLEANUP_FREE char *text = str_printf("%s=%s", name, value);

    if (!json_is_array(env)) {
        json_object_set_new(config, "Env", json_array());
        env = json_object_get(config, "Env");
    }
    for (i = 0; i < json_array_size(env); i++) {
        const char *old = json_string_value(json_array_get(env, i));
        if (old && strncmp(old, name, length) == 0 && old[length] == '=')
            break;
    }
    json_t *item = json_string(text);
    int rc = i < json_array_size(env) ? json_array_set_new(env, i, item)
                                      : json_array_append_new(env, item);
    return item && rc == 0 ? 0 : error_set(ret_error, ERROR_INVALID, 0, "it is no UTF-8");
}

int config_label_set(json_t *config, const char *name, const char *value, struct error **ret_error)
{
    return set_new(object_of(config, "Labels"), name, json_string(value), ret_error);
}

/* "NAME=VALUE …", or "NAME VALUE" of one. */
static int pairs_set(struct change *c,
                     int (*set)(json_t *config, const char *name, const char *value,
                                struct error **ret_error),
                     struct error **ret_error)
{
    if (!strchr(c->words[0], '=')) {
        CLEANUP_FREE char *value = strv_join((const char *const *)c->words + 1, " ");
        if (!c->words[1] || !*c->words[0])
            return error_set(ret_error, ERROR_INVALID, 0, "it is not NAME=VALUE");
        return set(c->config, c->words[0], value, ret_error);
    }
    STRV_FOREACH(word, c->words) {
        char *equals = strchr(*word, '=');
        if (!equals || equals == *word)
            return error_set(ret_error, ERROR_INVALID, 0, "'%.*s' is not NAME=VALUE", QUOTE_MAX,
                             *word);
        CLEANUP_FREE char *name = xstrndup(*word, (size_t)(equals - *word));
        if (set(c->config, name, equals + 1, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int change_env(struct change *c, struct error **ret_error)
{
    return pairs_set(c, config_env_set, ret_error);
}

static int change_label(struct change *c, struct error **ret_error)
{
    return pairs_set(c, config_label_set, ret_error);
}

/* "80", "80/tcp", "8000-8010/udp". */
static int change_expose(struct change *c, struct error **ret_error)
{
    json_t *ports = object_of(c->config, "ExposedPorts");

    STRV_FOREACH(word, c->words) {
        CLEANUP_FREE char *first = xstrndup(*word, strcspn(*word, "/-"));
        const char *slash = strchr(*word, '/'), *dash = strchr(*word, '-');
        const char *protocol = slash ? slash + 1 : "tcp";
        CLEANUP_FREE char *last = dash ? xstrndup(dash + 1, strcspn(dash + 1, "/")) : NULL;
        uint64_t from, to;
        if (!str_to_u64(first, 1, PORT_MAX, &from) ||
            !str_to_u64(last ? last : first, from, PORT_MAX, &to) ||
            (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0 &&
             strcmp(protocol, "sctp") != 0))
            return error_set(ret_error, ERROR_INVALID, 0, "'%.*s' is not PORT[-PORT][/PROTOCOL]",
                             QUOTE_MAX, *word);
        for (; from <= to; from++) {
            CLEANUP_FREE char *key = str_printf("%u/%s", (unsigned)from, protocol);
            json_object_set_new(ports, key, json_object());
        }
    }
    return 0;
}

static int change_volume(struct change *c, struct error **ret_error)
{
    STRV_FOREACH(word, c->words)
        if (set_new(object_of(c->config, "Volumes"), *word, json_object(), ret_error) < 0)
            return -1;
    return 0;
}

static int one_word(struct change *c, const char *key, struct error **ret_error)
{
    if (c->words[1])
        return error_set(ret_error, ERROR_INVALID, 0, "it takes one word");
    return set_new(c->config, key, json_string(c->words[0]), ret_error);
}

static int change_user(struct change *c, struct error **ret_error)
{
    return one_word(c, "User", ret_error);
}

static int change_stop_signal(struct change *c, struct error **ret_error)
{
    return one_word(c, "StopSignal", ret_error);
}

/* A path that is not absolute goes on from the one before. */
static int change_workdir(struct change *c, struct error **ret_error)
{
    const char *old = json_string_value(json_object_get(c->config, "WorkingDir"));

    if (c->words[0][0] != '/') {
        char *joined = str_printf("%s/%s", str_eq(old, "/") ? "" : str_or(old, ""), c->words[0]);
        free(c->words[0]);
        c->words[0] = joined;
    }
    return one_word(c, "WorkingDir", ret_error);
}

static const struct instruction {
    const char *name;
    int (*apply)(struct change *c, struct error **ret_error);
    bool is_command; /* its line is no words of ours */
    bool takes_list;
} instructions[] = {
    {"CMD", change_command, true, true},       {"ENTRYPOINT", change_entrypoint, true, true},
    {"ENV", change_env, false, false},         {"EXPOSE", change_expose, false, false},
    {"LABEL", change_label, false, false},     {"STOPSIGNAL", change_stop_signal, false, false},
    {"USER", change_user, false, false},       {"VOLUME", change_volume, false, true},
    {"WORKDIR", change_workdir, false, false},
};

/* ---- all of them ---------------------------------------------------------------------------- */

static const struct instruction *instruction_of(const char *text, const char **ret_rest)
{
    size_t length = strcspn(text, " \t");

    *ret_rest = text + length + strspn(text + length, " \t");
    for (size_t i = 0; i < ARRAY_SIZE(instructions); i++)
        if (strlen(instructions[i].name) == length &&
            strncasecmp(instructions[i].name, text, length) == 0)
            return &instructions[i];
    return NULL;
}

static int change_apply(json_t *config, const char *text, bool has_command,
                        struct error **ret_error)
{
    struct change c = {.config = config, .has_command = has_command};
    const struct instruction *instruction = instruction_of(text, &c.rest);

    if (strlen(text) > CHANGE_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "it has more than %d bytes", CHANGE_MAX);
    if (!instruction)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "there is no such instruction: only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, "
                         "STOPSIGNAL, USER, VOLUME and WORKDIR");
    if (!*c.rest)
        return error_set(ret_error, ERROR_INVALID, 0, "it says nothing");
    c.is_json = instruction->takes_list && list_read(&c);
    int result = 0;
    if (!c.is_json && !instruction->is_command)
        result = words_read(&c, ret_error);
    if (result == 0)
        result = instruction->apply(&c, ret_error);
    strv_free(c.words);
    return result;
}

int changes_apply(json_t *config, const char *const *changes, struct error **ret_error)
{
    bool has_command = false;
    const char *rest;
    size_t count = 0;

    STRV_FOREACH(change, changes) {
        const struct instruction *instruction = instruction_of(*change, &rest);
        has_command |= instruction && instruction->apply == change_command;
        count++;
    }
    if (count > CHANGES_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "there are more than %d changes", CHANGES_MAX);
    STRV_FOREACH(change, changes) {
        CLEANUP_ERROR struct error *error = NULL;
        if (change_apply(config, *change, has_command, &error) == 0)
            continue;
        error_wrap(&error, "change '%.*s'", QUOTE_MAX, *change);
        return error_move(ret_error, &error);
    }
    return 0;
}
