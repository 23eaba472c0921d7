/* Containers and execs of the one VM, and the disks that containers need. */
#ifndef HUSK_KEEPER_CONTAINER_H
#define HUSK_KEEPER_CONTAINER_H

#include "keeper/keeper.h"
#include "keeper/stream.h"

/*  EXPECTED ──RUN──► STARTING ──guest──► RUNNING ──EXITED──► ENDED ──RUN──► STARTING …
 *                        └─ cannot be started ─► EXPECTED        └──DROP──► (forgotten)      */
enum container_state {
    CONTAINER_EXPECTED, /* known by its id only: clients may wait for it */
    CONTAINER_STARTING,
    CONTAINER_RUNNING,
    CONTAINER_ENDED,
};

/* As the guest has told, within what the VM has. */
struct container_usage {
    bool told; /* since it was asked */
    uint64_t memory_bytes, memory_max_bytes;
    uint32_t pids, pids_max;
};

struct container {
    struct container *prev, *next;
    struct keeper *keeper;
    char *id;
    char *name;
    enum container_state state;
    uint64_t run;
    struct stream *stream;  /* while STARTING and RUNNING; after that until RUN for attach */
    struct client *waiting; /* while EXPECTED */
    unsigned waiting_count;
    struct disk *image, *layer;
    int layer_fd;      /* the layer's disk, if it came with the RUN and is not plugged in yet; -1 */
    bool clearing;     /* CTR_CLEAR is on its way */
    bool clear_failed; /* the last one: the layer may still be mounted */
    bool vm_ends;      /* soon, says who stops it: CTR_CLEAR can wait */
    bool uncleared;    /* and does, until somebody wants its disks */
    bool dropping;
    struct error *drop_error;
    uint8_t *request; /* payload of the RUN that starts it now */
    uint32_t request_size;
    uint32_t code, signal, oom;
    char *reason;
    uint64_t started_ns, finished_ns;
    char **marks;    /* of the way to its first output */
    bool was_heard;  /* it has written something */
    bool layer_held; /* by LAYER_FREEZE, until LAYER_THAW */
    bool rehearsal;  /* nobody is told of it, and nothing is left of it */
    struct container_usage usage;
    struct ask *run_asks, *stop_asks, *drop_asks, *clear_asks;
    uint32_t stop_signal, stop_grace_ms;
    bool stop_killed; /* SIGKILL was sent */
    struct timer *stop;
};

struct container *container_find(struct keeper *k, const char *id);
/* These answer the request later, or return an error now. */
/* *fd is what came with the frame; if it is kept, -1 is put there. */
int container_run(struct keeper *k, const struct wire_frame *frame, const struct wire_run *m,
                  int *fd, struct error **ret_error);
/* As container_run(), but asked by nobody: `frame` is the RUN with `m`. NULL: *ret_error. */
struct container *container_rehearse(struct keeper *k, const struct wire_frame *frame,
                                     const struct wire_run *m, struct error **ret_error);
int container_stop(struct keeper *k, const struct wire_stop *m, struct error **ret_error);
int container_drop(struct keeper *k, const struct wire_drop *m, struct error **ret_error);
/* The spec's descriptor is taken over, also on failure. */
int container_attach(struct keeper *k, const char *id, const struct client_spec *spec,
                     struct error **ret_error);
/* Its first process has written. */
void container_heard(struct container *c);
/* Its first process has ended. */
void container_exited(struct container *c, const struct wire_exited *m);
void container_tell(struct container *c);
/* The pod moves out, or the VM has ended with that reason. */
void containers_forget(struct keeper *k);
void containers_lost(struct keeper *k, const char *why);
bool containers_any_runs(const struct keeper *k);
/* Of one that has ended: answers the request when the guest has let go of its disks. */
int container_clear_ask(struct container *c, uint32_t seq, struct error **ret_error);
void container_free(struct container *c);

/* ---- usage.c -------------------------------------------------------------------------------- */

/* Answers the request when the guest has told, or returns an error now. Who asks meanwhile gets the
 * same answer. */
int usage_ask(struct keeper *k, uint32_t seq, struct error **ret_error);
/* The guest tells. */
void usage_came(struct container *c, const struct wire_ctr_usage *m);

/* ---- exec.c --------------------------------------------------------------------------------- */

struct exec {
    struct exec *prev, *next;
    struct keeper *keeper;
    char *id;
    char *ctr;
    char *name;            /* of the container, for messages */
    struct stream *stream; /* NULL when it has ended */
    struct ask *asks;      /* until it runs */
    bool running;
    bool rehearsal; /* as a container's */
    uint32_t code;
    char *reason;
    uint64_t started_ns;
};

struct exec *exec_find(struct keeper *k, const char *id);
/* As the requests above. Takes over fd (-1: detached). */
int exec_start(struct keeper *k, const struct wire_exec_start *m, int fd, struct error **ret_error);
/* As exec_start(), but asked by nobody and attached to nothing. */
int exec_rehearse(struct keeper *k, const struct wire_exec_start *m, struct error **ret_error);
void exec_exited(struct exec *e, const struct wire_exited *m);
void exec_tell(struct exec *e);
void execs_lost(struct keeper *k, const char *why);
void exec_free(struct exec *e);

/* ---- disk.c --------------------------------------------------------------------------------- */

typedef void disk_done(struct keeper *k, const struct error *error, void *arg);

/* Opens VM_BOOT's "ro:PATH" and "rw:PATH" and remembers them as virtio disks; the descriptors in
 * `ret` are the caller's. In a template or a clone they go into slots, as long as there are any;
 * the rest is left to disk_plug(). */
int disks_boot(struct keeper *k, const char *const *disks, struct hyper_disk *ret,
               unsigned *ret_count, struct error **ret_error);
struct disk_file {
    const char *path;
    bool read_only;
    int fd;            /* where it is open already, taken over; -1: it is opened by its path */
    const char *lower; /* it is a directory, to be laid over this one; NULL: it is not */
};

/* The disk of a file, plugged into a slot or as a SCSI disk first if need be. *ret holds a
 * reference from now on; `done` comes later, or now if the disk is there. */
void disk_plug(struct keeper *k, const struct disk_file *file, struct disk **ret, disk_done *done,
               void *arg);
/* Gives the reference back; the last one unplugs. `done` (may be NULL) comes later, or now. */
void disk_release(struct keeper *k, struct disk *disk, disk_done *done, void *arg);
/* "virtio:SERIAL", "scsi:LUN" or "virtiofs:TAG", for the guest. */
const char *disk_address(const struct disk *disk);
/* Of a directory: its name below that; else NULL. */
const char *disk_top(const struct disk *disk);
/* Of the disk of that file; NULL if the VM has none. */
const char *disk_address_of(struct keeper *k, const char *path);
/* The file of that path has another one now; whoever has it goes on. ERROR_NOT_FOUND. */
int disk_rename(struct keeper *k, const char *from, const char *to, struct error **ret_error);
/* Whether any is on its way out. */
bool disks_leaving(const struct keeper *k);
void disks_free(struct keeper *k);

#endif
