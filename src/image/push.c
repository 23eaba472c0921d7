#include "image/push.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "image/login.h"
#include "image/manifest.h"
#include "image/place.h"
#include "image/reference.h"

enum { SHORT_ID = 12, TELL_MS = 250, FILE_CONFIG = 1, FILE_MANIFEST = 2 };

struct pushing {
    const struct image_push *push;
    struct reference ref;
    struct registry *registry;
    char *text; /* of the manifest */
    size_t size;
    char hex[DIGEST_HEX + 1];
    struct oci_manifest manifest;
    /* the blob at work */
    const struct descriptor *blob;
    int64_t told_ms;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int tell(struct pushing *p, const char *status, uint64_t done, uint64_t total,
                struct error **ret_error)
{
    char id[SHORT_ID + 1];

    snprintf(id, sizeof(id), "%.*s", SHORT_ID, p->blob->digest);
    return p->push->progress(p->push->arg, id, status, done, total, ret_error);
}

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

static int blob_is_known(struct pushing *p, bool *ret, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("blobs/sha256:%s", p->blob->digest);
    struct registry_request request = {.method = "HEAD", .path = path};
    CLEANUP_ERROR struct error *error = NULL;
    struct response response;

    *ret = registry_call(p->registry, &request, &response, &error) == 0;
    response_done(&response);
    if (*ret || error->kind == ERROR_NOT_FOUND)
        return 0;
    return error_move(ret_error, &error);
}

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

/* Asks for an upload, or for the blob of another repository. *ret_location NULL: it is there. */
static int upload_begin(struct pushing *p, const char *source, char **ret_location,
                        struct error **ret_error)
{
    enum { CREATED = 201 };
    CLEANUP_FREE char *path =
        source ? str_printf("blobs/uploads/?mount=sha256:%s&from=%s", p->blob->digest, source)
               : xstrdup("blobs/uploads/");
    struct registry_request request = {
        .method = "POST", .path = path, .body = "", .body_max = 1 << 16};
    struct response response;
    int result = registry_call(p->registry, &request, &response, ret_error);

    *ret_location = NULL;
    if (result == 0 && !(source && response.status == CREATED)) {
        *ret_location = take(response.location);
        if (str_empty(*ret_location) || strlen(*ret_location) > REGISTRY_URL_MAX)
            result = error_set(ret_error, ERROR_CORRUPT, 0,
                               "registry '%s' does not say where to upload to", p->ref.domain);
    }
    response_done(&response);
    return result;
}

static int bytes_went(void *arg, uint64_t sent, struct error **ret_error)
{
    struct pushing *p = arg;
    int64_t now = now_ms();

    if (now - p->told_ms < TELL_MS)
        return 0;
    p->told_ms = now;
    return tell(p, "Pushing", sent, p->blob->size, ret_error);
}

static int upload_send(struct pushing *p, const char *location, int fd, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s%cdigest=sha256:%s", location,
                                         strchr(location, '?') ? '&' : '?', p->blob->digest);
    struct registry_request request = {
        .method = "PUT",
        .path = path,
        .type = "application/octet-stream",
        .size = p->blob->size,
        .fd = fd,
        .body_max = 1 << 16,
        .sent = bytes_went,
        .sent_arg = p,
    };
    struct response response;
    int result = registry_call(p->registry, &request, &response, ret_error);

    response_done(&response);
    return result;
}

static int blob_upload(struct pushing *p, const char *source, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/blobs/sha256/%s", p->push->root, p->blob->digest);
    CLEANUP_FREE char *location = NULL;

    if (upload_begin(p, source, &location, ret_error) < 0)
        return -1;
    if (!location) {
        CLEANUP_FREE char *status = str_printf("Mounted from %s", source);
        return tell(p, status, 0, 0, ret_error);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size != p->blob->size) {
        if (fd >= 0)
            close(fd);
        return error_set(
            ret_error, ERROR_CORRUPT, 0,
            "blob 'sha256:%s' is missing or damaged in the store: remove the image and "
            "pull or load it again",
            p->blob->digest);
    }
    int result = upload_send(p, location, fd, ret_error);
    close(fd);
    return result < 0 ? -1 : tell(p, "Pushed", 0, 0, ret_error);
}

static bool is_transient(const struct error *error)
{
    return error->kind == ERROR_UNAVAILABLE || error->kind == ERROR_TIMEOUT;
}

static int blob_push(struct pushing *p, const struct descriptor *blob, const char *source,
                     struct error **ret_error)
{
    bool known;

    p->blob = blob;
    if (blob_is_known(p, &known, ret_error) < 0)
        return -1;
    if (known)
        return tell(p, "Layer already exists", 0, 0, ret_error);
    for (int tries = 1;; tries++) {
        CLEANUP_ERROR struct error *error = NULL;
        if (blob_upload(p, source, &error) == 0)
            return 0;
        if (tries == PUSH_TRIES || !is_transient(error))
            return error_move(ret_error, &error);
        if (tell(p, "Retrying", 0, 0, ret_error) < 0)
            return -1;
    }
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
    CLEANUP_FREE char *source = mount_source(p);

    if (manifest_read(p, ret_error) < 0 ||
        say(p, ret_error, "The push refers to repository [%s/%s]", p->ref.domain, p->ref.path) < 0)
        return -1;
    for (size_t i = 0; i < p->manifest.count; i++)
        if (blob_push(p, &p->manifest.layers[i], source, ret_error) < 0)
            return -1;
    if (blob_push(p, &p->manifest.config, source, ret_error) < 0)
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
    credentials_done(&own);
    oci_manifest_done(&p.manifest);
    reference_done(&p.ref);
    free(p.text);
    return result;
}
