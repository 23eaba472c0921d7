/* Finding what a user typed. */
#include <ctype.h>

#include "base/str.h"
#include "model/world.h"

enum { ID_PREFIX_MIN = 12 }; /* digits of an id that may stand for it */

struct pod *world_pod_by_id(const struct world *world, const char *id)
{
    struct pod *pod = NULL;

    HASH_FIND(by_id, world->pods_by_id, id, strlen(id), pod);
    return pod;
}

struct pod *world_pod_by_uid(const struct world *world, const char *uid)
{
    struct pod *pod = NULL;

    HASH_FIND(by_uid, world->pods_by_uid, uid, strlen(uid), pod);
    return pod;
}

struct container *world_ctr_by_id(const struct world *world, const char *id)
{
    struct container *ctr = NULL;

    HASH_FIND(by_id, world->ctrs_by_id, id, strlen(id), ctr);
    return ctr;
}

struct container *world_ctr_in_pod(const struct pod *pod, const char *name)
{
    POD_FOREACH_CTR(c, pod)
        if (str_eq(c->spec.name, name))
            return c;
    return NULL;
}

struct vm *world_vm_by_id(const struct world *world, const char *id)
{
    struct vm *vm = NULL;

    HASH_FIND(by_id, world->vms_by_id, id, strlen(id), vm);
    return vm;
}

struct image *world_image_by_id(const struct world *world, const char *id)
{
    struct image *image = NULL;

    HASH_FIND(by_id, world->images_by_id, id, strlen(id), image);
    return image;
}

int world_find_pod(const struct world *world, const char *name, struct pod **ret,
                   struct error **ret_error)
{
    *ret = world_pod_by_id(world, name);
    if (*ret)
        return 0;
    return error_set(ret_error, ERROR_NOT_FOUND, 0, "pod '%.80s' does not exist", name);
}

int world_find_vm(const struct world *world, const char *name, struct vm **ret,
                  struct error **ret_error)
{
    *ret = world_vm_by_id(world, name);
    if (*ret)
        return 0;
    return error_set(ret_error, ERROR_NOT_FOUND, 0, "vm '%.80s' does not exist", name);
}

static bool is_hex(const char *s)
{
    for (; *s; s++)
        if (!isxdigit((unsigned char)*s) || isupper((unsigned char)*s))
            return false;
    return true;
}

/* 1: found; 0: no; -1: more than one. */
static int find_ctr_prefix(const struct world *world, const char *prefix, struct container **ret)
{
    int found = 0;

    if (strlen(prefix) < ID_PREFIX_MIN || !is_hex(prefix))
        return 0;
    WORLD_FOREACH(struct container, c, world, NOUN_CTR) {
        if (!str_starts(c->id, prefix))
            continue;
        if (found++)
            return -1;
        *ret = c;
    }
    return found;
}

static struct container *find_ctr_in_named_pod(const struct world *world, const char *name)
{
    const char *slash = strchr(name, '/');

    if (!slash) {
        struct pod *pod = world_pod_by_id(world, name);

        return pod && pod->container_count == 1 ? pod->containers : NULL;
    }
    CLEANUP_FREE char *id = xstrndup(name, (size_t)(slash - name));
    struct pod *pod = world_pod_by_id(world, id);

    return pod ? world_ctr_in_pod(pod, slash + 1) : NULL;
}

static int ctr_missing(const struct world *world, const char *name, struct error **ret_error)
{
    struct pod *pod = world_pod_by_id(world, name);

    if (pod && pod->containers)
        return error_set(ret_error, ERROR_NOT_FOUND, 0,
                         "'%s' is a pod of %zu containers: say which, as in '%s/%s'", name,
                         (size_t)pod->container_count, name, pod->containers->spec.name);
    if (pod)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "pod '%s' has no container", name);
    return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%.80s' does not exist", name);
}

int world_find_ctr(const struct world *world, const char *name, struct container **ret,
                   struct error **ret_error)
{
    struct container *first = NULL;

    *ret = world_ctr_by_id(world, name);
    if (*ret)
        return 0;
    HASH_FIND(by_name, world->ctrs_by_name, name, strlen(name), first);
    if (first && first->same_name)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "container name '%s' is used in more than one pod: say '%s/%s' or "
                         "give an id",
                         name, world_pod(world, first->pod)->spec.id, name);
    *ret = first ? first : find_ctr_in_named_pod(world, name);
    if (*ret)
        return 0;
    int found = find_ctr_prefix(world, name, ret);

    if (found > 0)
        return 0;
    if (found < 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "container id '%s' is the beginning of more than one", name);
    return ctr_missing(world, name, ret_error);
}

static int find_image_prefix(const struct world *world, const char *digits, struct image **ret)
{
    int found = 0;

    if (str_starts(digits, "sha256:"))
        digits += strlen("sha256:");
    if (strlen(digits) < ID_PREFIX_MIN || !is_hex(digits))
        return 0;
    WORLD_FOREACH(struct image, image, world, NOUN_IMAGE) {
        if (!str_starts(image->id + strlen("sha256:"), digits))
            continue;
        if (found++)
            return -1;
        *ret = image;
    }
    return found;
}

int world_find_image(const struct world *world, const char *name, struct image **ret,
                     struct error **ret_error)
{
    CLEANUP_FREE char *full = NULL;
    struct image_name *entry = NULL;

    *ret = world_image_by_id(world, name);
    if (*ret)
        return 0;
    int found = find_image_prefix(world, name, ret);

    if (found > 0)
        return 0;
    if (found < 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "image id '%s' is the beginning of more than one", name);
    if (image_name_full(name, &full, ret_error) < 0)
        return -1;
    HASH_FIND_STR(world->names, full, entry);
    if (!entry)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "no such image: '%.200s'", name);
    *ret = entry->image;
    return 0;
}
