/* A process that the keeper asked for: its stdio, its credit and its end.
 *
 * It lives from the request until EXITED was sent (or the request refused): after the process
 * itself ended, its output is still to be delivered. What a pipe holds when the process has ended
 * is sent; a grandchild that keeps the pipe open does not keep us waiting.
 */
#ifndef HUSK_INIT_PROCESS_H
#define HUSK_INIT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "init/events.h"
#include "init/launch.h"
#include "init/spawn.h"

struct container;
struct process;
struct joiner;

struct channel {
    struct source source; /* the pipe or terminal that is read */
    struct process *process;
    unsigned type;   /* WIRE_STDOUT or WIRE_STDERR */
    uint32_t credit; /* that the keeper granted */
    size_t left;     /* of what a process that has ended wrote; more is not sent */
    bool readable;   /* since the last EAGAIN */
    bool finished;   /* its end was sent */
};

struct process {
    struct process *next;
    uint32_t stream;
    uint32_t seq;                /* of the request; answered when it runs */
    pid_t pid;                   /* 0: reaped */
    struct joiner *joiner;       /* that makes it; pid is that of the joiner until it is born */
    struct container *container; /* NULL: the guest itself */
    bool first;                  /* of its container: PID 1 there */
    struct channel out, err;
    struct source status; /* what launch.h tells; closed at exec */
    struct source input;  /* the other end of stdin; -1 for a terminal: that is out's */
    struct buf pending;   /* input that the process has not taken yet */
    uint32_t window;      /* input that the keeper may still send */
    uint32_t owed;        /* input that was taken and is not granted again yet */
    bool tty, refused, discard, oom;
    bool answer_late;          /* after the end: it could not be run, and has a code for that */
    bool input_ended;          /* nothing more comes */
    bool input_closed;         /* and the process was told */
    bool hung_up;              /* by the keeper */
    uint64_t signals;          /* that came before it was born: bit N - 1 is signal N */
    uint32_t rows, cols;       /* of the terminal */
    int wait_status;           /* of waitpid(), once pid is 0 */
    struct launch_status told; /* why it could not be run */
};

/* Starts a process as `launch` says; the request `seq` is answered when it runs, or is refused. */
int process_start(const struct launch *launch, uint32_t stream, uint32_t seq,
                  struct error **ret_error);
/* The same for a process that was told what to become, or (with `joiner`) that a joiner was told to
 * make: takes the ends that it needs. There must be room. */
void process_adopt(const struct launch *launch, uint32_t stream, uint32_t seq, pid_t pid,
                   struct ends *ends, struct joiner *joiner);
/* What a joiner was told to make is there now, or never will be. */
void process_settle(const struct joiner *joiner);
/* False if there are as many as there may be. */
bool process_room(struct error **ret_error);
struct process *process_find(uint32_t stream);
/* True while the container has processes that the keeper has not seen the end of. */
bool process_any(const struct container *container);
/* True while any process lives: of the container, or (NULL) at all. */
bool process_alive(const struct container *container);

void process_credit(struct process *p, unsigned channel, uint32_t bytes);
void process_resize(struct process *p, uint32_t rows, uint32_t cols);
/* Nobody reads or writes its stdio any more: see WIRE_HANG_UP. */
void process_hang_up(struct process *p);
int process_signal(struct process *p, int signal, bool all, struct error **ret_error);

/* The output of a container's processes (NULL: of all) is of no interest any more. */
void process_discard(const struct container *container);
/* A new keeper has granted nothing yet. */
void process_forget_credit(void);

/* Collects the dead; called at SIGCHLD. */
void process_reap(void);
/* Sends output while the port takes it: true if there is more to do at once. */
bool process_pump(void);

#endif
