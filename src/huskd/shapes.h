/* What the settings `pool` and `pool_shapes` ask for. */
#ifndef HUSK_HUSKD_SHAPES_H
#define HUSK_HUSKD_SHAPES_H

#include "core/core.h"
#include "huskd/settings.h"

/* *ret_count of at most POOL_SHAPES_MAX shapes, no two alike and none of no VMs. */
int shapes_read(const struct settings *s, struct pool_shape ret[POOL_SHAPES_MAX], size_t *ret_count,
                struct error **ret_error);

#endif
