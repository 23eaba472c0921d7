#include "model/spec.h"

#include <stddef.h>
#include <stdlib.h>
#include <strings.h>

#include "base/str.h"
#include "model/spec_int.h"

static const struct spec_field pod_fields[] = {
#define SPEC_POD(kind, type, key, member, min, max, doc)                                           \
    {key, &spec_kinds[SPEC_KIND_##kind], offsetof(struct pod_spec, member), min, max, doc},
#define SPEC_CTR(kind, type, key, member, min, max, doc)
#include "model/spec.def"
};

static const struct spec_field ctr_fields[] = {
#define SPEC_POD(kind, type, key, member, min, max, doc)
#define SPEC_CTR(kind, type, key, member, min, max, doc)                                           \
    {key, &spec_kinds[SPEC_KIND_##kind], offsetof(struct ctr_spec, member), min, max, doc},
#include "model/spec.def"
};

/* HyperContainer's keys that do nothing here yet: refused unless empty, so that nobody believes
 * that they took effect. */
static const char *const pod_unsupported[] = {
    "type",    "dns",        "dnsOptions", "dnsSearch",    "files",
    "volumes", "interfaces", "services",   "portmappings", "portmappingWhiteLists",
    NULL};
static const char *const ctr_unsupported[] = {"ports",   "volumes", "files", "sysctl",
                                              "ulimits", "logPath", "cache", NULL};

enum { FIELDS_MAX = 32 };
_Static_assert(ARRAY_SIZE(pod_fields) <= FIELDS_MAX && ARRAY_SIZE(ctr_fields) <= FIELDS_MAX,
               "a bit for each field");

/* One kind of object while it is read. */
struct reader {
    const struct spec_field *fields;
    size_t count;
    const char *const *unsupported;
    void *object;
    uint32_t seen; /* bits of the fields that were given */
};

/* ---- reading -------------------------------------------------------------------------------- */

static bool json_is_empty(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        for (void *at = json_object_iter((json_t *)(uintptr_t)value); at;
             at = json_object_iter_next((json_t *)(uintptr_t)value, at))
            if (!json_is_empty(json_object_iter_value(at)))
                return false;
        return true;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_STRING:
        return json_string_length(value) == 0;
    case JSON_INTEGER:
        return json_integer_value(value) == 0;
    default:
        return json_is_null(value) || json_is_false(value);
    }
}

static bool is_unsupported(const struct reader *reader, const char *key)
{
    for (const char *const *k = reader->unsupported; *k; k++)
        if (strcasecmp(*k, key) == 0)
            return true;
    return false;
}

/* Whether `name` ("resource") is the group of any field. */
static bool is_group(const struct reader *reader, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < reader->count; i++)
        if (strncasecmp(reader->fields[i].key, name, length) == 0 &&
            reader->fields[i].key[length] == '.')
            return true;
    return false;
}

static int field_read(struct reader *reader, const char *key, const json_t *value, const char *path,
                      struct error **ret_error)
{
    for (size_t i = 0; i < reader->count; i++) {
        const struct spec_field *field = &reader->fields[i];

        if (strcasecmp(field->key, key) != 0)
            continue;
        if (reader->seen & 1u << i)
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' is given twice", path);
        reader->seen |= 1u << i;
        if (json_is_null(value))
            return 0; /* as if it were not there */
        return field->kind->read(value, field, path, (char *)reader->object + field->offset,
                                 ret_error);
    }
    if (is_unsupported(reader, key))
        return json_is_empty(value) ? 0
                                    : error_set(ret_error, ERROR_UNSUPPORTED, 0,
                                                "'%s' is not supported by this version", path);
    return error_set(ret_error, ERROR_INVALID, 0, "unknown key '%s'", path);
}

/* `group` is "" or "resource."; `path` is "" or ends with a dot. */
static int object_read(struct reader *reader, const char *group, const json_t *object,
                       const char *path, struct error **ret_error)
{
    void *at = json_object_iter((json_t *)(uintptr_t)object);

    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *value = json_object_iter_value(at);
        CLEANUP_FREE char *key = str_printf("%s%.80s", group, name);
        CLEANUP_FREE char *where = str_printf("%s%s%.80s", path, group, name);
        CLEANUP_FREE char *inner = str_printf("%s.", key);

        if (!*group && is_group(reader, name)) {
            if (json_is_null(value))
                continue;
            if (!json_is_object(value))
                return spec_wrong_type(where, "an object", value, ret_error);
            if (object_read(reader, inner, value, path, ret_error) < 0)
                return -1;
        } else if (field_read(reader, key, value, where, ret_error) < 0) {
            return -1;
        }
    }
    return 0;
}

static int ctr_read(const json_t *object, const char *path, struct ctr_spec *ret,
                    struct error **ret_error)
{
    struct reader reader = {ctr_fields, ARRAY_SIZE(ctr_fields), ctr_unsupported, ret, 0};
    CLEANUP_FREE char *inner = *path ? str_printf("%s.", path) : xstrdup("");

    if (!json_is_object(object))
        return spec_wrong_type(*path ? path : "container", "an object", object, ret_error);
    if (object_read(&reader, "", object, inner, ret_error) < 0)
        return -1;
    return ctr_spec_check(ret, inner, ret_error);
}

static int containers_read(const json_t *list, struct pod_spec *spec, struct error **ret_error)
{
    const json_t *item;
    size_t i;

    if (json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return spec_wrong_type("containers", "a list", list, ret_error);
    if (json_array_size(list) > SPEC_CONTAINERS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "'containers' has more than %d entries",
                         SPEC_CONTAINERS_MAX);
    spec->containers = xcalloc(json_array_size(list) + 1, sizeof(*spec->containers));
    json_array_foreach(list, i, item) {
        CLEANUP_FREE char *path = str_printf("containers[%zu]", i);

        spec->container_count = i + 1;
        if (ctr_read(item, path, &spec->containers[i], ret_error) < 0)
            return -1;
    }
    return 0;
}

/* The key of the list as the user wrote it; taken out of the object, for it is no plain field. */
static int pod_read(json_t *root, struct pod_spec *spec, struct error **ret_error)
{
    struct reader reader = {pod_fields, ARRAY_SIZE(pod_fields), pod_unsupported, spec, 0};
    const char *key;
    json_t *value;
    void *next;
    bool seen = false;

    if (!json_is_object(root))
        return spec_wrong_type("podfile", "an object", root, ret_error);
    json_object_foreach_safe(root, next, key, value) {
        if (strcasecmp(key, "containers") != 0)
            continue;
        if (seen)
            return error_set(ret_error, ERROR_INVALID, 0, "'containers' is given twice");
        seen = true;
        if (containers_read(value, spec, ret_error) < 0)
            return -1;
        json_object_del(root, key);
    }
    return object_read(&reader, "", root, "", ret_error);
}

static json_t *text_read(const char *text, size_t size, struct error **ret_error)
{
    json_error_t why;

    if (size > SPEC_TEXT_MAX) {
        error_set(ret_error, ERROR_TOO_LARGE, 0, "podfile is over %d bytes", SPEC_TEXT_MAX);
        return NULL;
    }
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);

    if (!root)
        error_set(ret_error, ERROR_INVALID, 0, "podfile is not JSON: line %d, column %d: %s",
                  why.line, why.column,
                  strstr(why.text, "JSON_ALLOW_NUL") ? "a string has \\u0000 in it" : why.text);
    return root;
}

static void pod_defaults(struct pod_spec *spec, const struct spec_limits *limits)
{
    if (!spec->vcpu)
        spec->vcpu = 1;
    if (!spec->memory_mb)
        spec->memory_mb =
            limits->memory_default_mb ? limits->memory_default_mb : SPEC_MEMORY_DEFAULT_MB;
    if (!spec->storage_mb && !limits->unsized_storage)
        spec->storage_mb =
            limits->storage_default_mb ? limits->storage_default_mb : SPEC_STORAGE_DEFAULT_MB;
}

int pod_spec_parse(const char *text, size_t size, const struct spec_limits *limits,
                   struct pod_spec **ret, struct error **ret_error)
{
    static const struct spec_limits no_limits;
    CLEANUP_POD_SPEC struct pod_spec *spec = xcalloc(1, sizeof(*spec));
    json_t *root = text_read(text, size, ret_error);

    if (!root)
        return -1;
    int result = pod_read(root, spec, ret_error);

    json_decref(root);
    if (result < 0)
        return -1;
    if (!limits)
        limits = &no_limits;
    pod_defaults(spec, limits);
    if (pod_spec_check(spec, limits, ret_error) < 0)
        return -1;
    *ret = take(spec);
    return 0;
}

int ctr_spec_parse(const char *text, size_t size, struct ctr_spec **ret, struct error **ret_error)
{
    CLEANUP_CTR_SPEC struct ctr_spec *spec = xcalloc(1, sizeof(*spec));
    json_t *root = text_read(text, size, ret_error);

    if (!root)
        return -1;
    int result = ctr_read(root, "", spec, ret_error);

    json_decref(root);
    if (result < 0)
        return -1;
    *ret = take(spec);
    return 0;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* The fields of a group stand together in spec.def: it is opened at the first that is there. */
static void fields_write(const struct spec_field *fields, size_t count, const void *object,
                         struct buf *out, const char **between)
{
    char group[NAME_LEN_MAX + 1] = "";
    const char *inner = "";

    for (size_t i = 0; i < count; i++) {
        const void *member = (const char *)object + fields[i].offset;
        const char *dot = strchr(fields[i].key, '.');
        size_t length = dot ? (size_t)(dot - fields[i].key) : 0;

        if (fields[i].kind->is_empty(member))
            continue;
        if (*group && (strlen(group) != length || strncmp(group, fields[i].key, length) != 0)) {
            buf_append_str(out, "}");
            *group = '\0';
        }
        if (dot && !*group) {
            memcpy(group, fields[i].key, length);
            group[length] = '\0';
            buf_printf(out, "%s\"%s\":{", *between, group);
            inner = "";
            *between = ",";
        }
        buf_printf(out, "%s\"%s\":", dot ? inner : *between, dot ? dot + 1 : fields[i].key);
        fields[i].kind->write(member, out);
        inner = ",";
        *between = ",";
    }
    if (*group)
        buf_append_str(out, "}");
}

void ctr_spec_write(const struct ctr_spec *spec, struct buf *out)
{
    const char *between = "";

    buf_append_str(out, "{");
    fields_write(ctr_fields, ARRAY_SIZE(ctr_fields), spec, out, &between);
    buf_append_str(out, "}");
}

void pod_spec_write(const struct pod_spec *spec, bool with_containers, struct buf *out)
{
    const char *between = "";

    buf_append_str(out, "{");
    fields_write(pod_fields, ARRAY_SIZE(pod_fields), spec, out, &between);
    if (with_containers) {
        buf_printf(out, "%s\"containers\":[", between);
        for (size_t i = 0; i < spec->container_count; i++) {
            buf_append_str(out, i ? "," : "");
            ctr_spec_write(&spec->containers[i], out);
        }
        buf_append_str(out, "]");
    }
    buf_append_str(out, "}");
}

/* ---- the end -------------------------------------------------------------------------------- */

static void fields_clear(const struct spec_field *fields, size_t count, void *object)
{
    for (size_t i = 0; i < count; i++)
        fields[i].kind->clear((char *)object + fields[i].offset);
}

void ctr_spec_clear(struct ctr_spec *spec)
{
    fields_clear(ctr_fields, ARRAY_SIZE(ctr_fields), spec);
}

void ctr_spec_free(struct ctr_spec *spec)
{
    if (spec)
        ctr_spec_clear(spec);
    free(spec);
}

void ctr_spec_freep(struct ctr_spec **spec)
{
    ctr_spec_free(*spec);
}

void pod_spec_clear(struct pod_spec *spec)
{
    fields_clear(pod_fields, ARRAY_SIZE(pod_fields), spec);
    for (size_t i = 0; i < spec->container_count; i++)
        ctr_spec_clear(&spec->containers[i]);
    free(spec->containers);
    spec->containers = NULL;
    spec->container_count = 0;
}

void pod_spec_free(struct pod_spec *spec)
{
    if (spec)
        pod_spec_clear(spec);
    free(spec);
}

void pod_spec_freep(struct pod_spec **spec)
{
    pod_spec_free(*spec);
}

/* ---- documentation -------------------------------------------------------------------------- */

size_t spec_rows(const struct spec_row **ret)
{
    static struct spec_row rows[ARRAY_SIZE(pod_fields) + ARRAY_SIZE(ctr_fields)];
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(pod_fields); i++)
        rows[n++] = (struct spec_row){"pod",
                                      pod_fields[i].key,
                                      pod_fields[i].kind->type,
                                      pod_fields[i].min,
                                      pod_fields[i].max,
                                      pod_fields[i].doc};
    for (size_t i = 0; i < ARRAY_SIZE(ctr_fields); i++)
        rows[n++] =
            (struct spec_row){"container",       ctr_fields[i].key, ctr_fields[i].kind->type,
                              ctr_fields[i].min, ctr_fields[i].max, ctr_fields[i].doc};
    *ret = rows;
    return n;
}
