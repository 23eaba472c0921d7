/* Sets of strings and of operations. */
#include <stdlib.h>

#include "base/str.h"
#include "sim_int.h"

bool set_has(const struct set *set, const char *item)
{
    for (size_t i = 0; i < set->count; i++)
        if (str_eq(set->items[i], item))
            return true;
    return false;
}

void set_add(struct set *set, const char *item)
{
    if (set_has(set, item))
        return;
    if (set->count == REAL_MAX)
        broken("set", "full");
    set->items[set->count++] = xstrdup(item);
}

void set_remove(struct set *set, const char *item)
{
    for (size_t i = 0; i < set->count; i++) {
        if (!str_eq(set->items[i], item))
            continue;
        free(set->items[i]);
        set->items[i] = set->items[--set->count];
        return;
    }
}

bool set_has_op(uint64_t op)
{
    uint64_t n = op - sim.first_op;

    return sim.answered_count && (sim.answered[n / 64] >> (n % 64) & 1);
}

void set_add_op(uint64_t op)
{
    uint64_t n = op - sim.first_op;

    if (n >= OPS_PER_LIFE)
        broken("operations", "too many");
    if (!sim.answered_count++)
        memset(sim.answered, 0, sizeof(sim.answered));
    sim.answered[n / 64] |= UINT64_C(1) << (n % 64);
}
