/* Effects → keepers and workers, and back.
 *
 * The core says what is to be done; this room does it, with a deadline, and reports with
 * core_done(). It also reports what happens by itself: ends of containers, ends of VMs. It
 * decides nothing about pods.
 *
 *     huskd ── unix socket <root>/vms/<id>/keeper.sock ──> husk-keeper ──> QEMU      one a VM
 *       └───── socket pair ──────────────────────────────> husk-worker               a few
 *
 * A keeper outlives us: exec_adopt() finds those that a former huskd left. It takes part in no
 * stream of a client: sockets of clients are handed to the keeper.
 */
#ifndef HUSK_EXEC_EXEC_H
#define HUSK_EXEC_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "exec/timing.h"
#include "exec/usage.h"
#include "loop/loop.h"

enum {
    BOOT_DISKS_MAX = 12,  /* there from the start of a VM; the rest is plugged in later */
    JOBS_MAX = 1024,      /* that wait for a worker */
    TEMPLATE_ID_MAX = 31, /* bytes of the id of a template */
    TEMPLATE_SIZES_MAX = 16,
};

/* All strings outlive the exec. */
struct exec_config {
    const char *root;                       /* canonical */
    const char *keeper, *worker, *transfer; /* programs */
    const char *qemu, *kernel, *initrd, *kernel_append, *qemu_user;
    const char *module;  /* husk-qemu.so */
    bool memory_return;  /* memory that guests freed is given back */
    const char *machine; /* "q35" or "microvm" */
    const char *accel;   /* "auto", "kvm" or "tcg" */
    uint32_t boot_deadline_ms, kvm_deadline_ms;
    uint64_t log_max_bytes, image_layer_max_bytes;
    uint64_t layer_size; /* bytes of most writable layers: some are made in advance */
    unsigned workers, transfers;
    unsigned parked_max; /* clients that wait for their container to start */
    uint64_t job_deadline_ms;
    const char *registries; /* directory of registries' certificates */
    const char *const *insecure, *const *mirrors;
    uint32_t registry_deadline_ms;      /* time without progress */
    const char *storage;                /* the storage driver, and … */
    const char *const *storage_options; /* … its options */
    const char *virtiofsd;              /* the program, for the driver overlay */

    bool templates;                 /* whether VMs are cloned at all */
    bool template_images;           /* and whether templates are made of images, too */
    const char *template_dir;       /* absolute; made if it is missing */
    const uint64_t *template_sizes; /* base memories, in bytes, whole MiB … */
    size_t template_size_count; /* … of which templates are made without being asked, in order */
    bool template_huge;         /* their memory is in huge pages */
    unsigned zygotes;           /* QEMUs that wait to be copied, at most */
    unsigned templates_max;
    uint64_t templates_max_bytes; /* of files */
    uint32_t clone_deadline_ms;   /* until the first word of a clone */
    const char *busybox;          /* the archive whose image is rehearsed */
    uint32_t cpus_max;            /* that a VM may have */
    uint64_t memory_max_bytes;    /* same */
};

/* What others want to know at once; each may be NULL. */
struct exec_hooks {
    /* A process that exec_start() began. code is valid if `ended`. */
    void (*process)(const char *vm, const char *ctr, const char *exec, bool ended, uint32_t code,
                    const char *reason, void *arg);
    /* All processes in that VM are gone. */
    void (*vm_lost)(const char *vm, void *arg);
    /* An effect was carried out, or failed; the core does not know yet. */
    void (*completed)(struct token token, void *arg);
    /* A guest came up by emulation only, after KVM gave no sign of life. */
    void (*kvm_refused)(const char *why, void *arg);
    /* The first guest came up under KVM: it is of use on this host. */
    void (*kvm_works)(void *arg);
    /* Something of the templates is another one than it was: exec_template_get() tells. */
    void (*templates_changed)(void *arg);
    void *arg;
};

struct exec;

struct exec *exec_new(struct loop *loop, struct world *world, struct core *core,
                      const struct exec_config *config, const struct exec_hooks *hooks);
/* Keepers and VMs go on; workers end. */
void exec_free(struct exec *exec);

void exec_act(struct exec *exec, const struct effect *effect);

/* The world was loaded, for the first time or again: forgets all effects, finds the keepers of its
 * VMs, ends those that belong to no VM, tells the core what it found and says core_reloaded().
 * Then `done` is called. */
void exec_adopt(struct exec *exec, void (*done)(void *arg), void *arg);
/* Removes files that belong to no object of the world, once no job is under way; jobs that come
 * while it does so wait for its end. */
void exec_sweep(struct exec *exec);
/* The world cannot be loaded: no job begins any more, as none knows what belongs to it. */
void exec_halt(struct exec *exec);

/* "kvm" or "tcg", and why. */
const char *exec_accel(const struct exec *exec, const char **ret_reason);
/* With accel=auto: KVM was found to be of no use before. why = NULL: that was a mistake. */
void exec_refuse_kvm(struct exec *exec, const char *why);
/* Guests came up under KVM before: it is not refused any more, whatever becomes of one. */
void exec_trust_kvm(struct exec *exec);

/* ---- for clients ---------------------------------------------------------------------------- */

/* Whether the container's keeper is there and knows it: it was started in the VM that runs. */
bool exec_has(const struct exec *exec, const struct container *ctr);

struct tty_size {
    uint32_t rows, cols; /* of a client's terminal; 0: it has none, or did not tell */
};

/* Gives a client's socket (taken over) to the container's keeper; waits for the container's start
 * if it is not up: that is then with a terminal of this size. What cannot be done ends in the
 * socket's end. */
void exec_attach(struct exec *exec, struct ref ctr, struct tty_size size, int fd, const void *early,
                 size_t early_size);
/* Whether one more may wait so: ERROR_LIMIT. */
int exec_parked_check(const struct exec *exec, struct error **ret_error);

/* A further process in a container, or in the guest itself. */
struct exec_process {
    const char *id;      /* "exec-…" */
    struct ref pod, ctr; /* ctr: none for the guest itself */
    const char *const *argv, *const *env;
    const char *cwd, *user;
    bool tty, stdin_open;
    bool raw; /* pieces of output have no headers; always so with a terminal */
    uint32_t rows, cols;
};
/* Takes over fd (-1: nobody looks). `done` is called once, unless exec_forget() comes before: it
 * runs, or it does not. */
struct ask;
void exec_start(struct exec *exec, const struct exec_process *process, int fd, const void *early,
                size_t early_size,
                void (*done)(const struct error *error, uint64_t value, void *arg), void *arg);
int exec_resize(struct exec *exec, struct ref pod, const char *ctr, const char *id, uint32_t rows,
                uint32_t cols, struct error **ret_error);
void exec_kill(struct exec *exec, struct ref pod, const char *ctr, const char *id, uint32_t signal,
               void (*done)(const struct error *error, uint64_t value, void *arg), void *arg);

/* ---- timing --------------------------------------------------------------------------------- */

/* A client asked for that start. */
void exec_start_asked(struct exec *exec, const struct pod *pod);
/* To look at. */
const struct timing *exec_timing(const struct exec *exec);

/* ---- templates ------------------------------------------------------------------------------ */

struct template_info {
    const char *id;
    const char *image;  /* id of the image that is in it; "": none */
    const char *state;  /* "absent", "loading", "building", "ready", "bad" */
    const char *step;   /* building: what is being done; else "" */
    const char *reason; /* bad: why; absent: why it is, if that was a failure; else "" */
    uint64_t memory_bytes, disk_bytes;
    int64_t created_ns, used_ns; /* wall clock, 0: never */
    uint64_t clones;             /* since the daemon started */
    unsigned vms;                /* that were cloned of it, and are there */
    bool wanted;                 /* absent: it will be made when nothing else starts */
    const char *const *inputs;   /* "name=value": all that it depends on */
    const char *zygote;          /* "absent", "making", "ready", "bad" */
    bool zygote_coming;          /* it is being made, or was asked for and will be */
    const char *zygote_step;     /* making: what is being done; else "" */
    const char *zygote_reason;   /* bad: why; else "", or why there was none before */
    int zygote_pid;              /* of its QEMU; 0: there is none */
};

/* After the first exec_adopt(): templates that are there are loaded, those that are missing made,
 * old ones removed. */
void exec_templates_begin(struct exec *exec);
/* In the order of their memory. What `info` points to is valid until the next turn. */
void exec_templates_each(const struct exec *exec,
                         void (*each)(const struct template_info *info, void *arg), void *arg);
/* By id or the beginning of one, or by the image that is in it. ERROR_NOT_FOUND; ERROR_INVALID if
 * it means more than one. */
int exec_template_get(const struct exec *exec, const char *name, struct template_info *ret,
                      struct error **ret_error);
/* Its memory and its files go. It is made again when a VM could be cloned of it, or at the next
 * start. VMs that were cloned of it go on. */
int exec_template_remove(struct exec *exec, const char *name, struct error **ret_error);
/* Makes the template of that memory, even if it is there already or went wrong before. *ret_id
 * (TEMPLATE_ID_MAX + 1 bytes) is its id. Returns at once: ERROR_INVALID if no VM can have so much
 * memory, ERROR_STATE if templates are switched off. */
int exec_template_build(struct exec *exec, uint64_t memory_bytes, char *ret_id,
                        struct error **ret_error);
/* The same of an image, with the first memory of template_sizes. ERROR_STATE too if no such
 * templates are made. */
int exec_template_build_image(struct exec *exec, const struct image *image, char *ret_id,
                              struct error **ret_error);

/* ---- images --------------------------------------------------------------------------------- */

struct load_ops {
    void (*progress)(const struct wire_job_progress *progress, void *arg);
    /* An image was unpacked: its files are there. */
    void (*image)(const struct wire_job_image *image, void *arg);
    /* The end; NULL: all is well. */
    void (*done)(const struct error *error, void *arg);
    /* Of exec_check(): something is not right. NULL where it cannot come. */
    void (*problem)(const struct wire_job_problem *problem, void *arg);
    /* Of exec_disk_usage(): what something takes. NULL where it cannot come. */
    void (*size)(const struct wire_job_size *size, void *arg);
};
struct job;
/* Loads the archive that comes out of fd (taken over). */
struct job *exec_load(struct exec *exec, int fd, const struct load_ops *ops, void *arg);
/* Calls no ops any more. The job goes on until its input ends. */
void exec_load_forget(struct job *job);

/* Writes images into an archive that goes to fd (taken over); items as image/save.h has them. Only
 * the end is told. */
struct job *exec_save(struct exec *exec, int fd, const char *const *items, bool docker,
                      const struct load_ops *ops, void *arg);
/* A container, and what its image will say. Strings may be NULL; all stay the caller's. */
struct exec_commit {
    struct ref ctr;
    const char *name; /* full reference */
    const char *author, *message;
    const char *const *changes; /* as image/change.h has them */
};
/* Makes an image of what the container has changed: ops->image tells of it. NULL if it cannot be
 * begun. */
struct job *exec_commit(struct exec *exec, const struct exec_commit *what,
                        const struct load_ops *ops, void *arg, struct error **ret_error);
/* What takes how much of the disk: ops->size tells of the layer of each container, by its id, and,
 * without `only`, of all that wire.def has for JOB_SIZE. */
struct job *exec_disk_usage(struct exec *exec, const struct container *only,
                            const struct load_ops *ops, void *arg);
/* Looks whether images are still what they were; items and repair as image/verify.h has them. */
struct job *exec_check(struct exec *exec, const char *const *items, bool repair,
                       const struct load_ops *ops, void *arg);
/* As exec_sweep(), and what interrupted pulls have left goes too. */
void exec_sweep_all(struct exec *exec);

/* What is done with a registry; all of it is taken over. */
struct exec_transfer {
    enum { TRANSFER_PULL, TRANSFER_PUSH, TRANSFER_LOGIN, TRANSFER_LOGOUT } kind;
    char *name;        /* full reference; LOGIN, LOGOUT: the registry */
    char *credentials; /* docker's AuthConfig as JSON; NULL: the daemon's own. A secret */
    char **files;      /* PUSH: of the image */
    char **sources;    /* PUSH: its other names at the registry */
    bool keep;         /* LOGIN: the credentials become the daemon's own */
};
struct job *exec_transfer(struct exec *exec, struct exec_transfer *transfer,
                          const struct load_ops *ops, void *arg);
/* Ends a transfer, a commit or a check; its ops are not called any more. What a pull has fetched
 * stays for the next. */
void exec_job_cancel(struct exec *exec, struct job *job);

#endif
