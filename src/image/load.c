#include "image/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "image/manifest.h"
#include "image/place.h"
#include "image/reference.h"
#include "image/spool.h"

enum { INDEX_DEPTH_MAX = 4 };

/* One image of the archive. */
struct image {
    char *text; /* of its config */
    struct image_config config;
    const struct member *config_blob;
    const struct member *manifest_blob; /* NULL in a docker archive: then it is written here */
    char *manifest_text;
    char manifest_hex[DIGEST_HEX + 1];
    bool present; /* all of it was in the store already */
    const struct member **layers;
    size_t layer_count;
    char **names;
    char **files;
    char *fresh; /* the prepared root in the scratch directory; NULL: it was there already */
    uint64_t size;
};

struct loading {
    const struct image_load *load;
    struct spool spool;
    struct image *images;
    size_t count;
    struct placing placing;
    char *platforms; /* what an index offered instead, for the sentence */
};

static const char *root_path(const struct loading *l, char **ret, const char *file)
{
    free(*ret);
    *ret = str_printf("%s/%s", l->load->root, file);
    return *ret;
}

/* ---- what is in the archive ----------------------------------------------------------------- */

static void image_done(struct image *image)
{
    free(image->text);
    free(image->manifest_text);
    image_config_done(&image->config);
    free(image->layers);
    strv_free(image->names);
    strv_free(image->files);
    free(image->fresh);
    *image = (struct image){0};
}

/* Takes the image over. One that came already only gives it more names. */
static void image_add(struct loading *l, struct image *image)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->images[i].config_blob->hex, image->config_blob->hex) != 0)
            continue;
        STRV_FOREACH(name, image->names)
            if (!strv_contains((const char *const *)l->images[i].names, *name))
                strv_push(&l->images[i].names, *name);
        image_done(image);
        return;
    }
    l->images = xrealloc(l->images, (l->count + 1) * sizeof(*l->images));
    l->images[l->count++] = *image;
    *image = (struct image){0};
}

static int image_name(struct image *image, const char *text, struct error **ret_error)
{
    CLEANUP_FREE char *name = reference_normalise(text, ret_error);

    if (!name)
        return -1;
    if (!strv_contains((const char *const *)image->names, name))
        strv_push(&image->names, name);
    return 0;
}

static int image_config_read(struct image *image, const struct member *blob,
                             struct error **ret_error)
{
    image->config_blob = blob;
    image->text = member_text(blob, CONFIG_MAX, ret_error);
    if (!image->text ||
        image_config_parse(image->text, (size_t)blob->size, &image->config, ret_error) < 0)
        return -1;
    size_t diffs = strv_count((const char *const *)image->config.diff_ids);
    if (diffs != image->layer_count)
        return error_set(ret_error, ERROR_CORRUPT, 0, "its config names %zu layers, not %zu", diffs,
                         image->layer_count);
    return 0;
}

static int missing(const char *name, struct error **ret_error)
{
    return error_set(ret_error, ERROR_CORRUPT, 0, "the archive has no '%.200s'", name);
}

/* ---- docker archives ------------------------------------------------------------------------ */

static int docker_image_read(struct loading *l, const struct docker_image *from,
                             struct image *image, struct error **ret_error)
{
    const struct member *config = spool_find(&l->spool, from->config);
    size_t count = strv_count((const char *const *)from->layers);

    if (!config)
        return missing(from->config, ret_error);
    image->layers = xcalloc(count + 1, sizeof(*image->layers));
    for (; image->layer_count < count; image->layer_count++) {
        const char *name = from->layers[image->layer_count];
        image->layers[image->layer_count] = spool_find(&l->spool, name);
        if (!image->layers[image->layer_count])
            return missing(name, ret_error);
    }
    STRV_FOREACH(tag, from->tags)
        if (image_name(image, *tag, ret_error) < 0)
            return -1;
    return image_config_read(image, config, ret_error);
}

static int docker_read(struct loading *l, const struct member *member, struct error **ret_error)
{
    CLEANUP_FREE char *text = member_text(member, MANIFEST_MAX, ret_error);
    struct docker_manifest manifest;
    int result = 0;

    if (!text || docker_manifest_parse(text, (size_t)member->size, &manifest, ret_error) < 0)
        return -1;
    for (size_t i = 0; result == 0 && i < manifest.count; i++) {
        struct image image = {0};
        result = docker_image_read(l, &manifest.images[i], &image, ret_error);
        if (result == 0)
            image_add(l, &image);
        image_done(&image);
    }
    docker_manifest_done(&manifest);
    return result;
}

/* ---- OCI layouts ---------------------------------------------------------------------------- */

static const struct member *blob_get(struct loading *l, const struct descriptor *d,
                                     struct error **ret_error)
{
    const struct member *blob = spool_blob(&l->spool, d->digest);

    if (!blob)
        error_set(ret_error, ERROR_CORRUPT, 0, "the archive has no blob 'sha256:%s'", d->digest);
    else if (blob->size != d->size || strcmp(blob->hex, d->digest) != 0)
        error_set(ret_error, ERROR_CORRUPT, 0, "blob 'sha256:%s' is not what its descriptor says",
                  d->digest);
    else
        return blob;
    return NULL;
}

static int oci_layers_read(struct loading *l, const struct oci_manifest *manifest,
                           struct image *image, struct error **ret_error)
{
    image->layers = xcalloc(manifest->count + 1, sizeof(*image->layers));
    for (; image->layer_count < manifest->count; image->layer_count++) {
        const struct member *blob = blob_get(l, &manifest->layers[image->layer_count], ret_error);
        if (!blob)
            return -1;
        image->layers[image->layer_count] = blob;
    }
    const struct member *config = blob_get(l, &manifest->config, ret_error);
    return config ? image_config_read(image, config, ret_error) : -1;
}

static int oci_image_read(struct loading *l, const struct descriptor *d, const char *name,
                          struct error **ret_error)
{
    const struct member *blob = blob_get(l, d, ret_error);
    CLEANUP_FREE char *text = blob ? member_text(blob, MANIFEST_MAX, ret_error) : NULL;
    struct image image = {.manifest_blob = blob};
    struct oci_manifest manifest;

    if (!text || oci_manifest_parse(text, (size_t)blob->size, &manifest, ret_error) < 0)
        return -1;
    int result = oci_layers_read(l, &manifest, &image, ret_error);
    oci_manifest_done(&manifest);
    /* A bare "latest" is a tag of nothing. */
    if (result == 0 && !str_empty(name) && strcmp(name, "latest") != 0)
        result = image_name(&image, name, ret_error);
    if (result == 0)
        image_add(l, &image);
    image_done(&image);
    return result;
}

static void platform_note(struct loading *l, const char *platform)
{
    CLEANUP_FREE char *before = l->platforms;

    l->platforms = str_printf("%s%s'%.40s'", before ? before : "", before ? ", " : "", platform);
}

static int oci_index_read(struct loading *l, const struct member *member, const char *name,
                          int depth, struct error **ret_error);

static int oci_item_read(struct loading *l, const struct descriptor *d, const char *name, int depth,
                         struct error **ret_error)
{
    if (d->platform && strcmp(d->platform, IMAGE_PLATFORM) != 0) {
        if (strcmp(d->platform, "unknown/unknown") != 0) /* attestations */
            platform_note(l, d->platform);
        return 0;
    }
    if (d->kind == DESCRIPTOR_OTHER)
        return 0;
    if (d->kind != DESCRIPTOR_INDEX)
        return oci_image_read(l, d, name, ret_error);
    if (depth >= INDEX_DEPTH_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0, "indexes lie more than %d deep",
                         INDEX_DEPTH_MAX);
    const struct member *blob = blob_get(l, d, ret_error);
    return blob ? oci_index_read(l, blob, name, depth + 1, ret_error) : -1;
}

static int oci_index_read(struct loading *l, const struct member *member, const char *name,
                          int depth, struct error **ret_error)
{
    CLEANUP_FREE char *text = member_text(member, MANIFEST_MAX, ret_error);
    struct oci_index index;
    int result = 0;

    if (!text || oci_index_parse(text, (size_t)member->size, &index, ret_error) < 0)
        return -1;
    for (size_t i = 0; result == 0 && i < index.count; i++) {
        const struct descriptor *d = &index.items[i];
        result = oci_item_read(l, d, d->name ? d->name : name, depth, ret_error);
    }
    oci_index_done(&index);
    return result;
}

static int archive_understand(struct loading *l, struct error **ret_error)
{
    const struct member *docker = spool_find(&l->spool, "manifest.json");
    const struct member *index = spool_find(&l->spool, "index.json");
    const struct member *layout = spool_find(&l->spool, "oci-layout");

    /* `docker save` writes both; the first has the whole names. */
    if (docker)
        return docker_read(l, docker, ret_error);
    if (!index || !layout)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "the archive is no image: it has neither 'manifest.json' nor "
                         "'index.json' with 'oci-layout'");
    if (oci_index_read(l, index, NULL, 0, ret_error) < 0)
        return -1;
    if (l->count > 0)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "the archive has no image for '%s'%s%s",
                     IMAGE_PLATFORM, l->platforms ? ", only for " : "", str_or(l->platforms, ""));
}

/* ---- preparing ------------------------------------------------------------------------------ */

static void files_add(struct image *image, const struct member *member)
{
    CLEANUP_FREE char *file = blob_file(member->hex);

    if (!strv_contains((const char *const *)image->files, file))
        strv_push(&image->files, file);
}

static bool files_are_there(const struct loading *l, const struct image *image, uint64_t *ret_size)
{
    struct stat st;
    CLEANUP_FREE char *path = NULL;

    STRV_FOREACH(file, image->files) {
        if (lstat(root_path(l, &path, *file), &st) < 0 || !S_ISREG(st.st_mode))
            return false;
        if (file == image->files)
            *ret_size = (uint64_t)st.st_size;
    }
    return true;
}

static int descriptor_fill(struct descriptor *d, const struct member *member,
                           struct error **ret_error)
{
    uint8_t start[4] = {0};
    int fd = open(member->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, start, sizeof(start)));

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, errno, "read '%s'", member->path);
    d->digest = (char *)(uintptr_t)member->hex;
    d->size = member->size;
    d->coding = layer_coding_of(start, (size_t)n);
    return 0;
}

/* An image without a manifest could not be pushed. */
static int manifest_make(struct image *image, struct error **ret_error)
{
    CLEANUP_FREE struct descriptor *layers = xcalloc(image->layer_count + 1, sizeof(*layers));
    struct oci_manifest manifest = {.layers = layers, .count = image->layer_count};

    if (image->manifest_blob) {
        memcpy(image->manifest_hex, image->manifest_blob->hex, sizeof(image->manifest_hex));
        return 0;
    }
    if (descriptor_fill(&manifest.config, image->config_blob, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < image->layer_count; i++)
        if (descriptor_fill(&layers[i], image->layers[i], ret_error) < 0)
            return -1;
    image->manifest_text = oci_manifest_write(&manifest);
    sha256_text(image->manifest_text, strlen(image->manifest_text), image->manifest_hex);
    return 0;
}

/* The root is prepared before any blob is placed: that proves the layers. */
static int image_prepare(struct loading *l, size_t number, struct error **ret_error)
{
    const struct image_load *load = l->load;
    struct image *image = &l->images[number];
    const char *id = image->config_blob->hex;

    if (manifest_make(image, ret_error) < 0)
        return -1;
    strv_push_take(&image->files, load->prepared(load->arg, id));
    files_add(image, image->config_blob);
    strv_push_take(&image->files, blob_file(image->manifest_hex));
    for (size_t i = 0; i < image->layer_count; i++)
        files_add(image, image->layers[i]);
    image->present = files_are_there(l, image, &image->size);
    if (image->present)
        return 0;
    CLEANUP_FREE struct image_layer *layers = xcalloc(image->layer_count + 1, sizeof(*layers));
    for (size_t i = 0; i < image->layer_count; i++)
        layers[i] = (struct image_layer){image->layers[i]->path, image->config.diff_ids[i]};
    image->fresh = str_printf("%s/root-%zu", load->scratch, number);
    return load->prepare(load->arg, id, layers, image->layer_count, image->fresh, &image->size,
                         ret_error);
}

/* ---- placing -------------------------------------------------------------------------------- */

/* What was prepared before may have gone meanwhile, with the last name of its image. */
static int root_check(const struct loading *l, const struct image *image, struct error **ret_error)
{
    CLEANUP_FREE char *path = NULL;

    if (image->fresh || access(root_path(l, &path, image->files[0]), F_OK) == 0)
        return 0;
    return error_set(ret_error, ERROR_BUSY, 0,
                     "image '%.*s' was removed while it was loaded: load it again", 12,
                     image->config_blob->hex);
}

static int blob_place(struct loading *l, const struct member *member, struct error **ret_error)
{
    CLEANUP_FREE char *file = blob_file(member->hex);

    return place_file(&l->placing, member->path, file, ret_error);
}

static int manifest_place(struct loading *l, struct image *image, struct error **ret_error)
{
    CLEANUP_FREE char *file = blob_file(image->manifest_hex);

    if (image->manifest_blob)
        return blob_place(l, image->manifest_blob, ret_error);
    return place_text(&l->placing, l->load->scratch, image->manifest_text,
                      strlen(image->manifest_text), file, ret_error);
}

static int image_place(struct loading *l, struct image *image, struct error **ret_error)
{
    if (root_check(l, image, ret_error) < 0 || blob_place(l, image->config_blob, ret_error) < 0 ||
        manifest_place(l, image, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < image->layer_count; i++)
        if (blob_place(l, image->layers[i], ret_error) < 0)
            return -1;
    /* The driver has synced it. It may be there when only a blob was missing: the same bytes. */
    return image->fresh ? place_file(&l->placing, image->fresh, image->files[0], ret_error) : 0;
}

static int images_place(struct loading *l, struct error **ret_error)
{
    if (l->load->placing && l->load->placing(l->load->arg, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < l->count; i++)
        if (image_place(l, &l->images[i], ret_error) < 0)
            return -1;
    return place_sync(&l->placing, ret_error);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int image_announce(const struct loading *l, const struct image *image,
                          struct error **ret_error)
{
    CLEANUP_FREE char *id = str_printf("sha256:%s", image->config_blob->hex);
    struct image_found found = {
        .id = id,
        .names = (const char *const *)image->names,
        .config = image->text,
        .size_bytes = image->size,
        .created_ns = image->config.created_ns,
        .files = (const char *const *)image->files,
    };

    return l->load->found(l->load->arg, &found, ret_error);
}

static int loading_run(struct loading *l, struct error **ret_error)
{
    if (spool_read(&l->spool, l->load, ret_error) < 0 || archive_understand(l, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < l->count; i++) {
        CLEANUP_ERROR struct error *error = NULL;
        if (image_prepare(l, i, &error) == 0)
            continue;
        error_wrap(&error, "image '%.*s'", 12, l->images[i].config_blob->hex);
        return error_move(ret_error, &error);
    }
    if (images_place(l, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < l->count; i++)
        if (image_announce(l, &l->images[i], ret_error) < 0)
            return -1;
    return 0;
}

int image_load(const struct image_load *load, struct error **ret_error)
{
    struct loading l = {.load = load, .placing = {.root = load->root}};
    int result = place_dirs(load->root, ret_error);

    if (result == 0)
        result = loading_run(&l, ret_error);

    if (result < 0)
        place_undo(&l.placing);
    for (size_t i = 0; i < l.count; i++)
        image_done(&l.images[i]);
    free(l.images);
    free(l.platforms);
    place_done(&l.placing);
    spool_done(&l.spool);
    return result;
}
