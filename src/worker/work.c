#include "worker/work.h"

#include <string.h>
#include <time.h>

#include "base/str.h"
#include "worker/tell.h"

enum {
    PROGRESS_MS = 250, /* between two messages about the same thing */
    CHECK_MS = 100,    /* between two looks whether the daemon lives */
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Tells of the start and the end of each thing, and now and then in between. */
int work_progress(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                  struct error **ret_error)
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

char *work_prepared(void *arg, const char *id)
{
    struct work *work = arg;

    return disk_image_file(&work->disk, id);
}

int work_prepare(void *arg, const char *id, const struct image_layer *layers, size_t count,
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
    return work->disk.ops->image_prepare(&work->disk, &image, path, &watch, ret_size, ret_error);
}

int work_found(void *arg, const struct image_found *image, struct error **ret_error)
{
    struct work *work = arg;

    return tell_image(work->peer, work->seq, image, ret_error);
}

int work_placing(void *arg, struct error **ret_error)
{
    const struct work *work = arg;

    return tell_placing(work->peer, work->seq, ret_error);
}
