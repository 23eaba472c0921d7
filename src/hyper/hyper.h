/* A hypervisor: the program that runs one VM. The only door between husk and QEMU's words.
 *
 * A driver is one file that ends in its `struct hyper_ops`. Everything but start() is
 * asynchronous: `done` is called later, from the loop, once for each request, with NULL or with an
 * error that is the driver's. When the VM ends, requests that are still open are answered first,
 * then `gone` is called, once. After that only free() may be called.
 */
#ifndef HUSK_HYPER_HYPER_H
#define HUSK_HYPER_HYPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "loop/loop.h"

enum {
    HYPER_BOOT_DISKS_MAX = 16, /* disks that are there from the start */
    HYPER_HOT_DISKS_MAX = 128, /* plugged into the running VM, LUNs 0 … */
    HYPER_CPUS_MAX = 255,
};

struct hyper_disk {
    const char *path; /* for messages; the hypervisor gets the descriptor */
    int fd;           /* open for reading, or for both; the driver makes its own copy */
    bool read_only;
};

/* What a VM is made of. Strings are only read during start(). */
struct hyper_spec {
    const char *vm; /* id, for the process list */
    const char *machine;
    const char *accel;
    unsigned cpus;
    uint64_t memory_bytes;
    const char *program;
    const char *kernel;
    const char *initrd;
    const char *append; /* added to the driver's own words of the kernel's command line */
    const char *user;   /* "": as we are */
    const struct hyper_disk *disks; /* the guest sees disk number i with the serial "d<i>" */
    unsigned disk_count;
};

/* Our ends of what is connected to the guest; the caller's to close. */
struct hyper_ends {
    int agent;   /* the port "husk.agent": a connected unix stream socket */
    int console; /* what the kernel prints, the same */
};

struct hyper_events {
    /* The hypervisor's process has ended; `why` is a sentence. */
    void (*gone)(const char *why, void *arg);
    /* The guest turned its power off, or was reset. */
    void (*shut_down)(void *arg);
};

typedef void hyper_done(const struct error *error, void *arg);

struct hyper;

struct hyper_ops {
    const char *name;
    /* Starts the program in the present directory; the guest boots at once. */
    int (*start)(struct loop *loop, const struct hyper_spec *spec,
                 const struct hyper_events *events, void *arg, struct hyper_ends *ret_ends,
                 struct hyper **ret, struct error **ret_error);
    /* Plugs a disk as SCSI unit `lun`, or pulls it out. */
    void (*disk_add)(struct hyper *h, unsigned lun, const struct hyper_disk *disk, hyper_done *done,
                     void *arg);
    void (*disk_del)(struct hyper *h, unsigned lun, hyper_done *done, void *arg);
    /* Lets go of the file of a writable disk that was there from the start: the guest, which must
     * not use it any more, keeps an empty disk. */
    void (*disk_forget)(struct hyper *h, unsigned number, hyper_done *done, void *arg);
    /* Freezes and thaws the virtual CPUs. */
    void (*pause)(struct hyper *h, hyper_done *done, void *arg);
    void (*resume)(struct hyper *h, hyper_done *done, void *arg);
    /* Ends the VM without asking the guest: in good order, or at once. */
    void (*quit)(struct hyper *h);
    void (*kill)(struct hyper *h);
    pid_t (*pid)(const struct hyper *h);
    void (*free)(struct hyper *h);
};

extern const struct hyper_ops hyper_qemu;

#endif
