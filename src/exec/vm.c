/* What is done to VMs and to the pod in one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "exec/exec_int.h"
#include "exec/making.h"
#include "keeper/exits.h"

/* ---- what the keeper tells of its VM -------------------------------------------------------- */

static void lose_processes(struct link *link)
{
    const struct exec_hooks *hooks = &link->exec->hooks;
    if (hooks->vm_lost)
        hooks->vm_lost(link->vm, hooks->arg);
}

void vm_state_came(struct link *link)
{
    const struct vm *vm = world_vm(link->exec->world, link->ref);
    if (link->adopting)
        return;
    if (link->gone)
        lose_processes(link);
    if (link->gone && link->making)
        making_gone(link->making);
    /* While it boots the answer to VM_BOOT says all. */
    if (!vm || link->spawn || link->retry)
        return;
    if (link->gone)
        core_vm_gone(exec_core(link->exec), link->ref, link->reason);
    else if (link->ready && vm->paused != link->paused && !vm->effect)
        core_vm_paused(exec_core(link->exec), link->ref, link->paused);
}

static void exit_found(const struct exit_record *record, void *arg)
{
    struct exec *exec = arg;
    const struct container *ctr = world_ctr_by_id(exec->world, record->ctr);
    struct ctr_end end = {.run = record->run,
                          .code = record->code,
                          .signal = record->signal,
                          .oom = record->oom,
                          .reason = record->reason,
                          .started_ns = (int64_t)record->started_ns,
                          .finished_ns = (int64_t)record->finished_ns};
    if (ctr && !*record->exec)
        core_ctr_ended(exec_core(exec), ctr->object.ref, &end);
}

void link_read_exits(struct link *link)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *directory = path_of_vm(link->vm);
    CLEANUP_FREE char *path = str_printf("%s/%s/" EXITS_FILE, link->exec->config.root, directory);
    if (exits_read(path, exit_found, link->exec, &error) < 0)
        log_error("vm '%s': %s", link->vm, error_text(error));
}

/* The keeper has ended: because we sent it away, or by some accident. */
void vm_link_closed(struct link *link)
{
    struct exec *exec = link->exec;
    if (boot_link_closed(link))
        return;
    bool accident = !link->gone;
    link->gone = true;
    if (accident) {
        lose_processes(link);
        link_read_exits(link);
        core_vm_gone(exec_core(exec), link->ref, "its keeper ended unexpectedly");
    }
    asks_fail(link);
    if (link->making)
        making_gone(link->making);
}

/* ---- VM_OFF, VM_CLEAN … --------------------------------------------------------------------- */

/* Whether there is a keeper to ask; if not, the task is answered. */
static struct link *link_for(struct task *task, struct link *link)
{
    if (!link)
        task_fail(task, ERROR_UNAVAILABLE, "its VM is gone");
    return link;
}

static void task_ask(struct task *task, struct link *link, unsigned type, void *message)
{
    task->ask = link_ask(link, type, message, -1, task_answered, task);
}

void act_vm_off(struct task *task)
{
    struct wire_vm_off message = {.grace_ms = task->effect.grace_ms};
    boot_overtaken(task->exec, task->effect.token.ref);
    struct link *link = link_of_vm(task->exec, task->effect.token.ref);
    if (link)
        task_ask(task, link, WIRE_VM_OFF, &message);
    else
        task_done(task, NULL, NULL); /* it is gone already */
}

/* The end of its connection, which follows, says that the VM is gone. */
void vm_off_late(const struct task *task)
{
    struct link *link = link_of_vm(task->exec, task->effect.token.ref);
    if (!link)
        return;
    log_error("vm '%s': its keeper does not turn it off, and is killed", link->vm);
    link_kill_leftovers(task->exec, link->vm);
}

/* A keeper whose VM is gone is sent away, and may stay until its last clients have read all. One
 * whose VM is not is ended with all that is in its directory. */
void act_vm_clean(struct task *task)
{
    struct exec *exec = task->exec;
    const struct vm *vm = world_vm(exec->world, task->effect.token.ref);
    if (!vm) {
        task_done(task, NULL, NULL);
        return;
    }
    boot_overtaken(exec, vm->object.ref);
    struct link *link = link_find(exec, vm->id);
    if (link && link->conn && link->gone) {
        link_dismiss(link);
    } else {
        link_kill_leftovers(exec, vm->id);
        if (link)
            link_free(link);
    }
    CLEANUP_FREE char *path = path_of_vm(vm->id);
    const char *const paths[] = {path, NULL};
    task_begin_job(task, pool_remove(exec->pool, paths, storage_released, task));
}

static char *rehearsal_layer(const char *vm)
{
    CLEANUP_FREE char *directory = path_of_vm(vm);
    return str_printf("%s/rehearsal.ext4", directory);
}

static void rehearsed(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    const struct vm *vm = world_vm(task->exec->world, task->effect.token.ref);
    CLEANUP_FREE char *layer = rehearsal_layer(vm ? vm->id : "");
    const char *const paths[] = {layer, NULL};
    task->ask = NULL;
    if (vm)
        pool_remove(task->exec->pool, paths, NULL, NULL);
    task_done(task, error, NULL);
}

static void rehearsal_begins(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    struct exec *exec = task->exec;
    task->job = NULL;
    if (error) {
        task_done(task, error, NULL);
        return;
    }
    struct link *link = link_for(task, link_of_vm(exec, task->effect.token.ref));
    if (!link)
        return;
    CLEANUP_FREE char *below = rehearsal_layer(link->vm);
    CLEANUP_FREE char *layer = path_full(exec, below);
    CLEANUP_FREE char *image_below = rehearsal_image(&exec->config);
    CLEANUP_FREE char *image = path_full(exec, image_below);
    struct wire_vm_rehearse message = {.image_path = image, .layer_path = layer};
    const struct vm *vm = world_vm(exec->world, task->effect.token.ref);
    const struct image *root = vm->image_id ? world_image_by_id(exec->world, vm->image_id) : NULL;
    CLEANUP_FREE char *root_image = path_full(exec, image_file(root));
    CLEANUP_FREE char *root_below = path_of_vm_layer(vm->id);
    CLEANUP_FREE char *root_layer = path_full(exec, root_below);
    if (root) {
        message.root_image = root_image;
        message.root_layer = root_layer;
        image_program(root, &message.program, &message.path);
    }
    task->ask = link_ask(link, WIRE_VM_REHEARSE, &message, -1, rehearsed, task);
}

/* Under emulation each QEMU translates the guest's code for itself: what was run once in this VM,
 * in whatever container, its pod need not wait for. */
void act_vm_rehearse(struct task *task)
{
    struct exec *exec = task->exec;
    const struct vm *vm = world_vm(exec->world, task->effect.token.ref);
    if (!vm) {
        task_fail(task, ERROR_NOT_FOUND, "the VM is gone");
        return;
    }
    CLEANUP_FREE char *directory = path_of_vm(vm->id);
    CLEANUP_FREE char *layer = rehearsal_layer(vm->id);
    CLEANUP_FREE char *image = rehearsal_image(&exec->config);
    task_begin_job(task,
                   pool_rehearsal(exec->pool, directory, image, layer, rehearsal_begins, task));
}

void act_vm_pause(struct task *task)
{
    struct wire_vm_pause message = {0};
    struct link *link = link_for(task, link_of_vm(task->exec, task->effect.token.ref));
    if (link)
        task_ask(task, link, WIRE_VM_PAUSE, &message);
}

void act_vm_resume(struct task *task)
{
    struct wire_vm_resume message = {0};
    struct link *link = link_for(task, link_of_vm(task->exec, task->effect.token.ref));
    if (link)
        task_ask(task, link, WIRE_VM_RESUME, &message);
}

/* The layer of the VM becomes the container's. It takes the place of one that nobody has written
 * to; from now on this VM serves only this pod. */
static int layer_give(const struct exec *exec, const struct vm *vm, const struct pod *pod,
                      char **ret_from, char **ret_to, struct error **ret_error)
{
    const struct container *ctr = vm_layer_for(vm, pod);
    if (!ctr)
        return 0;
    CLEANUP_FREE char *from = path_of_vm_layer(vm->id);
    CLEANUP_FREE char *to = path_of_layer(exec, pod, ctr);
    *ret_from = path_full(exec, from);
    *ret_to = path_full(exec, to);
    if (rename(*ret_from, *ret_to) < 0)
        return error_set(ret_error, ERROR_IO, errno, "rename '%s' to '%s'", *ret_from, *ret_to);
    return 0;
}

void act_pod_place(struct task *task)
{
    struct exec *exec = task->exec;
    const struct pod *pod = world_pod(exec->world, task->effect.token.ref);
    struct link *link = link_for(task, link_of_pod(exec, task->effect.token.ref));
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *from = NULL, *to = NULL;
    if (!link)
        return;
    if (layer_give(exec, world_vm(exec->world, pod->vm), pod, &from, &to, &error) < 0) {
        task_done(task, error, NULL);
        return;
    }
    struct wire_pod_place message = {.pod = pod->uid,
                                     .hostname = str_or(pod->spec.hostname, pod->spec.id),
                                     .layer_from = from,
                                     .layer_to = to};
    task_ask(task, link, WIRE_POD_PLACE, &message);
}

void act_pod_leave(struct task *task)
{
    struct wire_pod_leave message = {0};
    struct link *link = link_for(task, link_of_pod(task->exec, task->effect.token.ref));
    if (link)
        task->ask = link_ask(link, WIRE_POD_LEAVE, &message, -1, storage_released, task);
}
