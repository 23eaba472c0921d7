#include "image/push.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "image/login.h"
#include "image/manifest.h"
#include "image/place.h"
#include "image/reference.h"
#include "image/upload.h"

enum { TICK_MS = 200, FILE_CONFIG = 1, FILE_MANIFEST = 2 };

struct pushing {
    const struct image_push *push;
    struct reference ref;
    struct registry *registry;
    char *text; /* of the manifest */
    size_t size;
    char hex[DIGEST_HEX + 1];
    struct oci_manifest manifest;
    char *source; /* another repository that may have the blobs; NULL: none */
    struct uploads uploads;
};

static int say(struct pushing *p, struct error **ret_error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int say(struct pushing *p, struct error **ret_error, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    CLEANUP_FREE char *text = str_vprintf(format, ap);
    va_end(ap);
    return p->push->progress(p->push->arg, "", text, 0, 0, ret_error);
}

/* ---- the image in the store ----------------------------------------------------------------- */

static int manifest_unfit(struct error **ret_error)
{
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "the image has no manifest in the store: pull or load it again");
}

/* The image's third file, which must name its second. */
static int manifest_read(struct pushing *p, struct error **ret_error)
{
    const char *const *files = p->push->files;

    if (strv_count(files) <= FILE_MANIFEST)
        return manifest_unfit(ret_error);
    CLEANUP_FREE char *path = str_printf("%s/%s", p->push->root, files[FILE_MANIFEST]);
    p->text = xcalloc(1, MANIFEST_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, p->text, MANIFEST_MAX));
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, err, "read '%s'", path);
    p->size = (size_t)n;
    sha256_text(p->text, p->size, p->hex);
    if (oci_manifest_parse(p->text, p->size, &p->manifest, NULL) < 0 ||
        !str_ends(files[FILE_CONFIG], p->manifest.config.digest) ||
        !str_ends(files[FILE_MANIFEST], p->hex))
        return manifest_unfit(ret_error);
    return 0;
}

/* ---- blobs ---------------------------------------------------------------------------------- */

/* Another repository of the same registry that has the blob; owned, NULL if there is none. */
static char *mount_source(const struct pushing *p)
{
    STRV_FOREACH(source, p->push->sources) {
        CLEANUP_REFERENCE struct reference ref = {0};
        if (reference_parse(*source, &ref, NULL) == 0 && strcmp(ref.domain, p->ref.domain) == 0 &&
            strcmp(ref.path, p->ref.path) != 0)
            return take(ref.path);
    }
    return NULL;
}

/* The layers, and the config. */
static int blobs_push(struct pushing *p, struct error **ret_error)
{
    int left;

    for (size_t i = 0; i < p->manifest.count; i++)
        uploads_add(&p->uploads, &p->manifest.layers[i]);
    uploads_add(&p->uploads, &p->manifest.config);
    while ((left = uploads_step(&p->uploads, ret_error)) > 0)
        if (registry_run(p->registry, NULL, 0, TICK_MS, ret_error) < 0 ||
            p->push->check(p->push->arg, ret_error) < 0)
            return -1;
    return left;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int manifest_push(struct pushing *p, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("manifests/%s", p->ref.tag);
    CLEANUP_FREE char *type = document_media_type(p->text, p->size);
    struct registry_request request = {
        .method = "PUT",
        .path = path,
        .type = type,
        .body = p->text,
        .size = p->size,
        .body_max = 1 << 16,
    };
    struct response response;
    int result = registry_call(p->registry, &request, &response, ret_error);

    response_done(&response);
    if (result < 0)
        return -1;
    return say(p, ret_error, "%s: digest: sha256:%s size: %zu", p->ref.tag, p->hex, p->size);
}

static int image_put(struct pushing *p, struct error **ret_error)
{
    p->source = mount_source(p);
    p->uploads = (struct uploads){.registry = p->registry, .push = p->push, .source = p->source};
    if (manifest_read(p, ret_error) < 0 ||
        say(p, ret_error, "The push refers to repository [%s/%s]", p->ref.domain, p->ref.path) <
            0 ||
        blobs_push(p, ret_error) < 0)
        return -1;
    return manifest_push(p, ret_error);
}

int image_push(const struct image_push *push, struct error **ret_error)
{
    struct pushing p = {.push = push};
    struct credentials own = {0};
    const struct credentials *credentials = push->credentials;

    if (reference_parse(push->reference, &p.ref, ret_error) < 0)
        return -1;
    int result = 0;
    if (!p.ref.tag || p.ref.digest)
        result = error_set(ret_error, ERROR_INVALID, 0,
                           "'%s' is not pushed: an image is pushed under a tag", push->reference);
    if (result == 0 && !credentials_are_there(credentials)) {
        result = credentials_load(push->root, p.ref.domain, &own, ret_error);
        credentials = &own;
    }
    if (result == 0) {
        p.registry = registry_new(&push->settings, p.ref.domain, p.ref.path, "pull,push",
                                  credentials, ret_error);
        result = p.registry ? image_put(&p, ret_error) : -1;
    }
    registry_free(p.registry);
    uploads_done(&p.uploads);
    credentials_done(&own);
    oci_manifest_done(&p.manifest);
    reference_done(&p.ref);
    free(p.source);
    free(p.text);
    return result;
}
