/* The pool: idle VMs of the shapes that were set, for the next pods of just these shapes.
 *
 *      booting ──rehearsed──> idle ──a pod takes it──> associated ──placed──> as any other VM
 *
 * `vm->pooled` is true from the VM's making until a pod was placed in it. It is filled one VM at a
 * time, when no pod is starting: pods need the processors more. What ends too early is made again
 * after a delay, which the new VM waits out in `booting`.
 */
#include "core/core_int.h"

enum { VMS_OF_PODS_MIN = VMS_MAX / 2 }; /* as many VMs the pool leaves to pods */

void core_set_pool(struct core *core, const struct pool_shape *shapes, size_t count)
{
    core->pool.shape_count = count < POOL_SHAPES_MAX ? count : POOL_SHAPES_MAX;
    for (size_t i = 0; i < core->pool.shape_count; i++)
        core->pool.shapes[i] = shapes[i];
    core->pool.due = true;
    core_settle(core);
}

static bool shape_fits(const struct pool_shape *shape, const struct vm *vm)
{
    return shape->cpus == vm->cpus && shape->memory_mb == vm->memory_mb;
}

/* In the pool, or on its way there. */
static bool is_of_pool(const struct vm *vm)
{
    return vm->pooled && !ref_is(vm->pod) && (vm->state == VM_BOOTING || vm->state == VM_IDLE);
}

struct vm *vm_pool_find(const struct core *core, const struct pod *pod)
{
    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM)
        if (is_of_pool(vm) && vm->state == VM_IDLE && !vm->effect && !vm->paused &&
            vm->cpus == pod->spec.vcpu && vm->memory_mb == pod->spec.memory_mb)
            return vm;
    return NULL;
}

bool vm_pool_waits(const struct core *core)
{
    WORLD_FOREACH(struct pod, pod, core->world, NOUN_POD)
        if (pod->state == POD_STARTING)
            return true;
    return false;
}

void vm_pool_lost(struct core *core, const struct vm *vm)
{
    if (!vm->pooled || vm->state == VM_STOPPING)
        return;
    if (pod_runs_long(core, vm->created_ns))
        core->pool.failures = 0;
    core->pool.failures++;
}

/* Counts what there is of each shape, ends what is too much, and says whether one is booting. */
static bool pool_shrink(struct core *core, uint32_t have[POOL_SHAPES_MAX])
{
    bool booting = false;

    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM) {
        size_t i = 0;

        if (!is_of_pool(vm))
            continue;
        while (i < core->pool.shape_count && !shape_fits(&core->pool.shapes[i], vm))
            i++;
        if (i < core->pool.shape_count && have[i] < core->pool.shapes[i].count) {
            have[i]++;
            booting |= vm->state == VM_BOOTING;
        } else {
            vm_begin_stop(core, vm, 0, NULL);
        }
    }
    return booting;
}

void vm_pool_settle(struct core *core)
{
    uint32_t have[POOL_SHAPES_MAX] = {0};
    const struct vm_pool *pool = &core->pool;

    if (!core->pool.due)
        return;
    core->pool.due = false;
    if (pool_shrink(core, have) || core->tight || core->ending ||
        core->world->tables[NOUN_VM].count >= VMS_MAX - VMS_OF_PODS_MIN)
        return;
    for (size_t i = 0; i < pool->shape_count; i++) {
        if (have[i] >= pool->shapes[i].count)
            continue;
        struct vm *vm = vm_make(core, pool->shapes[i].cpus, pool->shapes[i].memory_mb, NULL);

        vm->pooled = true;
        core_set_timer(core, &vm->object, &vm->timer,
                       pool->failures ? core_backoff_ms(pool->failures - 1) : POOL_DELAY_MS);
        return;
    }
}
