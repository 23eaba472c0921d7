#include "image/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

enum {
    UPLOADS_MAX = MANIFEST_LAYERS_MAX + 1,
    SHORT_ID = 12,
    TELL_MS = 250,        /* between two messages about the same blob */
    ANSWER_MAX = 1 << 16, /* bytes that nobody reads */
    HTTP_CREATED = 201,
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void uploads_add(struct uploads *all, const struct descriptor *blob)
{
    if (!all->items)
        all->items = xcalloc(UPLOADS_MAX, sizeof(*all->items));
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].blob->digest, blob->digest) == 0)
            return;
    all->items[all->count++] = (struct upload){.all = all, .blob = blob, .fd = -1};
}

static int tell(const struct upload *upload, const char *status, uint64_t done, uint64_t total,
                struct error **ret_error)
{
    const struct image_push *push = upload->all->push;
    char id[SHORT_ID + 1];

    snprintf(id, sizeof(id), "%.*s", SHORT_ID, upload->blob->digest);
    return push->progress(push->arg, id, status, done, total, ret_error);
}

static void file_close(struct upload *upload)
{
    if (upload->fd >= 0)
        close(upload->fd);
    upload->fd = -1;
}

/* ---- the end of a request ------------------------------------------------------------------- */

/* It is there, and this is how. */
static void upload_ended(struct upload *upload, const char *status)
{
    file_close(upload);
    upload->state = UPLOAD_DONE;
    tell(upload, status, 0, 0, &upload->error);
}

static void upload_failed(struct upload *upload, const struct response *response,
                          struct error *error)
{
    file_close(upload);
    upload->state = UPLOAD_WAITS;
    if (!response->transient || ++upload->tries >= PUSH_TRIES) {
        upload->error = error;
        return;
    }
    error_free(error);
    upload->not_before_ms = now_ms() + ((int64_t)PUSH_BACKOFF_MS << (upload->tries - 1));
    tell(upload, "Retrying", 0, 0, &upload->error);
}

/* ---- sending it ----------------------------------------------------------------------------- */

static int bytes_went(void *arg, uint64_t sent, struct error **ret_error)
{
    struct upload *upload = arg;
    int64_t now = now_ms();

    if (now - upload->told_ms < TELL_MS)
        return 0;
    upload->told_ms = now;
    return tell(upload, "Pushing", sent, upload->blob->size, ret_error);
}

static void bytes_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;

    if (error)
        upload_failed(upload, response, error);
    else
        upload_ended(upload, "Pushed");
}

static int file_open(struct upload *upload, struct error **ret_error)
{
    CLEANUP_FREE char *path =
        str_printf("%s/blobs/sha256/%s", upload->all->push->root, upload->blob->digest);
    struct stat st;

    upload->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (upload->fd >= 0 && fstat(upload->fd, &st) == 0 &&
        (uint64_t)st.st_size == upload->blob->size)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "blob 'sha256:%s' is missing or damaged in the store: remove the image and "
                     "pull or load it again",
                     upload->blob->digest);
}

static int bytes_send(struct upload *upload, const char *location, struct error **ret_error)
{
    if (str_empty(location) || strlen(location) > REGISTRY_URL_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "blob 'sha256:%s': the registry does not say where to upload it to",
                         upload->blob->digest);
    if (file_open(upload, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *path = str_printf("%s%cdigest=sha256:%s", location,
                                         strchr(location, '?') ? '&' : '?', upload->blob->digest);
    struct registry_request request = {
        .method = "PUT",
        .path = path,
        .type = "application/octet-stream",
        .size = upload->blob->size,
        .fd = upload->fd,
        .body_max = ANSWER_MAX,
        .sent = bytes_went,
        .sent_arg = upload,
        .done = bytes_ended,
        .arg = upload,
    };
    registry_send(upload->all->registry, &request);
    return 0;
}

/* ---- beginning ------------------------------------------------------------------------------ */

static void place_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;
    const char *source = upload->all->source;

    if (error) {
        upload_failed(upload, response, error);
        return;
    }
    if (source && response->status == HTTP_CREATED) {
        CLEANUP_FREE char *status = str_printf("Mounted from %s", source);
        upload_ended(upload, status);
        return;
    }
    bytes_send(upload, response->location, &upload->error);
}

/* Asks for a place to upload to, or for the blob of another repository. */
static void place_ask(struct upload *upload)
{
    const char *source = upload->all->source;
    CLEANUP_FREE char *path =
        source ? str_printf("blobs/uploads/?mount=sha256:%s&from=%s", upload->blob->digest, source)
               : xstrdup("blobs/uploads/");
    struct registry_request request = {.method = "POST",
                                       .path = path,
                                       .body = "",
                                       .body_max = ANSWER_MAX,
                                       .done = place_ended,
                                       .arg = upload};

    registry_send(upload->all->registry, &request);
}

static void look_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;

    upload->all->answered = true;
    if (!error) {
        upload_ended(upload, "Layer already exists");
    } else if (error->kind == ERROR_NOT_FOUND) {
        error_free(error);
        place_ask(upload);
    } else {
        upload_failed(upload, response, error);
    }
}

static void upload_begin(struct upload *upload)
{
    CLEANUP_FREE char *path = str_printf("blobs/sha256:%s", upload->blob->digest);
    struct registry_request request = {
        .method = "HEAD", .path = path, .done = look_ended, .arg = upload};

    upload->state = UPLOAD_RUNS;
    registry_send(upload->all->registry, &request);
}

int uploads_step(struct uploads *all, struct error **ret_error)
{
    int64_t now = now_ms();
    int limit = all->answered ? PUSH_PARALLEL : 1, running = 0, left = 0;

    for (size_t i = 0; i < all->count; i++) {
        if (all->items[i].error)
            return error_move(ret_error, &all->items[i].error);
        running += all->items[i].state == UPLOAD_RUNS;
        left += all->items[i].state != UPLOAD_DONE;
    }
    for (size_t i = 0; i < all->count && running < limit; i++) {
        struct upload *upload = &all->items[i];
        if (upload->state != UPLOAD_WAITS || now < upload->not_before_ms)
            continue;
        upload_begin(upload);
        running++;
    }
    return left;
}

void uploads_done(struct uploads *all)
{
    for (size_t i = 0; i < all->count; i++) {
        file_close(&all->items[i]);
        error_free(all->items[i].error);
    }
    free(all->items);
    *all = (struct uploads){0};
}
