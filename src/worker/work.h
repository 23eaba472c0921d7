/* What jobs that make images of archives or layers have in common: the daemon is told how they get
 * on, and its storage driver prepares their roots.
 */
#ifndef HUSK_WORKER_WORK_H
#define HUSK_WORKER_WORK_H

#include "disk/disk.h"
#include "image/load.h"
#include "worker/peer.h"

enum { SHORT_ID = 12 };

struct work {
    struct peer *peer;
    uint32_t seq;
    struct disk disk;
    uint64_t layer_max_bytes;
    int64_t told_ms, checked_ms;
    const char *status;    /* of the last message */
    char id[SHORT_ID + 1]; /* of the last message */
    char *found;           /* of a rehearsal: the first image's root, below the scratch */
};

/* The functions that image/load.h and image/commit.h ask for; arg is the work. */
int work_progress(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                  struct error **ret_error);
char *work_prepared(void *arg, const char *id);
int work_prepare(void *arg, const char *id, const struct image_layer *layers, size_t count,
                 const char *path, uint64_t *ret_size, struct error **ret_error);
int work_placing(void *arg, struct error **ret_error);
int work_found(void *arg, const struct image_found *image, struct error **ret_error);

#endif
