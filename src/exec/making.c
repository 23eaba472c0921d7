#include "exec/making.h"

#include <stdlib.h>

static void making_late(void *arg)
{
    struct making *m = arg;
    CLEANUP_ERROR struct error *error = take(m->failed);
    if (!error)
        error_set(&error, ERROR_TIMEOUT, 0, "step '%s': it took longer than %d s", m->step,
                  MAKING_DEADLINE_MS / 1000);
    m->ops->over(m, error);
}

void making_init(struct making *m, struct exec *exec, char *vm, const struct making_ops *ops)
{
    *m = (struct making){.exec = exec, .ops = ops, .step = "disks", .vm = vm};
    m->deadline = timer_new(exec->loop, making_late, m);
}

void making_done(struct making *m)
{
    CLEANUP_FREE char *path = path_of_vm(m->vm);
    const char *const paths[] = {path, NULL};
    if (m->job)
        job_forget(take(m->job));
    if (m->ask)
        ask_forget(take(m->ask));
    struct link *link = take(m->link);
    if (link && link->conn && link->gone) {
        link_dismiss(link);
    } else {
        link_kill_leftovers(m->exec, m->vm);
        if (link)
            link_free(link);
    }
    pool_remove(m->exec->pool, paths, NULL, NULL);
    timer_free(m->deadline);
    error_free(m->failed);
    free(m->vm);
    free(m->image);
    free(m->layer);
}

void making_fail(struct making *m, const struct error *why)
{
    if (m->failed)
        return;
    error_set(&m->failed, why->kind, 0, "step '%s': %s", m->step, why->message);
    timer_set(m->deadline, 0);
}

void making_gone(struct making *m)
{
    if (m->ops->gone)
        m->ops->gone(m);
}

void making_step(struct making *m, const char *step)
{
    m->step = step;
    timer_unset(m->deadline);
    m->ops->changed(m);
}

void making_rehearsal_disks(struct making *m, const char *directory, job_done *done, void *arg)
{
    m->rehearsals = REHEARSALS;
    m->image = rehearsal_image(&m->exec->config);
    m->layer = str_printf("%s/rehearsal.ext4", directory);
    m->job = pool_rehearsal(m->exec->pool, directory, m->image, m->layer, done, arg);
}

int making_spawn(struct making *m, struct error **ret_error)
{
    m->link = link_new(m->exec, m->vm, REF_NONE);
    m->link->making = m;
    return link_spawn(m->link, ret_error);
}

void making_rehearse(struct making *m,
                     void (*done)(const struct error *error, uint64_t value, void *arg), void *arg)
{
    CLEANUP_FREE char *image = path_full(m->exec, m->image);
    CLEANUP_FREE char *layer = path_full(m->exec, m->layer);
    struct wire_vm_rehearse message = {.image_path = image, .layer_path = layer};
    making_step(m, "rehearse");
    timer_set(m->deadline, MAKING_DEADLINE_MS);
    m->ask = link_ask(m->link, WIRE_VM_REHEARSE, &message, -1, done, arg);
}
