/* A client's socket: huskd has spoken HTTP on it, from now on it carries a process's stdio. */
#include <endian.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/str.h"
#include "keeper/container.h"
#include "keeper/stream.h"

enum { KEY_CTRL_P = 0x10, KEY_CTRL_Q = 0x11 };

static void client_ready(int events, void *arg);

struct client *client_new(struct keeper *k, const struct client_spec *spec)
{
    struct client *c = xcalloc(1, sizeof(*c));
    c->keeper = k;
    c->fd = spec->fd;
    c->framing = spec->framing;
    c->detachable = spec->detachable;
    buf_append(&c->in, spec->early.data, spec->early.size);
    c->watch = watch_new(k->loop, c->fd, 0, client_ready, c);
    return c;
}

/* ---- the end -------------------------------------------------------------------------------- */

/* A unix socket that is closed over unread input resets its peer, which might not have read all of
 * our output: so the peer is stopped first, and what it sent is thrown away. */
static void socket_close(int fd)
{
    char rest[4096];
    shutdown(fd, SHUT_RDWR);
    while (recv(fd, rest, sizeof(rest), MSG_DONTWAIT) > 0)
        ;
    close(fd);
}

static void client_unlink(struct client *c)
{
    struct stream *s = c->stream;
    c->stream = NULL;
    if (!s)
        return;
    DL_DELETE(s->clients, c);
    s->client_count--;
}

void client_free(struct client *c)
{
    client_unlink(c);
    watch_free(c->watch);
    socket_close(c->fd);
    buf_release(&c->in);
    buf_release(&c->out);
    free(c);
}

static void client_left(struct client *c)
{
    struct keeper *k = c->keeper;
    DL_DELETE(k->leaving, c);
    client_free(c);
    if (!k->leaving)
        malloc_trim(0); /* as at the end of a stream */
    keeper_check_end(k);
}

void client_leave(struct client *c)
{
    client_unlink(c);
    DL_APPEND(c->keeper->leaving, c);
    if (c->out.len)
        client_continue(c);
    else
        client_left(c);
}

/* Its socket is dead. The first process of a container goes on; an exec was only for its client. */
static void client_gone(struct client *c)
{
    struct stream *s = c->stream;
    if (!s) {
        client_left(c);
        return;
    }
    client_free(c);
    if (s->exec)
        stream_hang_up(s);
    stream_grant(s);
}

/* ---- output --------------------------------------------------------------------------------- */

/* Bytes that the socket took; -1 if it is dead. */
static ssize_t socket_send(int fd, struct iovec *iov, size_t count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n;
}

static void queue_from(struct buf *out, const struct iovec *v, size_t skip)
{
    if (skip < v->iov_len)
        buf_append(out, (const uint8_t *)v->iov_base + skip, v->iov_len - skip);
}

void client_output(struct client *c, unsigned channel, const void *data, size_t size)
{
    uint32_t length = htobe32((uint32_t)size);
    uint8_t header[STDCOPY_HEADER_SIZE] = {(uint8_t)(channel + 1)};
    struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)data, size}};
    ssize_t sent = 0;

    memcpy(header + 4, &length, sizeof(length));
    if (c->framing == WIRE_FRAMING_RAW)
        iov[0].iov_len = 0;
    if (!c->out.len && (sent = socket_send(c->fd, iov, 2)) < 0) {
        client_gone(c);
        return;
    }
    size_t first = iov[0].iov_len, n = (size_t)sent;
    queue_from(&c->out, &iov[0], n);
    queue_from(&c->out, &iov[1], n > first ? n - first : 0);
    client_continue(c);
}

/* False if the client is gone by that. */
static bool client_flush(struct client *c)
{
    struct iovec iov = {c->out.data, c->out.len};
    ssize_t n = socket_send(c->fd, &iov, 1);
    if (n < 0) {
        client_gone(c);
        return false;
    }
    buf_consume(&c->out, (size_t)n);
    if (!c->out.len)
        buf_release(&c->out);
    if (c->stream)
        stream_grant(c->stream);
    if (c->stream || c->out.len)
        return true;
    client_left(c);
    return false;
}

/* ---- input ---------------------------------------------------------------------------------- */

static bool input_is_wanted(const struct client *c)
{
    const struct stream *s = c->stream;
    return s && s->takes_input && !s->input_ended;
}

/* How much input may be sent now. */
static size_t input_room(const struct client *c)
{
    const struct stream *s = c->stream;
    if (!input_is_wanted(c) || !s->keeper->guest || conn_full(s->keeper->guest))
        return 0;
    return s->input_credit < CLIENT_READ_MAX ? (size_t)s->input_credit : CLIENT_READ_MAX;
}

static void input_send_queued(struct client *c)
{
    size_t room;
    while (c->in.len && (room = input_room(c))) {
        size_t n = c->in.len < room ? c->in.len : room;
        stream_input(c->stream, c->in.data, n);
        buf_consume(&c->in, n);
    }
    if (c->in.len && c->stream && !input_is_wanted(c))
        buf_clear(&c->in);
    if (!c->in.len)
        buf_release(&c->in);
    if (!c->in.len && c->input_ended && c->stream)
        stream_end_input(c->stream);
}

void client_continue(struct client *c)
{
    int events = c->out.len ? WATCH_WRITE : 0;
    /* An exec does not outlive its client; of a container's input all is delivered, however late.
     */
    if (c->stream && c->stream->exec)
        events |= WATCH_HANGUP;
    if (c->stream)
        input_send_queued(c);
    /* Input that the process does not take is read and thrown away: so the end is seen. */
    if (c->stream && !c->input_ended && !c->in.len && (!input_is_wanted(c) || input_room(c)))
        events |= WATCH_READ;
    watch_set(c->watch, events);
}

/* Queues input without the detach keys; true when both were there. */
static bool filter_keys(struct client *c, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t prefix = KEY_CTRL_P;
        if (c->prefix && data[i] == KEY_CTRL_Q)
            return true;
        if (c->prefix)
            buf_append(&c->in, &prefix, 1);
        c->prefix = data[i] == KEY_CTRL_P;
        if (!c->prefix)
            buf_append(&c->in, &data[i], 1);
    }
    return false;
}

static void input_came(struct client *c, const uint8_t *data, size_t size)
{
    if (!c->detachable) {
        if (input_is_wanted(c))
            stream_input(c->stream, data, size);
        client_continue(c);
        return;
    }
    bool detach = filter_keys(c, data, size);
    client_continue(c);
    if (!detach)
        return;
    struct stream *s = c->stream;
    client_free(c);
    stream_grant(s);
}

/* The peer closed one direction, or both. */
static void input_ended(struct client *c)
{
    struct pollfd p = {.fd = c->fd};
    poll(&p, 1, 0);
    if (p.revents & (POLLHUP | POLLERR)) {
        client_gone(c);
        return;
    }
    c->input_ended = true;
    client_continue(c);
}

static void client_read(struct client *c)
{
    size_t size = input_is_wanted(c) ? input_room(c) : CLIENT_READ_MAX;
    if (!size) {
        client_continue(c);
        return;
    }
    CLEANUP_FREE uint8_t *data = xmalloc(size);
    ssize_t n = recv(c->fd, data, size, MSG_DONTWAIT);
    if (n > 0)
        input_came(c, data, (size_t)n);
    else if (n == 0)
        input_ended(c);
    else if (errno != EAGAIN && errno != EINTR)
        client_gone(c);
}

static void client_ready(int events, void *arg)
{
    struct client *c = arg;
    if (events & WATCH_WRITE && c->out.len && !client_flush(c))
        return;
    if (events & WATCH_READ && c->stream)
        client_read(c);
    else if (events & WATCH_HANGUP && c->stream)
        client_gone(c);
    else
        client_continue(c);
}

/* ---- joining -------------------------------------------------------------------------------- */

/* Queues what nobody has read, in the client's own framing. */
static void take_unread(struct client *c, struct buf *unread)
{
    while (unread->len) {
        uint32_t size;
        memcpy(&size, unread->data + 4, sizeof(size));
        size = be32toh(size);
        size_t skip = c->framing == WIRE_FRAMING_RAW ? STDCOPY_HEADER_SIZE : 0;
        buf_append(&c->out, unread->data + skip, STDCOPY_HEADER_SIZE + size - skip);
        buf_consume(unread, STDCOPY_HEADER_SIZE + size);
    }
    buf_release(unread);
}

/* Those whose other end is closed: of a process that neither reads nor writes that is not seen. */
static void clients_evict(struct stream *s)
{
    struct client *c, *next;
    DL_FOREACH_SAFE(s->clients, c, next) {
        struct pollfd p = {.fd = c->fd};
        if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR))
            client_gone(c);
    }
}

int client_join(struct client *c, struct stream *s, struct error **ret_error)
{
    if (s->client_count >= STREAM_CLIENTS_MAX)
        clients_evict(s);
    if (s->client_count >= STREAM_CLIENTS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d clients are attached to it already",
                         STREAM_CLIENTS_MAX);
    take_unread(c, &s->unread);
    s->was_attached = true;
    if (s->ended) {
        client_leave(c);
        return 0;
    }
    DL_APPEND(s->clients, c);
    s->client_count++;
    c->stream = s;
    client_continue(c);
    return 0;
}

void client_refuse(struct client *c, const char *why)
{
    CLEANUP_FREE char *line =
        str_printf("husk: %s%s\n", why, c->framing == WIRE_FRAMING_RAW ? "\r" : "");
    struct buf text = {0};
    uint32_t length = htobe32((uint32_t)strlen(line));
    uint8_t header[STDCOPY_HEADER_SIZE] = {OUT_STDERR + 1};
    memcpy(header + 4, &length, sizeof(length));
    buf_append(&text, header, sizeof(header));
    buf_append_str(&text, line);
    take_unread(c, &text);
    client_leave(c);
}
