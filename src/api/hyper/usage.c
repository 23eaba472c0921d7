/* GET /usage: what takes how much of the disk. A worker looks. */
#include <stdlib.h>

#include "api/hyper/hyper.h"

struct disk_use {
    struct call *call;
    struct job *job; /* NULL: done */
    json_t *containers, *disk;
    int64_t layers; /* bytes of all of them */
};

static void disk_use_free(void *data)
{
    struct disk_use *use = data;
    if (use->job)
        exec_job_cancel(use->call->api->exec, use->job);
    json_decref(use->containers);
    json_decref(use->disk);
    free(use);
}

/* SizeRw and SizeRootFs are docker's words: what the container wrote, and that with its image. */
static void layer_size(struct disk_use *use, const struct container *ctr, uint64_t bytes)
{
    const struct world *world = use->call->api->world;
    const struct pod *pod = world_pod(world, ctr->pod);
    const struct image *image = world_image(world, ctr->image);
    uint64_t below = image ? image->size_bytes : 0;
    use->layers += (int64_t)bytes;
    json_array_append_new(use->containers,
                          json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", ctr->id, "name",
                                    ctr->spec.name, "pod", pod ? pod->spec.id : "", "SizeRw",
                                    (json_int_t)bytes, "SizeRootFs", (json_int_t)(bytes + below)));
}

static void use_size(const struct wire_job_size *size, void *arg)
{
    struct disk_use *use = arg;
    const struct container *ctr = world_ctr_by_id(use->call->api->world, size->name);
    if (ctr)
        layer_size(use, ctr, size->bytes);
    else if (strlen(size->name) < CTR_ID_LEN) /* else its container is gone */
        json_object_set_new(use->disk, size->name, json_integer((json_int_t)size->bytes));
}

static void use_progress(const struct wire_job_progress *progress, void *arg)
{
    /* None comes. */
}

static void use_image(const struct wire_job_image *image, void *arg)
{
    /* None comes. */
}

static void use_done(const struct error *error, void *arg)
{
    struct disk_use *use = arg;
    use->job = NULL;
    if (error) {
        http_reply_error(use->call->r, error);
        return;
    }
    if (json_object_size(use->disk))
        json_object_set_new(use->disk, "layers", json_integer(use->layers));
    call_json(use->call, 200,
              json_pack("{s:O, s:O}", "containers", use->containers, "disk", use->disk));
}

static const struct load_ops use_ops = {
    .progress = use_progress, .image = use_image, .done = use_done, .size = use_size};

void look_usage(struct call *call)
{
    const char *name = call_query(call, "container");
    struct container *ctr = NULL;
    struct error *error = NULL;
    if (name && world_find_ctr(call->api->world, name, &ctr, &error) < 0) {
        call_fail(call, error);
        return;
    }
    struct disk_use *use = xcalloc(1, sizeof(*use));
    use->call = call;
    use->containers = json_array();
    use->disk = json_object();
    call->data = use;
    call->data_free = disk_use_free;
    use->job = exec_disk_usage(call->api->exec, ctr, &use_ops, use);
}
