/* What is done to VMs and to the pod in one. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "exec/accel.h"
#include "exec/exec_int.h"
#include "keeper/exits.h"

/* ---- VM_SPAWN ------------------------------------------------------------------------------- */

static void spawn_finished(struct link *link, const struct error *error)
{
    struct task *task = take(link->spawn);
    struct effect_result result = {link->accel, link->exec->config.machine, link->qemu_pid};
    if (task)
        task_done(task, error, &result);
}

/* Images and layers of the pod's containers: an image that several use is one disk. */
static char **boot_disks(struct exec *exec, const struct vm *vm)
{
    char **disks = NULL;
    const struct pod *pod = world_pod(exec->world, vm->pod);
    if (!pod)
        return NULL;
    POD_FOREACH_CTR(ctr, pod) {
        CLEANUP_FREE char *image = path_of_image(ctr->image_id);
        CLEANUP_FREE char *layer = path_of_layer(pod, ctr);
        CLEANUP_FREE char *ro = str_printf("ro:%s/%s", exec->config.root, image);
        if (strv_count((const char *const *)disks) + 2 > BOOT_DISKS_MAX)
            break;
        if (!strv_contains((const char *const *)disks, ro))
            strv_push_take(&disks, take(ro));
        strv_push_take(&disks, str_printf("rw:%s/%s", exec->config.root, layer));
    }
    return disks;
}

static void boot(struct link *link, const struct vm *vm);

/* KVM may open and yet run no guest (see exec_accel): once is enough to find that out. */
static bool boot_failed_by_kvm(struct link *link, const struct error *error)
{
    struct exec *exec = link->exec;
    if (!str_eq(exec->config.accel, "auto") || !str_eq(link->accel, "kvm"))
        return false;
    if (!link->no_hello && error->kind != ERROR_TIMEOUT)
        return false;
    log_warning("vm '%s': no sign of life under KVM, falling back to emulation: %s", link->vm,
                error_message(error));
    exec_refuse_kvm(exec, "a guest under KVM gave no sign of life");
    if (exec->hooks.kvm_refused)
        exec->hooks.kvm_refused(exec->kvm_refused, exec->hooks.arg);
    if (ref_is(link->ref))
        core_vm_event(exec_core(exec), link->ref, "KvmRefused",
                      "no sign of life under KVM, falling back to emulation");
    return true;
}

static void boot_replied(const struct error *error, uint64_t value, void *arg)
{
    struct link *link = arg;
    if (error && link->listed && link->conn && boot_failed_by_kvm(link, error)) {
        link->retry = true;
        conn_send(link->conn, WIRE_DISMISS, 0, NULL);
        return;
    }
    spawn_finished(link, error);
}

static void boot(struct link *link, const struct vm *vm)
{
    struct exec *exec = link->exec;
    const struct exec_config *config = &exec->config;
    CLEANUP_STRV char **disks = boot_disks(exec, vm);
    const char *reason;
    link->accel = exec_accel(exec, &reason);
    bool may_fall_back = str_eq(config->accel, "auto") && str_eq(link->accel, "kvm");
    struct wire_vm_boot message = {
        .vm = vm->id,
        .machine = config->machine,
        .accel = link->accel,
        .cpus = vm->cpus,
        .memory_bytes = vm->memory_mb << 20,
        .qemu = config->qemu,
        .kernel = config->kernel,
        .initrd = config->initrd,
        .append = config->kernel_append,
        .user = config->qemu_user,
        .disks = (const char *const *)disks,
        .boot_deadline_ms = may_fall_back ? config->kvm_deadline_ms : config->boot_deadline_ms,
    };
    link_ask(link, WIRE_VM_BOOT, &message, -1, boot_replied, link);
}

/* QEMU gets these files open, and opens them again as its own user. */
static int boot_check_user(const struct exec_config *config, struct error **ret_error)
{
    const char *const files[] = {config->kernel, config->initrd};
    CLEANUP_ERROR struct error *error = NULL;
    if (str_eq(config->accel, "kvm") && access(ACCEL_KVM, F_OK) == 0 &&
        child_user_may_use(config->qemu_user, ACCEL_KVM, &error) < 0)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                         "%s: permit it, set another qemu_user, or accel=tcg",
                         error_message(error));
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (child_user_may_read(config->qemu_user, files[i], &error) < 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                             "%s: permit it, or set another qemu_user", error_message(error));
    return 0;
}

/* Said here, where the settings have names. */
static int boot_check(const struct exec_config *config, struct error **ret_error)
{
    const struct {
        const char *what, *path;
        int mode;
    } files[] = {
        {"QEMU", config->qemu, X_OK},
        {"kernel", config->kernel, R_OK},
        {"initramfs", config->initrd, R_OK},
    };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (access(files[i].path, files[i].mode) < 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, errno, "%s '%s' cannot be used",
                             files[i].what, files[i].path);
    return str_empty(config->qemu_user) ? 0 : boot_check_user(config, ret_error);
}

static void spawn_keeper(struct link *link, const struct vm *vm)
{
    CLEANUP_ERROR struct error *error = NULL;
    link->gone = link->ready = link->no_hello = false;
    if (boot_check(&link->exec->config, &error) < 0 || link_spawn(link, &error) < 0)
        spawn_finished(link, error);
    else {
        const struct pod *pod = world_pod(link->exec->world, vm->pod);
        if (pod)
            timing_of_pod(link->exec, pod, "keeper");
        boot(link, vm);
    }
}

void act_vm_spawn(struct task *task)
{
    struct exec *exec = task->exec;
    const struct vm *vm = world_vm(exec->world, task->effect.token.ref);
    if (!vm) {
        task_fail(task, ERROR_NOT_FOUND, "the VM is gone");
        return;
    }
    struct link *link = link_find(exec, vm->id);
    if (!link)
        link = link_new(exec, vm->id, vm->object.ref);
    link->spawn = task;
    if (!link->conn)
        spawn_keeper(link, vm);
    else if (link->ready)
        spawn_finished(link, NULL);
    else if (!link->accel)
        boot(link, vm); /* adopted before its boot was asked for; if it was, this is refused */
}

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
        log_error("vm '%s': %s", link->vm, error_message(error));
}

/* The keeper has ended: because we sent it away, or by some accident. */
void vm_link_closed(struct link *link)
{
    struct exec *exec = link->exec;
    const struct vm *vm = world_vm(exec->world, link->ref);
    bool retry = link->retry && vm && link->spawn;
    link->retry = false;
    if (retry) {
        link_kill_leftovers(exec, link->vm);
        asks_fail(link);
        spawn_keeper(link, vm);
        return;
    }
    bool accident = !link->gone;
    link->gone = true;
    if (accident) {
        lose_processes(link);
        link_read_exits(link);
        core_vm_gone(exec_core(exec), link->ref, "its keeper ended unexpectedly");
    }
    asks_fail(link);
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

/* Nobody waits for the boot any more, and it is not tried a second time. */
static void spawn_overtaken(struct exec *exec, struct ref ref)
{
    const struct vm *vm = world_vm(exec->world, ref);
    struct link *link = vm ? link_find(exec, vm->id) : NULL;
    if (!link)
        return;
    link->spawn = NULL;
    link->retry = false;
}

void act_vm_off(struct task *task)
{
    struct wire_vm_off message = {.grace_ms = task->effect.grace_ms};
    spawn_overtaken(task->exec, task->effect.token.ref);
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
    spawn_overtaken(exec, vm->object.ref);
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
    task->job = pool_remove(exec->pool, paths, task_answered, task);
}

/* What booted like any other is as warm as it gets. */
void act_vm_rehearse(struct task *task)
{
    task_done(task, NULL, NULL);
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

void act_pod_place(struct task *task)
{
    const struct pod *pod = world_pod(task->exec->world, task->effect.token.ref);
    struct link *link = link_for(task, link_of_pod(task->exec, task->effect.token.ref));
    if (!link)
        return;
    struct wire_pod_place message = {.pod = pod->uid,
                                     .hostname = str_or(pod->spec.hostname, pod->spec.id)};
    task_ask(task, link, WIRE_POD_PLACE, &message);
}

void act_pod_leave(struct task *task)
{
    struct wire_pod_leave message = {0};
    struct link *link = link_for(task, link_of_pod(task->exec, task->effect.token.ref));
    if (link)
        task_ask(task, link, WIRE_POD_LEAVE, &message);
}
