#include "init/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/disk.h"
#include "init/serve.h"
#include "init/util.h"

#define LAYER_DIR "/rootfs/layer"

enum {
    FROZEN_MAX_MS = 5 * 60 * 1000, /* whatever is asked */
    PROCESSES_DEADLINE_MS = 10 * 1000,
    CHILD_FD = 3,
};

/* A layer that is being frozen, or is. The child tells twice how it went: an errno, 0 for done. */
struct frozen {
    struct source source; /* the socket of the child; first, so that it is the whole */
    struct frozen *next;
    const struct container *container;
    uint32_t freeze_seq; /* 0: it is answered, the layer is frozen */
    uint32_t thaw_seq;   /* 0: not asked for */
};

static struct frozen *all_frozen;

/* ---- the child ------------------------------------------------------------------------------ */

/* The container's own mount of it is in a namespace that has no path to it any more. A second mount
 * of the same disk is the same file system. */
static int layer_mount(const char *device)
{
    return mount(device, LAYER_DIR, "ext4", MS_NODEV | MS_NOATIME,
                 "noinit_itable,no_prefetch_block_bitmaps");
}

/* A freeze does the same, but waits three times for all CPUs (RCU) to shut out writers that are not
 * there any more. */
bool layer_settle(const char *device)
{
    return !disk_is_shared(device) && layer_mount(device) == 0 &&
           mount(NULL, LAYER_DIR, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
}

static void told(int err)
{
    send(CHILD_FD, &err, sizeof(err), MSG_NOSIGNAL);
}

/* What is shared has no file system here that could be frozen: its processes are, and what they
 * have written to their memory is sent to the host. */
static int processes_hold(const char *group, bool on)
{
    CLEANUP_FD int fd = cgroup_open(group);
    bool ended = fd < 0 && errno == ENOENT; /* the group of what has ended is gone */

    if (!ended && (fd < 0 || cgroup_freeze(fd, on, PROCESSES_DEADLINE_MS) < 0))
        return -1;
    CLEANUP_FD int shared = on ? open(SHARED_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    return shared >= 0 ? syncfs(shared) : 0;
}

struct hold {
    const char *device, *group;
    int fd; /* of the layer's file system */
};

static int hold_begin(struct hold *h)
{
    h->fd = -1;
    if (disk_is_shared(h->device))
        return processes_hold(h->group, true);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    h->fd = layer_mount(h->device) < 0 ? -1 : open(LAYER_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return h->fd < 0 ? -1 : ioctl(h->fd, FIFREEZE, 0);
}

static int hold_end(const struct hold *h)
{
    return h->fd < 0 ? processes_hold(h->group, false) : ioctl(h->fd, FITHAW, 0);
}

static void child_run(int socket, struct hold *hold, int max_ms) __attribute__((noreturn));

static void child_run(int socket, struct hold *hold, int max_ms)
{
    struct pollfd end = {.fd = CHILD_FD, .events = POLLIN};

    dup2(socket, CHILD_FD);
    syscall(SYS_close_range, CHILD_FD + 1, ~0U, 0);
    int err = hold_begin(hold) < 0 ? errno : 0;
    told(err);
    if (err) {
        if (disk_is_shared(hold->device))
            hold_end(hold); /* it may be half held */
        _exit(EXIT_FAILURE);
    }
    /* waits: for the word of husk-init, or its end of the socket to be closed */
    int ready = poll(&end, 1, max_ms);
    char word;
    /* What it leaves unread would be an error at the other end, in the place of what is told. */
    recv(CHILD_FD, &word, sizeof(word), MSG_DONTWAIT);
    err = hold_end(hold) < 0 ? errno : 0;
    told(ready == 0 ? ETIMEDOUT : err);
    _exit(EXIT_SUCCESS);
}

/* ---- husk-init ------------------------------------------------------------------------------ */

static struct frozen *frozen_of(const struct container *c)
{
    struct frozen *f = all_frozen;

    while (f && f->container != c)
        f = f->next;
    return f;
}

static void frozen_free(struct frozen *f)
{
    struct frozen **at = &all_frozen;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    source_close(&f->source);
    free(f);
}

static void reply_errno(uint32_t seq, int err, const char *what, const struct container *c)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (err == ETIMEDOUT)
        error_set(&error, ERROR_TIMEOUT, 0, "the layer of container '%s' was held for too long",
                  c->start.ctr);
    else if (err)
        error_set(&error, ERROR_IO, err, "%s of the layer of container '%s'", what, c->start.ctr);
    serve_reply(seq, error);
}

/* The child has told something, or is gone. */
static void child_told(struct source *source, uint32_t events)
{
    struct frozen *f = (struct frozen *)source;
    int err;

    for (;;) {
        ssize_t n = recv(source->fd, &err, sizeof(err), MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n != sizeof(err))
            err = EIO;
        if (f->freeze_seq && !err) {
            reply_errno(f->freeze_seq, 0, "", f->container);
            f->freeze_seq = 0;
            continue;
        }
        if (f->freeze_seq)
            reply_errno(f->freeze_seq, err, "freezing", f->container);
        else if (f->thaw_seq)
            reply_errno(f->thaw_seq, err, "thawing", f->container);
        frozen_free(f);
        return;
    }
}

static int child_start(const struct container *c, uint32_t max_ms, struct frozen *f,
                       struct error **ret_error)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a pair of sockets");
    pid_t pid = fork();
    if (pid == 0) {
        struct hold hold = {.device = c->layer_device, .group = c->group_name};
        child_run(ends[1], &hold, max_ms < FROZEN_MAX_MS ? (int)max_ms : FROZEN_MAX_MS);
    }
    close(ends[1]);
    if (pid < 0) {
        int err = errno;
        close(ends[0]);
        return error_set(ret_error, ERROR_IO, err, "a process cannot be made");
    }
    source_open(&f->source, ends[0], EPOLLIN, child_told);
    return 0;
}

static int freeze(const struct container *c, const struct wire_layer_freeze *message,
                  struct error **ret_error)
{
    if (!c)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not in this guest",
                         message->ctr);
    if (!c->layer_device || c->state == CONTAINER_WAITING)
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' has not started", message->ctr);
    if (frozen_of(c))
        return error_set(ret_error, ERROR_BUSY, 0, "the layer of container '%s' is frozen already",
                         message->ctr);
    struct frozen *f = xcalloc(1, sizeof(*f));
    f->container = c;
    f->freeze_seq = message->seq;
    if (child_start(c, message->max_ms, f, ret_error) < 0) {
        free(f);
        return -1;
    }
    f->next = all_frozen;
    all_frozen = f;
    return 0;
}

void layer_freeze(const struct container *c, const struct wire_layer_freeze *message)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (freeze(c, message, &error) < 0)
        serve_reply(message->seq, error);
}

void layer_thaw(const struct container *c, const struct wire_layer_thaw *message)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct frozen *f = c ? frozen_of(c) : NULL;

    if (f && f->freeze_seq) { /* it was given up */
        layer_let_go(c);
        f = NULL;
    }
    if (!f || f->thaw_seq) {
        error_set(&error, ERROR_STATE, 0, "the layer of container '%s' is not frozen",
                  message->ctr);
        serve_reply(message->seq, error);
        return;
    }
    f->thaw_seq = message->seq;
    send(f->source.fd, "", 1, MSG_NOSIGNAL);
}

void layer_let_go(const struct container *c)
{
    struct frozen *f = frozen_of(c);

    if (!f)
        return;
    uint32_t seq = f->freeze_seq ? f->freeze_seq : f->thaw_seq;
    if (seq)
        reply_errno(seq, ECANCELED, "freezing", c);
    frozen_free(f);
}
