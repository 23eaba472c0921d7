/* A file on its way into an image, gathered in memory: what is written are runs of whole blocks
 * that are not all zeros. The rest of the file is holes, or blocks that were zero before.
 */
#ifndef HUSK_DISK_WINDOW_H
#define HUSK_DISK_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { WINDOW_BLOCK = 4096, WINDOW_SIZE = 64 * WINDOW_BLOCK };

struct window {
    uint64_t start; /* of its first byte in the file; a multiple of WINDOW_BLOCK */
    size_t used;
    uint8_t *bytes;
};

/* Writes `count` blocks, of which the first is block `block` of the file. */
typedef int window_put(void *arg, uint64_t block, const uint8_t *bytes, size_t count,
                       struct error **ret_error);

void window_open(struct window *w);
/* Forgets what was not flushed. */
void window_done(struct window *w);
/* A file begins. */
void window_begin(struct window *w);
/* Adds bytes at an offset that is not before the end of those added last. */
int window_add(struct window *w, uint64_t offset, const uint8_t *data, size_t size, window_put *put,
               void *arg, struct error **ret_error);
/* The file ends: its last block is filled up with zeros. */
int window_flush(struct window *w, window_put *put, void *arg, struct error **ret_error);

#endif
