#include "image/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/str.h"
#include "image/reference.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG   "application/vnd.oci.image.config.v1+json"

static void json_freep(json_t **json)
{
    json_decref(*json);
}
#define CLEANUP_JSON __attribute__((cleanup(json_freep)))

static json_t *text_parse(const char *text, size_t size, const char *what, struct error **ret_error)
{
    json_error_t where;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);

    if (!json)
        error_set(ret_error, ERROR_CORRUPT, 0, "%s is not JSON: line %d, column %d: %s", what,
                  where.line, where.column, where.text);
    return json;
}

static int refuse(const char *what, const char *key, const char *wanted, struct error **ret_error)
{
    return error_set(ret_error, ERROR_CORRUPT, 0, "%s: '%s' is not %s", what, key, wanted);
}

/* An array of strings; a missing one and null are the empty one. */
static int strings_get(const json_t *object, const char *key, size_t max, char ***ret,
                       struct error **ret_error)
{
    const json_t *list = json_object_get(object, key);
    size_t i;
    json_t *item;

    *ret = NULL;
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || json_array_size(list) > max)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not a list of at most %zu strings",
                         key, max);
    json_array_foreach((json_t *)(uintptr_t)list, i, item) {
        if (!json_is_string(item)) {
            strv_free(*ret);
            *ret = NULL;
            return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' has something that is no string",
                             key);
        }
        strv_push(ret, json_string_value(item));
    }
    return 0;
}

/* ---- docker archives ------------------------------------------------------------------------ */

static int docker_image_parse(const json_t *json, struct docker_image *ret,
                              struct error **ret_error)
{
    const char *config = json_string_value(json_object_get(json, "Config"));

    if (!config)
        return refuse("manifest.json", "Config", "a string", ret_error);
    ret->config = xstrdup(config);
    if (strings_get(json, "Layers", MANIFEST_LAYERS_MAX, &ret->layers, ret_error) < 0)
        return -1;
    return strings_get(json, "RepoTags", MANIFEST_NAMES_MAX, &ret->tags, ret_error);
}

int docker_manifest_parse(const char *text, size_t size, struct docker_manifest *ret,
                          struct error **ret_error)
{
    CLEANUP_JSON json_t *json = text_parse(text, size, "manifest.json", ret_error);
    size_t count = json_array_size(json);

    *ret = (struct docker_manifest){0};
    if (!json)
        return -1;
    if (count == 0 || count > MANIFEST_IMAGES_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "manifest.json is not a list of 1 to %d images", MANIFEST_IMAGES_MAX);
    ret->images = xcalloc(count, sizeof(*ret->images));
    for (ret->count = 0; ret->count < count; ret->count++) {
        struct docker_image *image = &ret->images[ret->count];
        if (docker_image_parse(json_array_get(json, ret->count), image, ret_error) == 0)
            continue;
        ret->count++;
        docker_manifest_done(ret);
        return -1;
    }
    return 0;
}

void docker_manifest_done(struct docker_manifest *manifest)
{
    for (size_t i = 0; i < manifest->count; i++) {
        free(manifest->images[i].config);
        strv_free(manifest->images[i].layers);
        strv_free(manifest->images[i].tags);
    }
    free(manifest->images);
    *manifest = (struct docker_manifest){0};
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static const struct {
    const char *media_type;
    enum descriptor_kind kind;
} media_types[] = {
    {"application/vnd.oci.image.index.v1+json", DESCRIPTOR_INDEX},
    {"application/vnd.docker.distribution.manifest.list.v2+json", DESCRIPTOR_INDEX},
    {OCI_MANIFEST, DESCRIPTOR_MANIFEST},
    {"application/vnd.docker.distribution.manifest.v2+json", DESCRIPTOR_MANIFEST},
    {OCI_CONFIG, DESCRIPTOR_CONFIG},
    {"application/vnd.docker.container.image.v1+json", DESCRIPTOR_CONFIG},
    {"application/vnd.oci.image.layer.v1.tar", DESCRIPTOR_LAYER},
    {"application/vnd.oci.image.layer.v1.tar+gzip", DESCRIPTOR_LAYER},
    {"application/vnd.oci.image.layer.v1.tar+zstd", DESCRIPTOR_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar", DESCRIPTOR_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", DESCRIPTOR_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar.zstd", DESCRIPTOR_LAYER},
};

static enum descriptor_kind media_type_kind(const char *type)
{
    for (size_t i = 0; i < ARRAY_SIZE(media_types); i++)
        if (strcmp(media_types[i].media_type, type) == 0)
            return media_types[i].kind;
    return DESCRIPTOR_OTHER;
}

static int media_type_check(const char *type, unsigned kinds, enum descriptor_kind *ret,
                            struct error **ret_error)
{
    *ret = media_type_kind(type);
    if (kinds & 1U << *ret)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "media type '%.200s' is not supported here",
                     type);
}

static void descriptor_done(struct descriptor *d)
{
    free(d->digest);
    free(d->platform);
    free(d->name);
    *d = (struct descriptor){0};
}

/* containerd writes the whole name; what other tools call ref.name may be only a tag. */
static const char *name_of(const json_t *annotations)
{
    const char *name = json_string_value(json_object_get(annotations, "io.containerd.image.name"));

    if (name)
        return name;
    return json_string_value(json_object_get(annotations, "org.opencontainers.image.ref.name"));
}

/* `kinds`: a bit for each kind that may stand here. */
static int descriptor_parse(const json_t *json, unsigned kinds, struct descriptor *ret,
                            struct error **ret_error)
{
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    const char *digest = json_string_value(json_object_get(json, "digest"));
    const json_t *size = json_object_get(json, "size");
    const json_t *platform = json_object_get(json, "platform");
    const char *os = json_string_value(json_object_get(platform, "os"));
    const char *machine = json_string_value(json_object_get(platform, "architecture"));
    const char *variant = json_string_value(json_object_get(platform, "variant"));

    if (!type)
        return refuse("descriptor", "mediaType", "a string", ret_error);
    if (media_type_check(type, kinds, &ret->kind, ret_error) < 0)
        return -1;
    if (!reference_is_digest(digest))
        return refuse("descriptor", "digest", "'sha256:' and 64 hexadecimal digits", ret_error);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return refuse("descriptor", "size", "a number of bytes", ret_error);
    ret->digest = xstrdup(strchr(digest, ':') + 1);
    ret->size = (uint64_t)json_integer_value(size);
    if (os && machine)
        ret->platform =
            str_printf("%s/%s%s%s", os, machine, variant ? "/" : "", str_or(variant, ""));
    ret->name = xstrdup(name_of(json_object_get(json, "annotations")));
    return 0;
}

static int descriptors_parse(const json_t *list, unsigned kinds, struct descriptor **ret,
                             size_t *ret_count, struct error **ret_error)
{
    size_t count = json_array_size(list);

    *ret = xcalloc(count + 1, sizeof(**ret));
    for (*ret_count = 0; *ret_count < count; (*ret_count)++) {
        struct descriptor *item = &(*ret)[*ret_count];
        if (descriptor_parse(json_array_get(list, *ret_count), kinds, item, ret_error) < 0)
            return -1;
    }
    return 0;
}

static void descriptors_free(struct descriptor *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        descriptor_done(&items[i]);
    free(items);
}

/* A document that could be read as an index by one and as a manifest by another is refused, and so
 * is one that says itself that it is something else. */
static int document_check(const json_t *json, const char *what, const char *list,
                          enum descriptor_kind kind, size_t max, struct error **ret_error)
{
    const json_t *items = json_object_get(json, list);
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    const char *other = kind == DESCRIPTOR_INDEX ? "layers" : "manifests";
    enum descriptor_kind said;

    if (!json_is_array(items) || json_array_size(items) > max)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "%s: '%s' is not a list of at most %zu descriptors", what, list, max);
    if (json_object_get(json, other))
        return error_set(ret_error, ERROR_CORRUPT, 0, "%s: it has '%s' too", what, other);
    return type ? media_type_check(type, 1U << kind, &said, ret_error) : 0;
}

static json_t *document_parse(const char *text, size_t size, enum descriptor_kind kind, size_t max,
                              struct error **ret_error)
{
    bool index = kind == DESCRIPTOR_INDEX;
    const char *what = index ? "index" : "manifest";
    json_t *json = text_parse(text, size, what, ret_error);

    if (!json ||
        document_check(json, what, index ? "manifests" : "layers", kind, max, ret_error) == 0)
        return json;
    json_decref(json);
    return NULL;
}

int document_kind(const char *text, size_t size, const char *content_type,
                  enum descriptor_kind *ret, struct error **ret_error)
{
    enum { MANIFESTS = 1U << DESCRIPTOR_INDEX | 1U << DESCRIPTOR_MANIFEST };
    CLEANUP_JSON json_t *json = text_parse(text, size, "manifest", ret_error);
    CLEANUP_FREE char *served =
        xstrndup(str_or(content_type, ""), strcspn(str_or(content_type, ""), "; "));
    const char *type = json_string_value(json_object_get(json, "mediaType"));

    if (!json)
        return -1;
    if (json_integer_value(json_object_get(json, "schemaVersion")) == 1)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                         "it is a docker manifest of schema 1, which nobody makes any more: push "
                         "the image again with a newer tool");
    if (!type && media_type_kind(served) != DESCRIPTOR_OTHER)
        type = served;
    if (type)
        return media_type_check(type, MANIFESTS, ret, ret_error);
    *ret = json_object_get(json, "manifests") ? DESCRIPTOR_INDEX : DESCRIPTOR_MANIFEST;
    return 0;
}

char *document_media_type(const char *text, size_t size)
{
    CLEANUP_JSON json_t *json = json_loadb(text, size, 0, NULL);
    const char *type = json_string_value(json_object_get(json, "mediaType"));

    return xstrdup(str_or(type, OCI_MANIFEST));
}

int oci_index_parse(const char *text, size_t size, struct oci_index *ret, struct error **ret_error)
{
    CLEANUP_JSON json_t *json =
        document_parse(text, size, DESCRIPTOR_INDEX, MANIFEST_IMAGES_MAX, ret_error);

    *ret = (struct oci_index){0};
    if (!json)
        return -1;
    if (descriptors_parse(json_object_get(json, "manifests"),
                          1U << DESCRIPTOR_INDEX | 1U << DESCRIPTOR_MANIFEST |
                              1U << DESCRIPTOR_OTHER,
                          &ret->items, &ret->count, ret_error) == 0)
        return 0;
    ret->count++; /* the one that failed may hold something */
    oci_index_done(ret);
    return -1;
}

void oci_index_done(struct oci_index *index)
{
    descriptors_free(index->items, index->count);
    *index = (struct oci_index){0};
}

int oci_manifest_parse(const char *text, size_t size, struct oci_manifest *ret,
                       struct error **ret_error)
{
    CLEANUP_JSON json_t *json =
        document_parse(text, size, DESCRIPTOR_MANIFEST, MANIFEST_LAYERS_MAX, ret_error);

    *ret = (struct oci_manifest){0};
    if (!json)
        return -1;
    if (descriptors_parse(json_object_get(json, "layers"), 1U << DESCRIPTOR_LAYER, &ret->layers,
                          &ret->count, ret_error) < 0) {
        ret->count++;
        oci_manifest_done(ret);
        return -1;
    }
    if (descriptor_parse(json_object_get(json, "config"), 1U << DESCRIPTOR_CONFIG, &ret->config,
                         ret_error) == 0)
        return 0;
    oci_manifest_done(ret);
    return -1;
}

void oci_manifest_done(struct oci_manifest *manifest)
{
    descriptor_done(&manifest->config);
    descriptors_free(manifest->layers, manifest->count);
    *manifest = (struct oci_manifest){0};
}

static json_t *descriptor_json(const char *type, const struct descriptor *d)
{
    CLEANUP_FREE char *digest = str_printf("sha256:%s", d->digest);

    return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest, "size",
                     (json_int_t)d->size);
}

char *oci_manifest_write(const struct oci_manifest *manifest)
{
    static const char *const layer_types[] = {
        [LAYER_PLAIN] = "application/vnd.oci.image.layer.v1.tar",
        [LAYER_GZIP] = "application/vnd.oci.image.layer.v1.tar+gzip",
        [LAYER_ZSTD] = "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    json_t *layers = json_array();

    for (size_t i = 0; i < manifest->count; i++) {
        const struct descriptor *d = &manifest->layers[i];
        json_array_append_new(layers, descriptor_json(layer_types[d->coding], d));
    }
    CLEANUP_JSON json_t *json =
        json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", OCI_MANIFEST, "config",
                  descriptor_json(OCI_CONFIG, &manifest->config), "layers", layers);
    return json_dumps(json, JSON_COMPACT);
}

enum layer_coding layer_coding_of(const uint8_t *start, size_t size)
{
    static const uint8_t gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};

    if (size >= sizeof(gzip) && memcmp(start, gzip, sizeof(gzip)) == 0)
        return LAYER_GZIP;
    return size >= sizeof(zstd) && memcmp(start, zstd, sizeof(zstd)) == 0 ? LAYER_ZSTD
                                                                          : LAYER_PLAIN;
}

/* ---- configs -------------------------------------------------------------------------------- */

static bool is_string(const json_t *value)
{
    return json_is_string(value);
}

static bool is_object(const json_t *value)
{
    return json_is_object(value);
}

static bool is_string_list(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_string(json_array_get(value, i)))
            return false;
    return json_is_array(value);
}

static bool is_string_map(const json_t *value)
{
    const char *key;
    json_t *item;

    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        if (!json_is_string(item))
            return false;
    }
    return json_is_object(value);
}

/* What huskd reads of "config"; each may be missing or null. */
static const struct {
    const char *key;
    bool (*fits)(const json_t *value);
    const char *wanted;
} config_fields[] = {
    {"User", is_string, "a string"},
    {"WorkingDir", is_string, "a string"},
    {"StopSignal", is_string, "a string"},
    {"Env", is_string_list, "a list of strings"},
    {"Entrypoint", is_string_list, "a list of strings"},
    {"Cmd", is_string_list, "a list of strings"},
    {"Labels", is_string_map, "an object of strings"},
    {"ExposedPorts", is_object, "an object"},
    {"Volumes", is_object, "an object"},
};

static int config_fields_check(const json_t *config, struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(config_fields); i++) {
        const json_t *value = json_object_get(config, config_fields[i].key);
        if (value && !json_is_null(value) && !config_fields[i].fits(value))
            return refuse("config", config_fields[i].key, config_fields[i].wanted, ret_error);
    }
    return 0;
}

static int platform_check(const json_t *json, struct error **ret_error)
{
    const char *os = json_string_value(json_object_get(json, "os"));
    const char *machine = json_string_value(json_object_get(json, "architecture"));
    CLEANUP_FREE char *platform = str_printf("%s/%s", os ? os : "?", machine ? machine : "?");

    if (strcmp(platform, IMAGE_PLATFORM) == 0)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "it is for '%.100s', not for '%s'", platform,
                     IMAGE_PLATFORM);
}

static int diff_ids_get(const json_t *json, char ***ret, struct error **ret_error)
{
    const json_t *rootfs = json_object_get(json, "rootfs");
    CLEANUP_STRV char **digests = NULL;

    *ret = NULL;
    if (!str_eq(json_string_value(json_object_get(rootfs, "type")), "layers"))
        return refuse("config", "rootfs.type", "'layers'", ret_error);
    if (strings_get(rootfs, "diff_ids", MANIFEST_LAYERS_MAX, &digests, ret_error) < 0)
        return -1;
    STRV_FOREACH(digest, digests)
        if (!reference_is_digest(*digest))
            return refuse("config", "rootfs.diff_ids", "a list of digests", ret_error);
    STRV_FOREACH(digest, digests)
        strv_push(ret, strchr(*digest, ':') + 1);
    return 0;
}

/* RFC 3339; 0 for what is not, and for times before 1970 (Go's "never" is the year 1). */
static uint64_t time_parse(const char *text)
{
    struct tm tm = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    uint64_t ns = 0, unit = 100000000;
    char sign;
    int hours, minutes;
    long offset = 0;

    if (!rest)
        return 0;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            ns += (uint64_t)(*rest - '0') * unit;
    if (sscanf(rest, "%c%2d:%2d", &sign, &hours, &minutes) == 3)
        offset = (hours * 60L + minutes) * (sign == '-' ? -60 : 60);
    time_t seconds = timegm(&tm) - offset;
    return seconds > 0 ? (uint64_t)seconds * 1000000000 + ns : 0;
}

int image_config_parse(const char *text, size_t size, struct image_config *ret,
                       struct error **ret_error)
{
    CLEANUP_JSON json_t *json = text_parse(text, size, "config", ret_error);
    const json_t *config = json_object_get(json, "config");

    *ret = (struct image_config){0};
    if (!json)
        return -1;
    if (!json_is_object(json))
        return error_set(ret_error, ERROR_CORRUPT, 0, "config is not an object");
    if (config && !json_is_null(config) && !json_is_object(config))
        return refuse("config", "config", "an object", ret_error);
    if (platform_check(json, ret_error) < 0 || config_fields_check(config, ret_error) < 0 ||
        diff_ids_get(json, &ret->diff_ids, ret_error) < 0)
        return -1;
    ret->created_ns = time_parse(json_string_value(json_object_get(json, "created")));
    return 0;
}

void image_config_done(struct image_config *config)
{
    strv_free(config->diff_ids);
    *config = (struct image_config){0};
}
