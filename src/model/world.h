/* The world: all pods, containers, VMs and images, found by reference, id or name in O(1).
 *
 * It is a plain container: it keeps its tables right and knows what has to be written down, but
 * decides nothing. core changes it; store loads and saves it; api and exec only look.
 *
 * Whoever changes a stored field calls world_touch(). What is removed is remembered until the
 * store has forgotten it too.
 */
#ifndef HUSK_MODEL_WORLD_H
#define HUSK_MODEL_WORLD_H

#include "base/error.h"
#include "model/container.h"
#include "model/image.h"
#include "model/pod.h"
#include "model/vm.h"

enum { FEED_PENDING_MAX = 65536 }; /* events of one turn; more than any turn can make */

/* One line of `events`. */
struct feed_event {
    uint64_t revision; /* given by the store at commit */
    int64_t time_ns;   /* wall clock */
    enum noun noun;
    char *id, *name;
    char *reason;  /* one CamelCase word, as Kubernetes events have: "Started" */
    char *message; /* a sentence, perhaps "" */
    struct feed_event *next;
};

struct tombstone {
    enum noun noun;
    char *key; /* uid of a pod; id of the others */
    struct tombstone *next;
};

struct slot {
    struct object *object; /* NULL: free */
    uint32_t generation;   /* of the object in it, or of the next one */
    uint32_t next_free;
};

struct table {
    struct slot *slots;
    uint32_t used; /* slots that were ever used */
    uint32_t capacity;
    uint32_t count; /* objects */
    uint32_t first_free;
};

struct world {
    struct table tables[NOUN_COUNT];
    struct pod *pods_by_id, *pods_by_uid;
    struct container *ctrs_by_id, *ctrs_by_name;
    struct vm *vms_by_id;
    struct image *images_by_id;
    struct image_name *names;
    struct object *dirty;
    struct tombstone *buried;
    struct feed_event *feed, **feed_end;
    uint32_t feed_count;
};

struct world *world_new(void);
void world_free(struct world *world);
/* Forgets everything, for a new load. References from before find nothing afterwards. */
void world_clear(struct world *world);

/* ---- looking: NULL if there is none --------------------------------------------------------- */

struct pod *world_pod(const struct world *world, struct ref ref);
struct container *world_ctr(const struct world *world, struct ref ref);
struct vm *world_vm(const struct world *world, struct ref ref);
struct image *world_image(const struct world *world, struct ref ref);

struct pod *world_pod_by_id(const struct world *world, const char *id);
struct pod *world_pod_by_uid(const struct world *world, const char *uid);
struct container *world_ctr_by_id(const struct world *world, const char *id);
struct container *world_ctr_in_pod(const struct pod *pod, const char *name);
struct vm *world_vm_by_id(const struct world *world, const char *id);
struct image *world_image_by_id(const struct world *world, const char *id);

/* What a user typed; ERROR_NOT_FOUND, or ERROR_INVALID when it means more than one.
 * A container: id, unique prefix of one (12 digits or more), name, POD/NAME, or the id of a pod
 * that has one container. An image: name in full or short form, id, digits of the id (12 or
 * more). What is being removed is still found. */
int world_find_pod(const struct world *world, const char *name, struct pod **ret,
                   struct error **ret_error);
int world_find_ctr(const struct world *world, const char *name, struct container **ret,
                   struct error **ret_error);
int world_find_vm(const struct world *world, const char *name, struct vm **ret,
                  struct error **ret_error);
int world_find_image(const struct world *world, const char *name, struct image **ret,
                     struct error **ret_error);

/* All objects of a noun in the order of their slots: start with *iterator = 0. */
struct object *world_next(const struct world *world, enum noun noun, uint32_t *iterator);
#define WORLD_FOREACH(type, var, world, noun)                                                      \
    for (uint32_t var##_at = 0, var##_more = 1; var##_more; var##_more = 0)                        \
        for (type * var; (var = (type *)(void *)world_next(world, noun, &var##_at));)

/* ---- changing: core and store only ---------------------------------------------------------- */

/* Each takes an object whose key (id, uid, name) is set and not in use, and owns it. */
void world_add_pod(struct world *world, struct pod *pod);
void world_add_ctr(struct world *world, struct pod *pod, struct container *ctr);
void world_add_vm(struct world *world, struct vm *vm);
void world_add_image(struct world *world, struct image *image);

/* Removes, buries and frees. A pod must have no containers, an image no users. */
void world_remove(struct world *world, struct object *object);

void world_touch(struct world *world, struct object *object);
/* A name that points at another image is taken from that one. */
void world_name_image(struct world *world, struct image *image, const char *full);
void world_unname_image(struct world *world, struct image *image, const char *full);

void world_tell(struct world *world, int64_t time_ns, const struct object *object,
                const char *reason, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same of an object that is not there: all that is known of it is a name. */
void world_tell_name(struct world *world, int64_t time_ns, enum noun noun, const char *name,
                     const char *reason, const char *message);

/* Whether there is anything to commit; and that it was committed. */
bool world_is_dirty(const struct world *world);
void world_clean(struct world *world);

/* Everything that must hold between the objects, always. Aborts with a sentence if it does not
 * (a broken promise in memory must not reach the store). */
void world_check(const struct world *world);
/* The same, as an error: for what was read from the store. */
int world_verify(const struct world *world, struct error **ret_error);

/* The part of it that concerns one pod with its containers, or one VM. */
int pod_verify(const struct world *world, const struct pod *pod, struct error **ret_error);
int vm_verify(const struct world *world, const struct vm *vm, struct error **ret_error);

/* The shown state of a pod: "pending", "running", "paused", "succeeded", "failed" … */
const char *pod_status(const struct world *world, const struct pod *pod);

#endif
