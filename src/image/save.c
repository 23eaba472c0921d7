#include "image/save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/str.h"
#include "image/manifest.h"
#include "image/place.h"
#include "image/reference.h"

enum {
    BLOCK = 512,
    COPY_SIZE = 256 << 10,
    SIZE_OCTAL_MAX = 8, /* GiB that eleven octal digits can say */
    FILE_CONFIG = 1,
    FILE_MANIFEST = 2,
};

struct saving {
    const struct image_save *save;
    char **blobs; /* "blobs/sha256/HEX", each once, in the order in which they go out */
    json_t *index, *docker;
};

/* One image of the items. */
struct saved {
    char **names, **files;
};

/* ---- tar ------------------------------------------------------------------------------------ */

static int all_write(int fd, const void *data, size_t size, struct error **ret_error)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(write(fd, at, size));
        if (n < 0)
            return error_set(ret_error, ERROR_CANCELLED, errno, "nobody takes the archive");
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

/* POSIX ustar; a size that does not fit is in base 256, as GNU tar has it. */
static void header_make(char h[BLOCK], const char *name, uint64_t size)
{
    unsigned sum = 0;

    memset(h, 0, BLOCK);
    snprintf(h, 100, "%s", name);
    memcpy(h + 100, "0000644", 8);
    memcpy(h + 108, "0000000", 8);
    memcpy(h + 116, "0000000", 8);
    if (size >> 30 < SIZE_OCTAL_MAX) {
        snprintf(h + 124, 12, "%011llo", (unsigned long long)size);
    } else {
        h[124] = (char)0x80;
        for (int i = 0; i < 8; i++)
            h[135 - i] = (char)(size >> (8 * i));
    }
    memcpy(h + 136, "00000000000", 12);
    h[156] = '0';
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    memset(h + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += (uint8_t)h[i];
    snprintf(h + 148, 8, "%06o", sum);
}

static int padding_write(int fd, uint64_t size, struct error **ret_error)
{
    static const char zeros[BLOCK];
    size_t rest = (size_t)(size % BLOCK);

    return rest ? all_write(fd, zeros, BLOCK - rest, ret_error) : 0;
}

static int text_write(const struct saving *s, const char *name, const json_t *json,
                      struct error **ret_error)
{
    CLEANUP_FREE char *text = json_dumps(json, JSON_COMPACT);
    char header[BLOCK];
    size_t size = strlen(text);

    header_make(header, name, size);
    if (all_write(s->save->fd, header, BLOCK, ret_error) < 0 ||
        all_write(s->save->fd, text, size, ret_error) < 0)
        return -1;
    return padding_write(s->save->fd, size, ret_error);
}

static int bytes_copy(int from, int to, const char *name, uint64_t size, struct error **ret_error)
{
    CLEANUP_FREE uint8_t *buffer = xmalloc(COPY_SIZE);
    uint64_t left = size;

    while (left > 0) {
        size_t want = left < COPY_SIZE ? (size_t)left : COPY_SIZE;
        ssize_t n = TEMP_FAILURE_RETRY(read(from, buffer, want));
        if (n <= 0)
            return error_set(ret_error, ERROR_IO, n < 0 ? errno : EIO, "read '%s'", name);
        if (all_write(to, buffer, (size_t)n, ret_error) < 0)
            return -1;
        left -= (uint64_t)n;
    }
    return padding_write(to, size, ret_error);
}

static int blob_write(const struct saving *s, const char *name, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", s->save->root, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char header[BLOCK];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return error_set(ret_error, ERROR_IO, err, "read '%s'", name);
    }
    header_make(header, name, (uint64_t)st.st_size);
    int result = all_write(s->save->fd, header, BLOCK, ret_error);
    if (result == 0)
        result = bytes_copy(fd, s->save->fd, name, (uint64_t)st.st_size, ret_error);
    close(fd);
    return result;
}

/* ---- what goes in --------------------------------------------------------------------------- */

static int blob_add(struct saving *s, const char *hex, struct error **ret_error)
{
    CLEANUP_FREE char *file = blob_file(hex);
    CLEANUP_FREE char *path = str_printf("%s/%s", s->save->root, file);

    if (access(path, R_OK) < 0)
        return error_set(ret_error, ERROR_CORRUPT, errno, "blob 'sha256:%s'", hex);
    if (!strv_contains((const char *const *)s->blobs, file))
        strv_push(&s->blobs, file);
    return 0;
}

static char *manifest_text(const struct saving *s, const struct saved *image, size_t *ret_size,
                           struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", s->save->root, image->files[FILE_MANIFEST]);
    CLEANUP_FREE char *text = xcalloc(1, MANIFEST_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, MANIFEST_MAX));

    if (fd >= 0)
        close(fd);
    if (n < 0) {
        error_set(ret_error, ERROR_IO, errno, "read '%s'", path);
        return NULL;
    }
    *ret_size = (size_t)n;
    return take(text);
}

static void index_add(struct saving *s, const char *type, const char *hex, size_t size,
                      const char *name)
{
    CLEANUP_FREE char *digest = str_printf("sha256:%s", hex);
    CLEANUP_REFERENCE struct reference ref = {0};
    json_t *item =
        json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest, "size", (json_int_t)size);

    if (name && reference_parse(name, &ref, NULL) == 0)
        json_object_set_new(item, "annotations",
                            json_pack("{s:s, s:s}", "io.containerd.image.name", name,
                                      "org.opencontainers.image.ref.name", str_or(ref.tag, name)));
    json_array_append_new(s->index, item);
}

static int image_add(struct saving *s, const struct saved *image, struct error **ret_error)
{
    char hex[DIGEST_HEX + 1];
    struct oci_manifest manifest = {0};
    size_t size = 0;

    if (strv_count((const char *const *)image->files) <= FILE_MANIFEST)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it has no manifest in the store");
    CLEANUP_FREE char *text = manifest_text(s, image, &size, ret_error);
    if (!text || oci_manifest_parse(text, size, &manifest, ret_error) < 0)
        return -1;
    sha256_text(text, size, hex);
    CLEANUP_FREE char *type = document_media_type(text, size);
    json_t *layers = json_array(), *tags = json_array();
    int result = blob_add(s, hex, ret_error);
    if (result == 0)
        result = blob_add(s, manifest.config.digest, ret_error);
    for (size_t i = 0; result == 0 && i < manifest.count; i++) {
        CLEANUP_FREE char *file = blob_file(manifest.layers[i].digest);
        json_array_append_new(layers, json_string(file));
        result = blob_add(s, manifest.layers[i].digest, ret_error);
    }
    STRV_FOREACH(name, image->names) {
        CLEANUP_FREE char *familiar = reference_shorten(*name);
        json_array_append_new(tags, json_string(familiar));
        index_add(s, type, hex, size, *name);
    }
    if (!image->names)
        index_add(s, type, hex, size, NULL);
    CLEANUP_FREE char *config = blob_file(manifest.config.digest);
    json_array_append_new(s->docker, json_pack("{s:s, s:o, s:o}", "Config", config, "RepoTags",
                                               tags, "Layers", layers));
    oci_manifest_done(&manifest);
    return result;
}

/* The items, image by image. */
static int items_read(struct saving *s, struct error **ret_error)
{
    const char *const *item = s->save->items;

    while (item && *item) {
        CLEANUP_ERROR struct error *error = NULL;
        struct saved image = {0};
        const char *id = *item + strcspn(*item, ":");
        for (item++; *item && !str_starts(*item, "image:"); item++)
            strv_push(str_starts(*item, "name:") ? &image.names : &image.files, *item + 5);
        int result = image_add(s, &image, &error);
        strv_free(image.names);
        strv_free(image.files);
        if (result == 0)
            continue;
        error_wrap(&error, "image '%.20s'", id + (*id == ':'));
        return error_move(ret_error, &error);
    }
    return 0;
}

static int archive_write(const struct saving *s, struct error **ret_error)
{
    static const char end[2 * BLOCK];
    json_t *layout = json_pack("{s:s}", "imageLayoutVersion", "1.0.0");
    json_t *index = json_pack("{s:i, s:s, s:O}", "schemaVersion", 2, "mediaType",
                              "application/vnd.oci.image.index.v1+json", "manifests", s->index);
    int result = text_write(s, "oci-layout", layout, ret_error);

    if (result == 0)
        result = text_write(s, "index.json", index, ret_error);
    if (result == 0 && s->save->docker)
        result = text_write(s, "manifest.json", s->docker, ret_error);
    json_decref(layout);
    json_decref(index);
    for (char *const *blob = s->blobs; result == 0 && blob && *blob; blob++)
        result = blob_write(s, *blob, ret_error);
    return result < 0 ? -1 : all_write(s->save->fd, end, sizeof(end), ret_error);
}

int image_save(const struct image_save *save, struct error **ret_error)
{
    struct saving s = {.save = save, .index = json_array(), .docker = json_array()};
    int result = items_read(&s, ret_error);

    if (result == 0)
        result = archive_write(&s, ret_error);
    json_decref(s.index);
    json_decref(s.docker);
    strv_free(s.blobs);
    return result;
}
