/* Whether the store still has what it was given: blobs by their digests, prepared roots by being
 * made once more of their blobs.
 */
#ifndef HUSK_IMAGE_VERIFY_H
#define HUSK_IMAGE_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/load.h"

/* Something that is not as it should be. */
struct image_problem {
    const char *image;   /* "sha256:…" */
    const char *file;    /* relative to the root */
    const char *message; /* what is wrong with it */
    bool blob;           /* else the prepared root */
    bool repaired;
};

struct image_verify {
    const char *root;
    const char *scratch;      /* an empty directory on the same filesystem */
    const char *const *items; /* "image:ID", then of each of its files "file:PATH" */
    bool repair; /* roots that are not right are replaced, and damaged blobs removed: a pull fetches
                  * what is missing */
    void *arg;
    int (*progress)(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                    struct error **ret_error);
    /* As that of struct image_load. */
    int (*prepare)(void *arg, const char *id, const struct image_layer *layers, size_t count,
                   const char *path, uint64_t *ret_size, struct error **ret_error);
    /* Whether two roots are the same. */
    int (*same)(void *arg, const char *path, const char *other, bool *ret_same,
                struct error **ret_error);
    /* Called before the first file is replaced or removed: nobody else does so until the end. */
    int (*placing)(void *arg, struct error **ret_error);
    int (*problem)(void *arg, const struct image_problem *problem, struct error **ret_error);
};

/* What is damaged is told by problem(); an error is that it could not be looked at. */
int image_verify(const struct image_verify *verify, struct error **ret_error);

#endif
