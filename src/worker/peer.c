#include "worker/peer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"

enum { READ_SIZE = 64 << 10, GONE = POLLRDHUP | POLLHUP | POLLERR };

static int bytes_send(struct peer *peer, const struct buf *out, struct error **ret_error)
{
    size_t done = 0;

    while (done < out->len) {
        ssize_t n = send(peer->fd, out->data + done, out->len - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(ret_error, ERROR_CANCELLED, errno, "the daemon does not listen");
        done += (size_t)n;
    }
    return 0;
}

int peer_hello(struct peer *peer, struct error **ret_error)
{
    CLEANUP_BUF struct buf out = {0};

    wire_put_hello(&out, "worker", HUSK_VERSION);
    return bytes_send(peer, &out, ret_error);
}

int peer_send(struct peer *peer, unsigned type, const void *message, struct error **ret_error)
{
    CLEANUP_BUF struct buf out = {0};

    wire_put(&out, type, 0, 0, message);
    return bytes_send(peer, &out, ret_error);
}

static void sent_set(struct peer *peer, int fd)
{
    if (peer->sent >= 0)
        close(peer->sent);
    peer->sent = fd;
}

/* Keeps the descriptor that came along; there is one at most, for there is one job at a time. */
static void descriptors_take(struct peer *peer, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
            sent_set(peer, fd);
        }
    }
}

/* 1: more bytes came; 0: the daemon has gone. */
static int bytes_receive(struct peer *peer, struct error **ret_error)
{
    union {
        char room[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec bytes = {wire_decoder_space(&peer->in, READ_SIZE), READ_SIZE};
    struct msghdr message = {
        .msg_iov = &bytes,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    ssize_t n = TEMP_FAILURE_RETRY(recvmsg(peer->fd, &message, MSG_CMSG_CLOEXEC));

    if (n < 0 && errno != ECONNRESET)
        return error_set(ret_error, ERROR_IO, errno, "read from the daemon");
    if (n <= 0)
        return 0;
    descriptors_take(peer, &message);
    wire_decoder_fed(&peer->in, (size_t)n);
    return 1;
}

static int hello_check(struct peer *peer, const struct wire_frame *frame, struct error **ret_error)
{
    struct wire_hello hello = {0};

    if (frame->type != WIRE_HELLO)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the daemon did not say hello");
    int result = wire_get(frame, &hello, ret_error);
    if (result == 0)
        result = wire_check_hello(&hello, ret_error);
    wire_clear(WIRE_HELLO, &hello);
    peer->greeted = true;
    return result;
}

int peer_next(struct peer *peer, struct wire_frame *ret, struct error **ret_error)
{
    for (;;) {
        if (peer->used)
            wire_decoder_next(&peer->in, &peer->frame);
        peer->used = false;
        int result = wire_decoder_peek(&peer->in, &peer->frame, ret_error);
        if (result == 0)
            result = bytes_receive(peer, ret_error);
        else if (result == 1)
            peer->used = true;
        if (result <= 0)
            return result;
        if (peer->used && peer->greeted) {
            *ret = peer->frame;
            return 1;
        }
        if (peer->used && hello_check(peer, &peer->frame, ret_error) < 0)
            return -1;
    }
}

void peer_drop_sent(struct peer *peer)
{
    sent_set(peer, -1);
}

void peer_done(struct peer *peer)
{
    sent_set(peer, -1);
    wire_decoder_reset(&peer->in);
    buf_release(&peer->in.in);
}

int peer_wait(const struct peer *peer, int fd, struct error **ret_error)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = peer->fd, .events = POLLRDHUP}};

    while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
        if (errno != EINTR)
            return error_set(ret_error, ERROR_IO, errno, "wait for the archive");
    if (fds[1].revents & GONE)
        return error_set(ret_error, ERROR_CANCELLED, 0, "the daemon has gone");
    return 0;
}

int peer_check(const struct peer *peer, struct error **ret_error)
{
    struct pollfd fd = {.fd = peer->fd, .events = POLLRDHUP};

    if (poll(&fd, 1, 0) > 0 && (fd.revents & GONE))
        return error_set(ret_error, ERROR_CANCELLED, 0, "the daemon has gone");
    return 0;
}
