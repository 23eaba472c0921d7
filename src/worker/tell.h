/* What both programs of workers tell of images. */
#ifndef HUSK_WORKER_TELL_H
#define HUSK_WORKER_TELL_H

#include "image/load.h"
#include "worker/peer.h"

/* Of one layer, unpacked, when the request does not say: bytes. */
#define LAYER_MAX_DEFAULT (64ULL << 30)

/* JOB_IMAGE: an image is there, of the request `seq`. */
int tell_image(struct peer *peer, uint32_t seq, const struct image_found *image,
               struct error **ret_error);

/* JOB_PLACING: files of images are about to get their places. Returns when they may: until the
 * answer to `seq` nothing of images is removed. */
int tell_placing(struct peer *peer, uint32_t seq, struct error **ret_error);

/* JOB_HOLD: the layer is about to be copied (`on`), or was. Returns when it may, or what was copied
 * is of use. */
int tell_hold(struct peer *peer, uint32_t seq, bool on, struct error **ret_error);

#endif
