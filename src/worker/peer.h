/* The daemon at the other end of a worker's socket, spoken to with blocking calls. */
#ifndef HUSK_WORKER_PEER_H
#define HUSK_WORKER_PEER_H

#include <stdbool.h>

#include "base/error.h"
#include "proto/wire.h"

struct peer {
    int fd;
    int sent; /* the descriptor that came with the frame at work; -1: none */
    bool greeted;
    struct wire_decoder in;
    bool used; /* `frame` is to be consumed before the next is looked at */
    struct wire_frame frame;
};

/* Says hello. */
int peer_hello(struct peer *peer, struct error **ret_error);
void peer_done(struct peer *peer);

/* Waits for a request: 1, and *ret valid until the next call; 0 if the daemon has gone; -1. The
 * first message must be a HELLO, which is dealt with here. */
int peer_next(struct peer *peer, struct wire_frame *ret, struct error **ret_error);

int peer_send(struct peer *peer, unsigned type, const void *message, struct error **ret_error);

/* Closes the descriptor that came with the frame. */
void peer_drop_sent(struct peer *peer);

/* ERROR_CANCELLED if the daemon has gone: what is at work is wanted by nobody. */
int peer_check(const struct peer *peer, struct error **ret_error);
/* Waits until fd can be read, or the daemon has gone. */
int peer_wait(const struct peer *peer, int fd, struct error **ret_error);

#endif
