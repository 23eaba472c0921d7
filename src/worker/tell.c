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

int tell_placing(struct peer *peer, uint32_t seq, struct error **ret_error)
{
    struct wire_job_placing message = {.seq = seq};
    struct wire_frame frame;

    if (peer_send(peer, WIRE_JOB_PLACING, &message, ret_error) < 0)
        return -1;
    int result = peer_next(peer, &frame, ret_error);
    if (result == 1 && frame.type == WIRE_JOB_GO)
        return 0;
    return result < 0 ? -1 : error_set(ret_error, ERROR_CANCELLED, 0, "the daemon has gone");
}

int tell_hold(struct peer *peer, uint32_t seq, bool on, struct error **ret_error)
{
    struct wire_job_hold message = {.seq = seq, .on = on};
    struct wire_reply reply = {0};
    struct wire_frame frame;

    if (peer_send(peer, WIRE_JOB_HOLD, &message, ret_error) < 0)
        return -1;
    int result = peer_next(peer, &frame, ret_error);
    if (result < 0)
        return -1;
    if (result == 0 || frame.type != WIRE_REPLY)
        return error_set(ret_error, ERROR_CANCELLED, 0, "the daemon has gone");
    result = wire_get(&frame, &reply, ret_error);
    if (result == 0)
        result = wire_reply_check(&reply, ret_error);
    wire_clear(WIRE_REPLY, &reply);
    return result;
}
