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
    /* A template has so many disks without a file: the first ones read-only, for images, the rest
     * writable. The first of either kind is a device of its own. The others, which few pods need,
     * are SCSI units from HYPER_HOT_DISKS_MAX + slot on: QEMU starts a millisecond sooner and takes
     * 0.6 MiB less for each. */
    HYPER_SLOTS_READ_ONLY = 2,
    HYPER_SLOTS = 5,
    HYPER_HOT_DISKS_MAX = 128, /* plugged into the running VM, LUNs 0 … */
    HYPER_CPUS_MAX = 255,
};

#define HYPER_SHARE_TAG "husk"

struct hyper_disk {
    const char *path; /* for messages; the hypervisor gets the descriptor */
    int fd;           /* open for reading, or for both; the driver makes its own copy. -1: an empty
                       * slot, whose file comes by disk_put() */
    bool read_only;
    bool scsi;      /* a slot on the SCSI bus */
    bool inherited; /* the zygote has this very file in that slot already */
};

/* Where a VM comes from.
 *
 * A template is booted with its memory in a file and empty slots for disks, and then frozen: what
 * is left of it is that file and the state of its devices. A clone goes on from there, with the
 * file's pages as long as it does not write to them. Template and clone have the same machine,
 * accelerator, layout and slots, or the hypervisor refuses the state. A template with a state_fd is
 * not booted but goes on as a clone does, with a file that is a copy of another template's. */
enum hyper_origin { HYPER_COLD, HYPER_TEMPLATE, HYPER_CLONE };

/* A clone can be a zygote: once it has come to rest (settle) it is never used, but copied. A clone
 * of the same template, layout and slots is then such a copy, which has nothing to load. */

/* Of a template and its clones: what they have at first, and what a clone can grow to. */
struct hyper_layout {
    uint64_t base_bytes;       /* size of the memory's file */
    uint64_t memory_max_bytes; /* not above base_bytes: its memory cannot grow */
    unsigned cpus_max;         /* 0: it keeps hyper_spec.cpus; else it starts with one */
};

/* What a VM is made of. Strings are only read during start(). */
struct hyper_spec {
    const char *vm; /* id, for the process list */
    const char *machine;
    const char *accel;
    enum hyper_origin origin;
    struct hyper_layout layout; /* not of HYPER_COLD */
    int memory_fd; /* not of HYPER_COLD; a clone only reads it. The driver makes its own copy */
    int state_fd;  /* HYPER_CLONE, and HYPER_TEMPLATE if it is not -1: what freeze() wrote, at its
                    * beginning. The same */
    unsigned cpus;
    uint64_t memory_bytes; /* HYPER_COLD; the others have layout.base_bytes */
    const char *program;
    const char *kernel;
    const char *initrd;
    const char *append; /* added to the driver's own words of the kernel's command line */
    const char *user;   /* "": as we are */
    int share_fd; /* HYPER_COLD: a socket to who serves files to the guest by vhost-user, which sees
                   * them as HYPER_SHARE_TAG and all of the VM's memory; -1: none. The same */
    const char *module;  /* path of husk-qemu.so */
    bool memory_return;  /* what the guest frees is given back to the host. Part of a template */
    bool zygote;         /* HYPER_CLONE: it will be one, with its door in the present directory */
    const char *copy_of; /* HYPER_CLONE: directory of a zygote; if that cannot be copied the
                          * template is loaded. "": none */
    int rules_fd; /* of landlock(7), for a copy, which is no child of ours; -1: none. The same */
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
    /* The start has come as far as that: "copied", it is a copy of a zygote; "monitor", the program
     * answers; "running", the virtual CPUs run, and of a clone: its state is loaded. May be NULL.
     */
    void (*mark)(const char *name, void *arg);
    /* The zygote cannot be copied, and the template is loaded; `why` is a sentence. During start().
     */
    void (*not_copied)(const char *why, void *arg);
    /* What is under a disk has no room for what the guest writes, or fails: the virtual CPUs are
     * frozen, and the write is tried again by resume(). */
    void (*disk_failed)(void *arg);
};

typedef void hyper_done(const struct error *error, void *arg);

struct hyper;

struct hyper_ops {
    const char *name;
    /* Starts the program in the present directory; the guest boots at once, or goes on. A state
     * that cannot be loaded is the end of the VM. */
    int (*start)(struct loop *loop, const struct hyper_spec *spec,
                 const struct hyper_events *events, void *arg, struct hyper_ends *ret_ends,
                 struct hyper **ret, struct error **ret_error);
    /* Plugs a disk as SCSI unit `lun`, or pulls it out. */
    void (*disk_add)(struct hyper *h, unsigned lun, const struct hyper_disk *disk, hyper_done *done,
                     void *arg);
    void (*disk_del)(struct hyper *h, unsigned lun, hyper_done *done, void *arg);
    /* Gives a file to an empty slot; the guest must forget what it has read of the slot before. */
    void (*disk_put)(struct hyper *h, unsigned number, const struct hyper_disk *disk,
                     hyper_done *done, void *arg);
    /* Lets go of the file of a disk that was there from the start, or of a slot: the guest, which
     * must not use it any more, keeps an empty disk. */
    void (*disk_forget)(struct hyper *h, unsigned number, hyper_done *done, void *arg);
    /* Gives a running clone what it needs above its layout's base: memory and virtual CPUs, which
     * the guest finds some time later. */
    void (*grow)(struct hyper *h, uint64_t memory_bytes, unsigned cpus, hyper_done *done,
                 void *arg);
    /* Stops a template for ever and writes its state to `fd` (the driver makes its own copy). Its
     * memory is then in its file, and it is of no more use: quit() is next. */
    void (*freeze)(struct hyper *h, int fd, hyper_done *done, void *arg);
    /* The last that is asked of a zygote, when its guest is frozen: stops its virtual CPUs, and
     * lets go of the files of its writable slots. From now on it can be copied. */
    void (*settle)(struct hyper *h, hyper_done *done, void *arg);
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
