#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

enum { BUF_MIN = 256 };

uint8_t *buf_reserve(struct buf *b, size_t size)
{
    size_t head = (size_t)(b->data - b->base);
    assert(size < SIZE_MAX / 4);
    if (head + b->len + size <= b->cap)
        return b->data + b->len;
    if (head >= b->len && b->len + size <= b->cap) {
        memmove(b->base, b->data, b->len);
        b->data = b->base;
        return b->data + b->len;
    }
    size_t cap = b->cap ? b->cap : BUF_MIN;
    while (cap < b->len + size)
        cap *= 2;
    uint8_t *base = xmalloc(cap);
    if (b->len)
        memcpy(base, b->data, b->len);
    free(b->base);
    b->base = b->data = base;
    b->cap = cap;
    return b->data + b->len;
}

void buf_append(struct buf *b, const void *data, size_t size)
{
    if (!size)
        return;
    memcpy(buf_reserve(b, size), data, size);
    b->len += size;
}

void buf_append_str(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    CLEANUP_FREE char *s = str_vprintf(format, ap);
    va_end(ap);
    buf_append_str(b, s);
}

void buf_consume(struct buf *b, size_t size)
{
    assert(size <= b->len);
    b->data += size;
    b->len -= size;
    if (!b->len)
        b->data = b->base;
}

void buf_clear(struct buf *b)
{
    b->data = b->base;
    b->len = 0;
}

void buf_release(struct buf *b)
{
    free(b->base);
    *b = (struct buf){0};
}

void buf_releasep(struct buf *b)
{
    buf_release(b);
}

char *buf_take_str(struct buf *b)
{
    char *s = xmalloc(b->len + 1);
    if (b->len)
        memcpy(s, b->data, b->len);
    s[b->len] = 0;
    buf_release(b);
    return s;
}
