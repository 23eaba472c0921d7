/* A process that closes descriptors for husk-init, where the last close may take long: that of a
 * namespace of mounts unmounts what is in it, and waits for the disks.
 */
#ifndef HUSK_INIT_JANITOR_H
#define HUSK_INIT_JANITOR_H

#include <stdbool.h>
#include <stdint.h>

/* Starts the process, if it does not run. */
void janitor_open(void);
/* Takes a descriptor and closes it, in order; returns a ticket for janitor_done(). */
uint64_t janitor_close(int *fd);
/* True if the descriptor of this ticket, and all before it, are closed. */
bool janitor_done(uint64_t ticket);

#endif
