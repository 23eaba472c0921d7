/* The inside of the pool of workers: for pool.c and pool_send.c only. */
#ifndef HUSK_EXEC_POOL_INT_H
#define HUSK_EXEC_POOL_INT_H

#include "exec/commit.h"
#include "exec/exec_int.h"

struct job {
    struct job *prev, *next; /* of those that wait */
    unsigned type;
    char *root;                /* REMOVE: NULL is the daemon's */
    char *directory, *path;    /* LAYER, REHEARSAL: the directory is made first; TEMPLATE_… */
    char *image;               /* LAYER, ATTACH, REHEARSAL */
    char *layer;               /* LAYER: one that it may be a copy of; TEMPLATE_SAVE */
    struct job_root *ret_root; /* ATTACH */
    uint64_t size_bytes;
    char **paths;    /* REMOVE, DETACH; TEMPLATE_…: the inputs */
    bool background; /* nobody waits for it */
    bool all;    /* SWEEP: what interrupted pulls have left, too; SAVE: for docker; CHECK: repair;
                    USAGE */
    bool shared; /* REMOVE: other images may have some of the files */
    struct exec_transfer transfer;
    struct commit *commit;
    struct pool *pool; /* COMMIT */
    int fd;            /* LOAD, TEMPLATE_… */
    const struct load_ops *ops;
    void (*done)(const struct error *error, uint64_t value, void *arg);
    void (*begun)(void *arg); /* NULL: nobody wants to know */
    void *arg;
    unsigned tries; /* of a removal that nobody waits for: its worker died before */
};

struct worker {
    struct pool *pool;
    struct child *child; /* NULL: none was started, or it has ended */
    struct conn *conn;
    struct job *job; /* what it does */
    struct timer *deadline;
    bool late;
    bool transfers; /* it runs husk-transfer */
    bool asks;      /* to give files their places … */
    bool places;    /* … and does so: nothing of images is removed meanwhile */
};

struct pool {
    struct exec *exec;
    struct worker *workers;
    unsigned count; /* of all */
    unsigned local; /* of husk-worker; they come first */
    struct job *waiting;
    unsigned waiting_count;
    struct timer *kick; /* jobs begin, and fail, in a later turn than they were added */
    bool closing;
};

/* Gives a worker what it needs to know for its job. */
int job_send(struct worker *w, struct job *job, struct error **ret_error);

#endif
