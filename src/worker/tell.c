#include "worker/tell.h"

int tell_image(struct peer *peer, uint32_t seq, const struct image_found *image,
               struct error **ret_error)
{
    struct wire_job_image message = {
        .seq = seq,
        .id = image->id,
        .names = image->names,
        .config = image->config,
        .size_bytes = image->size_bytes,
        .created_ns = image->created_ns,
        .files = image->files,
    };

    return peer_send(peer, WIRE_JOB_IMAGE, &message, ret_error);
}
