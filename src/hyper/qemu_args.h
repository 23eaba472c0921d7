/* The command line of QEMU for a VM, from the rows of qemu_args.def. */
#ifndef HUSK_HYPER_QEMU_ARGS_H
#define HUSK_HYPER_QEMU_ARGS_H

#include "hyper/hyper.h"

/* What QEMU finds on its descriptors. */
enum {
    QEMU_FD_MONITOR = 3,
    QEMU_FD_AGENT,
    QEMU_FD_CONSOLE,
    QEMU_FD_KERNEL,
    QEMU_FD_INITRD,
    QEMU_FD_DISK, /* the first one */
    QEMU_FD_MAX = QEMU_FD_DISK + HYPER_BOOT_DISKS_MAX
};

/* The vector is the caller's. ERROR_INVALID if there is no such machine or accelerator. */
int qemu_args_build(const struct hyper_spec *spec, char ***ret, struct error **ret_error);

#endif
