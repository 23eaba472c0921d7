/* An image from a registry.
 *
 *      manifest ──> config ──> layers, several at a time, the topmost first
 *                                 └──> the prepared root, made in the background meanwhile
 *      all of it verified ──> everything gets its place ──> found()
 *
 * What the store has already is not fetched. What was fetched stays in blobs/partial when the
 * pull breaks off, and the next pull goes on there; only what proved to be wrong is removed.
 */
#ifndef HUSK_IMAGE_PULL_H
#define HUSK_IMAGE_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/load.h"
#include "image/registry.h"

enum {
    PULL_PARALLEL = 4, /* blobs that are fetched at a time */
    PULL_TRIES = 5,    /* of one blob, without PULL_TRY_BYTES in between */
    PULL_TRY_BYTES = 1 << 20,
    PULL_BACKOFF_MS = 500, /* before the second try; doubled each time */
};

struct image_pull {
    const char *root;
    const char *scratch;   /* an empty directory on the same filesystem; the caller removes it */
    const char *reference; /* full */
    struct registry_settings settings;
    const struct credentials *credentials; /* those of the request; if none, the daemon's own */
    uint64_t layer_max_bytes;
    void *arg;
    /* Negative: the work is called off. */
    int (*check)(void *arg, struct error **ret_error);
    int (*progress)(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                    struct error **ret_error);
    /* The name of a prepared root below `root`; the caller frees it. */
    char *(*prepared)(void *arg, const char *id);
    /* Begins to make the prepared root as a new file. The layers' files come to be and grow
     * meanwhile. *ret_fd is readable when there is something to attend to. */
    int (*prepare_begin)(void *arg, const char *id, const struct image_layer *layers, size_t count,
                         const char *path, int *ret_fd, struct error **ret_error);
    /* So many bytes of a layer's file are there; `whole`: it is complete and verified. */
    void (*prepare_feed)(void *arg, size_t layer, uint64_t bytes, bool whole);
    /* Takes what the preparation tells: how far it is in a layer, and its end. */
    int (*prepare_attend)(void *arg, struct image_prepare_news *ret, struct error **ret_error);
    /* Ends it, if it is under way. */
    void (*prepare_end)(void *arg);
    /* Called before anything gets its place: nothing of the store is removed until the end. */
    int (*placing)(void *arg, struct error **ret_error);
    int (*found)(void *arg, const struct image_found *image, struct error **ret_error);
};

int image_pull(const struct image_pull *pull, struct error **ret_error);

#endif
