#include "worker/job.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "image/load.h"

enum {
    PROGRESS_MS = 250, /* between two messages about the same thing */
    CHECK_MS = 100,    /* between two looks whether the daemon lives */
    SHORT_ID = 12,
};

/* Of one layer, unpacked, when the request does not say. */
static const uint64_t LAYER_MAX_DEFAULT = 64ULL << 30;

/* ---- telling of progress -------------------------------------------------------------------- */

struct work {
    struct peer *peer;
    uint32_t seq;
    const struct disk_ops *disk;
    uint64_t layer_max_bytes;
    int64_t told_ms, checked_ms;
    const char *status;    /* of the last message */
    char id[SHORT_ID + 1]; /* of the last message */
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Tells of the start and the end of each thing, and now and then in between. */
static int work_progress(void *arg, const char *id, const char *status, uint64_t done,
                         uint64_t total, struct error **ret_error)
{
    struct work *work = arg;
    int64_t now = now_ms();
    char shown[SHORT_ID + 1] = "";

    memcpy(shown, id, strnlen(id, SHORT_ID));
    if (now - work->checked_ms >= CHECK_MS) {
        work->checked_ms = now;
        if (peer_check(work->peer, ret_error) < 0)
            return -1;
    }
    bool same = work->status && strcmp(work->status, status) == 0 && strcmp(work->id, shown) == 0;
    if (same && done < total && now - work->told_ms < PROGRESS_MS)
        return 0;
    work->told_ms = now;
    work->status = status;
    memcpy(work->id, shown, sizeof(shown));
    struct wire_job_progress message = {
        .seq = work->seq, .id = shown, .status = status, .done = done, .total = total};
    return peer_send(work->peer, WIRE_JOB_PROGRESS, &message, ret_error);
}

/* ---- images --------------------------------------------------------------------------------- */

static int work_wait(void *arg, int fd, struct error **ret_error)
{
    struct work *work = arg;

    return peer_wait(work->peer, fd, ret_error);
}

static char *work_prepared(void *arg, const char *id)
{
    struct work *work = arg;

    return work->disk->image_file(id);
}

static int work_prepare(void *arg, const char *id, const struct image_layer *layers, size_t count,
                        const char *path, uint64_t *ret_size, struct error **ret_error)
{
    struct work *work = arg;
    CLEANUP_FREE struct disk_layer *copies = xcalloc(count + 1, sizeof(*copies));
    struct disk_watch watch = {.progress = work_progress, .arg = work};
    struct disk_image image = {
        .id = id,
        .layers = copies,
        .layer_count = count,
        .layer_max_bytes = work->layer_max_bytes,
    };

    for (size_t i = 0; i < count; i++)
        copies[i] = (struct disk_layer){layers[i].path, layers[i].diff_id};
    return work->disk->image_prepare(&image, path, &watch, ret_size, ret_error);
}

static int work_found(void *arg, const struct image_found *image, struct error **ret_error)
{
    struct work *work = arg;
    struct wire_job_image message = {
        .seq = work->seq,
        .id = image->id,
        .names = image->names,
        .config = image->config,
        .size_bytes = image->size_bytes,
        .created_ns = image->created_ns,
        .files = image->files,
    };

    return peer_send(work->peer, WIRE_JOB_IMAGE, &message, ret_error);
}

static int load_in(struct work *work, const char *root, const char *scratch,
                   struct error **ret_error)
{
    struct image_load load = {
        .root = root,
        .scratch = scratch,
        .fd = work->peer->archive,
        .layer_max_bytes = work->layer_max_bytes,
        .arg = work,
        .wait = work_wait,
        .progress = work_progress,
        .prepared = work_prepared,
        .prepare = work_prepare,
        .found = work_found,
    };

    return image_load(&load, ret_error);
}

static int job_load(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_load *job = request;
    CLEANUP_FREE char *scratch = NULL;
    int lock;
    struct work work = {
        .peer = peer,
        .seq = job->seq,
        .disk = &disk_block,
        .layer_max_bytes = job->layer_max_bytes ? job->layer_max_bytes : LAYER_MAX_DEFAULT,
    };

    if (peer->archive < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "no archive came with the request");
    if (disk_scratch(job->root, &scratch, &lock, ret_error) < 0)
        return -1;
    int result = load_in(&work, job->root, scratch, ret_error);
    disk_remove(job->root, scratch, NULL);
    close(lock);
    return result;
}

/* ---- the others ----------------------------------------------------------------------------- */

static int job_layer(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_layer *job = request;

    return disk_block.layer_make(job->root, job->path, job->size_bytes, ret_error);
}

/* Every path is tried; the first failure is told. */
static int job_remove(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_remove *job = request;
    struct error *first = NULL;

    STRV_FOREACH(path, job->paths)
        disk_remove(job->root, *path, first ? NULL : &first);
    return first ? error_move(ret_error, &first) : 0;
}

static int job_sweep(struct peer *peer, const void *request, struct error **ret_error)
{
    const struct wire_job_sweep *job = request;

    return disk_sweep(job->root, job->keep, ret_error);
}

union request {
    uint32_t seq; /* the first field of each */
    struct wire_job_load load;
    struct wire_job_layer layer;
    struct wire_job_remove remove;
    struct wire_job_sweep sweep;
};

static const struct {
    unsigned type;
    int (*run)(struct peer *peer, const void *request, struct error **ret_error);
} jobs[] = {
    {WIRE_JOB_LOAD, job_load},
    {WIRE_JOB_LAYER, job_layer},
    {WIRE_JOB_REMOVE, job_remove},
    {WIRE_JOB_SWEEP, job_sweep},
};

static int job_answer(struct peer *peer, uint32_t seq, const struct error *error,
                      struct error **ret_error)
{
    struct wire_reply reply = wire_reply_from(seq, error);

    return peer_send(peer, WIRE_REPLY, &reply, ret_error);
}

int job_run(struct peer *peer, const struct wire_frame *frame, struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        if (jobs[i].type != frame->type)
            continue;
        CLEANUP_ERROR struct error *error = NULL;
        union request request = {0};
        if (wire_get(frame, &request, ret_error) < 0) {
            wire_clear(frame->type, &request);
            return -1;
        }
        jobs[i].run(peer, &request, &error);
        peer_drop_archive(peer);
        int result = job_answer(peer, request.seq, error, ret_error);
        wire_clear(frame->type, &request);
        return result;
    }
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "message %u is no job for a worker",
                     frame->type);
}
