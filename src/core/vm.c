/* The life of a VM: booted for a pod or to be idle, turned off, cleaned, gone. */
#include <assert.h>
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

/* Its pod and the containers in it may go on, or have to stop. */
static void vm_changed(struct core *core, struct vm *vm)
{
    struct pod *pod = world_pod(core->world, vm->pod);

    core_changed(core, &vm->object);
    if (!pod)
        return;
    core_wake(core, &pod->object);
    POD_FOREACH_CTR(c, pod)
        core_wake(core, &c->object);
}

static void vm_tell(struct core *core, const struct vm *vm, const char *reason, const char *message)
{
    world_tell(core->world, core->wall_ns, &vm->object, reason, "%s", message ? message : "");
}

struct vm *vm_make(struct core *core, uint32_t cpus, uint64_t memory_mb, struct pod *pod)
{
    struct vm *vm = xcalloc(1, sizeof(*vm));

    do {
        memcpy(vm->id, "vm-", 3);
        core_random_letters(core, vm->id + 3, VM_ID_LEN - 3, 'A');
    } while (world_vm_by_id(core->world, vm->id));
    vm->cpus = cpus;
    vm->memory_mb = memory_mb;
    vm->created_ns = core->wall_ns;
    world_add_vm(core->world, vm);
    if (pod) {
        vm->pod = pod->object.ref;
        pod->vm = vm->object.ref;
        world_touch(core->world, &pod->object);
    }
    core_wake(core, &vm->object);
    return vm;
}

void vm_take(struct core *core, struct vm *vm, struct pod *pod)
{
    assert(vm->state == VM_IDLE && !ref_is(vm->pod));
    vm->state = VM_ASSOCIATED;
    vm->pod = pod->object.ref;
    pod->vm = vm->object.ref;
    core_changed(core, &pod->object);
    core_changed(core, &vm->object);
}

/* A pod that was promised this VM may come in now. */
static void wake_next(struct core *core, const struct vm *vm)
{
    WORLD_FOREACH(struct pod, pod, core->world, NOUN_POD)
        if (pod->state == POD_STARTING && str_eq(pod->target_vm, vm->id))
            core_wake(core, &pod->object);
}

void vm_leave(struct core *core, struct vm *vm, struct pod *pod)
{
    vm->state = VM_IDLE;
    vm->pod = REF_NONE;
    pod->vm = REF_NONE;
    pod->placed = false;
    POD_FOREACH_CTR(c, pod)
        ctr_vm_gone(core, c, "its pod left the vm");
    core_changed(core, &pod->object);
    core_changed(core, &vm->object);
    wake_next(core, vm);
}

void vm_leaves_pool(struct core *core, struct vm *vm)
{
    if (!vm->pooled)
        return;
    vm->pooled = false;
    image_wake(core, vm->image_id);
    str_set(&vm->image_id, NULL);
    vm->layer_mb = 0;
    core_changed(core, &vm->object);
}

/* A pod that was not placed yet has lost nothing by it: it waits in its first step until the VM is
 * cleaned away, and gets another one. */
static bool pod_may_try_again(const struct pod *pod, const struct vm *vm)
{
    return vm->pooled && !pod->placed && pod->state == POD_STARTING &&
           pod->want == POD_WANT_RUNNING;
}

/* The pod in it cannot stay what it is. */
static void pod_loses_vm(struct core *core, struct vm *vm, const char *reason)
{
    struct pod *pod = world_pod(core->world, vm->pod);
    CLEANUP_ERROR struct error *error = NULL;

    if (!pod)
        return;
    if (pod_may_try_again(pod, vm)) {
        pod->step = 0;
        core_changed(core, &pod->object);
        return;
    }
    pod->keep_vm = false;
    error_set(&error, ERROR_CANCELLED, 0, "vm '%s' ended%s%s", vm->id, reason ? ": " : "",
              reason ? reason : "");
    pod_fail(core, pod, error);
}

void vm_begin_stop(struct core *core, struct vm *vm, uint32_t grace_ms, const char *reason)
{
    assert(vm->state != VM_STOPPING);
    if (reason)
        pod_loses_vm(core, vm, reason);
    vm->state = VM_STOPPING;
    vm->paused = false;
    vm->effect = 0; /* nobody waits for what it was about to be */
    vm->timer = 0;
    vm->grace_ms = grace_ms;
    str_set(&vm->reason, reason);
    vm_changed(core, vm);
    wake_next(core, vm);
}

/* Whoever sent a signal into it has nothing to wait for: the effect may never be completed. */
static void signals_lost(struct core *core, struct object *object, enum request_kind kind,
                         const struct vm *vm)
{
    CLEANUP_ERROR struct error *error = NULL;

    error_set(&error, ERROR_CANCELLED, 0, "%s '%s': vm '%s' ended meanwhile",
              noun_name(object->noun), object_name(object), vm->id);
    ops_fail(object, kind, error);
    for (struct op *op = *object_ops(object), *next; op; op = next) {
        next = op->next;
        if (op->kind == kind)
            op_answer(core, op, take(op->error), 0);
    }
}

/* All that was known of the ends in it has been told; the rest was not seen by anybody. */
static void vm_lose_containers(struct core *core, struct vm *vm)
{
    struct pod *pod = world_pod(core->world, vm->pod);
    CLEANUP_FREE char *why = str_printf("vm '%s' ended%s%s", vm->id, vm->reason ? ": " : "",
                                        vm->reason ? vm->reason : "");

    if (!pod)
        return;
    signals_lost(core, &pod->object, REQ_POD_KILL, vm);
    POD_FOREACH_CTR(c, pod) {
        signals_lost(core, &c->object, REQ_CTR_KILL, vm);
        ctr_vm_gone(core, c, why);
    }
    pod->placed = false;
    pod->effect = 0; /* POD_PLACE, POD_LEAVE: only the VM could have answered */
    core_changed(core, &pod->object);
}

void vm_let_go(struct core *core, struct vm *vm)
{
    struct pod *pod = world_pod(core->world, vm->pod);

    vm_lose_containers(core, vm);
    pod->vm = REF_NONE;
    vm->pod = REF_NONE;
    core_changed(core, &vm->object);
}

void vm_dead(struct core *core, struct vm *vm, const char *reason)
{
    pod_loses_vm(core, vm, reason);
    vm->state = VM_STOPPING;
    vm->paused = false;
    vm->dead = true;
    vm->effect = 0;
    vm->timer = 0;
    if (!vm->reason)
        str_set(&vm->reason, reason);
    vm_changed(core, vm);
    vm->retries = 0;
    vm_lose_containers(core, vm);
    wake_next(core, vm);
}

void vm_advance(struct core *core, struct vm *vm)
{
    if (vm->effect || vm->timer)
        return;
    if (vm->state == VM_BOOTING && vm->pooled && vm_pool_waits(core))
        core_set_timer(core, &vm->object, &vm->timer, POOL_DELAY_MS);
    else if (vm->state == VM_BOOTING)
        core_ask(core, EFFECT_VM_SPAWN, &vm->object, &vm->effect);
    else if (vm->state == VM_STOPPING && vm->dead)
        core_ask(core, EFFECT_VM_CLEAN, &vm->object, &vm->effect);
    else if (vm->state == VM_STOPPING && !vm->dead) {
        struct effect *effect = core_ask(core, EFFECT_VM_OFF, &vm->object, &vm->effect);

        effect->grace_ms = vm->grace_ms;
        effect->deadline_ms += vm->grace_ms;
    }
}

/* ---- effects -------------------------------------------------------------------------------- */

static void spawn_done(struct core *core, struct vm *vm, const struct error *error,
                       const struct effect_result *result)
{
    struct pod *pod = world_pod(core->world, vm->pod);

    if (error) {
        vm_pool_lost(core, vm);
        str_set(&vm->reason, error->message);
        ops_fail(&vm->object, REQ_VM_CREATE, error);
        if (pod)
            pod_fail(core, pod, error);
        vm_dead(core, vm, error->message);
        return;
    }
    if (result) {
        str_set(&vm->accel, result->accel);
        str_set(&vm->machine, result->machine);
        str_set(&vm->template, result->template);
        vm->qemu_pid = result->qemu_pid;
    }
    if (vm->pooled) {
        core_ask(core, EFFECT_VM_REHEARSE, &vm->object, &vm->effect);
        core_changed(core, &vm->object);
        return;
    }
    vm->state = pod ? VM_ASSOCIATED : VM_IDLE;
    vm_changed(core, vm);
    vm_tell(core, vm, vm->template ? "Cloned" : "Booted", vm->template);
}

/* Who cannot do that cannot be the home of a pod either. */
static void rehearse_done(struct core *core, struct vm *vm, const struct error *error,
                          const struct effect_result *result)
{
    if (error) {
        vm_pool_lost(core, vm);
        vm_begin_stop(core, vm, 0, error->message);
        return;
    }
    vm->state = VM_IDLE;
    vm_changed(core, vm);
    vm_tell(core, vm, vm->template ? "Cloned" : "Booted", "for the pool");
}

/* As long as QEMU may live its keeper may know of an end that nobody has told yet: it is turned off
 * again, with less patience, until it is gone. Only then it is cleaned. */
static void off_done(struct core *core, struct vm *vm, const struct error *error,
                     const struct effect_result *result)
{
    if (!error) {
        vm_dead(core, vm, NULL);
        return;
    }
    if (vm->retries == 0)
        vm_tell(core, vm, "OffFailed", error->message);
    vm->grace_ms = 0;
    core_set_timer(core, &vm->object, &vm->timer, core_backoff_ms(vm->retries++));
}

static void clean_done(struct core *core, struct vm *vm, const struct error *error,
                       const struct effect_result *result)
{
    struct pod *pod = world_pod(core->world, vm->pod);

    if (error) {
        if (vm->retries == 0)
            vm_tell(core, vm, "CleanFailed", error->message);
        core_set_timer(core, &vm->object, &vm->timer, core_backoff_ms(vm->retries++));
        return;
    }
    if (pod) {
        pod->vm = REF_NONE;
        core_changed(core, &pod->object);
    }
    vm_tell(core, vm, "Ended", vm->reason);
    ops_gone(core, &vm->object);
    wake_next(core, vm);
    image_wake(core, vm->image_id);
    world_remove(core->world, &vm->object);
}

static void freeze_done(struct core *core, struct vm *vm, bool paused, const struct error *error)
{
    struct pod *pod = world_pod(core->world, vm->pod);
    CLEANUP_ERROR struct error *told = error_copy(error);

    if (pod) /* it may wait for the answer alone: the fact may have come before */
        core_wake(core, &pod->object);
    if (!error) {
        core_vm_paused(core, vm->object.ref, paused);
        return;
    }
    vm_changed(core, vm);
    if (!pod)
        return;
    error_wrap(&told, "pod '%s'", pod->spec.id);
    ops_fail(&pod->object, paused ? REQ_POD_PAUSE : REQ_POD_UNPAUSE, told);
    if (pod->state == POD_STOPPING)
        vm_begin_stop(core, vm, error->kind == ERROR_TIMEOUT ? pod_off_grace_ms(pod) : 0,
                      error->message); /* it hears no stop; perhaps it is only slow */
}

static void pause_done(struct core *core, struct vm *vm, const struct error *error,
                       const struct effect_result *result)
{
    freeze_done(core, vm, true, error);
}

static void resume_done(struct core *core, struct vm *vm, const struct error *error,
                        const struct effect_result *result)
{
    freeze_done(core, vm, false, error);
}

void vm_effect_done(struct core *core, struct vm *vm, enum effect_kind kind,
                    const struct error *error, const struct effect_result *result)
{
    static void (*const done[EFFECT_COUNT])(struct core *, struct vm *, const struct error *,
                                            const struct effect_result *) = {
        [EFFECT_VM_SPAWN] = spawn_done,   [EFFECT_VM_OFF] = off_done,
        [EFFECT_VM_CLEAN] = clean_done,   [EFFECT_VM_PAUSE] = pause_done,
        [EFFECT_VM_RESUME] = resume_done, [EFFECT_VM_REHEARSE] = rehearse_done,
    };

    core_wake(core, &vm->object);
    done[kind](core, vm, error, result);
}

/* ---- facts ---------------------------------------------------------------------------------- */

bool vm_is_unused(const struct core *core, const struct vm *vm)
{
    const struct pod *pod = world_pod(core->world, vm->pod);

    return vm->state == VM_BOOTING && pod && pod->state == POD_STARTING;
}

void vm_replace(struct core *core, struct vm *vm, const char *reason)
{
    vm->state = VM_STOPPING;
    vm->dead = true; /* there is nothing in it whose end anybody could tell */
    str_set(&vm->reason, reason);
    core_changed(core, &vm->object);
}

void core_vm_gone(struct core *core, struct ref ref, const char *reason)
{
    struct vm *vm = world_vm(core->world, ref);

    if (!vm)
        return;
    vm->seen = true;
    if (vm->dead)
        return; /* known, and being cleaned */
    if (!core->loading)
        vm_pool_lost(core, vm);
    if (core->loading && vm_is_unused(core, vm))
        vm_replace(core, vm, reason);
    else
        vm_dead(core, vm, str_or(reason, "its keeper is gone"));
    core_settle(core);
}

void core_vm_stuck(struct core *core, struct ref ref, const char *why)
{
    struct vm *vm = world_vm(core->world, ref);
    struct pod *pod = vm ? world_pod(core->world, vm->pod) : NULL;

    if (!pod || vm->state != VM_ASSOCIATED)
        return;
    if (pod->state == POD_STOPPING) /* it would never hear of that */
        vm_begin_stop(core, vm, 0, why);
    if (pod->state == POD_RUNNING)
        str_set(&pod->reason, why);
    core_changed(core, &pod->object);
    core_settle(core);
}

void core_vm_paused(struct core *core, struct ref ref, bool paused)
{
    struct vm *vm = world_vm(core->world, ref);
    struct pod *pod = vm ? world_pod(core->world, vm->pod) : NULL;

    if (!vm || vm->paused == paused || (vm->state != VM_IDLE && vm->state != VM_ASSOCIATED))
        return;
    vm->paused = paused;
    vm_changed(core, vm);
    if (pod)
        world_tell(core->world, core->wall_ns, &pod->object, paused ? "Paused" : "Unpaused", "%s",
                   "");
    if (pod && !paused && pod->state == POD_RUNNING)
        str_set(&pod->reason, NULL);
    if (pod)
        core_changed(core, &pod->object);
    core_settle(core);
}

void core_vm_event(struct core *core, struct ref ref, const char *reason, const char *message)
{
    const struct vm *vm = world_vm(core->world, ref);
    const struct pod *pod = vm ? world_pod(core->world, vm->pod) : NULL;

    if (vm)
        world_tell(core->world, core->wall_ns, pod ? &pod->object : &vm->object, reason, "%s",
                   message);
}
