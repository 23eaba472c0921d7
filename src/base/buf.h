/* A growable run of bytes: append at the end, consume from the front.
 *
 * buf->data[0 … len-1] is the content. Append and reserve may move it. An empty buffer that is
 * released holds no memory, so an idle connection costs nothing.
 */
#ifndef HUSK_BASE_BUF_H
#define HUSK_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* start of the content */
    size_t len;    /* bytes of content */
    uint8_t *base; /* the allocation */
    size_t cap;    /* bytes allocated from base */
};

/* At least `size` bytes writable at the returned address (data + len). */
uint8_t *buf_reserve(struct buf *b, size_t size);
void buf_append(struct buf *b, const void *data, size_t size);
void buf_append_str(struct buf *b, const char *s); /* without its NUL */
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *b, size_t size);
void buf_clear(struct buf *b);   /* empties, keeps memory */
void buf_release(struct buf *b); /* empties, frees memory */
/* The content as an owned NUL-terminated string; the buffer is released. */
char *buf_take_str(struct buf *b);

void buf_releasep(struct buf *b);
#define CLEANUP_BUF __attribute__((cleanup(buf_releasep)))

#endif
