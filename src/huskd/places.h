/* Where things are on this host: programs, the guest's files, the root, the socket. */
#ifndef HUSK_HUSKD_PLACES_H
#define HUSK_HUSKD_PLACES_H

#include <stdbool.h>

#include "base/error.h"
#include "huskd/settings.h"

/* All absolute, all owned. A file that is not there has a name nevertheless. */
struct places {
    char *root;      /* canonical; as set until root_take() */
    char *templates; /* directory of the templates; "" until root_take() if it is in the root */
    char *keeper, *worker, *transfer;
    char *module; /* husk-qemu.so */
    char *kernel, *initrd, *busybox;
    char *qemu;                 /* as set, if there is no such program */
    char **insecure, **mirrors; /* of registries, one a string */
};

void places_init(struct places *places, const struct settings *settings);
void places_done(struct places *places);

/* Makes the root if need be, and locks it: one daemon a root. The lock is kept by *ret_fd. */
int root_take(struct places *places, int *ret_fd, struct error **ret_error);

/* Listens on the socket; or on the one that systemd has made for us (*ret_activated). A socket
 * that nobody listens on any more is replaced; a daemon that answers is left alone. */
int socket_take(const struct settings *settings, int *ret_fd, bool *ret_activated,
                struct error **ret_error);

/* Tells systemd, if it wants to know: "READY=1", "STOPPING=1". */
void service_notify(const char *state);

#endif
