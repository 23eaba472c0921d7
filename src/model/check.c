/* What must hold between the objects: lifecycle.md §2, written as code. */
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "model/world.h"

#define MUST(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return error_set(ret_error, ERROR_CORRUPT, 0, __VA_ARGS__);                            \
    } while (0)

static int ctr_verify(const struct world *world, const struct pod *pod, const struct container *ctr,
                      struct error **ret_error)
{
    const struct image *image = world_image(world, ctr->image);

    MUST(ref_eq(ctr->pod, pod->object.ref), "container '%s' is in the list of a pod not its own",
         ctr->spec.name);
    MUST(ctr->state < CTR_STATE_COUNT && ctr->want < CTR_WANT_COUNT,
         "container '%s' has no such state", ctr->spec.name);
    MUST(image && image->state == IMAGE_PRESENT && str_eq(image->id, ctr->image_id),
         "container '%s' has no image", ctr->spec.name);
    MUST(!ctr_is_up(ctr) || (pod->placed && ctr->run > 0),
         "container '%s' is %s in pod '%s', which is in no vm", ctr->spec.name,
         ctr_state_name(ctr->state), pod->spec.id);
    MUST(ctr->state != CTR_ENDED || ctr->finished_ns, "container '%s' ended at no time",
         ctr->spec.name);
    MUST(ctr->state != CTR_PENDING || !ctr->finished_ns, "container '%s' is pending, but has run",
         ctr->spec.name);
    MUST(ctr->state != CTR_REMOVING || ctr->want == CTR_WANT_GONE,
         "container '%s' is being removed, but nobody wants that", ctr->spec.name);
    return 0;
}

static int pod_verify_vm(const struct world *world, const struct pod *pod, struct error **ret_error)
{
    const struct vm *vm = world_vm(world, pod->vm);

    MUST(!ref_is(pod->vm) || vm, "pod '%s' is in a vm that does not exist", pod->spec.id);
    MUST(!vm || ref_eq(vm->pod, pod->object.ref), "pod '%s' is in vm '%s', which is not its own",
         pod->spec.id, vm->id);
    MUST(!pod->placed || vm, "pod '%s' is placed in no vm", pod->spec.id);
    MUST(!vm || pod->state == POD_STARTING || pod->state == POD_RUNNING ||
             pod->state == POD_STOPPING,
         "pod '%s' is %s, but has vm '%s'", pod->spec.id, pod_state_name(pod->state), vm->id);
    if (pod->state == POD_RUNNING)
        MUST(vm && vm->state == VM_ASSOCIATED && pod->placed, "pod '%s' runs in no vm",
             pod->spec.id);
    return 0;
}

int pod_verify(const struct world *world, const struct pod *pod, struct error **ret_error)
{
    uint32_t count = 0;

    MUST(pod->state < POD_STATE_COUNT && pod->want < POD_WANT_COUNT, "pod '%s' has no such state",
         pod->spec.id);
    MUST(pod->state != POD_REMOVING || pod->want == POD_WANT_GONE,
         "pod '%s' is being removed, but nobody wants that", pod->spec.id);
    if (pod_verify_vm(world, pod, ret_error) < 0)
        return -1;
    POD_FOREACH_CTR(c, pod) {
        count++;
        if (ctr_verify(world, pod, c, ret_error) < 0)
            return -1;
    }
    MUST(count == pod->container_count, "pod '%s' has %u containers, not %u", pod->spec.id, count,
         pod->container_count);
    return 0;
}

int vm_verify(const struct world *world, const struct vm *vm, struct error **ret_error)
{
    const struct pod *pod = world_pod(world, vm->pod);

    MUST(vm->state < VM_STATE_COUNT, "vm '%s' has no such state", vm->id);
    MUST(!ref_is(vm->pod) || (pod && ref_eq(pod->vm, vm->object.ref)),
         "vm '%s' belongs to a pod that is not in it", vm->id);
    MUST(vm->state != VM_IDLE || !pod, "vm '%s' is idle with a pod in it", vm->id);
    MUST(vm->state != VM_ASSOCIATED || pod, "vm '%s' is associated with no pod", vm->id);
    MUST(!vm->pooled || !pod || !pod->placed, "vm '%s' is of the pool, but has a pod", vm->id);
    MUST(!vm->image_id || vm->pooled, "vm '%s' is for an image, but not of the pool", vm->id);
    MUST(!vm->image_id || world_image_by_id(world, vm->image_id),
         "vm '%s' is for image '%s', which is not there", vm->id, vm->image_id);
    MUST(!vm->paused || vm->state == VM_ASSOCIATED || vm->state == VM_IDLE,
         "vm '%s' is paused, but %s", vm->id, vm_state_name(vm->state));
    return 0;
}

static int images_verify(const struct world *world, struct error **ret_error)
{
    uint64_t users = 0;

    WORLD_FOREACH(struct image, image, world, NOUN_IMAGE) {
        MUST(image->state < IMAGE_STATE_COUNT, "image '%s' has no such state", image->id);
        MUST(image->state != IMAGE_REMOVING || (!image->users && !image->names),
             "image '%s' is being removed while it is used", image->id);
        users += image->users;
        STRV_FOREACH(name, image->names) {
            struct image_name *entry = NULL;

            HASH_FIND_STR(world->names, *name, entry);
            MUST(entry && entry->image == image, "image name '%s' is of two images", *name);
        }
    }
    MUST(users == world->tables[NOUN_CTR].count, "images have %llu users, not %u",
         (unsigned long long)users, world->tables[NOUN_CTR].count);
    return 0;
}

int world_verify(const struct world *world, struct error **ret_error)
{
    uint64_t containers = 0;

    WORLD_FOREACH(struct pod, pod, world, NOUN_POD) {
        if (pod_verify(world, pod, ret_error) < 0)
            return -1;
        containers += pod->container_count;
    }
    WORLD_FOREACH(struct vm, vm, world, NOUN_VM)
        if (vm_verify(world, vm, ret_error) < 0)
            return -1;
    MUST(containers == world->tables[NOUN_CTR].count, "there are containers without a pod");
    return images_verify(world, ret_error);
}

void world_check(const struct world *world)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (world_verify(world, &error) == 0)
        return;
    fprintf(stderr, "husk: broken invariant: %s\n", error_text(error));
    abort();
}
