/* The daemon: its rooms, and the order in which things happen in one turn of its loop.
 *
 *     events ──> core ──> commit ──> replies ──> effects ──> wait
 *
 * Nobody hears of anything, and nothing is done, before it is written down.
 */
#ifndef HUSK_HUSKD_DAEMON_H
#define HUSK_HUSKD_DAEMON_H

#include "base/error.h"
#include "huskd/settings.h"

struct daemon;

/* Takes the root and the socket, loads the world. The settings outlive the daemon. */
int daemon_new(const struct settings *settings, struct daemon **ret, struct error **ret_error);
/* Until SIGTERM or SIGINT. 0, or 1 if it could not go on. */
int daemon_run(struct daemon *daemon);
void daemon_free(struct daemon *daemon);

/* Names of all steps at which HUSK_CRASH_AT can kill the daemon, a line each. */
void daemon_print_steps(void);

#endif
