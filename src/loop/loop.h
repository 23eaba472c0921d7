/* The only place that waits: an event loop (libuv underneath), timers, descriptors, children,
 * signals and framed connections.
 *
 * Everything happens in one thread. Callbacks may free the object that called them. Freed objects
 * never call again.
 */
#ifndef HUSK_LOOP_LOOP_H
#define HUSK_LOOP_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/wire.h"

struct loop;

struct loop *loop_new(void);
/* All objects of the loop must have been freed before. */
void loop_free(struct loop *loop);
/* Until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* CLOCK_MONOTONIC in milliseconds, as of the start of this turn. */
uint64_t loop_now_ms(struct loop *loop);
/* Called at the end of every turn, before the loop waits: the place for commit-then-reply. Work
 * that it makes runs in the next turn. One hook a loop. */
void loop_set_turn_end(struct loop *loop, void (*hook)(void *arg), void *arg);

/* ---- timers --------------------------------------------------------------------------------- */

struct timer;
/* Calls once after delay_ms, unless freed or set again. The object stays until timer_free(). */
struct timer *timer_new(struct loop *loop, void (*fired)(void *arg), void *arg);
void timer_set(struct timer *timer, uint64_t delay_ms);
void timer_unset(struct timer *timer);
void timer_free(struct timer *timer);

/* ---- descriptors ---------------------------------------------------------------------------- */

enum {
    WATCH_READ = 1,
    WATCH_WRITE = 2,
    WATCH_HANGUP = 4, /* of a socket without WATCH_READ, whose reader finds it: its peer is gone */
};
struct watch;
/* Calls while fd is ready for any of `events`. The descriptor stays the caller's. */
struct watch *watch_new(struct loop *loop, int fd, int events, void (*ready)(int events, void *arg),
                        void *arg);
void watch_set(struct watch *watch, int events); /* 0: none */
void watch_free(struct watch *watch);

/* ---- signals -------------------------------------------------------------------------------- */

struct signal_watch;
struct signal_watch *signal_watch_new(struct loop *loop, int signal,
                                      void (*came)(int signal, void *arg), void *arg);
void signal_watch_free(struct signal_watch *watch);

/* ---- children ------------------------------------------------------------------------------- */

enum {
    CHILD_SAID_MAX = 1024,
    CHILD_ASK_MS = 30 * 1000,
    CHILD_STATUS_UNKNOWN = -1, /* of a process that is somebody else's child */
};

struct child_spec {
    const char *path;        /* of the program, no search */
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* NULL: ours */
    const char *cwd;         /* NULL: ours */
    const int *fds;          /* fds[i] becomes descriptor i of the child; -1: /dev/null */
    size_t fd_count;         /* at least 3 */
    bool new_session;        /* setsid(): outlives our terminal and our process group */
    bool die_with_parent;    /* SIGKILL when this process ends */
    bool no_new_privileges;
    const char *user;   /* its uid, gid and groups, and so no capabilities; NULL: ours */
    const char *device; /* with user: the group that may open this device is added; NULL: none */
};

struct child;
/* `ended` gets an exit code or 128 + signal. It is called once, after which the child is gone:
 * free it. Freeing a child that runs leaves it running, unreaped: kill it first. */
struct child *child_spawn(struct loop *loop, const struct child_spec *spec,
                          void (*ended)(int status, void *arg), void *arg,
                          struct error **ret_error);
/* A process that another one has made for us, and says it is. It is never sent a signal: it dies
 * when nobody has `leash` open any more, and child_kill() closes that, whatever the signal. `leash`
 * and `pidfd`, which must be one, are taken over. `ended` gets CHILD_STATUS_UNKNOWN. */
struct child *child_adopt(struct loop *loop, pid_t pid, int pidfd, int leash,
                          void (*ended)(int status, void *arg), void *arg);
/* Whether a child of that user will be able to open a file that we open for it, and that it opens
 * again by /proc/self/fd: the way there does not matter, the file's own permissions do. */
int child_user_may_read(const char *user, const char *path, struct error **ret_error);
/* The same of a device that it opens by name, to read and to write. */
int child_user_may_use(const char *user, const char *device, struct error **ret_error);
/* Runs a program that is over soon, and waits for it, as may be done before anybody is served.
 * *ret_said (owned): what it writes, of which CHILD_SAID_MAX bytes are kept. Returns its exit code
 * or 128 + signal; -1 if it cannot be run, or says nothing for CHILD_ASK_MS. */
int child_ask(const char *path, const char *const *argv, char **ret_said, struct error **ret_error);
pid_t child_pid(const struct child *child);
void child_kill(struct child *child, int signal);
void child_free(struct child *child);

/* ---- framed connections --------------------------------------------------------------------- */

struct conn;

struct conn_ops {
    /* A frame came; `fd` is a descriptor sent with it, yours to close, or -1. Must not free the
     * connection: use conn_close() for that. */
    void (*frame)(struct conn *conn, const struct wire_frame *frame, int fd, void *arg);
    /* The peer is gone or broken, or conn_close() was called. Called once, last; what the peer
     * said before it went has been handed on. `why` is NULL for an ordinary end. The connection
     * frees itself afterwards. */
    void (*closed)(struct conn *conn, const struct error *why, void *arg);
    /* The queue has fallen below CONN_QUEUE_LOW after conn_full() was true. May be NULL. */
    void (*drained)(struct conn *conn, void *arg);
};

enum {
    CONN_QUEUE_HIGH = 256 << 10, /* conn_full() from here */
    CONN_QUEUE_LOW = 64 << 10,
    CONN_QUEUE_MAX = 64 << 20, /* a peer that does not read is cut off here */
};

/* Takes over fd (a connected unix stream socket). Reading starts at once; the peer's magic and
 * HELLO are expected first and checked here (the HELLO frame is still handed on). */
struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *arg);
void conn_send_hello(struct conn *conn, const char *role);
/* Instead of that: the peer was greeted by somebody in whose place we are now (as the guest of a
 * template was), and will not say hello again. It is sent the magic, and no more. */
void conn_resume(struct conn *conn);
/* Queues a message (a struct wire_… of that type). Written in this turn if the socket takes it. */
void conn_send(struct conn *conn, unsigned type, uint32_t stream, const void *message);
/* The same with a descriptor, which is closed here once it is sent. */
void conn_send_fd(struct conn *conn, unsigned type, uint32_t stream, const void *message, int fd);
/* Queues a data frame (WIRE_STDIN, …). */
void conn_send_data(struct conn *conn, unsigned type, uint32_t stream, const void *data,
                    size_t size);
bool conn_full(const struct conn *conn);
/* Stops and goes on reading: back-pressure on the peer. */
void conn_hold(struct conn *conn, bool hold);
/* What is queued is written first if `flush`. ops->closed is called in a later turn. */
void conn_close(struct conn *conn, bool flush);
/* Of the process at the other end (SO_PEERCRED), 0 if not known. */
pid_t conn_peer_pid(const struct conn *conn);

#endif
