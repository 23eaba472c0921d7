/* The root of a container, made by its first process in its own mount namespace: it all goes away
 * with the namespace, so nobody can forget to unmount.
 */
#ifndef HUSK_INIT_ROOT_H
#define HUSK_INIT_ROOT_H

#include <stdbool.h>

#include "base/error.h"

/* Where it comes from. */
struct root {
    const char *image_device; /* erofs; NULL or "": the layer is the whole root */
    const char *layer_device; /* ext4, or as disk_find() says of what is shared */
    const char *layer_top;    /* then, the directory in it that is the root */
};

/* What the pod gives. */
struct root_gifts {
    const char *hostname; /* for /etc/hostname */
    const char *const *hosts, *const *resolv;
};

/* At boot, before all else. */
void root_open(void);
/* Makes what does not depend on the container: /proc, /dev, /sys, with what is masked and protected
 * in them. For a process that has its own namespaces of mounts, pids, IPC and cgroups. */
int root_prepare(struct error **ret_error);
/* Mounts the layers, puts what was prepared into them, and makes that the root of this process.
 * *ret_layer (may be NULL) is a directory of the layer's file system, opened, to freeze it by. */
int root_enter(const struct root *root, int *ret_layer, struct error **ret_error);
/* Then: fills in what the pod gives. */
int root_give(const struct root_gifts *gifts, struct error **ret_error);
/* Last: nothing more may be written. */
int root_seal(struct error **ret_error);
/* Makes the terminal of descriptor `slave` the container's /dev/console. */
int root_console(const char *slave_path, struct error **ret_error);

#endif
