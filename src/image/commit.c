#include "image/commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/str.h"
#include "image/change.h"
#include "image/manifest.h"
#include "image/place.h"

enum { FILE_CONFIG = 1, FILE_MANIFEST = 2, TIME_TEXT = 64 };

struct committing {
    const struct image_commit *commit;
    json_t *json; /* the new config */
    struct oci_manifest old;
    struct image_config old_config;
    struct image_layer *layers; /* of the new image; their paths are owned */
    struct descriptor *descriptors;
    size_t count;
    struct layer_packed packed;
    uint64_t created_ns;
    char *text; /* of the new config */
    char id[DIGEST_HEX + 1];
    char *manifest_text;
    char manifest_hex[DIGEST_HEX + 1];
    char **files;
    char *fresh; /* its prepared root */
    uint64_t size;
    struct placing placing;
};

/* ---- the old image -------------------------------------------------------------------------- */

/* A small file of the store as a text; owned. */
static char *blob_text(const struct committing *c, int number, size_t max, size_t *ret_size,
                       struct error **ret_error)
{
    if (strv_count(c->commit->files) <= FILE_MANIFEST) {
        error_set(ret_error, ERROR_CORRUPT, 0, "its image has no manifest in the store");
        return NULL;
    }
    CLEANUP_FREE char *path = str_printf("%s/%s", c->commit->root, c->commit->files[number]);
    CLEANUP_FREE char *text = xcalloc(1, max + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, max));
    int err = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0) {
        error_set(ret_error, ERROR_IO, err, "read '%s'", c->commit->files[number]);
        return NULL;
    }
    *ret_size = (size_t)n;
    return take(text);
}

/* Its own name for a layer of the old image, and how that is compressed. */
static int layer_hold(struct committing *c, size_t i, struct error **ret_error)
{
    const struct descriptor *d = &c->old.layers[i];
    CLEANUP_FREE char *path = str_printf("%s/blobs/sha256/%s", c->commit->root, d->digest);
    CLEANUP_FREE char *own = str_printf("%s/layer-%zu", c->commit->scratch, i);
    uint8_t start[4] = {0};
    int fd = link(path, own) < 0 ? -1 : open(own, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, start, sizeof(start)));
    int err = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, err, "read layer 'sha256:%s' of its image",
                         d->digest);
    c->descriptors[i] = (struct descriptor){
        .digest = d->digest, .size = d->size, .coding = layer_coding_of(start, (size_t)n)};
    c->layers[i] = (struct image_layer){take(own), c->old_config.diff_ids[i]};
    c->count = i + 1;
    return 0;
}

static int old_read(struct committing *c, struct error **ret_error)
{
    size_t size = 0;
    CLEANUP_FREE char *manifest = blob_text(c, FILE_MANIFEST, MANIFEST_MAX, &size, ret_error);

    if (!manifest || oci_manifest_parse(manifest, size, &c->old, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *config = blob_text(c, FILE_CONFIG, CONFIG_MAX, &size, ret_error);
    if (!config || image_config_parse(config, size, &c->old_config, ret_error) < 0)
        return -1;
    if (strv_count((const char *const *)c->old_config.diff_ids) != c->old.count)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "the config of its image names %zu layers, "
                         "not %zu",
                         strv_count((const char *const *)c->old_config.diff_ids), c->old.count);
    if (c->old.count >= MANIFEST_LAYERS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "its image has %d layers already",
                         MANIFEST_LAYERS_MAX);
    c->json = json_loadb(config, size, JSON_REJECT_DUPLICATES, NULL);
    c->layers = xcalloc(c->old.count + 1, sizeof(*c->layers));
    c->descriptors = xcalloc(c->old.count + 1, sizeof(*c->descriptors));
    for (size_t i = 0; i < c->old.count; i++)
        if (layer_hold(c, i, ret_error) < 0)
            return -1;
    return 0;
}

/* ---- the config ----------------------------------------------------------------------------- */

static int text_set(json_t *object, const char *key, const char *value, struct error **ret_error)
{
    json_t *string = str_empty(value) ? NULL : json_string(value);

    if (str_empty(value))
        return 0;
    if (string && json_object_set_new(object, key, string) == 0)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0, "'%s' is no UTF-8", key);
}

static int list_set(json_t *object, const char *key, const char *const *values,
                    struct error **ret_error)
{
    json_t *list = json_array();

    STRV_FOREACH(value, values)
        if (json_array_append_new(list, json_string(*value)) < 0) {
            json_decref(list);
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' is no UTF-8", key);
        }
    json_object_set_new(object, key, list);
    return 0;
}

static int env_add(json_t *config, const char *const *env, struct error **ret_error)
{
    STRV_FOREACH(variable, env) {
        const char *equals = strchr(*variable, '=');
        if (!equals)
            continue;
        CLEANUP_FREE char *name = xstrndup(*variable, (size_t)(equals - *variable));
        if (config_env_set(config, name, equals + 1, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int labels_add(json_t *config, const char *const *labels, struct error **ret_error)
{
    for (; labels && labels[0] && labels[1]; labels += 2)
        if (config_label_set(config, labels[0], labels[1], ret_error) < 0)
            return -1;
    return 0;
}

/* As docker has it: another entry point is without the command of the image. */
static int config_of_container(const struct committing *c, json_t *config, struct error **ret_error)
{
    const struct image_commit *commit = c->commit;

    if (commit->entrypoint && commit->entrypoint[0]) {
        json_object_del(config, "Cmd");
        if (list_set(config, "Entrypoint", commit->entrypoint, ret_error) < 0)
            return -1;
    }
    if (commit->command && commit->command[0] &&
        list_set(config, "Cmd", commit->command, ret_error) < 0)
        return -1;
    if (env_add(config, commit->env, ret_error) < 0 ||
        labels_add(config, commit->labels, ret_error) < 0 ||
        text_set(config, "WorkingDir", commit->workdir, ret_error) < 0 ||
        text_set(config, "User", commit->user, ret_error) < 0)
        return -1;
    return text_set(config, "StopSignal", commit->stop_signal, ret_error);
}

static int config_change(struct committing *c, struct error **ret_error)
{
    /* Of another program, about its own container. */
    static const char *const foreign[] = {"container", "container_config", "docker_version", "id",
                                          "parent",    "comment",          "author"};
    json_t *config = json_object_get(c->json, "config");

    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
        json_object_del(c->json, foreign[i]);
    if (!json_is_object(config)) {
        json_object_set_new(c->json, "config", json_object());
        config = json_object_get(c->json, "config");
    }
    if (config_of_container(c, config, ret_error) < 0 ||
        changes_apply(config, c->commit->changes, ret_error) < 0)
        return -1;
    return text_set(c->json, "author", c->commit->author, ret_error);
}

/* RFC 3339, in UTC. */
static void time_write(char ret[TIME_TEXT], uint64_t ns)
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[TIME_TEXT / 2];

    gmtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret, TIME_TEXT, "%s.%09uZ", text, (unsigned)(ns % 1000000000));
}

static json_t *array_of(json_t *object, const char *key)
{
    if (!json_is_array(json_object_get(object, key)))
        json_object_set_new(object, key, json_array());
    return json_object_get(object, key);
}

/* The new layer, in the list of layers and in the history. */
static int config_finish(struct committing *c, struct error **ret_error)
{
    CLEANUP_FREE char *diff_id = str_printf("sha256:%s", c->packed.diff_id);
    json_t *step = json_object();
    struct timespec now;
    char created[TIME_TEXT];

    clock_gettime(CLOCK_REALTIME, &now);
    c->created_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    time_write(created, c->created_ns);
    json_object_set_new(c->json, "created", json_string(created));
    json_array_append_new(array_of(json_object_get(c->json, "rootfs"), "diff_ids"),
                          json_string(diff_id));
    json_object_set_new(step, "created", json_string(created));
    json_array_append_new(array_of(c->json, "history"), step);
    if (text_set(step, "created_by", c->commit->created_by, ret_error) < 0 ||
        text_set(step, "author", c->commit->author, ret_error) < 0 ||
        text_set(step, "comment", c->commit->message, ret_error) < 0)
        return -1;
    c->text = json_dumps(c->json, JSON_COMPACT);
    if (!c->text || strlen(c->text) > CONFIG_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the config of the image would have more than %d bytes", CONFIG_MAX);
    sha256_text(c->text, strlen(c->text), c->id);
    return 0;
}

/* ---- the new image -------------------------------------------------------------------------- */

static int layer_make(struct committing *c, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/layer-%zu", c->commit->scratch, c->old.count);

    if (c->commit->layer(c->commit->arg, path, &c->packed, ret_error) < 0)
        return -1;
    c->descriptors[c->old.count] = (struct descriptor){
        .digest = c->packed.digest, .size = c->packed.size, .coding = LAYER_GZIP};
    c->layers[c->old.count] = (struct image_layer){take(path), c->packed.diff_id};
    c->count = c->old.count + 1;
    return 0;
}

static void file_add(struct committing *c, const char *hex)
{
    CLEANUP_FREE char *file = blob_file(hex);

    if (!strv_contains((const char *const *)c->files, file))
        strv_push(&c->files, file);
}

static int root_make(struct committing *c, struct error **ret_error)
{
    const struct image_commit *commit = c->commit;
    struct oci_manifest manifest = {.config = {.digest = c->id, .size = strlen(c->text)},
                                    .layers = c->descriptors,
                                    .count = c->count};

    c->manifest_text = oci_manifest_write(&manifest);
    sha256_text(c->manifest_text, strlen(c->manifest_text), c->manifest_hex);
    strv_push_take(&c->files, commit->prepared(commit->arg, c->id));
    file_add(c, c->id);
    file_add(c, c->manifest_hex);
    for (size_t i = 0; i < c->count; i++)
        file_add(c, c->descriptors[i].digest);
    c->fresh = str_printf("%s/root", commit->scratch);
    return commit->prepare(commit->arg, c->id, c->layers, c->count, c->fresh, &c->size, ret_error);
}

static int all_place(struct committing *c, struct error **ret_error)
{
    const struct image_commit *commit = c->commit;
    CLEANUP_FREE char *config = blob_file(c->id);
    CLEANUP_FREE char *manifest = blob_file(c->manifest_hex);

    if (commit->placing(commit->arg, ret_error) < 0 ||
        place_text(&c->placing, commit->scratch, c->text, strlen(c->text), config, ret_error) < 0 ||
        place_text(&c->placing, commit->scratch, c->manifest_text, strlen(c->manifest_text),
                   manifest, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < c->count; i++) {
        CLEANUP_FREE char *file = blob_file(c->descriptors[i].digest);
        if (place_file(&c->placing, c->layers[i].path, file, ret_error) < 0)
            return -1;
    }
    if (place_file(&c->placing, c->fresh, c->files[0], ret_error) < 0)
        return -1;
    return place_sync(&c->placing, ret_error);
}

static int announce(const struct committing *c, struct error **ret_error)
{
    CLEANUP_FREE char *id = str_printf("sha256:%s", c->id);
    const char *const names[] = {c->commit->name, NULL};
    struct image_found found = {
        .id = id,
        .names = str_empty(c->commit->name) ? NULL : names,
        .config = c->text,
        .size_bytes = c->size,
        .created_ns = c->created_ns,
        .files = (const char *const *)c->files,
    };

    return c->commit->found(c->commit->arg, &found, ret_error);
}

static void committing_done(struct committing *c)
{
    json_decref(c->json);
    oci_manifest_done(&c->old);
    image_config_done(&c->old_config);
    for (size_t i = 0; i < c->count; i++)
        free((char *)(uintptr_t)c->layers[i].path);
    free(c->layers);
    free(c->descriptors);
    free(c->text);
    free(c->manifest_text);
    strv_free(c->files);
    free(c->fresh);
    place_done(&c->placing);
}

int image_commit(const struct image_commit *commit, struct error **ret_error)
{
    struct committing c = {.commit = commit, .placing = {.root = commit->root}};
    int result = place_dirs(commit->root, ret_error);

    if (result == 0)
        result = old_read(&c, ret_error);
    if (result == 0)
        result = config_change(&c, ret_error);
    if (result == 0)
        result = layer_make(&c, ret_error);
    if (result == 0)
        result = config_finish(&c, ret_error);
    if (result == 0)
        result = root_make(&c, ret_error);
    if (result == 0)
        result = all_place(&c, ret_error);
    if (result == 0)
        result = announce(&c, ret_error);
    if (result < 0)
        place_undo(&c.placing);
    committing_done(&c);
    return result;
}
