/* What all nouns have in common: a place in a table, and a need to be written down.
 *
 * Objects are named to the outside by a `struct ref`, never by a pointer: a reference to
 * something that is gone finds nothing, because the generation of its place has moved on.
 */
#ifndef HUSK_MODEL_OBJECT_H
#define HUSK_MODEL_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

enum noun { NOUN_POD, NOUN_CTR, NOUN_VM, NOUN_IMAGE, NOUN_COUNT };

/* generation 0: refers to nothing. */
struct ref {
    uint32_t index;
    uint32_t generation;
};

#define REF_NONE ((struct ref){0, 0})

static inline bool ref_is(struct ref r)
{
    return r.generation != 0;
}
static inline bool ref_eq(struct ref a, struct ref b)
{
    return a.index == b.index && a.generation == b.generation;
}

/* First in every noun's struct. Only world.c changes it (`woken`: core). */
struct object {
    struct ref ref;
    uint8_t noun;              /* enum noun */
    bool dirty;                /* differs from the store; is in world->dirty */
    bool woken;                /* is in the core's list of what to look at */
    struct object *next_dirty; /* list of world->dirty */
};

/* "pod", "container", "vm", "image" */
const char *noun_name(enum noun noun);
/* -1 if there is none of that name. */
int noun_from_name(const char *name);

#endif
