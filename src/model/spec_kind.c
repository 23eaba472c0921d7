/* The kinds of fields of a podfile. */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/str.h"
#include "model/spec_int.h"

static const char *json_type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",    [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a fraction", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return names[json_typeof(value)];
}

int spec_wrong_type(const char *path, const char *expected, const json_t *found,
                    struct error **ret_error)
{
    return error_set(ret_error, ERROR_INVALID, 0, "'%s': expected %s, found %s", path, expected,
                     json_type_name(found));
}

static void quote(const char *s, struct buf *out)
{
    buf_append_str(out, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_printf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            buf_printf(out, "\\u%04x", (unsigned)*s);
        else
            buf_append(out, s, 1);
    }
    buf_append_str(out, "\"");
}

/* ---- strings -------------------------------------------------------------------------------- */

static int string_read(const json_t *value, const struct spec_field *field, const char *path,
                       void *member, struct error **ret_error)
{
    if (!json_is_string(value))
        return spec_wrong_type(path, "a string", value, ret_error);
    if ((int64_t)json_string_length(value) > field->max)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is longer than %" PRId64 " bytes", path,
                         field->max);
    if (json_string_length(value))
        str_set(member, json_string_value(value));
    return 0;
}

static bool pointer_is_empty(const void *member)
{
    return !*(void *const *)member;
}

static void string_write(const void *member, struct buf *out)
{
    quote(*(char *const *)member, out);
}

static void string_clear(void *member)
{
    str_set(member, NULL);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static int number_check(const json_t *value, const struct spec_field *field, const char *path,
                        struct error **ret_error)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value))
        return spec_wrong_type(path, "a number", value, ret_error);
    if (number < field->min || number > field->max)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%s' is %" JSON_INTEGER_FORMAT ", must be %" PRId64 " to %" PRId64, path,
                         number, field->min, field->max);
    return 0;
}

static int number_read(const json_t *value, const struct spec_field *field, const char *path,
                       void *member, struct error **ret_error)
{
    if (json_is_integer(value) && json_integer_value(value) == 0)
        return 0; /* HyperContainer's clients write 0 for "not given" */
    if (number_check(value, field, path, ret_error) < 0)
        return -1;
    *(uint64_t *)member = (uint64_t)json_integer_value(value);
    return 0;
}

static bool number_is_empty(const void *member)
{
    return *(const uint64_t *)member == 0;
}

static void number_write(const void *member, struct buf *out)
{
    buf_printf(out, "%" PRIu64, *(const uint64_t *)member);
}

static void number_clear(void *member)
{
    *(uint64_t *)member = 0;
}

static int seconds_read(const json_t *value, const struct spec_field *field, const char *path,
                        void *member, struct error **ret_error)
{
    if (number_check(value, field, path, ret_error) < 0)
        return -1;
    *(struct seconds *)member = (struct seconds){true, (uint32_t)json_integer_value(value)};
    return 0;
}

static bool seconds_is_empty(const void *member)
{
    return !((const struct seconds *)member)->given;
}

static void seconds_write(const void *member, struct buf *out)
{
    buf_printf(out, "%" PRIu32, ((const struct seconds *)member)->count);
}

static void seconds_clear(void *member)
{
    *(struct seconds *)member = (struct seconds){0};
}

/* ---- booleans and words --------------------------------------------------------------------- */

static int bool_read(const json_t *value, const struct spec_field *field, const char *path,
                     void *member, struct error **ret_error)
{
    if (!json_is_boolean(value))
        return spec_wrong_type(path, "true or false", value, ret_error);
    *(enum tristate *)member = json_is_true(value) ? YES : NO;
    return 0;
}

static bool word_is_empty(const void *member)
{
    return *(const unsigned *)member == 0;
}

static void bool_write(const void *member, struct buf *out)
{
    buf_append_str(out, *(const enum tristate *)member == YES ? "true" : "false");
}

static void word_clear(void *member)
{
    *(unsigned *)member = 0;
}

static int restart_read(const json_t *value, const struct spec_field *field, const char *path,
                        void *member, struct error **ret_error)
{
    if (!json_is_string(value))
        return spec_wrong_type(path, "a string", value, ret_error);
    int restart = restart_from_name(json_string_value(value));

    if (restart < 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%s' is '%.40s', must be never, onFailure or always", path,
                         json_string_value(value));
    *(enum restart *)member = (enum restart)restart;
    return 0;
}

static void restart_write(const void *member, struct buf *out)
{
    quote(restart_name(*(const enum restart *)member), out);
}

static int signal_read(const json_t *value, const struct spec_field *field, const char *path,
                       void *member, struct error **ret_error)
{
    if (!json_is_string(value))
        return spec_wrong_type(path, "a string", value, ret_error);
    const char *name = json_string_value(value);
    unsigned number = signal_from_name(name);

    if (*name && !number)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s': there is no signal '%.40s'", path,
                         name);
    *(unsigned *)member = number;
    return 0;
}

static void signal_write(const void *member, struct buf *out)
{
    unsigned number = *(const unsigned *)member;

    if (signal_name(number))
        quote(signal_name(number), out);
    else
        buf_printf(out, "\"%u\"", number);
}

/* ---- lists and maps ------------------------------------------------------------------------- */

static int list_limit(size_t count, const struct spec_field *field, const char *path,
                      struct error **ret_error)
{
    if ((int64_t)count <= field->max)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0, "'%s' has more than %" PRId64 " entries", path,
                     field->max);
}

static int list_read(const json_t *value, const struct spec_field *field, const char *path,
                     void *member, struct error **ret_error)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(value))
        return spec_wrong_type(path, "a list of strings", value, ret_error);
    if (list_limit(json_array_size(value), field, path, ret_error) < 0)
        return -1;
    json_array_foreach(value, i, item) {
        if (!json_is_string(item)) {
            CLEANUP_FREE char *at = str_printf("%s[%zu]", path, i);

            return spec_wrong_type(at, "a string", item, ret_error);
        }
        strv_push(member, json_string_value(item));
    }
    return 0;
}

static void list_write(const void *member, struct buf *out)
{
    const char *between = "[";

    STRV_FOREACH(s, *(char **const *)member) {
        buf_append_str(out, between);
        quote(*s, out);
        between = ",";
    }
    buf_append_str(out, "]");
}

static void list_clear(void *member)
{
    strv_free(*(char ***)member);
    *(char ***)member = NULL;
}

/* A map is kept as name, value, name, value … */
static int map_read(const json_t *value, const struct spec_field *field, const char *path,
                    void *member, struct error **ret_error)
{
    const char *key;
    json_t *item;

    if (!json_is_object(value))
        return spec_wrong_type(path, "an object", value, ret_error);
    if (list_limit(json_object_size(value), field, path, ret_error) < 0)
        return -1;
    void *at = json_object_iter((json_t *)(uintptr_t)value);

    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)value, at)) {
        key = json_object_iter_key(at);
        item = json_object_iter_value(at);
        if (!json_is_string(item)) {
            CLEANUP_FREE char *where = str_printf("%s.%.80s", path, key);

            return spec_wrong_type(where, "a string", item, ret_error);
        }
        strv_push(member, key);
        strv_push(member, json_string_value(item));
    }
    return 0;
}

static void map_write(const void *member, struct buf *out)
{
    const char *between = "{";

    for (char **s = *(char **const *)member; *s; s += 2) {
        buf_append_str(out, between);
        quote(s[0], out);
        buf_append_str(out, ":");
        quote(s[1], out);
        between = ",";
    }
    buf_append_str(out, "}");
}

/* ---- the environment ------------------------------------------------------------------------ */

static int env_member(const json_t *entry, const char *key, const char **ret, const char *path,
                      struct error **ret_error)
{
    const json_t *value = json_object_get(entry, key);

    *ret = "";
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value)) {
        CLEANUP_FREE char *at = str_printf("%s.%s", path, key);

        return spec_wrong_type(at, "a string", value, ret_error);
    }
    *ret = json_string_value(value);
    return 0;
}

static int env_read(const json_t *entry, const char *path, char ***envs, struct error **ret_error)
{
    const char *name, *value;

    if (!json_is_object(entry))
        return spec_wrong_type(path, "an object", entry, ret_error);
    void *at = json_object_iter((json_t *)(uintptr_t)entry);

    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)entry, at)) {
        const char *key = json_object_iter_key(at);

        if (!str_eq(key, "env") && !str_eq(key, "value"))
            return error_set(ret_error, ERROR_INVALID, 0, "unknown key '%s.%.80s'", path, key);
    }
    if (env_member(entry, "env", &name, path, ret_error) < 0 ||
        env_member(entry, "value", &value, path, ret_error) < 0)
        return -1;
    if (!*name || strchr(name, '='))
        return error_set(ret_error, ERROR_INVALID, 0, "'%s.env' is not a name: '%.80s'", path,
                         name);
    strv_push_take(envs, str_printf("%s=%s", name, value));
    return 0;
}

static int envs_read(const json_t *value, const struct spec_field *field, const char *path,
                     void *member, struct error **ret_error)
{
    const json_t *entry;
    size_t i;

    if (!json_is_array(value))
        return spec_wrong_type(path, "a list", value, ret_error);
    if (list_limit(json_array_size(value), field, path, ret_error) < 0)
        return -1;
    json_array_foreach(value, i, entry) {
        CLEANUP_FREE char *at = str_printf("%s[%zu]", path, i);

        if (env_read(entry, at, member, ret_error) < 0)
            return -1;
    }
    return 0;
}

static void envs_write(const void *member, struct buf *out)
{
    const char *between = "[";

    STRV_FOREACH(s, *(char **const *)member) {
        const char *equals = strchr(*s, '=');
        CLEANUP_FREE char *name = xstrndup(*s, (size_t)(equals - *s));

        buf_printf(out, "%s{\"env\":", between);
        quote(name, out);
        buf_append_str(out, ",\"value\":");
        quote(equals + 1, out);
        buf_append_str(out, "}");
        between = ",";
    }
    buf_append_str(out, "]");
}

const struct spec_kind spec_kinds[SPEC_KIND_COUNT] = {
    [SPEC_KIND_STRING] = {"string", string_read, pointer_is_empty, string_write, string_clear},
    [SPEC_KIND_NUMBER] = {"number", number_read, number_is_empty, number_write, number_clear},
    [SPEC_KIND_SECONDS] = {"number", seconds_read, seconds_is_empty, seconds_write, seconds_clear},
    [SPEC_KIND_BOOL] = {"true or false", bool_read, word_is_empty, bool_write, word_clear},
    [SPEC_KIND_LIST] = {"list of strings", list_read, pointer_is_empty, list_write, list_clear},
    [SPEC_KIND_MAP] = {"object of strings", map_read, pointer_is_empty, map_write, list_clear},
    [SPEC_KIND_ENVS] = {"list of objects", envs_read, pointer_is_empty, envs_write, list_clear},
    [SPEC_KIND_RESTART] = {"string", restart_read, word_is_empty, restart_write, word_clear},
    [SPEC_KIND_SIGNAL] = {"string", signal_read, word_is_empty, signal_write, word_clear},
};

_Static_assert(sizeof(enum tristate) == sizeof(unsigned), "words are read as unsigned");
_Static_assert(sizeof(enum restart) == sizeof(unsigned), "words are read as unsigned");
