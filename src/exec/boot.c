/* VM_SPAWN: from the line of those that wait to the guest's first word.
 *
 * A VM is a copy of a template's zygote if there is one, else loads the template if there is one
 * that serves, and else boots cold. When one way fails the next slower one is gone in the same
 * effect, and so is one under KVM that gives no sign of life: the keeper is sent away, and when its
 * connection has ended another one is started.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/accel.h"
#include "exec/template.h"

static void spawn_keeper(struct link *link, const struct vm *vm);

/* ---- the line -------------------------------------------------------------------------------
 *
 * So many boot at a time as the CPUs can serve: more would make each of them, and the last one,
 * later. Links are in the order in which they came. While one waits no deadline runs. */

static unsigned boots_max(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return (unsigned)(cpus > 0 ? cpus : 1) * BOOTS_A_CPU;
}

static unsigned boots(const struct exec *exec)
{
    const struct link *link;
    unsigned count = 0;
    DL_FOREACH(exec->links, link)
        count += link->booting;
    return count;
}

bool boot_line_busy(const struct exec *exec)
{
    const struct link *link;
    DL_FOREACH(exec->links, link)
        if (link->booting || (link->in_line && !link->waits))
            return true;
    return false;
}

/* Its turn has come, unless its template is not there and about to be. */
static bool boot_begin(struct link *link)
{
    struct exec *exec = link->exec;
    const struct vm *vm = world_vm(exec->world, link->ref);
    if (!vm || !link->spawn) {
        link->in_line = false;
        return false;
    }
    free(take(link->why_cold));
    link->rooted = REF_NONE;
    link->copies_not = false;
    struct template *t = template_choose(exec, vm, &link->why_cold, &link->waits);
    if (link->waits)
        return false;
    if (t)
        t = template_choose_rooted(t, vm, &link->rooted);
    snprintf(link->template, sizeof(link->template), "%s", t ? t->id : "");
    link->in_line = false;
    link->booting = true;
    timer_set(link->spawn->timer, link->spawn->effect.deadline_ms);
    spawn_keeper(link, vm);
    return true;
}

static void line_run(void *arg)
{
    struct exec *exec = arg;
    struct link *link, *next;
    unsigned busy = boots(exec), max = boots_max();
    DL_FOREACH_SAFE(exec->links, link, next) {
        if (busy >= max)
            return;
        if (link->in_line && boot_begin(link))
            busy++;
    }
}

struct timer *boot_line_new(struct exec *exec)
{
    return timer_new(exec->loop, line_run, exec);
}

void boot_line_look(struct exec *exec)
{
    timer_set(exec->line, 0);
}

static void clone_over(struct link *link, bool hello)
{
    struct template *t = template_find(link->exec, link->template);
    if (t && link->cloning)
        template_clone_ends(t, hello);
    link->cloning = false;
}

/* However it went: the next one may. */
static void boot_over(struct link *link, bool hello)
{
    struct exec *exec = link->exec;
    if (!link->booting)
        return;
    link->booting = false;
    clone_over(link, hello);
    boot_line_look(exec);
    templates_look(exec->templates);
}

/* ---- the answer to VM_SPAWN ----------------------------------------------------------------- */

/* What a boot tells of KVM. One that comes up by emulation neither may have ended for other
 * reasons. */
static void kvm_judge(struct link *link, const struct error *error)
{
    struct exec *exec = link->exec;
    const struct exec_hooks *hooks = &exec->hooks;
    if (!error && !exec->kvm_works && str_eq(link->accel, "kvm")) {
        exec_trust_kvm(exec);
        if (hooks->kvm_works)
            hooks->kvm_works(hooks->arg);
    }
    if (link->kvm_doubted && error && !exec->kvm_is_bad)
        exec_refuse_kvm(exec, NULL);
    if (link->kvm_doubted && !error && exec->kvm_refused && !exec->kvm_is_bad) {
        exec->kvm_is_bad = true;
        if (hooks->kvm_refused)
            hooks->kvm_refused(exec->kvm_refused, hooks->arg);
    }
    link->kvm_doubted = link->kvm_tried = false;
}

static void spawn_finished(struct link *link, const struct error *error)
{
    kvm_judge(link, error);
    struct task *task = take(link->spawn);
    struct effect_result result = {.accel = link->accel,
                                   .machine = link->exec->config.machine,
                                   .qemu_pid = link->qemu_pid,
                                   .template = *link->template ? link->template : NULL};
    struct template *blamed = template_find(link->exec, link->blamed);
    struct template *t = template_find(link->exec, link->template);
    if (t && link->copies && !error)
        zygote_praise(t->zygote);
    if (blamed && error)
        template_absolve(blamed);
    else if (blamed)
        template_convict(blamed);
    link->blamed[0] = '\0';
    boot_over(link, !error);
    if (!error && link->why_cold && task)
        core_vm_event(exec_core(link->exec), link->ref, "ColdBoot", link->why_cold);
    if (task)
        task_done(task, error, &result);
}

/* ---- what a VM is made of ------------------------------------------------------------------- */

static void disks_add(char ***disks, struct exec *exec, const struct pod *pod,
                      const struct container *ctr)
{
    CLEANUP_FREE char *image = path_of_image(exec, ctr);
    CLEANUP_FREE char *layer = path_of_layer(exec, pod, ctr);
    CLEANUP_FREE char *ro = str_printf("ro:%s/%s", exec->config.root, image);
    if (strv_count((const char *const *)*disks) + 2 > BOOT_DISKS_MAX)
        return;
    if (!strv_contains((const char *const *)*disks, ro))
        strv_push_take(disks, take(ro));
    strv_push_take(disks, str_printf("rw:%s/%s", exec->config.root, layer));
}

/* Of a VM that waits for a container of its image. */
static char **disks_of_pool(const struct exec *exec, const struct vm *vm)
{
    const struct image *image = world_image_by_id(exec->world, vm->image_id);
    CLEANUP_FREE char *layer = path_of_vm_layer(vm->id);
    char **disks = NULL;
    strv_push_take(&disks, str_printf("ro:%s/%s", exec->config.root, image_file(image)));
    strv_push_take(&disks, str_printf("rw:%s/%s", exec->config.root, layer));
    return disks;
}

/* Images and layers of the pod's containers, those of `first` before all others: an image that
 * several use is one disk. */
static char **boot_disks(struct exec *exec, const struct vm *vm, const struct container *first)
{
    char **disks = NULL;
    const struct pod *pod = world_pod(exec->world, vm->pod);
    if (vm->image_id)
        return disks_of_pool(exec, vm);
    if (!pod || storage_attaches(exec)) /* then they are plugged in once they are attached */
        return NULL;
    if (first)
        disks_add(&disks, exec, pod, first);
    POD_FOREACH_CTR(ctr, pod)
        if (ctr != first)
            disks_add(&disks, exec, pod, ctr);
    return disks;
}

void boot_message(const struct exec *exec, const char *accel, struct wire_vm_boot *ret)
{
    const struct exec_config *config = &exec->config;
    *ret = (struct wire_vm_boot){
        .machine = config->machine,
        .accel = accel,
        .qemu = config->qemu,
        .kernel = config->kernel,
        .initrd = config->initrd,
        .append = config->kernel_append,
        .user = config->qemu_user,
        .module = config->module,
        .memory_return = config->memory_return,
        .cpus_max = template_may_grow(config) ? template_cpus_max(config, accel) : 0,
        .memory_max_bytes = template_may_grow(config) ? config->memory_max_bytes : 0,
    };
}

/* ---- when it fails -------------------------------------------------------------------------- */

/* Once the keeper's connection has ended the VM is booted again. */
static void boot_again(struct link *link)
{
    link->retry = true;
    if (link->conn)
        conn_send(link->conn, WIRE_DISMISS, 0, NULL);
}

/* KVM may open and yet run no guest (see exec_accel): once is enough to find that out, if none has
 * ever run. */
static bool boot_failed_by_kvm(struct link *link, const struct error *error)
{
    struct exec *exec = link->exec;
    if (!link->kvm_tried || (!link->no_hello && error->kind != ERROR_TIMEOUT))
        return false;
    link->kvm_tried = false;
    if (exec->kvm_works) /* as another has shown meanwhile: this one has all its time now */
        return true;
    log_warning("vm '%s': no sign of life under KVM, falling back to emulation: %s", link->vm,
                error_text(error));
    exec_refuse_kvm(exec, "a guest under KVM gave no sign of life");
    link->kvm_doubted = true;
    if (ref_is(link->ref))
        core_vm_event(exec_core(exec), link->ref, "KvmRefused",
                      "no sign of life under KVM, falling back to emulation");
    return true;
}

/* The template is not used again until it is made anew; the VM boots cold. */
static void clone_failed(struct link *link, const char *why)
{
    struct exec *exec = link->exec;
    struct template *t = template_find(exec, link->template);
    CLEANUP_FREE char *message =
        str_printf("template '%s': %s; it boots cold instead", link->template, why);
    log_warning("vm '%s': a clone failed: %s", link->vm, message);
    clone_over(link, false);
    if (t)
        template_blame(t, why);
    snprintf(link->blamed, sizeof(link->blamed), "%s", link->template);
    link->template[0] = '\0';
    link->rooted = REF_NONE;
    if (ref_is(link->ref))
        core_vm_event(exec_core(exec), link->ref, "CloneFailed", message);
}

/* The zygote is not used again until there is another one; the VM is cloned of the template. */
static void copy_failed(struct link *link, const char *why)
{
    struct exec *exec = link->exec;
    struct template *t = template_find(exec, link->template);
    CLEANUP_FREE char *reason = str_printf("a copy of it failed: %s", why);
    CLEANUP_FREE char *message = str_printf(
        "the zygote of template '%s': %s; the template is loaded instead", link->template, why);
    log_warning("vm '%s': %s", link->vm, message);
    if (t)
        zygote_blame(t->zygote, reason);
    link->copies = false;
    link->copies_not = true;
    if (ref_is(link->ref))
        core_vm_event(exec_core(exec), link->ref, WIRE_EVENT_ZYGOTE_FAILED, message);
}

/* The keeper has loaded the template already. */
void boot_not_copied(struct link *link, const char *why)
{
    if (link->copies)
        copy_failed(link, why);
}

/* The template for what was to be a copy: a generic one, if the guest of the copy may have written
 * to the layer. No guest in which that is mounted already would know of it. */
static void template_choose_loaded(struct link *link)
{
    const struct template *t = template_find(link->exec, link->template);
    if (t && ref_is(link->rooted))
        t = template_find_base(link->exec, t->base_bytes);
    bool ready = t && t->state == TEMPLATE_READY;
    link->rooted = REF_NONE;
    snprintf(link->template, sizeof(link->template), "%s", ready ? t->id : "");
    if (!ready)
        str_set(&link->why_cold, "a copy of a zygote failed, and no template serves");
}

/* Once the keeper's connection has ended it is tried in a slower way. */
static void boot_slower(struct link *link, const char *why)
{
    if (link->copies) {
        copy_failed(link, why);
        clone_over(link, false); /* it begins once more */
        template_choose_loaded(link);
    } else {
        clone_failed(link, why);
    }
    boot_again(link);
}

static void boot_replied(const struct error *error, uint64_t value, void *arg)
{
    struct link *link = arg;
    if (link->retry)
        return; /* a keeper that died: it is booted again already */
    if (error && link->listed && link->conn && link->spawn) {
        if (*link->template) {
            boot_slower(link, error_text(error));
            return;
        }
        if (boot_failed_by_kvm(link, error)) {
            boot_again(link);
            return;
        }
    }
    spawn_finished(link, error);
}

bool boot_link_closed(struct link *link)
{
    struct exec *exec = link->exec;
    const struct vm *vm = world_vm(exec->world, link->ref);
    if (vm && link->spawn && link->booting && *link->template && !link->retry)
        boot_slower(link, "its keeper ended unexpectedly");
    bool again = link->retry && vm && link->spawn;
    if (again) {
        link_kill_leftovers(exec, link->vm);
        asks_fail(link);
    }
    link->retry = false;
    if (again)
        spawn_keeper(link, vm);
    return again;
}

/* Nobody waits for the boot any more, and it is not tried a second time. */
void boot_overtaken(struct exec *exec, struct ref ref)
{
    const struct vm *vm = world_vm(exec->world, ref);
    struct link *link = vm ? link_find(exec, vm->id) : NULL;
    if (!link)
        return;
    link->spawn = NULL;
    link->retry = false;
    link->in_line = false;
}

void boot_forget(struct link *link)
{
    link->in_line = false;
    boot_over(link, false);
}

/* ---- boot ----------------------------------------------------------------------------------- */

static void boot(struct link *link, const struct vm *vm)
{
    struct exec *exec = link->exec;
    const struct exec_config *config = &exec->config;
    const struct pod *pod = world_pod(exec->world, vm->pod);
    const struct container *rooted = world_ctr(exec->world, link->rooted);
    CLEANUP_STRV char **disks = boot_disks(exec, vm, rooted);
    CLEANUP_FREE char *path = NULL, *state = NULL, *zygote = NULL;
    const char *reason;
    struct template *t = *link->template ? template_find(exec, link->template) : NULL;
    struct wire_vm_boot message;
    int memory = -1;
    link->copies = false;
    link->accel = exec_accel(exec, &reason);
    link->kvm_tried =
        str_eq(config->accel, "auto") && str_eq(link->accel, "kvm") && !exec->kvm_works;
    boot_message(exec, link->accel, &message);
    message.vm = vm->id;
    message.cpus = vm->cpus;
    message.memory_bytes = vm->memory_mb << 20;
    message.disks = (const char *const *)disks;
    message.boot_deadline_ms = link->kvm_tried ? config->kvm_deadline_ms : config->boot_deadline_ms;
    if (t) {
        path = template_path(t);
        message.mode = WIRE_BOOT_CLONE;
        message.base_bytes = t->base_bytes;
        message.memory_bytes = template_memory_of(t, message.memory_bytes);
        message.state = state = str_printf("%s/state", path);
        message.rooted = rooted != NULL;
        message.boot_deadline_ms = config->clone_deadline_ms;
        link->copies = zygote_is_ready(t->zygote) && !link->copies_not;
        if (link->copies)
            message.copy_of = zygote = zygote_directory(t->zygote);
        memory = fcntl(t->memory, F_DUPFD_CLOEXEC, 0);
        template_clone_begins(t);
        link->cloning = true;
    }
    if (pod)
        timing_of_pod(exec, pod, "keeper");
    link_ask(link, WIRE_VM_BOOT, &message, memory, boot_replied, link);
}

/* QEMU gets these files open, and opens them again as its own user. */
static int boot_check_user(const struct exec_config *config, struct error **ret_error)
{
    const char *const files[] = {config->kernel, config->initrd, config->module};
    CLEANUP_ERROR struct error *error = NULL;
    if (str_eq(config->accel, "kvm") && access(ACCEL_KVM, F_OK) == 0 &&
        child_user_may_use(config->qemu_user, ACCEL_KVM, &error) < 0)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                         "%s: permit it, set another qemu_user, or accel=tcg", error_text(error));
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (child_user_may_read(config->qemu_user, files[i], &error) < 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                             "%s: permit it, or set another qemu_user", error_text(error));
    return 0;
}

int boot_check(const struct exec_config *config, struct error **ret_error)
{
    const struct {
        const char *what, *path;
        int mode;
    } files[] = {
        {"QEMU", config->qemu, X_OK},
        {"kernel", config->kernel, R_OK},
        {"initramfs", config->initrd, R_OK},
        {"module", config->module, R_OK},
        {"virtiofsd", storage_shares(config) ? config->virtiofsd : NULL, X_OK},
    };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i].path && access(files[i].path, files[i].mode) < 0)
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
    else
        boot(link, vm);
}

static void spawn_begin(struct task *task)
{
    struct exec *exec = task->exec;
    const struct vm *vm = world_vm(exec->world, task->effect.token.ref);
    if (!vm || vm->state != VM_BOOTING) {
        task_fail(task, ERROR_NOT_FOUND, "the VM is gone");
        return;
    }
    struct link *link = link_find(exec, vm->id);
    if (!link)
        link = link_new(exec, vm->id, vm->object.ref);
    link->spawn = task;
    if (!link->conn) {
        link->in_line = true;
        timer_unset(task->timer);
        boot_line_look(exec);
    } else if (link->ready) {
        spawn_finished(link, NULL);
    } else if (!link->accel) {
        boot(link, vm); /* adopted before its boot was asked for; if it was, this is refused */
    }
}

static void layer_made(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    task->job = NULL;
    if (error)
        task_done(task, error, NULL);
    else
        spawn_begin(task);
}

/* In a directory that is made before: a job that VM_CLEAN has overtaken finds none, and leaves
 * nothing. */
static void layer_make(struct task *task, const struct vm *vm)
{
    struct exec *exec = task->exec;
    CLEANUP_FREE char *directory = path_of_vm(vm->id);
    CLEANUP_FREE char *full = path_full(exec, directory);
    CLEANUP_FREE char *path = path_of_vm_layer(vm->id);
    const struct image *image = world_image_by_id(exec->world, vm->image_id);
    const struct layer_spec layer = {path, image_file(image), vm->layer_mb << 20, ""};
    if (mkdir(full, 0700) < 0 && errno != EEXIST)
        task_fail(task, ERROR_IO, "mkdir '%s': %s", full, strerror(errno));
    else
        task_begin_job(task, pool_layer(exec->pool, NULL, &layer, layer_made, task));
}

void act_vm_spawn(struct task *task)
{
    const struct vm *vm = world_vm(task->exec->world, task->effect.token.ref);
    if (vm && vm->image_id)
        layer_make(task, vm);
    else
        spawn_begin(task);
}
