/* From a request to a running program: the part that runs in the new process itself, between
 * clone and exec. What goes wrong is told to the parent over a socket that exec closes.
 */
#ifndef HUSK_INIT_LAUNCH_H
#define HUSK_INIT_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/wire.h"

/* What a process is made of. The strings stay the caller's, who waits for the clone only. */
struct launch {
    struct container *container; /* NULL: a process of the guest itself */
    bool first;                  /* makes the container's namespaces and root; else joins them */
    bool rooted;                 /* first: its slot has made the root already */
    const char *const *argv;
    const char *const *env;
    const char *cwd;
    const char *user;
    const char *const *groups;
    uint32_t flags; /* enum wire_process_flag */
    uint32_t rows, cols;
};

enum launch_report {
    LAUNCH_NOTHING = 0,
    LAUNCH_READY, /* a slot or joiner waits for its request; a rooted slot sends a directory of its
                   * layer */
    LAUNCH_TERMINAL,   /* the terminal's descriptor comes with it */
    LAUNCH_REFUSED,    /* the request is at fault, or the guest */
    LAUNCH_CANNOT_RUN, /* the command is: it ends with `code` */
};

enum { LAUNCH_TEXT_MAX = 480 };

struct launch_status {
    enum launch_report report;
    enum error_kind kind; /* of a refusal */
    int err;              /* errno of it */
    int code;             /* 126 or 127 */
    char text[LAUNCH_TEXT_MAX];
};

/* The child's ends of what connects it with husk-init. */
struct launch_fds {
    int stdio[3]; /* -1: /dev/null; unused with a terminal */
    int status;
};

_Noreturn void launch_child(const struct launch *launch, const struct launch_fds *fds);

/* Leaves the caller the capabilities that a container has; the bounding set is dropped already. */
int launch_confine(void);

/* What a slot is told, in memory that it shares with husk-init. */
struct launch_request {
    char image_device[32], layer_device[32];
    bool rooted; /* there from the start: the slot makes the root of these devices */
    bool warmed; /* same: the image's shell is run once in it, see warm.h */
    uint32_t start_size, setup_size;
    uint8_t bytes[]; /* the payloads of CTR_START and of POD_SETUP; first, if rooted, of FREEZE */
};

/* What a slot is told by a byte on its status socket. */
enum {
    SLOT_START, /* the request is there */
    SLOT_WARM,  /* the image's shell is run ahead, once more; the slot then says that it is ready */
    SLOT_WAIT,  /* never sent */
};

/* Prepares what it can, says that it is ready, and waits to be told. Of a rooted slot the devices
 * and `rooted` are there before. */
_Noreturn void launch_slot(const struct launch_fds *fds, const struct launch_request *request);
/* How the first process of a container is launched. */
struct launch launch_of(struct container *c);
/* How an exec is; NULL is the guest. What the request does not say is as in the container. `env`
 * becomes the caller's, and must live as long. */
struct launch launch_of_exec(struct container *c, const struct wire_exec *m, char ***ret_env);

/* What a joiner is told, in memory that it shares with husk-init. */
struct join_request {
    pid_t born; /* what it has made; there before that first runs */
    uint32_t size;
    uint8_t bytes[]; /* the payload of EXEC */
};

/* Joins a container, and starts an exec in it for each message on the socket. With the message come
 * the child's ends, status last; the request is there then. */
_Noreturn void launch_joiner(struct container *c, int socket, struct join_request *request);

#endif
