/* The order of lists: by age, the oldest first, and the same after a restart of the daemon. */
#include <stdlib.h>

#include "api/hyper/hyper.h"

struct aged {
    int64_t created_ns;
    const char *id; /* of those of one age */
    const void *noun;
};

static struct aged aged_of(const struct object *object)
{
    const void *noun = object;
    const struct pod *pod = noun;
    const struct vm *vm = noun;
    const struct image *image = noun;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        return (struct aged){pod->created_ns, pod->spec.id, noun};
    case NOUN_VM:
        return (struct aged){vm->created_ns, vm->id, noun};
    default:
        return (struct aged){image->created_ns, image->id, noun};
    }
}

static int compare(const void *left, const void *right)
{
    const struct aged *a = left, *b = right;

    if (a->created_ns != b->created_ns)
        return a->created_ns < b->created_ns ? -1 : 1;
    return strcmp(a->id, b->id);
}

const void **objects_by_age(const struct world *world, enum noun noun)
{
    size_t count = world->tables[noun].count, n = 0;
    CLEANUP_FREE struct aged *all = xcalloc(count + 1, sizeof(*all));
    const void **sorted = xcalloc(count + 1, sizeof(*sorted));

    WORLD_FOREACH(struct object, object, world, noun)
        all[n++] = aged_of(object);
    qsort(all, n, sizeof(*all), compare);
    for (size_t i = 0; i < n; i++)
        sorted[i] = all[i].noun;
    return sorted;
}
