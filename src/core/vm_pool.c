/* The pool: idle VMs of the shapes that were set, for the next pods of just these shapes.
 *
 *      booting ──rehearsed──> idle ──a pod takes it──> associated ──placed──> as any other VM
 *
 * `vm->pooled` is true from the VM's making until a pod was placed in it. It is filled one VM at a
 * time, when no pod is starting: pods need the processors more. What ends too early is made again
 * after a delay, which the new VM waits out in `booting` while other shapes are filled.
 *
 * A generic one is not taken where a new VM would start sooner, being a copy of a zygote that has
 * the image mounted.
 *
 * A VM for an image has the root of a container ready, over a layer that lies in its own directory.
 * The pod with just such a container takes it, and when the pod is placed (POD_PLACE) the layer
 * becomes the container's, in the place of the empty one that it was created with. From then on the
 * VM is good for this pod only: should that not stay, it ends. A name may come to mean another
 * image: what is idle for the old one ends, and an image that is removed waits for that.
 */
#include "base/str.h"
#include "core/core_int.h"

enum { VMS_OF_PODS_MIN = VMS_MAX / 2 }; /* as many VMs the pool leaves to pods */

void core_set_pool(struct core *core, const struct pool_shape *shapes, size_t count)
{
    core->pool.shape_count = count < POOL_SHAPES_MAX ? count : POOL_SHAPES_MAX;
    for (size_t i = 0; i < core->pool.shape_count; i++) {
        core->pool.shapes[i] = shapes[i];
        core->pool.waits[i] = false;
        core->pool.failures[i] = 0;
    }
    core->pool.due = true;
    core_settle(core);
}

/* The one that its name means now; NULL if that is not here. */
static const struct image *shape_image(const struct core *core, const struct pool_shape *shape)
{
    struct image *image = NULL;

    world_find_image(core->world, shape->image, &image, NULL);
    return image && image->state == IMAGE_PRESENT ? image : NULL;
}

static bool shape_fits(const struct core *core, const struct pool_shape *shape, const struct vm *vm)
{
    if (shape->cpus != vm->cpus || shape->memory_mb != vm->memory_mb ||
        !*shape->image != !vm->image_id)
        return false;
    if (!vm->image_id)
        return true;
    const struct image *image = shape_image(core, shape);

    return image && str_eq(image->id, vm->image_id) && shape->layer_mb == vm->layer_mb;
}

/* The number of its shape; shape_count if there is none. */
static size_t shape_of(const struct core *core, const struct vm *vm)
{
    size_t i = 0;

    while (i < core->pool.shape_count && !shape_fits(core, &core->pool.shapes[i], vm))
        i++;
    return i;
}

/* In the pool, or on its way there. */
static bool is_of_pool(const struct vm *vm)
{
    return vm->pooled && !ref_is(vm->pod) && (vm->state == VM_BOOTING || vm->state == VM_IDLE);
}

bool core_pool_status(const struct core *core, size_t number, struct pool_status *ret)
{
    if (number >= core->pool.shape_count)
        return false;
    const struct pool_shape *shape = &core->pool.shapes[number];

    *ret =
        (struct pool_status){.shape = shape, .waits = *shape->image && !shape_image(core, shape)};
    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM)
        if (is_of_pool(vm) && shape_fits(core, shape, vm)) {
            ret->idle += vm->state == VM_IDLE;
            ret->coming += vm->state == VM_BOOTING;
        }
    return true;
}

void core_image_quick(struct core *core, const char *image_id, const struct image_quick *quick)
{
    struct image *image = world_image_by_id(core->world, image_id);

    if (image)
        image->quick = *quick;
}

static bool is_quick(const struct image_quick *quick, const struct pod_spec *spec)
{
    return quick->layer_mb && quick->layer_mb == spec->storage_mb &&
           spec->vcpu <= quick->cpus_max && spec->memory_mb >= quick->memory_min_mb &&
           spec->memory_mb <= quick->memory_max_mb;
}

static bool is_quicker_anew(const struct core *core, const struct pod *pod)
{
    POD_FOREACH_CTR(ctr, pod) {
        const struct image *image = world_image(core->world, ctr->image);

        if (image && ctr->state == CTR_PENDING && !ctr->run && is_quick(&image->quick, &pod->spec))
            return true;
    }
    return false;
}

struct vm *vm_pool_find(const struct core *core, const struct pod *pod)
{
    bool anew = is_quicker_anew(core, pod);
    struct vm *found = NULL;

    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM) {
        if (!is_of_pool(vm) || vm->state != VM_IDLE || vm->effect || vm->paused ||
            vm->cpus != pod->spec.vcpu || vm->memory_mb != pod->spec.memory_mb)
            continue;
        if (vm_layer_for(vm, pod))
            return vm;
        if (!vm->image_id && !found && !anew)
            found = vm;
    }
    return found;
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
    size_t i = shape_of(core, vm);

    if (!vm->pooled || vm->state == VM_STOPPING || i == core->pool.shape_count)
        return;
    if (pod_runs_long(core, vm->created_ns))
        core->pool.failures[i] = 0;
    core->pool.failures[i]++;
}

struct pool_count {
    uint32_t have;
    bool coming; /* one of them is booting, or waits for its turn to */
};

/* Counts what there is of each shape, ends what is too much, and says whether one is booting. What
 * waits after a failure keeps no other shape from being filled. */
static bool pool_shrink(struct core *core, struct pool_count counts[POOL_SHAPES_MAX])
{
    bool booting = false;

    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM) {
        if (!is_of_pool(vm))
            continue;
        size_t i = shape_of(core, vm);

        if (i == core->pool.shape_count || counts[i].have == core->pool.shapes[i].count) {
            vm_begin_stop(core, vm, 0, NULL);
            continue;
        }
        counts[i].have++;
        if (vm->state != VM_BOOTING)
            continue;
        counts[i].coming = true;
        booting |= !(vm->timer && core->pool.failures[i]);
    }
    return booting;
}

/* Says so once when an image has to be waited for. */
static bool shape_waits(struct core *core, size_t number)
{
    const struct pool_shape *shape = &core->pool.shapes[number];
    bool waits = *shape->image && !shape_image(core, shape);

    if (waits && !core->pool.waits[number])
        world_tell_name(core->world, core->wall_ns, NOUN_IMAGE, shape->image, "PoolWaits",
                        "the pool waits for this image: pull or load it");
    core->pool.waits[number] = waits;
    return waits;
}

static void pool_grow(struct core *core, size_t number)
{
    const struct pool_shape *shape = &core->pool.shapes[number];
    uint32_t failures = core->pool.failures[number];
    struct vm *vm = vm_make(core, shape->cpus, shape->memory_mb, NULL);

    vm->pooled = true;
    if (*shape->image) {
        str_set(&vm->image_id, shape_image(core, shape)->id);
        vm->layer_mb = shape->layer_mb;
    }
    core_set_timer(core, &vm->object, &vm->timer,
                   failures ? core_backoff_ms(failures - 1) : POOL_DELAY_MS);
}

void vm_pool_settle(struct core *core)
{
    struct pool_count counts[POOL_SHAPES_MAX] = {{0}};
    const struct vm_pool *pool = &core->pool;
    size_t next = POOL_SHAPES_MAX;

    if (!core->pool.due)
        return;
    core->pool.due = false;
    bool booting = pool_shrink(core, counts);

    for (size_t i = 0; i < pool->shape_count; i++) {
        if (shape_waits(core, i) || counts[i].have == pool->shapes[i].count || counts[i].coming)
            continue;
        if (next == POOL_SHAPES_MAX || pool->failures[i] < pool->failures[next])
            next = i;
    }
    if (booting || next == POOL_SHAPES_MAX || core->tight || core->ending ||
        core->world->tables[NOUN_VM].count >= VMS_MAX - VMS_OF_PODS_MIN)
        return;
    pool_grow(core, next);
}
