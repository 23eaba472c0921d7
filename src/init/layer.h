/* The writable layer of a container, held still while the host copies it.
 *
 * Its file system is frozen (FIFREEZE of ioctl(2)) by a child, which would be stuck instead of
 * husk-init if the disk were. The child thaws it when it is told, when husk-init lets go of it, and
 * in any case when its time is over: whoever asked may be gone.
 */
#ifndef HUSK_INIT_LAYER_H
#define HUSK_INIT_LAYER_H

#include "init/container.h"

/* Answer LAYER_FREEZE and LAYER_THAW; c: NULL if there is no such container. */
void layer_freeze(const struct container *c, const struct wire_layer_freeze *message);
void layer_thaw(const struct container *c, const struct wire_layer_thaw *message);
/* The container ends: its layer is thawed, whoever wanted it. */
void layer_let_go(const struct container *c);
/* Makes a layer read-only for ever, which leaves nothing to do for its journal: the machine is
 * turned off. False if it cannot be. */
bool layer_settle(const char *device);

#endif
