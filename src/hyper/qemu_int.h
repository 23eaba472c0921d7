/* Inside the driver for QEMU.
 *
 * What changes a running VM is an operation: a table of QMP commands, run one after the other, and
 * one operation after the other. When a command fails, what the commands before it did is undone
 * in reverse. One at a time because QEMU keeps only the last descriptor that it was sent.
 */
#ifndef HUSK_HYPER_QEMU_INT_H
#define HUSK_HYPER_QEMU_INT_H

#include <jansson.h>

#include "hyper/hyper.h"
#include "hyper/qmp.h"

struct batch;
struct op;

enum verdict { NOT_OURS, ARRIVED, FAILED };

/* Something that QEMU tells by an event. */
struct awaited {
    const char *event;
    /* What the event's data means to the operation; FAILED: with *ret_error. */
    enum verdict (*judge)(const struct op *op, const json_t *data, struct error **ret_error);
    uint64_t deadline_ms;
    void (*late)(const struct op *op, struct error **ret_error);
};

struct step {
    const char *command;                       /* NULL: waits for `until` */
    json_t *(*arguments)(const struct op *op); /* NULL: none */
    const struct awaited *until;
    const char *undo; /* with undo_arguments */
    json_t *(*undo_arguments)(const struct op *op);
    bool takes_fd;
};

struct op {
    struct op *next;
    struct hyper *h;
    const struct step *steps;
    size_t step_count;
    size_t at;       /* the step that runs; while undoing: the one to undo next + 1 */
    unsigned number; /* of a disk: its LUN, or its slot; of a virtual CPU */
    bool read_only;
    bool device; /* a disk's file is a block device */
    uint64_t bytes;
    int fd; /* the operation's own; -1: none */
    json_int_t fdset;
    struct error *error; /* of the step that failed: the rest is undone */
    hyper_done *done;
    void *arg;
};

struct hyper {
    struct loop *loop;
    const struct hyper_events *events;
    void *arg;
    struct child *child;
    struct qmp *qmp;
    struct op *ops;       /* the first one runs */
    struct timer *awaits; /* deadline of its `until` */
    bool awaiting;        /* the first operation waits for an event */
    struct hyper_layout layout;
    const char *cpu_type; /* of CPUs that are plugged in */
    uint32_t read_only;   /* bit n: disk n is */
    uint32_t filled;      /* bit n: it had a file at the start */
    unsigned cpus;        /* that it has, or will have when what was asked is done */
    char *failed;         /* why we end it; NULL: not we */
};

/* ---- qemu.c --------------------------------------------------------------------------------- */

/* Its process has; `arg` is the hyper. */
void qemu_ended(int status, void *arg);

/* ---- qemu_op.c ------------------------------------------------------------------------------ */

/* Stands in line with a copy of `op`. */
void op_start(struct hyper *h, struct op op);
/* For so many operations that are one request: batch_done() is the `done` of each, and the last one
 * answers for all, with the first error. */
struct batch *batch_new(unsigned count, hyper_done *done, void *arg);
void batch_done(const struct error *error, void *batch);
/* An event came. */
void op_event(struct hyper *h, const char *name, const json_t *data);
/* QEMU has ended: nothing is awaited any more. */
void op_abandon(struct hyper *h);
/* The deadline of what is awaited; `arg` is the hyper. */
void op_late(void *arg);

/* ---- qemu_disk.c ---------------------------------------------------------------------------- */

void qemu_disk_add(struct hyper *h, unsigned lun, const struct hyper_disk *disk, hyper_done *done,
                   void *arg);
void qemu_disk_del(struct hyper *h, unsigned lun, hyper_done *done, void *arg);
void qemu_disk_put(struct hyper *h, unsigned number, const struct hyper_disk *disk,
                   hyper_done *done, void *arg);
void qemu_disk_forget(struct hyper *h, unsigned number, hyper_done *done, void *arg);

/* ---- qemu_template.c ------------------------------------------------------------------------ */

/* Sends a clone the words that load its state, before QEMU runs. */
void qemu_clone(struct hyper *h, int state_fd);
void qemu_grow(struct hyper *h, uint64_t memory_bytes, unsigned cpus, hyper_done *done, void *arg);
void qemu_freeze(struct hyper *h, int fd, hyper_done *done, void *arg);
/* Of an operation on the way to a clone's first instruction: if it failed the VM ends. `arg` is the
 * hyper. */
void qemu_clone_done(const struct error *error, void *arg);

/* ---- qemu_zygote.c -------------------------------------------------------------------------- */

/* The door of a zygote in the present directory. */
int zygote_listen(int *ret_fd, struct error **ret_error);
/* Has the VM's process made by a zygote, with QEMU's descriptors as QEMU_FD_… has them. False:
 * there is none, or (the events tell) it could not. Waits for the answer. */
bool zygote_copy(struct hyper *h, const struct hyper_spec *spec, const int *fds);
/* What a copy is told before it runs. */
void zygote_begin_copy(struct hyper *h, const struct hyper_spec *spec);
void qemu_settle(struct hyper *h, hyper_done *done, void *arg);

#endif
