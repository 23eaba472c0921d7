/* A new image: an old one with one more layer, which is what a container has changed.
 *
 * The blobs of the old image get names in the scratch directory first, so that nobody takes them
 * away. The new root is prepared from all layers, as that of any image; only then do blobs and root
 * move to their places. If anything fails, nothing of it is left in these places.
 */
#ifndef HUSK_IMAGE_COMMIT_H
#define HUSK_IMAGE_COMMIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/load.h"
#include "image/pack.h"

struct image_commit {
    const char *root;
    const char *scratch;      /* an empty directory on the same filesystem; the caller removes it */
    const char *const *files; /* of the old image: its root, config, manifest … */
    const char *name;         /* full reference; "": none */
    const char *author, *message;
    const char *const *changes; /* as change.h has them */

    /* what the container was asked to be, over the old image; empty: as that says */
    const char *const *entrypoint, *const *command;
    const char *const *env;    /* NAME=VALUE */
    const char *const *labels; /* name, value, name, value … */
    const char *workdir, *user, *stop_signal;
    const char *created_by; /* what it ran, for the history */

    void *arg;
    /* Makes the new layer as a new file. */
    int (*layer)(void *arg, const char *path, struct layer_packed *ret, struct error **ret_error);
    /* As those of struct image_load. */
    char *(*prepared)(void *arg, const char *id);
    int (*prepare)(void *arg, const char *id, const struct image_layer *layers, size_t count,
                   const char *path, uint64_t *ret_size, struct error **ret_error);
    int (*placing)(void *arg, struct error **ret_error);
    int (*found)(void *arg, const struct image_found *image, struct error **ret_error);
};

int image_commit(const struct image_commit *commit, struct error **ret_error);

#endif
