/* The frames of a stream that carries standard output and standard error: {1 or 2, 0, 0, 0,
 * length as u32 big-endian, bytes}. Pure; the bytes stay where they are.
 */
#ifndef HUSK_HUSK_STDCOPY_H
#define HUSK_HUSK_STDCOPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { STDCOPY_HEADER_SIZE = 8 };

struct stdcopy {
    uint8_t header[STDCOPY_HEADER_SIZE];
    size_t header_have;
    uint32_t left; /* bytes of the current frame still to come */
};

/* Takes at most one piece from the front of `data`: *ret_used bytes are used up, of which the
 * last *ret_size (perhaps none) are content for descriptor *ret_fd, 1 or 2. Anything but the two
 * streams is an error. */
int stdcopy_next(struct stdcopy *copy, const uint8_t *data, size_t size, size_t *ret_used,
                 size_t *ret_size, int *ret_fd, struct error **ret_error);

/* Whether a frame was begun and is not complete. */
bool stdcopy_is_inside(const struct stdcopy *copy);

#endif
