#include "disk/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <zstd.h>

#include "base/str.h"

enum { SHORT_ID = 12, SHA256_SIZE = 32 };

struct codec;

struct stream {
    int fd;
    const struct codec *codec;
    const struct disk_watch *watch;
    const struct disk_layer *layer;
    uint64_t grown; /* bytes that are known to be in the file */
    bool whole;     /* and no more will come */
    char id[SHORT_ID + 1];
    const char *diff_id;
    uint64_t max_bytes;
    uint64_t produced;  /* bytes handed out */
    uint64_t consumed;  /* bytes of the file */
    uint64_t file_size; /* bytes of the file */
    EVP_MD_CTX *hash;
    struct inflate_state *gzip;
    ZSTD_DStream *zstd;
    bool between; /* at the end of a gzip member or zstd frame */
    bool file_end;
    uint8_t *in;
    size_t in_pos, in_len;
    uint8_t *out;
};

/* How one kind of compression is read. */
struct codec {
    uint8_t magic[4];
    size_t magic_size;
    uint8_t magic_mask; /* of the first byte */
    int (*open)(struct stream *s, struct error **ret_error);
    ssize_t (*read)(struct stream *s, const void **ret_data, struct error **ret_error);
};

/* Waits for the next bytes of a file that still grows; those before its end may only be read when
 * they are known to be there. Returns how many may be read. */
static ssize_t input_wait(struct stream *s, struct error **ret_error)
{
    if (!s->whole && s->consumed >= s->grown) {
        int64_t grown = s->watch->grown(s->watch->arg, s->layer, s->consumed, &s->whole, ret_error);
        if (grown < 0)
            return -1;
        s->grown = (uint64_t)grown;
    }
    uint64_t left = s->grown - s->consumed;
    return s->whole || left > STREAM_BUFFER ? STREAM_BUFFER : (ssize_t)left;
}

/* Makes sure that there is input, unless the file is at its end. */
static int input_fill(struct stream *s, struct error **ret_error)
{
    if (s->in_pos < s->in_len || s->file_end)
        return 0;
    ssize_t size = input_wait(s, ret_error);
    if (size < 0)
        return -1;
    ssize_t n = TEMP_FAILURE_RETRY(read(s->fd, s->in, (size_t)size));
    if (n < 0)
        return error_set(ret_error, ERROR_IO, errno, "read the layer");
    s->in_pos = 0;
    s->in_len = (size_t)n;
    s->file_end = n == 0;
    s->consumed += (uint64_t)n;
    if (!s->watch)
        return 0;
    return s->watch->progress(s->watch->arg, s->id, "Preparing root filesystem", s->consumed,
                              s->file_size, ret_error);
}

static int ended_early(struct error **ret_error)
{
    return error_set(ret_error, ERROR_CORRUPT, 0, "its compressed data ends too early");
}

/* ---- no compression ------------------------------------------------------------------------- */

static int plain_open(struct stream *s, struct error **ret_error)
{
    return 0;
}

static ssize_t plain_read(struct stream *s, const void **ret_data, struct error **ret_error)
{
    if (input_fill(s, ret_error) < 0)
        return -1;
    ssize_t n = (ssize_t)(s->in_len - s->in_pos);
    *ret_data = s->in + s->in_pos;
    s->in_pos = s->in_len;
    return n;
}

/* ---- gzip ----------------------------------------------------------------------------------- */

static int gzip_open(struct stream *s, struct error **ret_error)
{
    s->gzip = xmalloc(sizeof(*s->gzip));
    isal_inflate_init(s->gzip);
    s->gzip->crc_flag = ISAL_GZIP;
    return 0;
}

/* Behind a member there is another one, or zeros (which gzip itself skips), or the end. Returns 1
 * if there is more. */
static int gzip_next_member(struct stream *s, struct error **ret_error)
{
    for (;;) {
        if (input_fill(s, ret_error) < 0)
            return -1;
        if (s->file_end)
            return 0;
        if (s->in[s->in_pos] != 0)
            break;
        s->in_pos++;
    }
    isal_inflate_reset(s->gzip);
    s->gzip->crc_flag = ISAL_GZIP;
    s->between = false;
    return 1;
}

static ssize_t gzip_read(struct stream *s, const void **ret_data, struct error **ret_error)
{
    struct inflate_state *z = s->gzip;

    z->next_out = s->out;
    z->avail_out = STREAM_BUFFER;
    while (z->avail_out == STREAM_BUFFER) {
        int more = s->between ? gzip_next_member(s, ret_error) : 1;
        if (more <= 0)
            return more;
        if (input_fill(s, ret_error) < 0)
            return -1;
        z->next_in = s->in + s->in_pos;
        z->avail_in = (uint32_t)(s->in_len - s->in_pos);
        int result = isal_inflate(z);
        s->in_pos = s->in_len - z->avail_in;
        if (result != ISAL_DECOMP_OK && result != ISAL_END_INPUT)
            return error_set(ret_error, ERROR_CORRUPT, 0, "its gzip data is damaged");
        s->between = z->block_state == ISAL_BLOCK_FINISH;
        if (!s->between && s->file_end && z->avail_out == STREAM_BUFFER)
            return ended_early(ret_error);
    }
    *ret_data = s->out;
    return STREAM_BUFFER - (ssize_t)z->avail_out;
}

/* ---- zstd ----------------------------------------------------------------------------------- */

static int zstd_open(struct stream *s, struct error **ret_error)
{
    s->zstd = ZSTD_createDStream();
    s->between = true;
    if (!s->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax,
                                                        STREAM_ZSTD_WINDOW_LOG_MAX)))
        return error_set(ret_error, ERROR_INTERNAL, 0, "zstd cannot be set up");
    return 0;
}

static ssize_t zstd_read(struct stream *s, const void **ret_data, struct error **ret_error)
{
    ZSTD_outBuffer out = {.dst = s->out, .size = STREAM_BUFFER};

    while (out.pos == 0) {
        if (input_fill(s, ret_error) < 0)
            return -1;
        if (s->file_end && s->between)
            return 0;
        ZSTD_inBuffer in = {.src = s->in, .size = s->in_len, .pos = s->in_pos};
        size_t result = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(result))
            return error_set(ret_error, ERROR_CORRUPT, 0, "its zstd data cannot be read (%s)",
                             ZSTD_getErrorName(result));
        s->in_pos = in.pos;
        s->between = result == 0;
        if (s->file_end && !s->between && out.pos == 0)
            return ended_early(ret_error);
    }
    *ret_data = s->out;
    return (ssize_t)out.pos;
}

/* ---- the stream ----------------------------------------------------------------------------- */

static const struct codec codecs[] = {
    {{0x1f, 0x8b}, 2, 0xff, gzip_open, gzip_read},
    {{0x28, 0xb5, 0x2f, 0xfd}, 4, 0xff, zstd_open, zstd_read},
    {{0x50, 0x2a, 0x4d, 0x18}, 4, 0xf0, zstd_open, zstd_read}, /* a skippable frame */
    {{0}, 0, 0, plain_open, plain_read},
};

static const struct codec *codec_of(const struct stream *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
        const struct codec *c = &codecs[i];
        if (c->magic_size == 0)
            return c;
        if (s->in_len >= c->magic_size && (s->in[0] & c->magic_mask) == c->magic[0] &&
            memcmp(s->in + 1, c->magic + 1, c->magic_size - 1) == 0)
            return c;
    }
    return NULL;
}

static int stream_begin(struct stream *s, const char *path, struct error **ret_error)
{
    struct stat st;

    s->fd = -1;
    if (!s->whole && input_wait(s, ret_error) < 0)
        return -1;
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "open its file");
    s->file_size = (uint64_t)st.st_size;
    if (!s->hash || !EVP_DigestInit_ex(s->hash, EVP_sha256(), NULL))
        return error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be set up");
    if (input_fill(s, ret_error) < 0)
        return -1;
    s->codec = codec_of(s);
    return s->codec->open(s, ret_error);
}

struct stream *stream_new(const struct disk_layer *layer, uint64_t max_bytes,
                          const struct disk_watch *watch, struct error **ret_error)
{
    struct stream *s = xcalloc(1, sizeof(*s));

    s->watch = watch;
    s->layer = layer;
    s->whole = !watch || !watch->grown;
    s->diff_id = layer->diff_id;
    s->max_bytes = max_bytes;
    memcpy(s->id, layer->diff_id, strnlen(layer->diff_id, SHORT_ID));
    s->in = xmalloc(STREAM_BUFFER);
    s->out = xmalloc(STREAM_BUFFER);
    s->hash = EVP_MD_CTX_new();
    if (stream_begin(s, layer->path, ret_error) < 0) {
        stream_free(s);
        return NULL;
    }
    return s;
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    EVP_MD_CTX_free(s->hash);
    ZSTD_freeDStream(s->zstd);
    free(s->gzip);
    free(s->in);
    free(s->out);
    free(s);
}

void stream_freep(struct stream **s)
{
    stream_free(*s);
}

ssize_t stream_read(struct stream *s, const void **ret_data, struct error **ret_error)
{
    ssize_t n = s->codec->read(s, ret_data, ret_error);

    if (n <= 0)
        return n;
    s->produced += (uint64_t)n;
    if (s->produced > s->max_bytes)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "it unpacks to more than the %llu bytes that a layer may have",
                         (unsigned long long)s->max_bytes);
    EVP_DigestUpdate(s->hash, *ret_data, (size_t)n);
    return n;
}

int stream_check(struct stream *s, struct error **ret_error)
{
    uint8_t digest[SHA256_SIZE];
    char hex[2 * SHA256_SIZE + 1];
    const void *data;
    ssize_t n;

    do
        n = stream_read(s, &data, ret_error);
    while (n > 0);
    if (n < 0)
        return -1;
    if (!EVP_DigestFinal_ex(s->hash, digest, NULL))
        return error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be finished");
    str_hex(hex, digest, sizeof(digest));
    if (strcmp(hex, s->diff_id) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "its content has the digest 'sha256:%s', not 'sha256:%s'", hex,
                         s->diff_id);
    return 0;
}
