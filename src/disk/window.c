#include "disk/window.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

void window_open(struct window *w)
{
    *w = (struct window){.bytes = xcalloc(1, WINDOW_SIZE)};
}

void window_done(struct window *w)
{
    free(w->bytes);
    w->bytes = NULL;
}

void window_begin(struct window *w)
{
    w->start = 0;
    w->used = 0;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, WINDOW_BLOCK - 1) == 0;
}

int window_flush(struct window *w, window_put *put, void *arg, struct error **ret_error)
{
    size_t blocks = (w->used + WINDOW_BLOCK - 1) / WINDOW_BLOCK, run = 0;
    uint64_t base = w->start / WINDOW_BLOCK;

    for (size_t i = 0; i <= blocks; i++) {
        if (i < blocks && !is_zero(w->bytes + i * WINDOW_BLOCK))
            continue;
        if (i > run && put(arg, base + run, w->bytes + run * WINDOW_BLOCK, i - run, ret_error) < 0)
            return -1;
        run = i + 1;
    }
    memset(w->bytes, 0, blocks * WINDOW_BLOCK);
    w->used = 0;
    return 0;
}

int window_add(struct window *w, uint64_t offset, const uint8_t *data, size_t size, window_put *put,
               void *arg, struct error **ret_error)
{
    while (size > 0) {
        if (offset >= w->start + WINDOW_SIZE) {
            if (window_flush(w, put, arg, ret_error) < 0)
                return -1;
            w->start = offset / WINDOW_BLOCK * WINDOW_BLOCK;
        }
        size_t at = (size_t)(offset - w->start);
        size_t part = WINDOW_SIZE - at < size ? WINDOW_SIZE - at : size;
        memcpy(w->bytes + at, data, part);
        w->used = at + part;
        offset += part;
        data += part;
        size -= part;
    }
    return 0;
}
