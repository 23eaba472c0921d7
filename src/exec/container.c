/* What is done to containers, and to the files of what is removed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "exec/template.h"

static struct container *ctr_of(struct task *task)
{
    return world_ctr(task->exec->world, task->effect.token.ref);
}

static struct link *link_of_ctr(struct exec *exec, const struct container *ctr)
{
    return ctr ? link_of_pod(exec, ctr->pod) : NULL;
}

bool exec_has(const struct exec *exec, const struct container *ctr)
{
    const struct pod *pod = world_pod(exec->world, ctr->pod);
    return pod && pod->placed && ctr->held && link_of_pod(exec, ctr->pod);
}

static uint32_t process_flags(const struct process *process)
{
    return (process->tty ? WIRE_TTY : 0) | (process->stdin_open ? WIRE_STDIN_OPEN : 0) |
           (process->read_only ? WIRE_READ_ONLY : 0);
}

/* A pod may ask for a log size of its own. */
static uint64_t log_max_bytes(const struct exec *exec, const struct pod *pod)
{
    uint64_t bytes = exec->config.log_max_bytes;
    for (char **pair = pod->spec.log_config; pair && pair[0] && pair[1]; pair += 2)
        if (str_eq(pair[0], "max-size"))
            str_to_size(pair[1], 1, &bytes);
    return bytes;
}

/* A keeper may write to no device but what it is given open. -1: it opens the layer itself. */
static int layer_open(const struct task *task, struct error **ret_error)
{
    if (!storage_attaches(task->exec) || storage_shares(&task->exec->config))
        return -1;
    int fd = open(task->root.layer_path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        error_set(ret_error, ERROR_IO, errno, "open its layer '%s'", task->root.layer_path);
    return fd;
}

/* The next container of its image need not wait for all that again. */
static void ran(const struct error *error, uint64_t value, void *arg)
{
    const struct task *task = arg;
    const struct container *ctr = ctr_of(arg);
    if (!error && ctr)
        template_image_used(task->exec, ctr);
    task_answered(error, value, arg);
}

static void run_send(struct task *task, struct link *link, const struct container *ctr,
                     const struct pod *pod, const struct process *process, struct tty_size tty)
{
    struct exec *exec = task->exec;
    CLEANUP_ERROR struct error *error = NULL;
    int fd = layer_open(task, &error);
    if (error) {
        task_done(task, error, NULL);
        return;
    }
    CLEANUP_FREE char *log_file = path_of_log(pod, ctr);
    CLEANUP_FREE char *log_path = path_full(exec, log_file);
    struct wire_run message = {
        .ctr = ctr->id,
        .run = ctr->run,
        .name = ctr->spec.name,
        .image_path = task->root.image_path,
        .layer_path = task->root.layer_path,
        .layer_top = task->root.layer_top,
        .log_path = str_eq(pod->spec.log_type, "none") ? "" : log_path,
        .argv = (const char *const *)process->argv,
        .env = (const char *const *)process->env,
        .cwd = process->cwd,
        .user = process->user,
        .groups = (const char *const *)process->groups,
        .flags = process_flags(process) | (storage_shares(&exec->config) ? WIRE_SHARED : 0),
        .log_max_bytes = log_max_bytes(exec, pod),
        .rows = tty.rows,
        .cols = tty.cols,
    };
    task->ask = link_ask(link, WIRE_RUN, &message, fd, ran, task);
}

/* Its disks are there. */
static void run_begin(struct task *task)
{
    struct exec *exec = task->exec;
    const struct container *ctr = ctr_of(task);
    struct link *link = link_of_ctr(exec, ctr);
    const struct image *image = ctr ? world_image(exec->world, ctr->image) : NULL;
    if (!link || !image) {
        task_fail(task, ERROR_UNAVAILABLE, link ? "its image is gone" : "its VM is gone");
        return;
    }
    const struct pod *pod = world_pod(exec->world, ctr->pod);
    struct process process;
    process_of(ctr, pod, image, &process);
    struct tty_size tty = parked_hand_over(exec, link, ctr);
    run_send(task, link, ctr, pod, &process, tty);
    process_clear(&process);
}

static void run_attached(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    task->job = NULL;
    if (error)
        task_done(task, error, NULL);
    else
        run_begin(task);
}

void act_ctr_run(struct task *task)
{
    struct exec *exec = task->exec;
    const struct container *ctr = ctr_of(task);
    const struct pod *pod = ctr ? world_pod(exec->world, ctr->pod) : NULL;
    if (!pod) {
        task_fail(task, ERROR_NOT_FOUND, "its pod is gone");
        return;
    }
    CLEANUP_FREE char *image = path_of_image(exec, ctr);
    CLEANUP_FREE char *layer = path_of_layer(exec, pod, ctr);
    if (storage_attaches(exec)) {
        task_begin_job(task,
                       pool_attach(exec->pool, image, layer, &task->root, run_attached, task));
        return;
    }
    task->root.image_path = path_full(exec, image);
    task->root.layer_path = path_full(exec, layer);
    run_begin(task);
}

void act_ctr_stop(struct task *task)
{
    const struct container *ctr = ctr_of(task);
    struct link *link = link_of_ctr(task->exec, ctr);
    if (!link) {
        task_done(task, NULL, NULL); /* nothing of it can run */
        return;
    }
    const struct pod *pod = world_pod(task->exec->world, ctr->pod);
    struct wire_stop message = {.ctr = ctr->id,
                                .signal = task->effect.signal,
                                .grace_ms = task->effect.grace_ms,
                                .vm_ends = pod && pod->state == POD_STOPPING && !pod->keep_vm};
    task->ask = link_ask(link, WIRE_STOP, &message, -1, task_answered, task);
}

void act_ctr_kill(struct task *task)
{
    const struct container *ctr = ctr_of(task);
    struct link *link = link_of_ctr(task->exec, ctr);
    if (!link) {
        task_fail(task, ERROR_STATE, "it does not run");
        return;
    }
    struct wire_kill message = {.ctr = ctr->id, .signal = task->effect.signal};
    task->ask = link_ask(link, WIRE_KILL, &message, -1, task_answered, task);
}

void act_ctr_drop(struct task *task)
{
    const struct container *ctr = ctr_of(task);
    struct link *link = link_of_ctr(task->exec, ctr);
    if (!link) {
        storage_released(NULL, 0, task); /* what held its disks is gone */
        return;
    }
    struct wire_drop message = {.ctr = ctr->id};
    task->ask = link_ask(link, WIRE_DROP, &message, -1, storage_released, task);
}

/* ---- files ---------------------------------------------------------------------------------- */

void act_make_layer(struct task *task)
{
    struct exec *exec = task->exec;
    const struct container *ctr = ctr_of(task);
    const struct pod *pod = ctr ? world_pod(exec->world, ctr->pod) : NULL;
    if (!pod) {
        task_fail(task, ERROR_NOT_FOUND, "its pod is gone");
        return;
    }
    CLEANUP_FREE char *directory = path_of_pod(pod);
    CLEANUP_FREE char *path = path_of_layer(exec, pod, ctr);
    CLEANUP_FREE char *image = path_of_image(exec, ctr);
    CLEANUP_FREE char *like = template_layer(exec, pod, ctr);
    const struct layer_spec layer = {path, image, pod->spec.storage_mb << 20, like};
    task_begin_job(task, pool_layer(exec->pool, directory, &layer, task_answered, task));
}

void act_remove_files(struct task *task)
{
    struct exec *exec = task->exec;
    CLEANUP_STRV char **paths = NULL;
    const struct container *ctr = NULL;
    const struct pod *pod;
    if (task->effect.token.noun == NOUN_CTR) {
        ctr = ctr_of(task);
        pod = ctr ? world_pod(exec->world, ctr->pod) : NULL;
    } else {
        pod = world_pod(exec->world, task->effect.token.ref);
    }
    if (!pod) {
        task_done(task, NULL, NULL);
        return;
    }
    if (ctr) {
        strv_push_take(&paths, path_of_layer(exec, pod, ctr));
        strv_push_take(&paths, path_of_log(pod, ctr));
        strv_push_take(&paths, str_printf("%s.1", paths[1]));
    } else {
        strv_push_take(&paths, path_of_pod(pod));
    }
    task_begin_job(task, pool_remove(exec->pool, (const char *const *)paths, task_answered, task));
}

void act_image_files(struct task *task)
{
    const struct image *image = world_image(task->exec->world, task->effect.token.ref);
    if (!image) {
        task_done(task, NULL, NULL);
        return;
    }
    templates_forget_image(task->exec, image);
    task_begin_job(task, pool_remove(task->exec->pool, (const char *const *)image->files,
                                     task_answered, task));
    pool_spare_shared(task->job);
}
