#include "worker/check.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "image/verify.h"
#include "worker/storage.h"
#include "worker/work.h"

static int check_same(void *arg, const char *path, const char *other, bool *ret_same,
                      struct error **ret_error)
{
    const struct work *work = arg;

    return work->disk.ops->image_same(&work->disk, path, other, ret_same, ret_error);
}

static int check_problem(void *arg, const struct image_problem *problem, struct error **ret_error)
{
    const struct work *work = arg;
    struct wire_job_problem message = {
        .seq = work->seq,
        .image = problem->image,
        .file = problem->file,
        .message = problem->message,
        .blob = problem->blob,
        .repaired = problem->repaired,
    };

    return peer_send(work->peer, WIRE_JOB_PROBLEM, &message, ret_error);
}

int job_check(struct peer *peer, const void *request, uint64_t *ret_value, struct error **ret_error)
{
    const struct wire_job_check *job = request;
    struct work work = {.peer = peer, .seq = job->seq, .layer_max_bytes = job->layer_max_bytes};
    CLEANUP_FREE char *scratch = NULL;
    int lock;

    if (storage_open(job->root, &work.disk, ret_error) < 0 ||
        disk_scratch(job->root, &scratch, &lock, ret_error) < 0)
        return -1;
    struct image_verify verify = {
        .root = job->root,
        .scratch = scratch,
        .items = job->items,
        .repair = job->repair,
        .arg = &work,
        .progress = work_progress,
        .prepare = work_prepare,
        .same = check_same,
        .placing = work_placing,
        .problem = check_problem,
    };
    int result = image_verify(&verify, ret_error);
    disk_remove(job->root, scratch, NULL);
    work.disk.ops->collect(&work.disk, NULL); /* what a replaced root stood for */
    close(lock);
    return result;
}
