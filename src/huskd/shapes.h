/* Shapes of VMs: what there may be, and what the settings `pool` and `pool_shapes` ask for. */
#ifndef HUSK_HUSKD_SHAPES_H
#define HUSK_HUSKD_SHAPES_H

#include "core/core.h"
#include "huskd/settings.h"

/* What a machine of that shape needs in bytes, whatever is asked for; 0: no more than memory_min.
 */
uint64_t shape_memory_needed(const struct settings *s);
/* That, or memory_min if it is more: the least that a pod may ask for. */
uint64_t shape_memory_min(const struct settings *s);

/* *ret_count of at most POOL_SHAPES_MAX shapes, no two alike and none of no VMs. */
int shapes_read(const struct settings *s, struct pool_shape ret[POOL_SHAPES_MAX], size_t *ret_count,
                struct error **ret_error);

#endif
