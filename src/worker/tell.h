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

#endif
