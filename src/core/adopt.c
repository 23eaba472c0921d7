/* After a start: what the store says, held against what is true. */
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

/* How the keeper knows that run of the container; 0: not at all. */
enum known { UNKNOWN, RUNS, HAS_ENDED };

static enum known snapshot_knows(const struct vm_snapshot *snapshot, const struct container *ctr,
                                 int64_t *ret_started_ns)
{
    for (size_t i = 0; i < snapshot->ctr_count; i++) {
        if (!str_eq(snapshot->ctrs[i].id, ctr->id) || snapshot->ctrs[i].run != ctr->run)
            continue;
        *ret_started_ns = snapshot->ctrs[i].started_ns;
        return snapshot->ctrs[i].ended ? HAS_ENDED : RUNS;
    }
    return UNKNOWN;
}

static void adopt_ctr(struct core *core, struct container *ctr, const struct vm_snapshot *snapshot)
{
    int64_t started_ns = 0;
    enum known known = snapshot_knows(snapshot, ctr, &started_ns);

    if (!ctr_is_up(ctr))
        return;
    if (known == RUNS && !ctr->started_ns)
        ctr->started_ns = started_ns > 0 ? started_ns : 1;
    if (known == RUNS && ctr->state == CTR_STARTING)
        ctr_move(core, ctr, CTR_RUNNING);
    else if (known != RUNS && ctr->state == CTR_RUNNING)
        ctr_lost(core, ctr, "its end was not seen");
    /* `starting` and unknown is run again, `stopping` is stopped again, when all is reloaded */
}

/* Whether keeper and store can both be right about who is in the VM. */
static bool adopt_pod(struct core *core, struct vm *vm, const struct vm_snapshot *snapshot)
{
    struct pod *pod = world_pod(core->world, vm->pod);

    if (!pod)
        return str_empty(snapshot->pod_uid);
    if (str_empty(snapshot->pod_uid)) {
        if (pod->placed && pod->state != POD_STOPPING)
            return false;
        if (pod->placed) /* it has left, and the daemon died before it was written down */
            vm_leave(core, vm, pod);
        return true;
    }
    if (!str_eq(snapshot->pod_uid, pod->uid))
        return false;
    pod->placed = true;
    vm_leaves_pool(core, vm);
    core_changed(core, &pod->object);
    POD_FOREACH_CTR(c, pod)
        adopt_ctr(core, c, snapshot);
    return true;
}

void core_vm_adopted(struct core *core, struct ref ref, const struct vm_snapshot *snapshot)
{
    struct vm *vm = world_vm(core->world, ref);

    if (!vm)
        return;
    vm->seen = true;
    vm->qemu_pid = snapshot->qemu_pid;
    core_changed(core, &vm->object);
    if (vm->state == VM_STOPPING) {
        const struct pod *pod = world_pod(core->world, vm->pod);
        if (pod) /* how long it had is not stored */
            vm->grace_ms = pod_off_grace_ms(pod);
        return;
    }
    if (vm_is_unused(core, vm)) { /* who knows how far it came */
        vm_replace(core, vm, "huskd ended while it booted");
        return;
    }
    if (vm->state == VM_BOOTING) {
        vm_begin_stop(core, vm, 0, NULL);
        return;
    }
    vm->paused = snapshot->paused;
    if (vm->image_id && ref_is(vm->pod) && str_empty(snapshot->pod_uid)) {
        vm_begin_stop(core, vm, 0, "huskd ended while a pod moved in"); /* its layer may be gone */
        return;
    }
    if (!snapshot->ready || !adopt_pod(core, vm, snapshot))
        vm_begin_stop(core, vm, 0, "its keeper knows another pod than the store");
    core_settle(core);
}

static void wake_all(struct core *core)
{
    for (int noun = 0; noun < NOUN_COUNT; noun++) {
        uint32_t at = 0;

        for (struct object *o; (o = world_next(core->world, (enum noun)noun, &at));)
            core_wake(core, o);
    }
}

void core_reloaded(struct core *core)
{
    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM)
        if (!vm->seen)
            core_vm_gone(core, vm->object.ref, "its keeper was not found");
    core->loading = false;
    wake_all(core);
    core_settle(core);
}
