#include "worker/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "image/load.h"
#include "image/save.h"
#include "worker/check.h"
#include "worker/commit.h"
#include "worker/storage.h"
#include "worker/tell.h"
#include "worker/template.h"
#include "worker/usage.h"
#include "worker/work.h"

enum {
    REHEARSAL_LAYER_SIZE = 64 << 20,
    CACHE_MODE = 0711,
    SCRATCH_MODE = 0700,
};

/* ---- images --------------------------------------------------------------------------------- */

static int work_wait(void *arg, int fd, struct error **ret_error)
{
    struct work *work = arg;

    return peer_wait(work->peer, fd, ret_error);
}

static int load_in(struct work *work, const char *root, const char *scratch, int archive,
                   int (*found)(void *arg, const struct image_found *image,
                                struct error **ret_error),
                   struct error **ret_error)
{
    struct image_load load = {
        .root = root,
        .scratch = scratch,
        .fd = archive,
        .layer_max_bytes = work->layer_max_bytes,
        .arg = work,
        .wait = work_wait,
        .progress = work_progress,
        .prepared = work_prepared,
        .prepare = work_prepare,
        .placing = found == work_found ? work_placing : NULL, /* a store that is its own */
        .found = found,
    };

    return image_load(&load, ret_error);
}

static int job_load(struct peer *peer, const void *request, uint64_t *ret_value,
                    struct error **ret_error)
{
    const struct wire_job_load *job = request;
    CLEANUP_FREE char *scratch = NULL;
    int lock;
    struct work work = {
        .peer = peer,
        .seq = job->seq,
        .layer_max_bytes = job->layer_max_bytes ? job->layer_max_bytes : LAYER_MAX_DEFAULT,
    };

    if (peer->sent < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "no archive came with the request");
    if (storage_open(job->root, &work.disk, ret_error) < 0 ||
        disk_scratch(job->root, &scratch, &lock, ret_error) < 0)
        return -1;
    int result = load_in(&work, job->root, scratch, peer->sent, work_found, ret_error);
    disk_remove(job->root, scratch, NULL);
    if (result < 0)
        work.disk.ops->collect(&work.disk, NULL); /* what was made before it failed */
    close(lock);
    return result;
}

/* ---- the others ----------------------------------------------------------------------------- */

static int job_layer(struct peer *peer, const void *request, uint64_t *ret_value,
                     struct error **ret_error)
{
    const struct wire_job_layer *job = request;

    const struct disk_layer_spec layer = {job->path, job->image, job->size_bytes, job->like};
    struct disk disk;

    if (storage_open(job->root, &disk, ret_error) < 0)
        return -1;
    return disk.ops->layer_make(&disk, &layer, ret_error);
}

static int job_attach(struct peer *peer, const void *request, uint64_t *ret_value,
                      struct error **ret_error)
{
    const struct wire_job_attach *job = request;
    struct disk_root root = {0};
    struct disk disk;

    if (storage_open(job->root, &disk, ret_error) < 0 ||
        disk.ops->attach(&disk, job->image, job->layer, &root, ret_error) < 0)
        return -1;
    struct wire_job_root message = {
        .seq = job->seq, .image_path = root.image, .layer_path = root.layer, .layer_top = root.top};
    int result = peer_send(peer, WIRE_JOB_ROOT, &message, ret_error);
    disk_root_done(&root);
    return result;
}

/* Every layer is tried; the first failure is told. */
static int job_detach(struct peer *peer, const void *request, uint64_t *ret_value,
                      struct error **ret_error)
{
    const struct wire_job_detach *job = request;
    struct error *first = NULL;
    struct disk disk;

    if (storage_open(job->root, &disk, ret_error) < 0)
        return -1;
    STRV_FOREACH(layer, job->layers)
        disk.ops->detach(&disk, *layer, first ? NULL : &first);
    return first ? error_move(ret_error, &first) : 0;
}

/* Every path is tried; the first failure is told. */
static int job_remove(struct peer *peer, const void *request, uint64_t *ret_value,
                      struct error **ret_error)
{
    const struct wire_job_remove *job = request;
    struct error *first = NULL;
    struct disk disk;

    STRV_FOREACH(path, job->paths)
        (job->later ? disk_discard : disk_remove)(job->root, *path, first ? NULL : &first);
    if (!job->later && storage_open(job->root, &disk, NULL) == 0)
        disk.ops->collect(&disk, first ? NULL : &first);
    return first ? error_move(ret_error, &first) : 0;
}

static int job_spares(struct peer *peer, const void *request, uint64_t *ret_value,
                      struct error **ret_error)
{
    const struct wire_job_spares *job = request;

    struct disk disk;

    if (storage_open(job->root, &disk, ret_error) < 0)
        return -1;
    return disk.ops->layer_spares(&disk, job->size_bytes, job->count, job->likes, ret_error);
}

static int job_sweep(struct peer *peer, const void *request, uint64_t *ret_value,
                     struct error **ret_error)
{
    const struct wire_job_sweep *job = request;

    struct disk disk;

    if (disk_sweep(job->root, job->keep, job->partial_keep_s, ret_error) < 0)
        return -1;
    return storage_open(job->root, &disk, ret_error) < 0 ? -1 : disk.ops->collect(&disk, ret_error);
}

/* ---- templates ------------------------------------------------------------------------------ */

static int rehearsal_found(void *arg, const struct image_found *image, struct error **ret_error)
{
    struct work *work = arg;

    if (!work->found)
        work->found = xstrdup(image->files[0]);
    return 0;
}

/* Gives the image that was loaded below `scratch` its place. */
static int rehearsal_place(const char *root, const char *scratch, const char *found,
                           const char *image, struct error **ret_error)
{
    CLEANUP_FREE char *from = str_printf("%s/%s", scratch, found);
    CLEANUP_FREE char *to = str_printf("%s/%s", root, image);
    CLEANUP_FREE char *cache = xstrndup(to, (size_t)(strrchr(to, '/') - to));

    if (mkdir(cache, CACHE_MODE) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", cache);
    if (rename(from, to) < 0)
        return error_set(ret_error, ERROR_IO, errno, "rename '%s' to '%s'", from, to);
    return 0;
}

/* As any image is loaded, but into a store of its own, which is thrown away. */
static int rehearsal_image(struct work *work, const struct wire_job_rehearsal *job,
                           const char *scratch, struct error **ret_error)
{
    CLEANUP_FREE char *store = str_printf("%s/store", scratch);
    CLEANUP_FREE char *spool = str_printf("%s/spool", scratch);

    if (mkdir(store, SCRATCH_MODE) < 0 || mkdir(spool, SCRATCH_MODE) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", store);
    int archive = open(job->busybox, O_RDONLY | O_CLOEXEC);
    if (archive < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", job->busybox);
    int result = load_in(work, store, spool, archive, rehearsal_found, ret_error);
    close(archive);
    if (result == 0 && !work->found)
        return error_set(ret_error, ERROR_CORRUPT, 0, "there is no image in '%s'", job->busybox);
    return result < 0 ? -1 : rehearsal_place(job->root, store, work->found, job->image, ret_error);
}

static int job_rehearsal(struct peer *peer, const void *request, uint64_t *ret_value,
                         struct error **ret_error)
{
    const struct wire_job_rehearsal *job = request;
    CLEANUP_FREE char *image = str_printf("%s/%s", job->root, job->image);
    CLEANUP_FREE char *scratch = NULL;
    struct work work = {.peer = peer, .seq = job->seq, .layer_max_bytes = LAYER_MAX_DEFAULT};
    int lock;

    /* Whatever the driver of containers is: it is thrown away. */
    work.disk = (struct disk){&disk_block, job->root, NULL};
    if (access(image, F_OK) < 0) {
        if (disk_scratch(job->root, &scratch, &lock, ret_error) < 0)
            return -1;
        int result = rehearsal_image(&work, job, scratch, ret_error);
        free(work.found);
        disk_remove(job->root, scratch, NULL);
        close(lock);
        if (result < 0)
            return -1;
    }
    const struct disk_layer_spec layer = {job->layer, job->image, REHEARSAL_LAYER_SIZE, NULL};
    return disk_block.layer_make(&work.disk, &layer, ret_error);
}

static int sent_check(const struct peer *peer, struct error **ret_error)
{
    if (peer->sent < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "no memory came with the request");
    return 0;
}

static int job_template_save(struct peer *peer, const void *request, uint64_t *ret_value,
                             struct error **ret_error)
{
    const struct wire_job_template_save *job = request;

    if (sent_check(peer, ret_error) < 0)
        return -1;
    const struct template_save save = {.memory = peer->sent,
                                       .dir = job->dir,
                                       .path = job->path,
                                       .inputs = job->inputs,
                                       .layer = job->layer};
    return template_save(&save, ret_value, ret_error);
}

static int job_template_load(struct peer *peer, const void *request, uint64_t *ret_value,
                             struct error **ret_error)
{
    const struct wire_job_template_load *job = request;

    if (sent_check(peer, ret_error) < 0)
        return -1;
    return template_load(peer->sent, job->path, job->inputs, ret_value, ret_error);
}

static int job_save(struct peer *peer, const void *request, uint64_t *ret_value,
                    struct error **ret_error)
{
    const struct wire_job_save *job = request;
    struct image_save save = {
        .root = job->root, .fd = peer->sent, .docker = job->docker, .items = job->items};

    if (peer->sent < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "nowhere to write to came with the request");
    return image_save(&save, ret_error);
}

union request {
    uint32_t seq; /* the first field of each */
    struct wire_job_load load;
    struct wire_job_save save;
    struct wire_job_commit commit;
    struct wire_job_check check;
    struct wire_job_usage usage;
    struct wire_job_layer layer;
    struct wire_job_attach attach;
    struct wire_job_detach detach;
    struct wire_job_remove remove;
    struct wire_job_sweep sweep;
    struct wire_job_spares spares;
    struct wire_job_rehearsal rehearsal;
    struct wire_job_template_save template_save;
    struct wire_job_template_load template_load;
};

static const struct {
    unsigned type;
    int (*run)(struct peer *peer, const void *request, uint64_t *ret_value,
               struct error **ret_error);
} jobs[] = {
    {WIRE_JOB_LOAD, job_load},
    {WIRE_JOB_SAVE, job_save},
    {WIRE_JOB_COMMIT, job_commit},
    {WIRE_JOB_CHECK, job_check},
    {WIRE_JOB_USAGE, job_usage},
    {WIRE_JOB_LAYER, job_layer},
    {WIRE_JOB_ATTACH, job_attach},
    {WIRE_JOB_DETACH, job_detach},
    {WIRE_JOB_REMOVE, job_remove},
    {WIRE_JOB_SWEEP, job_sweep},
    {WIRE_JOB_SPARES, job_spares},
    {WIRE_JOB_REHEARSAL, job_rehearsal},
    {WIRE_JOB_TEMPLATE_SAVE, job_template_save},
    {WIRE_JOB_TEMPLATE_LOAD, job_template_load},
};

static int job_answer(struct peer *peer, uint32_t seq, const struct error *error, uint64_t value,
                      struct error **ret_error)
{
    struct wire_reply reply = wire_reply_from(seq, error);

    reply.value = value;
    return peer_send(peer, WIRE_REPLY, &reply, ret_error);
}

/* The request is copied: some jobs hear of more while they are at work, and a frame lives until the
 * next one. */
int job_run(struct peer *peer, const struct wire_frame *frame, struct error **ret_error)
{
    if (frame->type == WIRE_STORAGE)
        return storage_take(frame, ret_error);
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        if (jobs[i].type != frame->type)
            continue;
        CLEANUP_ERROR struct error *error = NULL;
        CLEANUP_FREE uint8_t *payload = xmemdup(frame->payload, frame->length);
        struct wire_frame copy = *frame;
        union request request = {0};
        uint64_t value = 0;
        copy.payload = payload;
        if (wire_get(&copy, &request, ret_error) < 0) {
            wire_clear(copy.type, &request);
            return -1;
        }
        jobs[i].run(peer, &request, &value, &error);
        peer_drop_sent(peer);
        int result = job_answer(peer, request.seq, error, value, ret_error);
        wire_clear(copy.type, &request);
        return result;
    }
    return error_set(ret_error, ERROR_UNSUPPORTED, 0, "message %u is no job for a worker",
                     frame->type);
}
