/* A VM of our own by which something is made: a template, or a zygote. Shared by the files of this
 * room only.
 *
 * It goes from step to step; what fails, or takes too long, ends it. Its keeper is in vms/NAME and
 * in no world: should we die, the next daemon ends it as a stranger and removes what is unfinished.
 */
#ifndef HUSK_EXEC_MAKING_H
#define HUSK_EXEC_MAKING_H

#include "exec/exec_int.h"

enum {
    REHEARSALS = 2,
    MAKING_DEADLINE_MS = 120 * 1000, /* of a step that is none of a boot or job */
};

struct making;

struct making_ops {
    bool writes_template; /* its keeper may write to the directory of the templates */
    /* It has come to nothing: "step 'boot': …". In a turn of its own; making_done() is next. */
    void (*over)(struct making *m, const struct error *why);
    void (*changed)(struct making *m); /* it is at another step */
    void (*gone)(struct making *m);    /* its VM has ended; may be NULL */
};

struct making {
    struct exec *exec;
    const struct making_ops *ops;
    const char *step;
    struct link *link; /* the keeper's; NULL: none yet, or none any more */
    struct ask *ask;
    struct job *job;
    struct timer *deadline;
    struct error *failed;
    unsigned rehearsals; /* that are left */
    char *vm;
    char *image, *layer; /* of the rehearsal, relative to the root */
};

/* At step "disks". `vm` is taken over. */
void making_init(struct making *m, struct exec *exec, char *vm, const struct making_ops *ops);
/* All that is its VM's ends, and goes. */
void making_done(struct making *m);
void making_step(struct making *m, const char *step);
/* Calls ops->over later: the link may be at its end, and is in use by who calls. */
void making_fail(struct making *m, const struct error *why);
/* Its VM has ended, or its keeper. */
void making_gone(struct making *m);
/* Makes the disks of the rehearsal; sets image, layer and rehearsals. */
void making_rehearsal_disks(struct making *m, const char *directory, job_done *done, void *arg);
/* The keeper's process. */
int making_spawn(struct making *m, struct error **ret_error);
/* One rehearsal. */
void making_rehearse(struct making *m,
                     void (*done)(const struct error *error, uint64_t value, void *arg), void *arg);

#endif
