/* Slots: first processes of containers that do not exist yet.
 *
 * Most of what a container needs does not depend on the container: namespaces, a cgroup, pipes, the
 * mounts of /proc, /dev and /sys. While the guest is idle, and before a template is made of it,
 * that is made ahead. A slot then waits in launch_slot() for the request, and becomes the
 * container. Where no slot is free, a container is started from nothing by the same code.
 */
#ifndef HUSK_INIT_SLOT_H
#define HUSK_INIT_SLOT_H

#include <stdbool.h>
#include <sys/types.h>

#include "init/container.h"

/* Makes the slots that are missing, now or soon. */
void slots_fill(void);
void slots_fill_later(void);
/* Kills all that there are: none is used from now on, also if it takes its time to die. */
void slots_give_up(void);
/* Makes one whose root is ready too, of these disks: only a container of the same disks gets it.
 * `warmed`: its shell has run once there. */
struct root;
int slots_fill_rooted(const struct root *root, const struct wire_freeze *message, bool warmed,
                      struct error **ret_error);
/* In those that have a root its shell is run ahead: where the guest goes on after it was cloned
 * what ran before is not translated any more. */
void slots_warm(void);
/* Empties the journals of rooted slots' layers: their disks are then as the kernel believes them to
 * be, and good for anybody. ERROR_STATE if the rooted slot that was to be is not. */
int slots_flush(struct error **ret_error);
/* True if none is still being made. */
bool slots_ready(void);
/* A process was reaped that may have been a slot. */
void slot_ended(pid_t pid);
/* The limits that a container has by default have changed. */
void slots_limits_changed(void);

/* Starts a container in a slot, if there is one that is ready and that the request fits in: false
 * if not, and nothing was done. */
struct launch;
bool slot_start(struct container *c, const struct launch *launch);

#endif
