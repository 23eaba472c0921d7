#include "huskd/shapes.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

/* Over virtio-mmio QEMU 7.2 offers queues of 1024 entries, and Linux puts a page into each of those
 * that it receives a port's bytes by: 8 MiB that a q35 has for containers. */
enum { MICROVM_MEMORY = 80 << 20 };

uint64_t shape_memory_needed(const struct settings *s)
{
    return str_eq(s->machine, "microvm") ? MICROVM_MEMORY : 0;
}

uint64_t shape_memory_min(const struct settings *s)
{
    uint64_t needed = shape_memory_needed(s);

    return needed > s->memory_min ? needed : s->memory_min;
}

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
        if (shapes[i].cpus == shape->cpus && shapes[i].memory_mb == shape->memory_mb &&
            str_eq(shapes[i].image, shape->image))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "pool_shapes: %ux%lluMiB%s%s is named twice%s", shape->cpus,
                             (unsigned long long)shape->memory_mb, *shape->image ? " of " : "",
                             shape->image, *shape->image ? "" : "; 'pool' names the default one");
        vms += shapes[i].count;
    }
    if (vms > POOL_VMS_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "pool and pool_shapes: more than %d VMs",
                         POOL_VMS_MAX);
    shapes[(*count)++] = *shape;
    return 0;
}

/* "2x1GiB:3" or "2x1GiB:3:busybox": CPUs, memory, number of VMs, and their image; NULL: none. */
static bool shape_parse(char *word, uint64_t *ret_cpus, uint64_t *ret_bytes, uint64_t *ret_count,
                        const char **ret_image)
{
    char *memory = strchr(word, 'x');
    char *count = memory ? strchr(memory, ':') : NULL;
    char *image = count ? strchr(count + 1, ':') : NULL;

    if (!count)
        return false;
    *memory++ = '\0';
    *count++ = '\0';
    if (image)
        *image++ = '\0';
    *ret_image = image;
    return str_to_u64(word, 1, SPEC_VCPU_MAX, ret_cpus) && str_to_size(memory, 1, ret_bytes) &&
           str_to_u64(count, 0, POOL_VMS_MAX, ret_count);
}

static int shape_image_read(const struct settings *s, const char *name, struct pool_shape *ret,
                            struct error **ret_error)
{
    CLEANUP_FREE char *full = NULL;

    if (!str_eq(s->storage, "block"))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "pool_shapes: an image ('%s') needs storage=block", name);
    if (image_name_full(name, &full, ret_error) < 0)
        return error_wrap(ret_error, "pool_shapes");
    snprintf(ret->image, sizeof(ret->image), "%s", full);
    ret->layer_mb = s->layer_size >> 20;
    return 0;
}

static int shape_read(const struct settings *s, const char *word, struct pool_shape *ret,
                      struct error **ret_error)
{
    CLEANUP_FREE char *copy = xstrdup(word);
    const char *image;
    uint64_t cpus, bytes, count;

    if (!shape_parse(copy, &cpus, &bytes, &count, &image))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "pool_shapes: '%s' is not CPUSxMEMORY:NUMBER, such as 2x1GiB:3, or "
                         "CPUSxMEMORY:NUMBER:IMAGE",
                         word);
    if ((s->cpu_max && cpus > s->cpu_max) || bytes < shape_memory_min(s) ||
        bytes & ((1 << 20) - 1) || (s->memory_max && bytes > s->memory_max))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "pool_shapes: no pod can ask for '%s': see cpu_max, memory_min and "
                         "memory_max",
                         word);
    *ret = (struct pool_shape){
        .cpus = (uint32_t)cpus, .memory_mb = bytes >> 20, .count = (uint32_t)count};
    return image ? shape_image_read(s, image, ret, ret_error) : 0;
}

int shapes_read(const struct settings *s, struct pool_shape ret[POOL_SHAPES_MAX], size_t *ret_count,
                struct error **ret_error)
{
    const char *rest = str_or(s->pool_shapes, "");
    struct pool_shape shape = {
        .cpus = 1, .memory_mb = s->memory_default >> 20, .count = (uint32_t)s->pool};

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
