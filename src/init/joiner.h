/* Joiners: processes that have joined a container, and start execs in it.
 *
 * To fork husk-init and to join a container is half the work of an exec. A container in which an
 * exec has ended will see another one, so a process is left there that does it once: it waits in
 * launch_joiner(), in all namespaces of the container but that of pids, where it would be seen. For
 * each exec it makes a process in its own memory, as vfork(2) does, a child of husk-init. Where no
 * joiner is ready, an exec is started from nothing by the same code.
 *
 * A joiner keeps the container's mounts until joiner_leave().
 */
#ifndef HUSK_INIT_JOINER_H
#define HUSK_INIT_JOINER_H

#include <stdbool.h>
#include <sys/types.h>

#include "init/container.h"
#include "init/launch.h"

struct joiner;

/* Makes the container's joiner soon, if it has none. */
void joiner_want(struct container *c);
/* The container has ended. */
void joiner_leave(const struct container *c);
/* A process was reaped that may have been a joiner. */
void joiner_ended(pid_t pid);

/* Starts an exec by the joiner of its container: false if that cannot be, and nothing was done.
 * `frame` is the request, `seq` its number. */
bool joiner_exec(const struct launch *launch, const struct wire_frame *frame, uint32_t seq);
/* The process that it has made last for an exec; 0: none yet. */
pid_t joiner_born(const struct joiner *j);

#endif
