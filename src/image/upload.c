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
    HTTP_NO_METHOD = 405,
    HTTP_LENGTH_REQUIRED = 411,
    HTTP_TOO_LARGE = 413,
    HTTP_BAD_RANGE = 416,
    HTTP_NOT_IMPLEMENTED = 501,
    CHUNK_FIRST = 16 << 20,  /* bytes of a piece, if a registry does not take all at once … */
    CHUNK_LEAST = 64 << 10,  /* … and the smallest */
    PUSH_PROGRESS = 1 << 20, /* bytes that make up for what has failed before */
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

/* Who gets on has all tries again. */
static void upload_failed(struct upload *upload, const struct response *response,
                          struct error *error)
{
    file_close(upload);
    upload->state = UPLOAD_WAITS;
    if (upload->offset >= upload->tried_offset + PUSH_PROGRESS) {
        upload->tries = 0;
        upload->tried_offset = upload->offset;
    }
    if (!response->transient || ++upload->tries >= PUSH_TRIES) {
        upload->error = error;
        return;
    }
    error_free(error);
    upload->not_before_ms = now_ms() + ((int64_t)PUSH_BACKOFF_MS << (upload->tries - 1));
    tell(upload, "Retrying", 0, 0, &upload->error);
}

/* ---- sending it ----------------------------------------------------------------------------- */

static void body_send(struct upload *upload);
static void upload_begin(struct upload *upload);

static int location_keep(struct upload *upload, const char *location, struct error **ret_error)
{
    if (str_empty(location) || strlen(location) > REGISTRY_URL_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "blob 'sha256:%s': the registry does not say where to upload it to",
                         upload->blob->digest);
    str_set(&upload->location, location);
    return 0;
}

static int bytes_went(void *arg, uint64_t sent, struct error **ret_error)
{
    struct upload *upload = arg;
    int64_t now = now_ms();

    if (now - upload->told_ms < TELL_MS)
        return 0;
    upload->told_ms = now;
    return tell(upload, "Pushing", upload->offset + sent, upload->blob->size, ret_error);
}

/* Where it went to is of no use any more. */
static void place_forget(struct upload *upload)
{
    free(take(upload->location));
    upload->offset = 0;
}

/* A registry that does not take that much at once: smaller pieces, from the start. */
static bool chunk_shrink(struct upload *upload, long status)
{
    uint64_t least = upload->chunk_min > CHUNK_LEAST ? upload->chunk_min : CHUNK_LEAST;
    uint64_t next = upload->chunk ? upload->chunk / 2 : CHUNK_FIRST;
    bool whole = upload->chunk == 0 && upload->offset == 0;

    if (status != HTTP_TOO_LARGE &&
        !(whole && (status == HTTP_LENGTH_REQUIRED || status == HTTP_NO_METHOD)))
        return false;
    if (upload->chunk && next < least)
        return false;
    upload->chunk = next > least ? next : least;
    upload->chunks_wanted = true;
    place_forget(upload);
    return true;
}

/* In pieces less is lost when the next one is interrupted; a small blob is one piece anyway. */
static void chunks_begin(struct upload *upload)
{
    if (!upload->chunk && upload->blob->size > CHUNK_FIRST)
        upload->chunk = CHUNK_FIRST > upload->chunk_min ? CHUNK_FIRST : upload->chunk_min;
}

/* The place stays, if the registry may still have what it was sent. One that does not know pieces
 * gets all of it again. */
static void body_failed(struct upload *upload, struct response *response, struct error *error)
{
    bool pieces = upload->chunk > 0 || upload->offset > 0;

    if (chunk_shrink(upload, response->status)) {
        error_free(error);
        file_close(upload);
        upload_begin(upload);
        return;
    }
    if (response->status == HTTP_BAD_RANGE) { /* it has got another part than we think */
        response->transient = true;
        chunks_begin(upload);
    } else if (pieces && !upload->chunks_wanted &&
               (!response->transient || response->status == HTTP_NOT_IMPLEMENTED)) {
        response->transient = true;
        upload->chunk = 0;
        place_forget(upload);
    }
    upload_failed(upload, response, error);
}

static void bytes_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;

    if (error)
        body_failed(upload, response, error);
    else
        upload_ended(upload, "Pushed");
}

/* How much the registry says that it has; without that, what was sent. */
static int offset_take(struct upload *upload, const struct response *response, uint64_t otherwise,
                       struct error **ret_error)
{
    uint64_t offset = response->has_range ? response->range_size : otherwise;

    if (offset > upload->blob->size)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "blob 'sha256:%s': the registry has %llu bytes of it, and it has only "
                         "%llu",
                         upload->blob->digest, (unsigned long long)offset,
                         (unsigned long long)upload->blob->size);
    upload->offset = offset;
    return 0;
}

static void chunk_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;
    uint64_t before = upload->offset, left = upload->blob->size - before;
    uint64_t sent = upload->chunk && upload->chunk < left ? upload->chunk : left;

    if (error) {
        body_failed(upload, response, error);
        return;
    }
    if ((response->location && location_keep(upload, response->location, &upload->error) < 0) ||
        offset_take(upload, response, before + sent, &upload->error) < 0)
        return;
    if (upload->offset > before)
        body_send(upload);
    else
        error_set(&upload->error, ERROR_CORRUPT, 0,
                  "blob 'sha256:%s': the registry takes a part of it, and has it not",
                  upload->blob->digest);
}

static int file_open(struct upload *upload, struct error **ret_error)
{
    CLEANUP_FREE char *path =
        str_printf("%s/blobs/sha256/%s", upload->all->push->root, upload->blob->digest);
    struct stat st;

    if (upload->fd < 0)
        upload->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (upload->fd >= 0 && fstat(upload->fd, &st) == 0 &&
        (uint64_t)st.st_size == upload->blob->size)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "blob 'sha256:%s' is missing or damaged in the store: remove the image and "
                     "pull or load it again",
                     upload->blob->digest);
}

/* All of it, or the next piece; the last request has the digest, and none of it if there were
 * pieces. */
static void body_send(struct upload *upload)
{
    uint64_t left = upload->blob->size - upload->offset;
    bool piece = left > 0 && (upload->offset > 0 || upload->chunk > 0);
    CLEANUP_FREE char *last =
        str_printf("%s%cdigest=sha256:%s", upload->location,
                   strchr(upload->location, '?') ? '&' : '?', upload->blob->digest);

    if (file_open(upload, &upload->error) < 0)
        return;
    struct registry_request request = {
        .method = piece ? "PATCH" : "PUT",
        .path = piece ? upload->location : last,
        .type = "application/octet-stream",
        .size = piece && upload->chunk && upload->chunk < left ? upload->chunk : left,
        .fd = upload->fd,
        .offset = upload->offset,
        .chunk = piece,
        .body_max = ANSWER_MAX,
        .sent = bytes_went,
        .sent_arg = upload,
        .done = piece ? chunk_ended : bytes_ended,
        .arg = upload,
    };
    registry_send(upload->all->registry, &request);
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
    upload->offset = 0;
    upload->chunk_min = response->chunk_min;
    if (upload->chunk && upload->chunk < upload->chunk_min)
        upload->chunk = upload->chunk_min;
    if (location_keep(upload, response->location, &upload->error) == 0)
        body_send(upload);
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

/* A registry that has forgotten what came, as some do after a body that was not whole, gets it in
 * another upload. */
static void rest_ended(void *arg, struct response *response, struct error *error)
{
    struct upload *upload = arg;

    if (error && response->transient) {
        upload_failed(upload, response, error);
        return;
    }
    if (error || !response->has_range) {
        error_free(error);
        place_forget(upload);
        chunks_begin(upload);
        upload_begin(upload);
        return;
    }
    if ((!response->location || location_keep(upload, response->location, &upload->error) == 0) &&
        offset_take(upload, response, 0, &upload->error) == 0)
        body_send(upload);
}

/* Looks whether it is there; or, if a part of it may be, how much that is. */
static void upload_begin(struct upload *upload)
{
    CLEANUP_FREE char *path = str_printf("blobs/sha256:%s", upload->blob->digest);
    bool begun = upload->location != NULL;
    struct registry_request request = {.method = begun ? "GET" : "HEAD",
                                       .path = begun ? upload->location : path,
                                       .body_max = ANSWER_MAX,
                                       .done = begun ? rest_ended : look_ended,
                                       .arg = upload};

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
        free(all->items[i].location);
    }
    free(all->items);
    *all = (struct uploads){0};
}
