#include "husk/stdcopy.h"

#include <string.h>

/* Completes the header from `data`; returns how many bytes it took. */
static size_t header_take(struct stdcopy *copy, const uint8_t *data, size_t size)
{
    size_t missing = STDCOPY_HEADER_SIZE - copy->header_have;
    size_t taken = size < missing ? size : missing;
    memcpy(copy->header + copy->header_have, data, taken);
    copy->header_have += taken;
    return taken;
}

static int header_check(const uint8_t *header, struct error **ret_error)
{
    if ((header[0] != 1 && header[0] != 2) || header[1] || header[2] || header[3])
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "the stream is broken: a frame begins with %02x%02x%02x%02x", header[0],
                         header[1], header[2], header[3]);
    return 0;
}

int stdcopy_next(struct stdcopy *copy, const uint8_t *data, size_t size, size_t *ret_used,
                 size_t *ret_size, int *ret_fd, struct error **ret_error)
{
    size_t used = 0;
    *ret_size = 0;
    if (copy->left == 0) {
        used = header_take(copy, data, size);
        *ret_used = used;
        if (copy->header_have < STDCOPY_HEADER_SIZE)
            return 0;
        const uint8_t *h = copy->header;
        if (header_check(h, ret_error) < 0)
            return -1;
        copy->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
        copy->header_have = 0;
    }
    size_t piece = size - used < copy->left ? size - used : copy->left;
    copy->left -= (uint32_t)piece;
    *ret_used = used + piece;
    *ret_size = piece;
    *ret_fd = copy->header[0];
    return 0;
}

bool stdcopy_is_inside(const struct stdcopy *copy)
{
    return copy->header_have || copy->left;
}
