#include "proto/wire.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

const uint8_t WIRE_MAGIC[WIRE_MAGIC_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                             'h',  'u',  's',  'k',  'w',  'i',  'r',  'e'};

enum wire_kind { KIND_u32, KIND_u64, KIND_i32, KIND_str, KIND_strv, KIND_blob };

struct wire_field {
    const char *name;
    enum wire_kind kind;
    size_t offset;
};

#define WIRE_BEGIN(upper, lower, number) static const struct wire_field fields_##lower[] = {
#define WIRE_FIELD(lower, type, name)    {#name, KIND_##type, offsetof(struct wire_##lower, name)},
#define WIRE_END(lower)                                                                            \
    {                                                                                              \
        NULL, 0, 0                                                                                 \
    }                                                                                              \
    }                                                                                              \
    ;
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END

struct wire_message {
    unsigned number;
    const char *name;
    const struct wire_field *fields;
    size_t size;
};

static const struct wire_message messages[] = {
#define WIRE_BEGIN(upper, lower, number)                                                           \
    {number, #upper, fields_##lower, sizeof(struct wire_##lower)},
#define WIRE_FIELD(lower, type, name)
#define WIRE_END(lower)
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END
};

static const struct wire_message *message_of(unsigned type)
{
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
        if (messages[i].number == type)
            return &messages[i];
    return NULL;
}

const char *wire_name(unsigned type)
{
    const struct wire_message *m = message_of(type);
    return m ? m->name : NULL;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static uint32_t get32(const uint8_t *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof(n));
    return le32toh(n);
}

static uint16_t get16(const uint8_t *p)
{
    uint16_t n;
    memcpy(&n, p, sizeof(n));
    return le16toh(n);
}

static void put32(struct buf *out, uint32_t n)
{
    n = htole32(n);
    buf_append(out, &n, sizeof(n));
}

static void put64(struct buf *out, uint64_t n)
{
    n = htole64(n);
    buf_append(out, &n, sizeof(n));
}

/* ---- writing -------------------------------------------------------------------------------- */

void wire_header(uint8_t ret[WIRE_HEADER_SIZE], unsigned type, unsigned flags, uint32_t stream,
                 uint32_t length)
{
    uint32_t l = htole32(length), s = htole32(stream);
    uint16_t t = htole16((uint16_t)type), f = htole16((uint16_t)flags);
    memcpy(ret, &l, 4);
    memcpy(ret + 4, &t, 2);
    memcpy(ret + 6, &f, 2);
    memcpy(ret + 8, &s, 4);
}

static void put_str(struct buf *out, const char *s)
{
    size_t size = str_empty(s) ? 0 : strlen(s) + 1;
    put32(out, (uint32_t)size);
    buf_append(out, s, size);
}

static void put_field(struct buf *out, const struct wire_field *f, const void *at)
{
    switch (f->kind) {
    case KIND_u32:
    case KIND_i32:
        put32(out, *(const uint32_t *)at);
        break;
    case KIND_u64:
        put64(out, *(const uint64_t *)at);
        break;
    case KIND_str:
        put_str(out, *(const wire_str *)at);
        break;
    case KIND_strv: {
        wire_strv v = *(const wire_strv *)at;
        put32(out, (uint32_t)strv_count(v));
        STRV_FOREACH(s, v)
            put_str(out, *s);
        break;
    }
    case KIND_blob: {
        const wire_blob *b = at;
        put32(out, b->size);
        buf_append(out, b->data, b->size);
        break;
    }
    }
}

void wire_put(struct buf *out, unsigned type, unsigned flags, uint32_t stream, const void *message)
{
    const struct wire_message *m = message_of(type);
    size_t start = out->len;
    uint8_t header[WIRE_HEADER_SIZE] = {0};

    buf_append(out, header, sizeof(header));
    for (const struct wire_field *f = m->fields; f->name; f++)
        put_field(out, f, (const char *)message + f->offset);
    wire_header(header, type, flags, stream, (uint32_t)(out->len - start - sizeof(header)));
    memcpy(out->data + start, header, sizeof(header));
}

void wire_put_hello(struct buf *out, const char *role, const char *build)
{
    struct wire_hello hello = {
        .version = WIRE_VERSION, .lowest = WIRE_LOWEST, .role = role, .build = build};
    buf_append(out, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_put(out, WIRE_HELLO, 0, 0, &hello);
}

/* ---- reading -------------------------------------------------------------------------------- */

struct cursor {
    const uint8_t *p;
    size_t left;
};

/* Takes n bytes; false if there are fewer. */
static bool cursor_take(struct cursor *c, size_t n, const uint8_t **ret)
{
    if (c->left < n)
        return false;
    *ret = c->p;
    c->p += n;
    c->left -= n;
    return true;
}

static bool get_u32(struct cursor *c, uint32_t *ret)
{
    const uint8_t *p;
    if (!cursor_take(c, 4, &p))
        return false;
    *ret = get32(p);
    return true;
}

static bool get_str(struct cursor *c, wire_str *ret)
{
    uint32_t size;
    const uint8_t *p;
    if (!get_u32(c, &size) || !cursor_take(c, size, &p))
        return false;
    *ret = "";
    if (!size)
        return true;
    if (memchr(p, 0, size) != p + size - 1)
        return false;
    *ret = (const char *)p;
    return true;
}

static bool get_strv(struct cursor *c, wire_strv *ret)
{
    uint32_t count;
    if (!get_u32(c, &count) || count > WIRE_STRV_MAX || count > c->left / 4)
        return false;
    const char **v = xcalloc(count + 1, sizeof(char *));
    *ret = v;
    for (uint32_t i = 0; i < count; i++)
        if (!get_str(c, &v[i])) {
            v[i] = NULL;
            return false;
        }
    return true;
}

static bool get_field(struct cursor *c, const struct wire_field *f, void *at)
{
    const uint8_t *p;
    switch (f->kind) {
    case KIND_u32:
    case KIND_i32:
        return get_u32(c, at);
    case KIND_u64: {
        uint64_t n;
        if (!cursor_take(c, 8, &p))
            return false;
        memcpy(&n, p, sizeof(n));
        *(uint64_t *)at = le64toh(n);
        return true;
    }
    case KIND_str:
        return get_str(c, at);
    case KIND_strv:
        return get_strv(c, at);
    case KIND_blob: {
        wire_blob *b = at;
        uint32_t size;
        if (!get_u32(c, &size) || !cursor_take(c, size, &p))
            return false;
        *b = (wire_blob){p, size};
        return true;
    }
    }
    return false;
}

int wire_get(const struct wire_frame *frame, void *ret_message, struct error **ret_error)
{
    const struct wire_message *m = message_of(frame->type);
    struct cursor c = {frame->payload, frame->length};

    if (!m)
        return error_set(ret_error, ERROR_CORRUPT, 0, "message %u is not known", frame->type);
    memset(ret_message, 0, m->size);
    for (const struct wire_field *f = m->fields; f->name; f++)
        if (f->kind == KIND_str)
            *(wire_str *)((char *)ret_message + f->offset) = "";
    for (const struct wire_field *f = m->fields; f->name && c.left; f++)
        if (!get_field(&c, f, (char *)ret_message + f->offset))
            return error_set(ret_error, ERROR_CORRUPT, 0, "message %s: field '%s' is malformed",
                             m->name, f->name);
    return 0;
}

void wire_clear(unsigned type, void *message)
{
    const struct wire_message *m = message_of(type);
    for (const struct wire_field *f = m ? m->fields : NULL; f && f->name; f++)
        if (f->kind == KIND_strv) {
            wire_strv *v = (wire_strv *)((char *)message + f->offset);
            free((void *)*v);
            *v = NULL;
        }
}

int wire_check_hello(const struct wire_hello *hello, struct error **ret_error)
{
    if (hello->version >= WIRE_LOWEST && hello->lowest <= WIRE_VERSION)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                     "the %s speaks versions %u to %u of the wire, this program %d to %d",
                     hello->role, hello->lowest, hello->version, WIRE_LOWEST, WIRE_VERSION);
}

struct wire_reply wire_reply_from(uint32_t seq, const struct error *error)
{
    struct wire_reply reply = {.seq = seq};
    if (error) {
        reply.failed = 1 + (uint32_t)error->kind;
        reply.err = error->err;
        reply.message = error->message;
    }
    return reply;
}

int wire_reply_check(const struct wire_reply *reply, struct error **ret_error)
{
    if (!reply->failed)
        return 0;
    unsigned kind = reply->failed - 1;
    error_set(ret_error, kind < ERROR_KIND_COUNT ? (enum error_kind)kind : ERROR_INTERNAL, 0, "%s",
              reply->message);
    if (ret_error)
        (*ret_error)->err = reply->err;
    return -1;
}

/* ---- the decoder ---------------------------------------------------------------------------- */

/* What is missing of a frame of data, if its header is there: its beginning is moved, if at all,
 * while it is short. A frame that claims more has to send it first. */
static size_t decoder_missing(const struct wire_decoder *d)
{
    if (!d->synced || d->in.len < WIRE_HEADER_SIZE)
        return 0;
    size_t whole = WIRE_HEADER_SIZE + (size_t)get32(d->in.data);
    return whole <= WIRE_HEADER_SIZE + WIRE_DATA_MAX && whole > d->in.len ? whole - d->in.len : 0;
}

uint8_t *wire_decoder_space(struct wire_decoder *d, size_t size)
{
    return buf_reserve(&d->in, decoder_missing(d) + size);
}

void wire_decoder_fed(struct wire_decoder *d, size_t size)
{
    d->in.len += size;
}

/* Drops what cannot be the start of the magic. */
static bool decoder_sync(struct wire_decoder *d)
{
    while (d->in.len >= WIRE_MAGIC_SIZE) {
        const uint8_t *at = memmem(d->in.data, d->in.len, WIRE_MAGIC, WIRE_MAGIC_SIZE);
        if (at) {
            buf_consume(&d->in, (size_t)(at - d->in.data) + WIRE_MAGIC_SIZE);
            d->synced = true;
            return true;
        }
        buf_consume(&d->in, d->in.len - (WIRE_MAGIC_SIZE - 1));
    }
    return false;
}

int wire_decoder_peek(struct wire_decoder *d, struct wire_frame *ret, struct error **ret_error)
{
    if (!d->synced && !decoder_sync(d))
        return 0;
    /* A peer that starts anew in the middle of our stream. */
    if (d->in.len >= WIRE_MAGIC_SIZE && memcmp(d->in.data, WIRE_MAGIC, WIRE_MAGIC_SIZE) == 0)
        buf_consume(&d->in, WIRE_MAGIC_SIZE);
    if (d->in.len < WIRE_HEADER_SIZE)
        return 0;
    const uint8_t *h = d->in.data;
    uint32_t length = get32(h);
    if (length == UINT32_MAX && d->in.len < WIRE_MAGIC_SIZE)
        return 0;
    if (length > WIRE_PAYLOAD_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "a frame claims %u bytes, more than the %d allowed", length,
                         WIRE_PAYLOAD_MAX);
    if (d->in.len < WIRE_HEADER_SIZE + (size_t)length)
        return 0;
    *ret = (struct wire_frame){.type = get16(h + 4),
                               .flags = get16(h + 6),
                               .stream = get32(h + 8),
                               .payload = h + WIRE_HEADER_SIZE,
                               .length = length};
    return 1;
}

void wire_decoder_next(struct wire_decoder *d, const struct wire_frame *frame)
{
    buf_consume(&d->in, WIRE_HEADER_SIZE + (size_t)frame->length);
}

void wire_decoder_skip(struct wire_decoder *d)
{
    d->synced = false;
}

void wire_decoder_reset(struct wire_decoder *d)
{
    buf_release(&d->in);
    d->synced = false;
}
