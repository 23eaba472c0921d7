/* An image into a registry: the blobs that are not there, several at a time, then the manifest.
 * What is pushed is what is in the store, byte by byte: all digests stay.
 */
#ifndef HUSK_IMAGE_PUSH_H
#define HUSK_IMAGE_PUSH_H

#include <stdint.h>

#include "base/error.h"
#include "image/registry.h"

enum {
    PUSH_PARALLEL = 4,     /* blobs that are sent at a time */
    PUSH_TRIES = 3,        /* of one blob */
    PUSH_BACKOFF_MS = 500, /* before the second try; doubled each time */
};

struct image_push {
    const char *root;
    const char *reference;      /* full, with a tag */
    const char *const *files;   /* of the image: prepared root, config, manifest, layers … */
    const char *const *sources; /* other names of the image: blobs may be mounted from there */
    struct registry_settings settings;
    const struct credentials *credentials; /* those of the request; if none, the daemon's own */
    void *arg;
    /* Negative: the work is called off. */
    int (*check)(void *arg, struct error **ret_error);
    int (*progress)(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                    struct error **ret_error);
};

int image_push(const struct image_push *push, struct error **ret_error);

#endif
