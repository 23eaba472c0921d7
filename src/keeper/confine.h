/* What a keeper gives up before it hears of a guest. */
#ifndef HUSK_KEEPER_CONFINE_H
#define HUSK_KEEPER_CONFINE_H

#include "base/error.h"

/* For the rest of this process's life, and for QEMU's:
 *
 *   - no program that it runs gains a privilege;
 *   - nothing is written, made or removed in a file system but below the working directory, which
 * is the VM's, and below `directories` (up to a NULL; those that are not there are left out). What
 * is open already, and the devices that QEMU needs, can be written to;
 *   - from Linux 6.7 on nothing is bound or connected by TCP, and from 6.12 on no process but those
 * that come of this one is sent a signal, or reached by an abstract socket;
 *   - under root: of all capabilities only CONFINE_KEPT of confine.c are left.
 *
 * Fails where the kernel has no Landlock, or refuses what root may do; then the rest is given up
 * all the same. */
int confine(char *const *directories, struct error **ret_error);

/* Rules of landlock(7) by which a process writes, makes and removes nothing in a file system, as
 * the kernel knows them, and is alone as above; for a process that is not ours. *ret_fd is -1
 * if it knows of none. */
int confine_rules(int *ret_fd, struct error **ret_error);

/* For husk-share (share.h), under root: leaves it what mounting, and serving files, needs. -1 and
 * errno if it fails. */
int confine_share(void);

#endif
