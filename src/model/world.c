#include "model/world.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/str.h"

/* ---- tables --------------------------------------------------------------------------------- */

enum { TABLE_FIRST_CAPACITY = 16, FREE_END = UINT32_MAX };

static struct object *table_get(const struct table *table, struct ref ref)
{
    if (!ref.generation || ref.index >= table->used)
        return NULL;
    const struct slot *slot = &table->slots[ref.index];

    return slot->generation == ref.generation ? slot->object : NULL;
}

static void table_put(struct table *table, struct object *object)
{
    uint32_t index = table->first_free;

    if (index != FREE_END) {
        table->first_free = table->slots[index].next_free;
    } else {
        if (table->used == table->capacity) {
            table->capacity = table->capacity ? table->capacity * 2 : TABLE_FIRST_CAPACITY;
            table->slots = xrealloc(table->slots, table->capacity * sizeof(*table->slots));
        }
        index = table->used++;
        table->slots[index] = (struct slot){.generation = 1};
    }
    table->slots[index].object = object;
    object->ref = (struct ref){index, table->slots[index].generation};
    table->count++;
}

static void table_drop(struct table *table, struct object *object)
{
    struct slot *slot = &table->slots[object->ref.index];

    assert(slot->object == object);
    slot->object = NULL;
    if (++slot->generation == 0)
        slot->generation = 1; /* 0 means "refers to nothing" */
    slot->next_free = table->first_free;
    table->first_free = object->ref.index;
    table->count--;
}

/* ---- the world ------------------------------------------------------------------------------ */

struct world *world_new(void)
{
    struct world *world = xcalloc(1, sizeof(*world));

    for (int noun = 0; noun < NOUN_COUNT; noun++)
        world->tables[noun].first_free = FREE_END;
    world->feed_end = &world->feed;
    return world;
}

void world_free(struct world *world)
{
    if (!world)
        return;
    world_clear(world);
    for (int noun = 0; noun < NOUN_COUNT; noun++)
        free(world->tables[noun].slots);
    free(world);
}

static void object_free(struct object *object)
{
    static void (*const destroy[NOUN_COUNT])(void *) = {
        [NOUN_POD] = (void (*)(void *))pod_free,
        [NOUN_CTR] = (void (*)(void *))ctr_free,
        [NOUN_VM] = (void (*)(void *))vm_free,
        [NOUN_IMAGE] = (void (*)(void *))image_free,
    };
    destroy[object->noun](object);
}

static void feed_free(struct world *world)
{
    while (world->feed) {
        struct feed_event *event = world->feed;

        world->feed = event->next;
        free(event->id);
        free(event->name);
        free(event->reason);
        free(event->message);
        free(event);
    }
    world->feed_end = &world->feed;
    world->feed_count = 0;
}

static void names_free(struct world *world)
{
    struct image_name *name, *tmp;

    HASH_ITER(hh, world->names, name, tmp) {
        HASH_DEL(world->names, name);
        free(name->name);
        free(name);
    }
}

void world_clear(struct world *world)
{
    world_clean(world);
    names_free(world);
    HASH_CLEAR(by_id, world->pods_by_id);
    HASH_CLEAR(by_uid, world->pods_by_uid);
    HASH_CLEAR(by_id, world->ctrs_by_id);
    HASH_CLEAR(by_name, world->ctrs_by_name);
    HASH_CLEAR(by_id, world->vms_by_id);
    HASH_CLEAR(by_id, world->images_by_id);
    for (int noun = 0; noun < NOUN_COUNT; noun++) {
        uint32_t at = 0;

        for (struct object *o; (o = world_next(world, noun, &at));) {
            table_drop(&world->tables[noun], o);
            object_free(o);
        }
    }
}

struct object *world_next(const struct world *world, enum noun noun, uint32_t *iterator)
{
    const struct table *table = &world->tables[noun];

    while (*iterator < table->used) {
        struct object *object = table->slots[(*iterator)++].object;

        if (object)
            return object;
    }
    return NULL;
}

struct pod *world_pod(const struct world *world, struct ref ref)
{
    return (struct pod *)(void *)table_get(&world->tables[NOUN_POD], ref);
}

struct container *world_ctr(const struct world *world, struct ref ref)
{
    return (struct container *)(void *)table_get(&world->tables[NOUN_CTR], ref);
}

struct vm *world_vm(const struct world *world, struct ref ref)
{
    return (struct vm *)(void *)table_get(&world->tables[NOUN_VM], ref);
}

struct image *world_image(const struct world *world, struct ref ref)
{
    return (struct image *)(void *)table_get(&world->tables[NOUN_IMAGE], ref);
}

/* ---- dirt ----------------------------------------------------------------------------------- */

void world_touch(struct world *world, struct object *object)
{
    if (object->dirty)
        return;
    object->dirty = true;
    object->next_dirty = world->dirty;
    world->dirty = object;
}

static void world_untouch(struct world *world, struct object *object)
{
    struct object **at = &world->dirty;

    if (!object->dirty)
        return;
    while (*at != object)
        at = &(*at)->next_dirty;
    *at = object->next_dirty;
    object->dirty = false;
}

bool world_is_dirty(const struct world *world)
{
    return world->dirty || world->buried || world->feed;
}

void world_clean(struct world *world)
{
    while (world->dirty) {
        struct object *object = world->dirty;

        world->dirty = object->next_dirty;
        object->next_dirty = NULL;
        object->dirty = false;
    }
    while (world->buried) {
        struct tombstone *stone = world->buried;

        world->buried = stone->next;
        free(stone->key);
        free(stone);
    }
    feed_free(world);
}

static void world_bury(struct world *world, enum noun noun, const char *key)
{
    struct tombstone *stone = xcalloc(1, sizeof(*stone));

    stone->noun = noun;
    stone->key = xstrdup(key);
    stone->next = world->buried;
    world->buried = stone;
}

/* ---- adding --------------------------------------------------------------------------------- */

static void world_add(struct world *world, enum noun noun, struct object *object)
{
    object->noun = noun;
    table_put(&world->tables[noun], object);
    world_touch(world, object);
}

void world_add_pod(struct world *world, struct pod *pod)
{
    assert(!world_pod_by_id(world, pod->spec.id) && !world_pod_by_uid(world, pod->uid));
    world_add(world, NOUN_POD, &pod->object);
    HASH_ADD_KEYPTR(by_id, world->pods_by_id, pod->spec.id, strlen(pod->spec.id), pod);
    HASH_ADD(by_uid, world->pods_by_uid, uid[0], POD_UID_LEN, pod);
}

static void ctr_name_add(struct world *world, struct container *ctr)
{
    struct container *first;
    size_t length = strlen(ctr->spec.name);

    HASH_FIND(by_name, world->ctrs_by_name, ctr->spec.name, length, first);
    if (first) {
        ctr->same_name = first->same_name;
        first->same_name = ctr;
    } else {
        HASH_ADD_KEYPTR(by_name, world->ctrs_by_name, ctr->spec.name, length, ctr);
    }
}

static void ctr_name_remove(struct world *world, struct container *ctr)
{
    struct container *first, *heir = ctr->same_name;
    size_t length = strlen(ctr->spec.name);

    HASH_FIND(by_name, world->ctrs_by_name, ctr->spec.name, length, first);
    if (first != ctr) {
        while (first->same_name != ctr)
            first = first->same_name;
        first->same_name = heir;
        return;
    }
    HASH_DELETE(by_name, world->ctrs_by_name, ctr);
    if (heir)
        HASH_ADD_KEYPTR(by_name, world->ctrs_by_name, heir->spec.name, length, heir);
}

void world_add_ctr(struct world *world, struct pod *pod, struct container *ctr)
{
    struct container **end = &pod->containers;
    struct image *image = world_image(world, ctr->image);

    assert(strlen(ctr->id) == CTR_ID_LEN && !world_ctr_by_id(world, ctr->id));
    assert(!world_ctr_in_pod(pod, ctr->spec.name));
    world_add(world, NOUN_CTR, &ctr->object);
    HASH_ADD(by_id, world->ctrs_by_id, id[0], CTR_ID_LEN, ctr);
    ctr_name_add(world, ctr);
    while (*end) {
        if (ctr->place <= (*end)->place)
            ctr->place = (*end)->place + 1;
        end = &(*end)->next;
    }
    *end = ctr;
    ctr->pod = pod->object.ref;
    pod->container_count++;
    if (image)
        image->users++;
}

void world_add_vm(struct world *world, struct vm *vm)
{
    assert(!world_vm_by_id(world, vm->id));
    world_add(world, NOUN_VM, &vm->object);
    HASH_ADD_KEYPTR(by_id, world->vms_by_id, vm->id, strlen(vm->id), vm);
}

void world_add_image(struct world *world, struct image *image)
{
    assert(!world_image_by_id(world, image->id));
    world_add(world, NOUN_IMAGE, &image->object);
    HASH_ADD_KEYPTR(by_id, world->images_by_id, image->id, strlen(image->id), image);
}

/* ---- removing ------------------------------------------------------------------------------- */

static void pod_detach(struct world *world, struct pod *pod)
{
    assert(!pod->containers);
    HASH_DELETE(by_id, world->pods_by_id, pod);
    HASH_DELETE(by_uid, world->pods_by_uid, pod);
    world_bury(world, NOUN_POD, pod->uid);
}

static void ctr_detach(struct world *world, struct container *ctr)
{
    struct pod *pod = world_pod(world, ctr->pod);
    struct image *image = world_image(world, ctr->image);
    struct container **at = &pod->containers;

    while (*at != ctr)
        at = &(*at)->next;
    *at = ctr->next;
    pod->container_count--;
    if (image)
        image->users--;
    ctr_name_remove(world, ctr);
    HASH_DELETE(by_id, world->ctrs_by_id, ctr);
    world_bury(world, NOUN_CTR, ctr->id);
}

static void vm_detach(struct world *world, struct vm *vm)
{
    HASH_DELETE(by_id, world->vms_by_id, vm);
    world_bury(world, NOUN_VM, vm->id);
}

static void image_detach(struct world *world, struct image *image)
{
    assert(!image->users);
    while (image->names)
        world_unname_image(world, image, image->names[0]);
    HASH_DELETE(by_id, world->images_by_id, image);
    world_bury(world, NOUN_IMAGE, image->id);
}

void world_remove(struct world *world, struct object *object)
{
    static void (*const detach[NOUN_COUNT])(struct world *, void *) = {
        [NOUN_POD] = (void (*)(struct world *, void *))pod_detach,
        [NOUN_CTR] = (void (*)(struct world *, void *))ctr_detach,
        [NOUN_VM] = (void (*)(struct world *, void *))vm_detach,
        [NOUN_IMAGE] = (void (*)(struct world *, void *))image_detach,
    };
    detach[object->noun](world, object);
    world_untouch(world, object);
    table_drop(&world->tables[object->noun], object);
    object_free(object);
}

/* ---- names of images ------------------------------------------------------------------------ */

void world_unname_image(struct world *world, struct image *image, const char *full)
{
    struct image_name *name;
    size_t at = 0;

    HASH_FIND_STR(world->names, full, name);
    assert(name && name->image == image);
    HASH_DEL(world->names, name);
    while (!str_eq(image->names[at], name->name))
        at++;
    free(image->names[at]);
    for (; image->names[at]; at++)
        image->names[at] = image->names[at + 1];
    if (!image->names[0]) {
        free(image->names);
        image->names = NULL;
    }
    free(name->name);
    free(name);
    world_touch(world, &image->object);
}

void world_name_image(struct world *world, struct image *image, const char *full)
{
    struct image_name *name;

    HASH_FIND_STR(world->names, full, name);
    if (name && name->image == image)
        return;
    if (name)
        world_unname_image(world, name->image, full);
    name = xcalloc(1, sizeof(*name));
    name->name = xstrdup(full);
    name->image = image;
    HASH_ADD_KEYPTR(hh, world->names, name->name, strlen(name->name), name);
    strv_push(&image->names, full);
    world_touch(world, &image->object);
}

/* ---- the feed ------------------------------------------------------------------------------- */

static void event_name(struct feed_event *event, const struct object *object)
{
    const void *o = object;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        event->id = xstrdup(((const struct pod *)o)->uid);
        event->name = xstrdup(((const struct pod *)o)->spec.id);
        break;
    case NOUN_CTR:
        event->id = xstrdup(((const struct container *)o)->id);
        event->name = xstrdup(((const struct container *)o)->spec.name);
        break;
    case NOUN_VM:
        event->id = xstrdup(((const struct vm *)o)->id);
        event->name = xstrdup(event->id);
        break;
    default:
        event->id = xstrdup(((const struct image *)o)->id);
        event->name = ((const struct image *)o)->names
                          ? xstrdup(((const struct image *)o)->names[0])
                          : xstrdup(event->id);
    }
}

/* NULL only if commits fail for long: the objects themselves are what counts. */
static struct feed_event *event_add(struct world *world, int64_t time_ns, enum noun noun,
                                    const char *reason)
{
    if (world->feed_count >= FEED_PENDING_MAX)
        return NULL;
    struct feed_event *event = xcalloc(1, sizeof(*event));

    event->time_ns = time_ns;
    event->noun = noun;
    event->reason = xstrdup(reason);
    *world->feed_end = event;
    world->feed_end = &event->next;
    world->feed_count++;
    return event;
}

void world_tell(struct world *world, int64_t time_ns, const struct object *object,
                const char *reason, const char *format, ...)
{
    struct feed_event *event = event_add(world, time_ns, object->noun, reason);
    va_list ap;

    if (!event)
        return;
    event_name(event, object);
    va_start(ap, format);
    event->message = str_vprintf(format, ap);
    va_end(ap);
}

void world_tell_name(struct world *world, int64_t time_ns, enum noun noun, const char *name,
                     const char *reason, const char *message)
{
    struct feed_event *event = event_add(world, time_ns, noun, reason);

    if (!event)
        return;
    event->id = xstrdup(name);
    event->name = xstrdup(name);
    event->message = xstrdup(message);
}
