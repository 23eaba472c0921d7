/* husk-transfer: the jobs that speak with registries. It is a program of its own, since libcurl
 * brings in some 25 libraries, which the other jobs should not have to wait for.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "image/login.h"
#include "image/pull.h"
#include "image/push.h"
#include "worker/background.h"
#include "worker/job.h"
#include "worker/storage.h"
#include "worker/tell.h"

enum { STALL_DEFAULT_MS = 30000 };

struct work {
    struct peer *peer;
    uint32_t seq;
    struct disk disk;
    uint64_t layer_max_bytes;
    struct background background;
};

static int work_check(void *arg, struct error **ret_error)
{
    const struct work *work = arg;

    return peer_check(work->peer, ret_error);
}

static int work_progress(void *arg, const char *id, const char *status, uint64_t done,
                         uint64_t total, struct error **ret_error)
{
    struct work *work = arg;
    struct wire_job_progress message = {
        .seq = work->seq, .id = id, .status = status, .done = done, .total = total};

    return peer_send(work->peer, WIRE_JOB_PROGRESS, &message, ret_error);
}

static char *work_prepared(void *arg, const char *id)
{
    const struct work *work = arg;

    return disk_image_file(&work->disk, id);
}

static int work_prepare_begin(void *arg, const char *id, const struct image_layer *layers,
                              size_t count, const char *path, int *ret_fd, struct error **ret_error)
{
    struct work *work = arg;

    return background_begin(&work->background, &work->disk, id, layers, count,
                            work->layer_max_bytes, path, ret_fd, ret_error);
}

static void work_prepare_feed(void *arg, size_t layer, uint64_t bytes, bool whole)
{
    struct work *work = arg;

    background_feed(&work->background, layer, bytes, whole);
}

static int work_prepare_attend(void *arg, struct image_prepare_news *ret, struct error **ret_error)
{
    struct work *work = arg;

    return background_attend(&work->background, ret, ret_error);
}

static void work_prepare_end(void *arg)
{
    struct work *work = arg;

    background_end(&work->background);
}

static int work_placing(void *arg, struct error **ret_error)
{
    const struct work *work = arg;

    return tell_placing(work->peer, work->seq, ret_error);
}

static int work_found(void *arg, const struct image_found *image, struct error **ret_error)
{
    struct work *work = arg;

    return tell_image(work->peer, work->seq, image, ret_error);
}

static int pull_in(struct work *work, const struct wire_job_pull *job, const char *scratch,
                   const struct credentials *credentials, struct error **ret_error)
{
    struct image_pull pull = {
        .root = job->root,
        .scratch = scratch,
        .reference = job->reference,
        .settings = {.certs = job->certs,
                     .insecure = job->insecure,
                     .mirrors = job->mirrors,
                     .stall_ms = job->stall_ms ? job->stall_ms : STALL_DEFAULT_MS},
        .credentials = credentials,
        .layer_max_bytes = work->layer_max_bytes,
        .arg = work,
        .check = work_check,
        .progress = work_progress,
        .prepared = work_prepared,
        .prepare_begin = work_prepare_begin,
        .prepare_feed = work_prepare_feed,
        .prepare_attend = work_prepare_attend,
        .prepare_end = work_prepare_end,
        .placing = work_placing,
        .found = work_found,
    };

    return image_pull(&pull, ret_error);
}

static int job_pull(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_pull *job = request;
    CLEANUP_FREE char *scratch = NULL;
    struct credentials credentials;
    int lock;
    struct work work = {
        .peer = peer,
        .seq = job->seq,
        .layer_max_bytes = job->layer_max_bytes ? job->layer_max_bytes : LAYER_MAX_DEFAULT,
    };

    if (credentials_parse(job->credentials, &credentials, ret_error) < 0)
        return -1;
    int result = storage_open(job->root, &work.disk, ret_error);
    if (result == 0)
        result = disk_scratch(job->root, &scratch, &lock, ret_error);
    if (result == 0) {
        result = pull_in(&work, job, scratch, &credentials, ret_error);
        disk_remove(job->root, scratch, NULL);
        if (result < 0)
            work.disk.ops->collect(&work.disk, NULL); /* what was made before it failed */
        close(lock);
    }
    credentials_done(&credentials);
    return result;
}

static struct registry_settings settings_of(const char *certs, const char *const *insecure,
                                            uint32_t stall_ms)
{
    return (struct registry_settings){
        .certs = certs, .insecure = insecure, .stall_ms = stall_ms ? stall_ms : STALL_DEFAULT_MS};
}

static int job_push(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_push *job = request;
    struct work work = {.peer = peer, .seq = job->seq};
    struct credentials credentials;

    if (credentials_parse(job->credentials, &credentials, ret_error) < 0)
        return -1;
    struct image_push push = {
        .root = job->root,
        .reference = job->reference,
        .files = job->files,
        .sources = job->sources,
        .settings = settings_of(job->certs, job->insecure, job->stall_ms),
        .credentials = &credentials,
        .arg = &work,
        .check = work_check,
        .progress = work_progress,
    };
    int result = image_push(&push, ret_error);
    credentials_done(&credentials);
    return result;
}

static int job_login(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_login *job = request;
    struct registry_settings settings = settings_of(job->certs, job->insecure, job->stall_ms);
    struct credentials credentials;

    if (credentials_parse(job->credentials, &credentials, ret_error) < 0)
        return -1;
    int result = registry_login(&settings, job->registry, &credentials, ret_error);
    if (result == 0 && job->keep)
        result = credentials_store(job->root, job->registry, &credentials, ret_error);
    credentials_done(&credentials);
    return result;
}

static int job_logout(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_logout *job = request;

    return credentials_store(job->root, job->registry, NULL, ret_error);
}

union request {
    uint32_t seq; /* the first field of each */
    struct wire_job_pull pull;
    struct wire_job_push push;
    struct wire_job_login login;
    struct wire_job_logout logout;
};

static const struct {
    unsigned type;
    int (*run)(struct peer *peer, const void *request, struct error **ret_error);
} jobs[] = {
    {WIRE_JOB_PULL, job_pull},
    {WIRE_JOB_PUSH, job_push},
    {WIRE_JOB_LOGIN, job_login},
    {WIRE_JOB_LOGOUT, job_logout},
};

static int job_do(struct peer *peer, size_t number, const struct wire_frame *frame,
                  struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    union request request = {0};
    int result = wire_get(frame, &request, ret_error);

    if (result == 0) {
        jobs[number].run(peer, &request, &error);
        struct wire_reply reply = wire_reply_from(request.seq, error);
        result = peer_send(peer, WIRE_REPLY, &reply, ret_error);
    }
    wire_clear(frame->type, &request);
    return result;
}

/* The request is copied: it is needed beyond the next frame, and may hold a secret. */
int job_run(struct peer *peer, const struct wire_frame *frame, struct error **ret_error)
{
    if (frame->type == WIRE_STORAGE)
        return storage_take(frame, ret_error);
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        if (jobs[i].type != frame->type)
            continue;
        struct wire_frame copy = *frame;
        uint8_t *payload = xmemdup(frame->payload, frame->length);
        explicit_bzero((uint8_t *)(uintptr_t)frame->payload, frame->length);
        copy.payload = payload;
        int result = job_do(peer, i, &copy, ret_error);
        explicit_bzero(payload, frame->length);
        free(payload);
        return result;
    }
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "message %u is no job for this worker",
                     frame->type);
}
