/* Storage drivers: where the roots of containers come from and where their writable layers are.
 *
 * These functions block; only worker processes call them. They write below the places that they
 * are given and nowhere else, and leave nothing behind when they fail. They know nothing of
 * registries and archives: layers are files with tars in them.
 */
#ifndef HUSK_DISK_DISK_H
#define HUSK_DISK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    DISK_PATH_DEPTH_MAX = 256,  /* directories in each other, in an image */
    DISK_PATH_MAX = 4095,       /* bytes of a path in an image */
    DISK_ENTRIES_MAX = 2000000, /* files in all layers of an image: each costs time */
    DISK_NAMES_MAX = 96 << 20,  /* bytes of memory for all names: a million files of an image */
    DISK_LAYERS_MAX = 512,      /* of one image */
    DISK_DIGEST_HEX = 64,
    DISK_SPARES_MAX = 16,           /* writable layers that are kept ready */
    DISK_LAYER_SIZE_MIN = 16 << 20, /* of a writable layer: less is nearly all journal */
};

/* One layer of an image: a tar, plain or compressed with gzip or zstd. */
struct disk_layer {
    const char *path;    /* of the file */
    const char *diff_id; /* hexadecimal sha256 of the tar, without compression */
};

struct disk_image {
    const char *id;                  /* hexadecimal sha256 of its config */
    const struct disk_layer *layers; /* the lowest first */
    size_t layer_count;
    uint64_t layer_max_bytes; /* of one layer without compression, and of its files */
};

/* Called now and then during long work. A negative answer ends it with *ret_error. */
struct disk_watch {
    /* Of a layer whose file still grows: waits until more than `from` of its bytes are there and
     * returns how many are, or until all of them are and sets *ret_whole. NULL: all files are
     * whole. -1: there will be no more. */
    int64_t (*grown)(void *arg, const struct disk_layer *layer, uint64_t from, bool *ret_whole,
                     struct error **ret_error);
    int (*progress)(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                    struct error **ret_error);
    void *arg;
};

struct disk_ops {
    const char *name;
    /* The name of an image's prepared root below the daemon's root; the caller frees it. */
    char *(*image_file)(const char *id);
    /* Makes the prepared root as the new file `path`, synced. */
    int (*image_prepare)(const struct disk_image *image, const char *path,
                         const struct disk_watch *watch, uint64_t *ret_size,
                         struct error **ret_error);
    /* Makes a writable layer at `path` (below root), or leaves the one that is there. */
    int (*layer_make)(const char *root, const char *path, uint64_t size_bytes,
                      struct error **ret_error);
    /* Makes up to `count` (at most DISK_SPARES_MAX) layers for layer_make() to take, and removes
     * those of other sizes. */
    int (*layer_spares)(const char *root, uint64_t size_bytes, uint32_t count,
                        struct error **ret_error);
};

/* Images as one erofs file each, writable layers as sparse ext4 files: needs no privilege. */
extern const struct disk_ops disk_block;

/* Removes a file or a tree below root; `path` is absolute or relative to root. Links are never
 * followed, not even on the way. What is not there is fine; what is not below root is
 * ERROR_INVALID. */
int disk_remove(const char *root, const char *path, struct error **ret_error);

/* The same as far as anybody can see, but what takes its time is not done: the file or tree is
 * moved to root/tmp/gone, and disk_remove() of that is to follow. */
int disk_discard(const char *root, const char *path, struct error **ret_error);

/* Removes from root's blobs, images, pods and tmp what is not in keep and has nothing of keep in
 * it. Work that another process has locked in tmp stays, and so do partial blobs that are locked
 * or have changed in the last so many seconds. */
int disk_sweep(const char *root, const char *const *keep, uint32_t partial_keep_s,
               struct error **ret_error);

/* A new directory root/tmp/NAME for one piece of work, locked until *ret_fd is closed; the caller
 * removes it with disk_remove(). */
int disk_scratch(const char *root, char **ret_path, int *ret_fd, struct error **ret_error);

#endif
