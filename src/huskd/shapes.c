#include "huskd/shapes.h"

#include <stdlib.h>

#include "base/str.h"

static int shape_add(struct pool_shape shapes[POOL_SHAPES_MAX], size_t *count,
                     const struct pool_shape *shape, struct error **ret_error)
{
    uint64_t vms = shape->count;

    if (!shape->count)
        return 0;
    if (*count == POOL_SHAPES_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "pool_shapes: more than %d shapes",
                         POOL_SHAPES_MAX);
    for (size_t i = 0; i < *count; i++) {
        if (shapes[i].cpus == shape->cpus && shapes[i].memory_mb == shape->memory_mb)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "pool_shapes: %ux%lluMiB is named twice; 'pool' names the default one",
                             shape->cpus, (unsigned long long)shape->memory_mb);
        vms += shapes[i].count;
    }
    if (vms > POOL_VMS_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "pool and pool_shapes: more than %d VMs",
                         POOL_VMS_MAX);
    shapes[(*count)++] = *shape;
    return 0;
}

/* "2x1GiB:3": CPUs, memory and number of VMs. */
static bool shape_parse(char *word, uint64_t *ret_cpus, uint64_t *ret_bytes, uint64_t *ret_count)
{
    char *memory = strchr(word, 'x');
    char *count = memory ? strchr(memory, ':') : NULL;

    if (!count)
        return false;
    *memory++ = '\0';
    *count++ = '\0';
    return str_to_u64(word, 1, SPEC_VCPU_MAX, ret_cpus) && str_to_size(memory, 1, ret_bytes) &&
           str_to_u64(count, 0, POOL_VMS_MAX, ret_count);
}

static int shape_read(const struct settings *s, const char *word, struct pool_shape *ret,
                      struct error **ret_error)
{
    CLEANUP_FREE char *copy = xstrdup(word);
    uint64_t cpus, bytes, count;

    if (!shape_parse(copy, &cpus, &bytes, &count))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "pool_shapes: '%s' is not CPUSxMEMORY:NUMBER, such as 2x1GiB:3", word);
    if ((s->cpu_max && cpus > s->cpu_max) || bytes < s->memory_min || bytes & ((1 << 20) - 1) ||
        (s->memory_max && bytes > s->memory_max))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "pool_shapes: no pod can ask for '%s': see cpu_max, memory_min and "
                         "memory_max",
                         word);
    *ret = (struct pool_shape){(uint32_t)cpus, bytes >> 20, (uint32_t)count};
    return 0;
}

int shapes_read(const struct settings *s, struct pool_shape ret[POOL_SHAPES_MAX], size_t *ret_count,
                struct error **ret_error)
{
    const char *rest = str_or(s->pool_shapes, "");
    struct pool_shape shape = {1, s->memory_default >> 20, (uint32_t)s->pool};

    *ret_count = 0;
    if (shape_add(ret, ret_count, &shape, ret_error) < 0)
        return -1;
    while (*(rest += strspn(rest, ", "))) {
        size_t length = strcspn(rest, ", ");
        CLEANUP_FREE char *word = xstrndup(rest, length);

        if (shape_read(s, word, &shape, ret_error) < 0 ||
            shape_add(ret, ret_count, &shape, ret_error) < 0)
            return -1;
        rest += length;
    }
    return 0;
}
