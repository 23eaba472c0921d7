/* The blobs of one image on their way to a registry: several at a time, in the order in which they
 * were added.
 *
 *      is it there? ──> done
 *           └──> begin an upload, or mount it from another repository ──> done
 *                     └──> send it ──> done
 *
 * It is sent as one body (PUT). A registry that says that this is too much (status 413 and such)
 * gets it in chunks (PATCH), which are halved as long as it says so of them too. When sending fails
 * in a way that may pass, the registry is asked how much it has got, and gets the rest; if it does
 * not know, all is begun again, in chunks. Only for the files of this room.
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
    int fd;                /* of the blob's file while it is sent; -1 */
    char *location;        /* where it goes; NULL: that is not known yet */
    uint64_t offset;       /* bytes that have arrived there */
    uint64_t chunk;        /* bytes of a piece; 0: all at once */
    bool chunks_wanted;    /* the registry does not take it at once */
    uint64_t chunk_min;    /* the least that the registry takes, but for the last one */
    int tries;             /* that failed … */
    uint64_t tried_offset; /* … since so many bytes had arrived */
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
