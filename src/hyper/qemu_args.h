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
    QEMU_FD_ZYGOTE = QEMU_FD_KERNEL, /* one that goes on needs no kernel */
    QEMU_FD_INITRD,
    QEMU_FD_MEMORY,
    QEMU_FD_SHARE = QEMU_FD_MEMORY, /* a VM that boots cold has no file for its memory */
    QEMU_FD_MODULE,                 /* husk-qemu.so */
    QEMU_FD_DISK,                   /* the first one */
    QEMU_FD_MAX = QEMU_FD_DISK + HYPER_BOOT_DISKS_MAX
};

/* What a guest takes an empty slot for: a file system in it may be as large, and ext4 knows of no
 * larger one without more than 32 bits for a block's number. */
#define QEMU_SLOT_SIZE (UINT64_C(16) << 40)

/* Whether it goes on where a template was frozen, instead of booting. */
bool qemu_resumes(const struct hyper_spec *spec);
/* Virtual CPUs that are there before it grows. */
unsigned qemu_cpus_at_start(const struct hyper_spec *spec);

/* tsc_khz: of the host, for guests whose CPU is emulated: they see the host's counter, and may fail
 * to measure it when the host is busy; 0 if it is not known. The vector is the caller's.
 * ERROR_INVALID if there is no such machine or accelerator. */
int qemu_args_build(const struct hyper_spec *spec, unsigned tsc_khz, char ***ret,
                    struct error **ret_error);

#endif
