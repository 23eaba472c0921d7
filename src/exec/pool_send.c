/* Jobs as messages to their workers. */
#include <errno.h>
#include <sys/stat.h>

#include "exec/pool_int.h"

enum { SPARE_LAYERS = 2 }; /* kept ready, of the size that a pod has if it names none */
/* What an interrupted pull has fetched waits so long for the next one. */
enum { PARTIAL_KEEP_S = 24 * 60 * 60 };

static int send_load(struct worker *w, struct job *job, struct error **ret_error)
{
    const struct exec_config *config = &w->pool->exec->config;
    struct wire_job_load message = {
        .seq = 1, .root = config->root, .layer_max_bytes = config->image_layer_max_bytes};
    int fd = job->fd;
    job->fd = -1;
    conn_send_fd(w->conn, WIRE_JOB_LOAD, 0, &message, fd);
    return 0;
}

static int send_save(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_save message = {.seq = 1,
                                    .root = w->pool->exec->config.root,
                                    .items = (const char *const *)job->paths,
                                    .docker = job->all};
    conn_send_fd(w->conn, WIRE_JOB_SAVE, 0, &message, job->fd);
    job->fd = -1;
    return 0;
}

/* The directory is made now and not before, so that no sweep comes in between. */
static int directory_make(struct worker *w, const struct job *job, struct error **ret_error)
{
    CLEANUP_FREE char *directory = path_full(w->pool->exec, job->directory);
    if (mkdir(directory, 0700) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "mkdir '%s'", directory);
    return 0;
}

static int send_layer(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_layer message = {.seq = 1,
                                     .root = w->pool->exec->config.root,
                                     .path = job->path,
                                     .size_bytes = job->size_bytes,
                                     .image = job->image,
                                     .like = job->layer};
    if (job->directory && directory_make(w, job, ret_error) < 0)
        return -1;
    conn_send(w->conn, WIRE_JOB_LAYER, 0, &message);
    return 0;
}

static int send_attach(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_attach message = {
        .seq = 1, .root = w->pool->exec->config.root, .image = job->image, .layer = job->path};
    conn_send(w->conn, WIRE_JOB_ATTACH, 0, &message);
    return 0;
}

static int send_detach(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_detach message = {
        .seq = 1, .root = w->pool->exec->config.root, .layers = (const char *const *)job->paths};
    conn_send(w->conn, WIRE_JOB_DETACH, 0, &message);
    return 0;
}

static int send_rehearsal(struct worker *w, struct job *job, struct error **ret_error)
{
    const struct exec_config *config = &w->pool->exec->config;
    struct wire_job_rehearsal message = {.seq = 1,
                                         .root = config->root,
                                         .busybox = config->busybox,
                                         .image = job->image,
                                         .layer = job->path};
    if (directory_make(w, job, ret_error) < 0)
        return -1;
    conn_send(w->conn, WIRE_JOB_REHEARSAL, 0, &message);
    return 0;
}

static int send_template_save(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_template_save message = {.seq = 1,
                                             .dir = job->directory,
                                             .path = job->path,
                                             .inputs = (const char *const *)job->paths,
                                             .layer = job->layer};
    conn_send_fd(w->conn, WIRE_JOB_TEMPLATE_SAVE, 0, &message, job->fd);
    job->fd = -1;
    return 0;
}

static int send_template_load(struct worker *w, struct job *job, struct error **ret_error)
{
    struct wire_job_template_load message = {
        .seq = 1, .path = job->path, .inputs = (const char *const *)job->paths};
    conn_send_fd(w->conn, WIRE_JOB_TEMPLATE_LOAD, 0, &message, job->fd);
    job->fd = -1;
    return 0;
}

static bool others_have(const struct pool *pool, const char *file)
{
    WORLD_FOREACH(struct image, image, pool->exec->world, NOUN_IMAGE)
        if (image->state == IMAGE_PRESENT && strv_contains((const char *const *)image->files, file))
            return true;
    return false;
}

/* What other images have is seen now and not before: one of them may have come meanwhile. */
static int send_remove(struct worker *w, struct job *job, struct error **ret_error)
{
    CLEANUP_STRV char **paths = NULL;
    STRV_FOREACH(path, job->paths)
        if (!job->shared || !others_have(w->pool, *path))
            strv_push(&paths, *path);
    struct wire_job_remove message = {.seq = 1,
                                      .root = str_or(job->root, w->pool->exec->config.root),
                                      .paths = (const char *const *)paths,
                                      .later = !job->background && !job->root};
    conn_send(w->conn, WIRE_JOB_REMOVE, 0, &message);
    return 0;
}

static int send_spares(struct worker *w, struct job *job, struct error **ret_error)
{
    const struct exec_config *config = &w->pool->exec->config;
    CLEANUP_STRV char **likes = template_layers(w->pool->exec);
    struct wire_job_spares message = {.seq = 1,
                                      .root = config->root,
                                      .size_bytes = config->layer_size,
                                      .count = SPARE_LAYERS,
                                      .likes = (const char *const *)likes};
    conn_send(w->conn, WIRE_JOB_SPARES, 0, &message);
    return 0;
}

static int send_sweep(struct worker *w, struct job *job, struct error **ret_error)
{
    CLEANUP_STRV char **keep = exec_keep(w->pool->exec);
    struct wire_job_sweep message = {.seq = 1,
                                     .root = w->pool->exec->config.root,
                                     .keep = (const char *const *)keep,
                                     .partial_keep_s = job->all ? 0 : PARTIAL_KEEP_S};
    conn_send(w->conn, WIRE_JOB_SWEEP, 0, &message);
    return 0;
}

static int send_check(struct worker *w, struct job *job, struct error **ret_error)
{
    const struct exec_config *config = &w->pool->exec->config;
    struct wire_job_check message = {.seq = 1,
                                     .root = config->root,
                                     .layer_max_bytes = config->image_layer_max_bytes,
                                     .items = (const char *const *)job->paths,
                                     .repair = job->all};
    conn_send(w->conn, WIRE_JOB_CHECK, 0, &message);
    return 0;
}

static int send_usage(struct worker *w, struct job *job, struct error **ret_error)
{
    const struct exec_config *config = &w->pool->exec->config;
    struct wire_job_usage message = {.seq = 1,
                                     .root = config->root,
                                     .layers = (const char *const *)job->paths,
                                     .all = job->all,
                                     .templates = config->template_dir};
    conn_send(w->conn, WIRE_JOB_USAGE, 0, &message);
    return 0;
}

static int send_commit(struct worker *w, struct job *job, struct error **ret_error)
{
    commit_send(w->conn, &w->pool->exec->config, job->commit);
    return 0;
}

static int send_transfer(struct worker *w, struct job *job, struct error **ret_error)
{
    transfer_send(w->conn, &w->pool->exec->config, &job->transfer);
    return 0;
}

int job_send(struct worker *w, struct job *job, struct error **ret_error)
{
    static const struct {
        unsigned type;
        int (*send)(struct worker *w, struct job *job, struct error **ret_error);
    } senders[] = {
        {WIRE_JOB_LOAD, send_load},
        {WIRE_JOB_SAVE, send_save},
        {WIRE_JOB_COMMIT, send_commit},
        {WIRE_JOB_CHECK, send_check},
        {WIRE_JOB_USAGE, send_usage},
        {WIRE_JOB_LAYER, send_layer},
        {WIRE_JOB_ATTACH, send_attach},
        {WIRE_JOB_DETACH, send_detach},
        {WIRE_JOB_REMOVE, send_remove},
        {WIRE_JOB_SWEEP, send_sweep},
        {WIRE_JOB_SPARES, send_spares},
        {WIRE_JOB_REHEARSAL, send_rehearsal},
        {WIRE_JOB_TEMPLATE_SAVE, send_template_save},
        {WIRE_JOB_TEMPLATE_LOAD, send_template_load},
        {WIRE_JOB_PULL, send_transfer},
        {WIRE_JOB_PUSH, send_transfer},
        {WIRE_JOB_LOGIN, send_transfer},
        {WIRE_JOB_LOGOUT, send_transfer},
    };
    for (size_t i = 0; i < ARRAY_SIZE(senders); i++)
        if (senders[i].type == job->type)
            return senders[i].send(w, job, ret_error);
    return error_set(ret_error, ERROR_INTERNAL, 0, "no such job");
}
