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

/* A driver at work for one daemon. */
struct disk {
    const struct disk_ops *ops;
    const char *root;           /* of the daemon, absolute */
    const char *const *options; /* "dm.basesize=20G" …, as check() admits them */
};

/* A writable layer that is to be made. Paths are absolute or relative to the root. */
struct disk_layer_spec {
    const char *path;
    const char *image;   /* the prepared root that it is for */
    uint64_t size_bytes; /* 0: not limited, with a driver that cannot hold it to a size */
    const char *like; /* absolute: one of that size that may be copied instead; NULL or "": none */
};

/* What a VM gets of a container's storage. The strings are owned: disk_root_done(). */
struct disk_root {
    char *image; /* read-only, below the layer: a file with erofs, or a directory; NULL: the layer
                  * is the whole root */
    char *layer; /* file or block device with ext4; or a directory with `upper` and `work` … */
    char *top;   /* … and the directory in it that is the root, if image is NULL */
};

/* Where the tar of a layer goes, in pieces. */
struct disk_output {
    int (*write)(void *arg, const void *data, size_t size, struct error **ret_error);
    void *arg;
    uint64_t max_bytes; /* of all of it */
};

struct disk_ops {
    const char *name;
    const char *image_suffix; /* of its file's name */
    /* ERROR_INVALID for an option that the driver does not know, or that makes no sense. */
    int (*check)(const char *const *options, struct error **ret_error);
    /* Makes the prepared root, and the new file `path` that stands for it, synced; it is linked or
     * renamed to its place, disk_image_file(), by the caller. *ret_size: what the root takes. */
    int (*image_prepare)(const struct disk *disk, const struct disk_image *image, const char *path,
                         const struct disk_watch *watch, uint64_t *ret_size,
                         struct error **ret_error);
    /* Whether two prepared roots of one image, by the files that stand for them, are the same. The
     * second was made just now, in root/tmp. The caller calls collect(). */
    int (*image_same)(const struct disk *disk, const char *path, const char *other, bool *ret_same,
                      struct error **ret_error);
    /* Makes a writable layer, or leaves the one that is there. */
    int (*layer_make)(const struct disk *disk, const struct disk_layer_spec *layer,
                      struct error **ret_error);
    /* Makes up to `count` (at most DISK_SPARES_MAX) layers for layer_make() to take, and as many
     * copies of each of `likes` (absolute paths; NULL: none), and removes those of other sizes. */
    int (*layer_spares)(const struct disk *disk, uint64_t size_bytes, uint32_t count,
                        const char *const *likes, struct error **ret_error);
    /* Bytes that the layer takes on the host, beyond its image. */
    int (*layer_usage)(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                       struct error **ret_error);
    /* Makes the layer ready for a VM; what is ready already is fine. Undone by detach(). */
    int (*attach)(const struct disk *disk, const char *image, const char *layer,
                  struct disk_root *ret, struct error **ret_error);
    /* No VM has it any more. What is not attached, or not there, is fine. */
    int (*detach)(const struct disk *disk, const char *layer, struct error **ret_error);
    /* A copy of the layer as it is now, as the new file or tree `copy` in root/tmp, for
     * layer_diff(). While this goes on, the guest writes nothing. The caller removes it, and calls
     * collect(). */
    int (*layer_copy)(const struct disk *disk, const char *path, const char *copy,
                      struct error **ret_error);
    /* Writes what the copy has beyond its image, by the file that stands for that, as the tar of an
     * OCI layer. All of it was written by a guest: nothing is mounted or believed. The copy may be
     * changed. */
    int (*layer_diff)(const struct disk *disk, const char *image, const char *copy,
                      const struct disk_output *out, struct error **ret_error);
    /* Files were removed: frees what they stood for. */
    int (*collect)(const struct disk *disk, struct error **ret_error);
};

/* Images as one erofs file each, writable layers as sparse ext4 files: needs no privilege. */
extern const struct disk_ops disk_block;
/* Images and layers as devices of a thin pool (dm.h): needs root and the kernel's device-mapper. */
extern const struct disk_ops disk_devicemapper;
/* Images and layers as directories of the host: needs root and the host's overlayfs. A writable
 * layer that is asked to have a size is ERROR_UNSUPPORTED where the root's file system has no
 * project quotas. */
extern const struct disk_ops disk_overlay;

/* The driver of that name; NULL and ERROR_INVALID, with the names that there are. */
const struct disk_ops *disk_driver(const char *name, struct error **ret_error);

/* "images/ID.SUFFIX", relative to the root; the caller frees it. */
char *disk_image_file(const struct disk *disk, const char *id);

void disk_root_done(struct disk_root *root);

/* Bytes that a file, or a tree, takes on the disk: holes take none. Links are not followed. */
int disk_usage(const char *path, uint64_t *ret_bytes, struct error **ret_error);

/* Removes a file or a tree below root, however deep it is; `path` is absolute or relative to root.
 * Links are never followed, not even on the way. What is not there is fine; what is not below root
 * is ERROR_INVALID. */
int disk_remove(const char *root, const char *path, struct error **ret_error);

/* The same as far as anybody can see, but what takes its time is not done: the file or tree is
 * moved to root/tmp/gone, and disk_remove() of that is to follow. */
int disk_discard(const char *root, const char *path, struct error **ret_error);

/* Removes from root's blobs, images, pods and tmp what is not in keep and has nothing of keep in
 * it. Work that another process has locked in tmp stays, and so do partial blobs that are locked
 * or have changed in the last so many seconds. */
int disk_sweep(const char *root, const char *const *keep, uint32_t partial_keep_s,
               struct error **ret_error);

/* Copies the data of a sparse file into an empty one; what is a hole stays one. -1 and errno. */
int disk_copy(int from, int to);

/* A new directory root/tmp/NAME for one piece of work, locked until *ret_fd is closed; the caller
 * removes it with disk_remove(). */
int disk_scratch(const char *root, char **ret_path, int *ret_fd, struct error **ret_error);

#endif
