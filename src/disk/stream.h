/* A layer's tar, read from its file: decompressed (gzip, zstd or not at all, seen by its first
 * bytes), hashed and measured on the way. Reading it to its end and checking the hash proves
 * that the layer is the one that the image's config names. Only for the files of this room.
 */
#ifndef HUSK_DISK_STREAM_H
#define HUSK_DISK_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "disk/disk.h"

enum {
    STREAM_BUFFER = 256 << 10,
    STREAM_ZSTD_WINDOW_LOG_MAX = 25, /* 32 MiB of memory at most; zstd -19 uses 8 */
};

struct stream;

/* Opens the layer's file; more than max_bytes without compression are ERROR_TOO_LARGE. `watch`
 * may be NULL; it is told of the compressed bytes. */
struct stream *stream_new(const struct disk_layer *layer, uint64_t max_bytes,
                          const struct disk_watch *watch, struct error **ret_error);
void stream_free(struct stream *s);
void stream_freep(struct stream **s);

/* The next bytes, valid until the next call. Returns how many, 0 at the end, -1. */
ssize_t stream_read(struct stream *s, const void **ret_data, struct error **ret_error);

/* Reads what is left and compares the hash: ERROR_CORRUPT if it is another layer. */
int stream_check(struct stream *s, struct error **ret_error);

#endif
