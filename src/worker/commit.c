#include "worker/commit.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "image/commit.h"
#include "worker/storage.h"
#include "worker/tell.h"
#include "worker/work.h"

struct commit {
    struct work work;
    const struct wire_job_commit *job;
    const char *scratch;
};

struct packing {
    struct commit *commit;
    struct layer_pack *pack;
    uint64_t done;
};

static int packing_write(void *arg, const void *data, size_t size, struct error **ret_error)
{
    struct packing *packing = arg;

    packing->done += size;
    if (work_progress(&packing->commit->work, "", "Packing layer", packing->done, UINT64_MAX,
                      ret_error) < 0)
        return -1;
    return layer_pack_write(packing->pack, data, size, ret_error);
}

/* The layer is held only while it is copied: to pack it takes longer. */
static int commit_copy(struct commit *c, const char *copy, struct error **ret_error)
{
    const struct disk *disk = &c->work.disk;

    if (tell_hold(c->work.peer, c->work.seq, true, ret_error) < 0 ||
        disk->ops->layer_copy(disk, c->job->layer, copy, ret_error) < 0)
        return -1;
    return tell_hold(c->work.peer, c->work.seq, false, ret_error);
}

static int commit_layer(void *arg, const char *path, struct layer_packed *ret,
                        struct error **ret_error)
{
    struct commit *c = arg;
    const struct disk *disk = &c->work.disk;
    CLEANUP_FREE char *copy = str_printf("%s/copy", c->scratch);
    struct packing packing = {.commit = c, .pack = layer_pack_new(path, ret_error)};
    struct disk_output out = {packing_write, &packing, c->work.layer_max_bytes};

    int result = packing.pack ? commit_copy(c, copy, ret_error) : -1;
    if (result == 0)
        result = disk->ops->layer_diff(disk, c->job->image, copy, &out, ret_error);
    if (result == 0)
        result = layer_pack_end(packing.pack, ret, ret_error);
    layer_pack_free(packing.pack);
    disk_remove(disk->root, copy, NULL);
    disk->ops->collect(disk, NULL); /* its room may be needed for the new root */
    return result;
}

static int commit_in(struct commit *c, struct error **ret_error)
{
    const struct wire_job_commit *job = c->job;
    struct image_commit commit = {
        .root = job->root,
        .scratch = c->scratch,
        .files = job->files,
        .name = job->name,
        .author = job->author,
        .message = job->message,
        .changes = job->changes,
        .entrypoint = job->entrypoint,
        .command = job->command,
        .env = job->env,
        .labels = job->labels,
        .workdir = job->workdir,
        .user = job->user,
        .stop_signal = job->stop_signal,
        .created_by = job->created_by,
        .arg = c,
        .layer = commit_layer,
        .prepared = work_prepared,
        .prepare = work_prepare,
        .placing = work_placing,
        .found = work_found,
    };

    return image_commit(&commit, ret_error);
}

int job_commit(struct peer *peer, const void *request, uint64_t *ret_value,
               struct error **ret_error)
{
    const struct wire_job_commit *job = request;
    CLEANUP_FREE char *scratch = NULL;
    int lock;
    struct commit c = {
        .work = {.peer = peer, .seq = job->seq, .layer_max_bytes = job->layer_max_bytes},
        .job = job,
    };

    if (storage_open(job->root, &c.work.disk, ret_error) < 0)
        return -1;
    if (disk_scratch(job->root, &scratch, &lock, ret_error) < 0)
        return -1;
    c.scratch = scratch;
    int result = commit_in(&c, ret_error);
    disk_remove(job->root, scratch, NULL);
    if (result < 0)
        c.work.disk.ops->collect(&c.work.disk, NULL); /* what was made before it failed */
    close(lock);
    return result;
}
