/* The blobs of one image on their way to a registry: several at a time, in the order in which they
 * were added.
 *
 *      is it there? ──> done
 *           └──> begin an upload, or mount it from another repository ──> done
 *                     └──> send it ──> done
 *
 * What fails in a way that may pass is begun again from the start. Only for the files of this room.
 */
#ifndef HUSK_IMAGE_UPLOAD_H
#define HUSK_IMAGE_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "image/manifest.h"
#include "image/push.h"

struct upload {
    struct uploads *all;
    const struct descriptor *blob;
    enum { UPLOAD_WAITS, UPLOAD_RUNS, UPLOAD_DONE } state;
    int fd; /* of the blob's file while it is sent; -1 */
    int tries;
    int64_t not_before_ms, told_ms;
    struct error *error;
};

struct uploads {
    struct registry *registry;
    const struct image_push *push;
    const char *source; /* a repository of the same registry that may have the blobs; NULL: none */
    struct upload *items; /* made at once: pointers to them stay */
    size_t count;
    bool answered; /* so the registry is known: how it is spoken to, and as whom */
};

/* Adds a blob, unless it was added before. At most UPLOADS_MAX. `blob` must outlive `all`. */
void uploads_add(struct uploads *all, const struct descriptor *blob);
/* Begins what can be begun. Returns how many are not there yet; -1: one has failed. */
int uploads_step(struct uploads *all, struct error **ret_error);
/* After the registry's requests were ended. */
void uploads_done(struct uploads *all);

#endif
