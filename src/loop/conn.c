/* Framed connections over unix stream sockets, with descriptors and back-pressure. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"
#include "loop/loop_int.h"

enum {
    CONN_READ_SIZE = 128 << 10,
    CONN_READS_A_TURN = 8, /* then others have their turn */
    CONN_FDS_MAX = 16,     /* descriptors received and not yet claimed by a frame */
};

/* A descriptor that goes out with the byte at this position of the outgoing stream. */
struct conn_fd {
    uint64_t position;
    int fd;
};

struct conn {
    struct loop *loop;
    const struct conn_ops *ops;
    void *arg;
    int fd;
    struct watch *watch;
    struct deferred deferred; /* frames left over by a hold, or the end */
    struct wire_decoder decoder;
    bool greeted; /* the peer's HELLO was checked */
    bool held;
    bool was_full;
    bool closing; /* conn_close() was called, or it broke: no more frames are handed on */
    bool flushing;
    bool unheard; /* the peer reads no more: what is sent to it is dropped */
    struct error *why;

    struct buf out;
    uint64_t sent; /* position of out.data[0] in the outgoing stream */
    struct conn_fd *out_fds;
    size_t out_fd_count;

    int in_fds[CONN_FDS_MAX];
    size_t in_fd_count;
};

static void conn_arm(struct conn *c)
{
    int events = 0;
    if (!c->closing && !c->held)
        events |= WATCH_READ;
    if (c->out.len)
        events |= WATCH_WRITE;
    watch_set(c->watch, events);
}

/* The end is always told in a later turn, so that callers need not expect it under their feet. */
static void conn_fail(struct conn *c, struct error *why)
{
    if (!c->why)
        c->why = why;
    else
        error_free(why);
    c->closing = true;
    c->flushing = false;
    loop_defer(c->loop, &c->deferred);
}

static void conn_free(struct conn *c)
{
    watch_free(c->watch);
    loop_undefer(c->loop, &c->deferred);
    close(c->fd);
    for (size_t i = 0; i < c->in_fd_count; i++)
        close(c->in_fds[i]);
    for (size_t i = 0; i < c->out_fd_count; i++)
        close(c->out_fds[i].fd);
    free(c->out_fds);
    buf_release(&c->out);
    wire_decoder_reset(&c->decoder);
    error_free(c->why);
    free(c);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* One sendmsg(): up to the next descriptor's byte, or with it. Returns bytes sent, 0 if the socket
 * is full, -1 with errno. */
static ssize_t conn_send_some(struct conn *c, const struct iovec *iov, size_t count)
{
    struct iovec first = {c->out.data, c->out.len};
    struct msghdr msg = {.msg_iov = c->out.len ? &first : (struct iovec *)(uintptr_t)iov,
                         .msg_iovlen = c->out.len ? 1 : count};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    bool with_fd = c->out_fd_count && c->out_fds[0].position == c->sent;

    if (with_fd) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &c->out_fds[0].fd, sizeof(int));
    }
    size_t next = with_fd ? 1 : 0;
    if (next < c->out_fd_count)
        first.iov_len = (size_t)(c->out_fds[next].position - c->sent);
    ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (with_fd && n > 0) {
        close(c->out_fds[0].fd);
        c->out_fd_count--;
        memmove(c->out_fds, c->out_fds + 1, c->out_fd_count * sizeof(*c->out_fds));
    }
    c->sent += (uint64_t)n;
    return n;
}

static void conn_drop_output(struct conn *c)
{
    c->unheard = true;
    buf_release(&c->out);
    for (size_t i = 0; i < c->out_fd_count; i++)
        close(c->out_fds[i].fd);
    c->out_fd_count = 0;
}

/* A peer that left is an ordinary end, and what it said before it left still counts: then reading
 * goes on, and finds the end. */
static void conn_write_failed(struct conn *c)
{
    struct error *why = NULL;
    bool left = errno == EPIPE || errno == ECONNRESET;
    if (!left)
        error_set(&why, ERROR_IO, errno, "write to the peer");
    if (left && !c->closing)
        conn_drop_output(c);
    else
        conn_fail(c, why);
}

static void conn_flush(struct conn *c)
{
    while (c->out.len) {
        ssize_t n = conn_send_some(c, NULL, 0);
        if (n < 0)
            conn_write_failed(c);
        if (n <= 0)
            break;
        buf_consume(&c->out, (size_t)n);
    }
    if (!c->out.len)
        buf_release(&c->out);
    if (c->closing && !c->out.len)
        loop_defer(c->loop, &c->deferred);
    if (c->was_full && c->out.len < CONN_QUEUE_LOW) {
        c->was_full = false;
        if (c->ops->drained && !c->closing)
            c->ops->drained(c, c->arg);
    }
}

/* Something was queued behind `before` bytes. */
static void conn_queued(struct conn *c, size_t before)
{
    if (!before)
        conn_flush(c);
    if (c->out.len >= CONN_QUEUE_HIGH)
        c->was_full = true;
    if (c->out.len > CONN_QUEUE_MAX && !c->closing) {
        struct error *why = NULL;
        error_set(&why, ERROR_LIMIT, 0, "the peer does not read: %d MiB wait for it",
                  CONN_QUEUE_MAX >> 20);
        conn_fail(c, why);
    }
    conn_arm(c);
}

void conn_send_hello(struct conn *c, const char *role)
{
    size_t before = c->out.len;
    wire_put_hello(&c->out, role, HUSK_VERSION);
    conn_queued(c, before);
}

void conn_resume(struct conn *c)
{
    size_t before = c->out.len;
    c->greeted = c->decoder.synced = true;
    buf_append(&c->out, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    conn_queued(c, before);
}

void conn_send(struct conn *c, unsigned type, uint32_t stream, const void *message)
{
    size_t before = c->out.len;
    if (c->closing || c->unheard)
        return;
    wire_put(&c->out, type, 0, stream, message);
    conn_queued(c, before);
}

void conn_send_fd(struct conn *c, unsigned type, uint32_t stream, const void *message, int fd)
{
    size_t before = c->out.len;
    if (c->closing || c->unheard) {
        close(fd);
        return;
    }
    c->out_fds = xrealloc(c->out_fds, (c->out_fd_count + 1) * sizeof(*c->out_fds));
    c->out_fds[c->out_fd_count++] = (struct conn_fd){c->sent + before, fd};
    wire_put(&c->out, type, WIRE_FLAG_FD, stream, message);
    conn_queued(c, before);
}

void conn_send_data(struct conn *c, unsigned type, uint32_t stream, const void *data, size_t size)
{
    uint8_t header[WIRE_HEADER_SIZE];
    struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)data, size}};
    size_t before = c->out.len, done = 0;

    if (c->closing || c->unheard)
        return;
    assert(size <= WIRE_PAYLOAD_MAX);
    wire_header(header, type, 0, stream, (uint32_t)size);
    if (!before) { /* straight from the caller's buffer */
        ssize_t n = conn_send_some(c, iov, size ? 2 : 1);
        if (n < 0) {
            conn_write_failed(c);
            return;
        }
        done = (size_t)n;
    }
    if (done < sizeof(header))
        buf_append(&c->out, header + done, sizeof(header) - done);
    size_t skip = done > sizeof(header) ? done - sizeof(header) : 0;
    if (size > skip)
        buf_append(&c->out, (const uint8_t *)data + skip, size - skip);
    conn_queued(c, 1);
}

bool conn_full(const struct conn *c)
{
    return c->out.len >= CONN_QUEUE_HIGH;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void conn_take_fds(struct conn *c, struct msghdr *msg)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (c->in_fd_count < CONN_FDS_MAX)
                c->in_fds[c->in_fd_count++] = fd;
            else
                close(fd);
        }
    }
}

static int conn_check_first(struct conn *c, const struct wire_frame *frame,
                            struct error **ret_error)
{
    struct wire_hello hello;
    if (frame->type != WIRE_HELLO)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the peer did not say hello");
    if (wire_get(frame, &hello, ret_error) < 0 || wire_check_hello(&hello, ret_error) < 0)
        return -1;
    c->greeted = true;
    return 0;
}

static int conn_claim_fd(struct conn *c, const struct wire_frame *frame, int *ret_fd,
                         struct error **ret_error)
{
    *ret_fd = -1;
    if (!(frame->flags & WIRE_FLAG_FD))
        return 0;
    if (!c->in_fd_count)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "a descriptor was announced and did not come");
    *ret_fd = c->in_fds[0];
    c->in_fd_count--;
    memmove(c->in_fds, c->in_fds + 1, c->in_fd_count * sizeof(int));
    return 0;
}

/* Hands on the whole frames that are here. */
static void conn_deliver(struct conn *c)
{
    struct wire_frame frame;
    struct error *why = NULL;
    int rc = 0, fd;

    while (!c->held && !c->closing && (rc = wire_decoder_peek(&c->decoder, &frame, &why)) > 0) {
        if (!c->greeted)
            rc = conn_check_first(c, &frame, &why);
        if (rc < 0 || (rc = conn_claim_fd(c, &frame, &fd, &why)) < 0)
            break;
        c->ops->frame(c, &frame, fd, c->arg);
        wire_decoder_next(&c->decoder, &frame);
    }
    if (rc < 0)
        conn_fail(c, why);
    else if (!c->decoder.in.len)
        buf_release(&c->decoder.in);
}

/* 1: something came, 0: nothing is there, -1: the end. */
static int conn_receive(struct conn *c)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * CONN_FDS_MAX)];
    } control;
    struct iovec iov = {wire_decoder_space(&c->decoder, CONN_READ_SIZE), CONN_READ_SIZE};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct error *why = NULL;

    ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n > 0) {
        conn_take_fds(c, &msg);
        wire_decoder_fed(&c->decoder, (size_t)n);
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0 && errno != ECONNRESET)
        error_set(&why, ERROR_IO, errno, "read from the peer");
    conn_fail(c, why);
    return -1;
}

static void conn_ready(int events, void *arg)
{
    struct conn *c = arg;

    if (events & WATCH_WRITE)
        conn_flush(c);
    for (int i = 0; i < CONN_READS_A_TURN && events & WATCH_READ; i++) {
        if (c->closing || c->held || conn_receive(c) <= 0)
            break;
        conn_deliver(c);
    }
    if (!c->decoder.in.len)
        buf_release(&c->decoder.in);
    conn_arm(c);
}

/* ---- life ----------------------------------------------------------------------------------- */

static void conn_later(struct deferred *deferred)
{
    struct conn *c = (struct conn *)((char *)deferred - offsetof(struct conn, deferred));

    if (!c->closing) {
        conn_deliver(c);
        conn_arm(c);
        return;
    }
    if (c->flushing && c->out.len)
        return; /* conn_flush() comes back here */
    c->ops->closed(c, c->why, c->arg);
    conn_free(c);
}

struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *arg)
{
    struct conn *c = xcalloc(1, sizeof(*c));
    c->loop = loop;
    c->ops = ops;
    c->arg = arg;
    c->fd = fd;
    c->deferred.run = conn_later;
    c->watch = watch_new(loop, fd, WATCH_READ, conn_ready, c);
    return c;
}

void conn_hold(struct conn *c, bool hold)
{
    if (c->held == hold)
        return;
    c->held = hold;
    if (!hold)
        loop_defer(c->loop, &c->deferred); /* whole frames may wait in the decoder */
    conn_arm(c);
}

void conn_close(struct conn *c, bool flush)
{
    if (c->closing)
        return;
    c->closing = true;
    c->flushing = flush;
    loop_defer(c->loop, &c->deferred);
    conn_arm(c);
}

pid_t conn_peer_pid(const struct conn *c)
{
    struct ucred cred;
    socklen_t size = sizeof(cred);
    return getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 ? 0 : cred.pid;
}
