/* Images from an archive: `docker save` and OCI image layouts, as tars, perhaps compressed.
 *
 * The archive is spooled into a scratch directory, every digest is checked, each image's root is
 * prepared from its layers (by the storage driver, through `prepare`), and only when all of them
 * are ready do blobs and roots move to their places in root/blobs/sha256 and root/images. If
 * anything fails, nothing of the archive is left in these places. Loading an image that is there
 * already only reads it again.
 */
#ifndef HUSK_IMAGE_LOAD_H
#define HUSK_IMAGE_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A layer as the driver needs it. */
struct image_layer {
    const char *path;
    const char *diff_id; /* 64 hexadecimal digits */
};

/* What a preparation in the background tells. */
struct image_prepare_news {
    bool any;     /* it tells something */
    bool ended;   /* and that was all; `size` is that of the prepared root */
    size_t layer; /* else: how far it is in a layer */
    uint64_t done, total;
    uint64_t size;
};

/* One image that was loaded. */
struct image_found {
    const char *id;           /* "sha256:…" */
    const char *const *names; /* full references */
    const char *config;       /* its JSON text */
    uint64_t size_bytes;      /* of the prepared root */
    uint64_t created_ns;
    const char *const *files; /* below root */
};

struct image_load {
    const char *root;
    const char *scratch; /* an empty directory on the same filesystem; the caller removes it */
    int fd;              /* the archive */
    uint64_t layer_max_bytes;
    void *arg;
    /* Waits until fd can be read; negative: the work is called off. */
    int (*wait)(void *arg, int fd, struct error **ret_error);
    int (*progress)(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                    struct error **ret_error);
    /* The name of a prepared root below `root`; the caller frees it. */
    char *(*prepared)(void *arg, const char *id);
    /* Makes the prepared root as a new file. */
    int (*prepare)(void *arg, const char *id, const struct image_layer *layers, size_t count,
                   const char *path, uint64_t *ret_size, struct error **ret_error);
    /* Called before anything gets its place: nothing of the store is removed until the
     * end. NULL: nobody would. */
    int (*placing)(void *arg, struct error **ret_error);
    int (*found)(void *arg, const struct image_found *image, struct error **ret_error);
};

int image_load(const struct image_load *load, struct error **ret_error);

#endif
