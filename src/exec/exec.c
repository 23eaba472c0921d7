/* Effects, one task each, and the table of who does which. */
#include <stdlib.h>
#include <time.h>
#include <utlist.h>

#include "exec/accel.h"
#include "exec/template.h"

/* `asked` and `done`: marks of a container's way to its start. */
static const struct {
    void (*act)(struct task *task);
    const char *asked, *done;
} actors[EFFECT_COUNT] = {
    [EFFECT_MAKE_LAYER] = {act_make_layer, "stored", "layer"},
    [EFFECT_REMOVE_FILES] = {.act = act_remove_files},
    [EFFECT_VM_SPAWN] = {act_vm_spawn, "vm-asked", "vm"},
    [EFFECT_VM_REHEARSE] = {.act = act_vm_rehearse},
    [EFFECT_POD_PLACE] = {act_pod_place, "place-asked", "placed"},
    [EFFECT_CTR_RUN] = {act_ctr_run, "run-asked", "up"},
    [EFFECT_CTR_STOP] = {.act = act_ctr_stop},
    [EFFECT_CTR_KILL] = {.act = act_ctr_kill},
    [EFFECT_CTR_DROP] = {.act = act_ctr_drop},
    [EFFECT_POD_LEAVE] = {.act = act_pod_leave},
    [EFFECT_VM_PAUSE] = {.act = act_vm_pause},
    [EFFECT_VM_RESUME] = {.act = act_vm_resume},
    [EFFECT_VM_OFF] = {.act = act_vm_off},
    [EFFECT_VM_CLEAN] = {.act = act_vm_clean},
    [EFFECT_IMAGE_FILES] = {.act = act_image_files},
    [EFFECT_TIMER] = {.act = NULL}, /* its timer is all that it is */
};

enum { TIMING_AGO_MAX_NS = 1000000000 }; /* a request that is older waited for something else */

/* ---- timing --------------------------------------------------------------------------------- */

void timing_of_pod(struct exec *exec, const struct pod *pod, const char *name)
{
    uint64_t now_ns = timing_now_ns();
    POD_FOREACH_CTR(ctr, pod)
        timing_add(exec->timing, ctr->id, name, now_ns);
}

void exec_start_asked(struct exec *exec, const struct pod *pod)
{
    uint64_t now_ns = timing_now_ns();
    POD_FOREACH_CTR(ctr, pod)
        timing_start(exec->timing, ctr->id, now_ns);
}

/* Of a container, of its pod, or of the pod in its VM. */
static void timing_of_effect(struct exec *exec, struct token token, const char *name)
{
    const struct container *ctr = token.noun == NOUN_CTR ? world_ctr(exec->world, token.ref) : NULL;
    const struct vm *vm = token.noun == NOUN_VM ? world_vm(exec->world, token.ref) : NULL;
    const struct pod *pod = vm                       ? world_pod(exec->world, vm->pod)
                            : token.noun == NOUN_POD ? world_pod(exec->world, token.ref)
                                                     : NULL;
    if (ctr && name)
        timing_add(exec->timing, ctr->id, name, timing_now_ns());
    else if (pod && name)
        timing_of_pod(exec, pod, name);
}

/* A container's record begins with the request that made it, or when it is started again by its
 * policy. */
static void timing_begins(struct exec *exec, struct token token)
{
    const struct container *ctr = token.noun == NOUN_CTR ? world_ctr(exec->world, token.ref) : NULL;
    struct timespec now;
    if (!ctr || (token.kind != EFFECT_MAKE_LAYER && token.kind != EFFECT_CTR_RUN))
        return;
    if (token.kind == EFFECT_CTR_RUN) {
        timing_again(exec->timing, ctr->id, "restart", timing_now_ns());
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t ago_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - ctr->created_ns;
    timing_begin(exec->timing, ctr->id, "create",
                 timing_now_ns() -
                     (ago_ns > 0 && ago_ns < TIMING_AGO_MAX_NS ? (uint64_t)ago_ns : 0));
}

static void timing_tell(struct exec *exec, struct token token)
{
    const struct container *ctr = world_ctr(exec->world, token.ref);
    const struct pod *pod = ctr ? world_pod(exec->world, ctr->pod) : NULL;
    CLEANUP_BUF struct buf text = {0};
    if (!pod)
        return;
    timing_runs(exec->timing, ctr->id);
    buf_printf(&text, "container '%s', milliseconds: ", ctr->spec.name);
    timing_describe(exec->timing, ctr->id, &text);
    CLEANUP_FREE char *message = buf_take_str(&text);
    core_vm_event(exec_core(exec), pod->vm, "Timing", message);
}

const struct timing *exec_timing(const struct exec *exec)
{
    return exec->timing;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

struct core *exec_core(struct exec *exec)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    core_clock(exec->core, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    return exec->core;
}

/* Whoever still holds the task for later must let go of it. */
static void task_free(struct task *task)
{
    struct link *link;
    DL_DELETE(task->exec->tasks, task);
    if (task->ask)
        ask_forget(task->ask);
    if (task->job)
        job_forget(task->job);
    job_root_clear(&task->root);
    DL_FOREACH(task->exec->links, link)
        if (link->spawn == task)
            link->spawn = NULL;
    timer_free(task->timer);
    free(task);
}

void task_done(struct task *task, const struct error *error, const struct effect_result *result)
{
    struct exec *exec = task->exec;
    struct token token = task->effect.token;
    task_free(task);
    if (!error)
        timing_of_effect(exec, token, actors[token.kind].done);
    if (exec->hooks.completed)
        exec->hooks.completed(token, exec->hooks.arg);
    core_done(exec_core(exec), token, error, result);
    if (token.kind == EFFECT_CTR_RUN && !error)
        timing_tell(exec, token);
}

void task_answered(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    task->ask = NULL;
    task->job = NULL;
    task_done(task, error, NULL);
}

void task_fail(struct task *task, enum error_kind kind, const char *format, ...)
{
    CLEANUP_ERROR struct error *error = NULL;
    va_list ap;
    va_start(ap, format);
    CLEANUP_FREE char *message = str_vprintf(format, ap);
    va_end(ap);
    error_set(&error, kind, 0, "%s", message);
    task_done(task, error, NULL);
}

static void task_job_begins(void *arg)
{
    struct task *task = arg;
    timer_set(task->timer, task->effect.deadline_ms);
}

void task_begin_job(struct task *task, struct job *job)
{
    task->job = job;
    timer_set(task->timer, task->effect.deadline_ms + task->exec->config.job_deadline_ms);
    job_on_begin(job, task_job_begins);
}

static void task_time(void *arg)
{
    struct task *task = arg;
    if (task->effect.token.kind == EFFECT_VM_OFF)
        vm_off_late(task);
    if (task->effect.token.kind == EFFECT_TIMER)
        task_done(task, NULL, NULL);
    else
        task_fail(task, ERROR_TIMEOUT, "it took longer than %u s",
                  (task->effect.deadline_ms + 999) / 1000);
}

void exec_act(struct exec *exec, const struct effect *effect)
{
    struct task *task = xcalloc(1, sizeof(*task));
    task->exec = exec;
    task->effect = *effect;
    task->timer = timer_new(exec->loop, task_time, task);
    DL_APPEND(exec->tasks, task);
    timing_begins(exec, effect->token);
    timing_of_effect(exec, effect->token, actors[effect->token.kind].asked);
    timer_set(task->timer,
              effect->token.kind == EFFECT_TIMER ? effect->delay_ms : effect->deadline_ms);
    if (actors[effect->token.kind].act)
        actors[effect->token.kind].act(task);
}

/* ---- paths ---------------------------------------------------------------------------------- */

char *path_of_pod(const struct pod *pod)
{
    return str_printf("pods/%s", pod->uid);
}

char *path_of_layer(const struct exec *exec, const struct pod *pod, const struct container *ctr)
{
    /* With another driver than `block` it is a file that stands for the layer. */
    return str_printf("pods/%s/%s.%s", pod->uid, ctr->id,
                      storage_attaches(exec) ? "layer" : "ext4");
}

char *path_of_log(const struct pod *pod, const struct container *ctr)
{
    return str_printf("pods/%s/%s.log", pod->uid, ctr->id);
}

const char *image_file(const struct image *image)
{
    return image && image->files ? image->files[0] : "";
}

char *path_of_image(const struct exec *exec, const struct container *ctr)
{
    const struct image *image = world_image(exec->world, ctr->image);
    return xstrdup(image_file(image));
}

char *path_of_vm(const char *vm)
{
    return str_printf("vms/%s", vm);
}

char *path_of_vm_layer(const char *vm)
{
    return str_printf("vms/%s/layer.ext4", vm);
}

char *path_full(const struct exec *exec, const char *path)
{
    return str_printf("%s/%s", exec->config.root, path);
}

/* ---- how guests run ------------------------------------------------------------------------- */

const char *exec_accel(const struct exec *exec, const char **ret_reason)
{
    if (!str_eq(exec->config.accel, "auto")) {
        *ret_reason = "set by accel";
        return exec->config.accel;
    }
    *ret_reason = exec->kvm_refused;
    if (exec->kvm_refused)
        return "tcg";
    return accel_choose(ACCEL_KVM, ACCEL_CPUINFO, exec->config.qemu_user, ret_reason);
}

void exec_refuse_kvm(struct exec *exec, const char *why)
{
    str_set(&exec->kvm_refused, why);
}

void exec_trust_kvm(struct exec *exec)
{
    exec->kvm_works = true;
    exec->kvm_is_bad = false;
    exec_refuse_kvm(exec, NULL);
}

/* ---- the room ------------------------------------------------------------------------------- */

struct exec *exec_new(struct loop *loop, struct world *world, struct core *core,
                      const struct exec_config *config, const struct exec_hooks *hooks)
{
    struct exec *exec = xcalloc(1, sizeof(*exec));
    exec->loop = loop;
    exec->world = world;
    exec->core = core;
    exec->config = *config;
    exec->hooks = *hooks;
    exec->pool = pool_new(exec);
    exec->timing = timing_new();
    exec->line = boot_line_new(exec);
    exec->templates = templates_new(exec);
    return exec;
}

void exec_forget_tasks(struct exec *exec)
{
    while (exec->tasks)
        task_free(exec->tasks);
}

void exec_free(struct exec *exec)
{
    if (!exec)
        return;
    exec_forget_tasks(exec);
    templates_end(exec->templates);
    while (exec->links)
        link_free(exec->links);
    templates_free(exec->templates);
    timer_free(exec->line);
    pool_free(exec->pool);
    parked_free_all(exec);
    timing_free(exec->timing);
    free(exec->kvm_refused);
    free(exec);
}

char **exec_keep(const struct exec *exec)
{
    char **keep = NULL;
    WORLD_FOREACH(struct pod, pod, exec->world, NOUN_POD)
        strv_push_take(&keep, path_of_pod(pod));
    WORLD_FOREACH(struct image, image, exec->world, NOUN_IMAGE) {
        STRV_FOREACH(file, image->files)
            strv_push(&keep, *file);
    }
    return keep;
}

void exec_sweep(struct exec *exec)
{
    pool_sweep(exec->pool, false);
    pool_spares(exec->pool);
}

void exec_halt(struct exec *exec)
{
    pool_halt(exec->pool);
}

void exec_sweep_all(struct exec *exec)
{
    pool_sweep(exec->pool, true);
}
