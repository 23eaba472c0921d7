/* The link to the keeper: the virtio-serial port named "husk.agent", carrying the wire.
 *
 * Messages are queued and written as the port takes them. Bulk output of processes is not queued:
 * a frame is taken from a process only when nothing else waits, and by splice(2) where that pays,
 * so that a message is never behind more than one frame of data. While the queue is full, nothing
 * is read from the keeper either.
 */
#ifndef HUSK_INIT_PORT_H
#define HUSK_INIT_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/wire.h"

/* `frame` gets each frame of a greeted peer, whose bytes stay where they are until `over` has
 * returned; `greeted` is told of a new peer, which knows nothing of any stream's credit. */
struct port_ops {
    void (*frame)(const struct wire_frame *frame);
    void (*over)(void);
    void (*greeted)(void);
};

/* Opens the port and queues HELLO. False if the guest has no such port. */
bool port_open(const struct port_ops *ops);
/* Reads and hands out frames, a bounded number: true if there may be more. */
bool port_read(void);
/* Writes what is queued. */
void port_flush(void);
/* True if a frame of data may be sent now. */
bool port_idle(void);
/* True if something short may be queued behind what is there already. */
bool port_takes_more(void);

void port_send(unsigned type, uint32_t stream, const void *message);
/* A data frame; of no bytes: the end of the channel. */
void port_send_data(unsigned type, uint32_t stream, const void *data, size_t size);

/* Moves at most `max` bytes that a pipe holds into one data frame; port_idle() was true. Returns
 * the number of bytes, 0 if the pipe is empty and has ended, -1 and errno otherwise. */
ssize_t port_send_pipe(unsigned type, uint32_t stream, int fd, size_t max);

#endif
