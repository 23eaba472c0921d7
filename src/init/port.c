#include "init/port.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <syslog.h>
#include <unistd.h>

#include "base/str.h"
#include "init/events.h"
#include "init/uevent.h"
#include "init/util.h"

#define PORT_NAME "husk.agent"

enum {
    PORT_READ_SIZE = 32 << 10,  /* the driver gives a page at a time */
    PORT_READ_TURN = 256,       /* reads before output has its turn */
    PORT_GATHER = 256 << 10,    /* bytes that are read before any of them is looked at */
    PORT_IN_KEEP = 512 << 10,   /* a larger buffer is freed when empty */
    PORT_OUT_KEEP = 4 << 10,    /* same */
    PORT_QUEUE_MAX = 1 << 20,   /* of messages: then the keeper's are not read either */
    PORT_SPLICE_MIN = 16 << 10, /* less is copied: it costs fewer system calls */
    PORT_DEADLINE_MS = 10000,   /* for it to appear at boot */
    PORT_PIPE_SIZE = 2 * WIRE_DATA_MAX,
};

static struct {
    struct source source;
    const struct port_ops *ops;
    struct wire_decoder in;
    struct buf out;    /* whole frames, written in order */
    int pipe[2];       /* a frame on its way from a process's pipe to the port */
    size_t pipe_bytes; /* of it that are not written yet; they go after `out` */
    bool readable;     /* since the last EAGAIN */
    bool writable;     /* same */
    bool connected;    /* somebody holds the other end */
    bool greeted;      /* and has said hello */
} port = {.source.fd = -1, .pipe = {-1, -1}};

/* ---- coming and going of the keeper --------------------------------------------------------- */

static void pipe_drain(void)
{
    char trash[4096];
    while (port.pipe_bytes && read(port.pipe[0], trash, sizeof(trash)) > 0)
        ;
    port.pipe_bytes = 0;
}

/* What was under way is lost: it was meant for a peer that is gone. */
static void port_greet(void)
{
    buf_clear(&port.out);
    pipe_drain();
    wire_put_hello(&port.out, "guest", HUSK_VERSION);
}

static void port_disconnected(void)
{
    port.connected = port.greeted = false;
    wire_decoder_reset(&port.in);
    buf_release(&port.out);
    pipe_drain();
    port.ops->greeted();
}

static void port_ready(struct source *source, uint32_t events)
{
    bool connected = !(events & EPOLLHUP);
    if (port.connected && !connected)
        port_disconnected();
    if (!port.connected && connected) {
        port.connected = true;
        port_greet();
    }
    port.readable |= (events & EPOLLIN) != 0;
    port.writable |= (events & EPOLLOUT) != 0;
}

/* The device of the port: /sys/class/virtio-ports/vportNpM/name tells. */
static char *port_find(void)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    char *found = NULL;
    for (struct dirent *e = dir ? readdir(dir) : NULL; e && !found; e = readdir(dir)) {
        CLEANUP_FREE char *path = str_printf("/sys/class/virtio-ports/%s/name", e->d_name);
        CLEANUP_FREE char *name = file_read(path, 256);
        if (name && str_starts(name, PORT_NAME "\n"))
            found = str_printf("/dev/%s", e->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

/* The host tells the name of a port some time after the driver was loaded. */
static char *port_wait(void)
{
    uint64_t deadline = now_ms() + PORT_DEADLINE_MS;
    char *path;
    do
        path = port_find();
    while (!path && uevent_wait(deadline));
    return path;
}

bool port_open(const struct port_ops *ops)
{
    CLEANUP_FREE char *path = port_wait();
    CLEANUP_FD int fd = path ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
    if (fd < 0 || pipe2(port.pipe, O_NONBLOCK | O_CLOEXEC) < 0)
        return false;
    fcntl(port.pipe[1], F_SETPIPE_SZ, PORT_PIPE_SIZE);
    port.ops = ops;
    source_open(&port.source, fd_take(&fd), EPOLLIN | EPOLLOUT, port_ready);
    return true;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void port_hello(const struct wire_frame *frame)
{
    struct wire_hello hello;
    CLEANUP_ERROR struct error *error = NULL;

    if (wire_get(frame, &hello, &error) < 0 || wire_check_hello(&hello, &error) < 0) {
        say(LOG_ERR, "%s", error->message);
        return;
    }
    /* A second hello is that of another peer, which has not seen ours. */
    if (port.greeted)
        port_greet();
    port.greeted = true;
    port.ops->greeted();
}

static void port_frame(const struct wire_frame *frame)
{
    if (frame->type == WIRE_HELLO)
        port_hello(frame);
    else if (port.greeted)
        port.ops->frame(frame);
}

/* Another keeper may have come behind what makes no sense. */
static void port_frames(void)
{
    struct wire_frame frame;
    int found;

    do {
        CLEANUP_ERROR struct error *error = NULL;
        while ((found = wire_decoder_peek(&port.in, &frame, &error)) > 0) {
            port_frame(&frame);
            wire_decoder_next(&port.in, &frame);
        }
        port.ops->over();
        if (found < 0) {
            say(LOG_ERR, "the keeper's bytes make no sense: %s", error->message);
            wire_decoder_skip(&port.in);
            port.greeted = false;
        }
    } while (found < 0);
    if (!port.in.in.len && port.in.in.cap > PORT_IN_KEEP)
        buf_release(&port.in.in);
}

bool port_read(void)
{
    for (int i = 0; i < PORT_READ_TURN && port.readable; i++) {
        if (port.out.len > PORT_QUEUE_MAX) {
            port_frames();
            return false;
        }
        ssize_t n =
            read(port.source.fd, wire_decoder_space(&port.in, PORT_READ_SIZE), PORT_READ_SIZE);
        if (n <= 0) {
            /* 0: nobody is there. */
            port.readable = n < 0 && errno == EINTR;
            continue;
        }
        wire_decoder_fed(&port.in, (size_t)n);
        if (port.in.in.len >= PORT_GATHER)
            port_frames();
    }
    port_frames();
    return port.readable;
}

/* ---- writing -------------------------------------------------------------------------------- */

void port_flush(void)
{
    while (port.connected && port.writable && port.out.len) {
        ssize_t n = write(port.source.fd, port.out.data, port.out.len);
        if (n > 0)
            buf_consume(&port.out, (size_t)n);
        else
            port.writable = n < 0 && errno == EINTR;
    }
    while (port.connected && port.writable && !port.out.len && port.pipe_bytes) {
        ssize_t n = splice(port.pipe[0], NULL, port.source.fd, NULL, port.pipe_bytes,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n > 0)
            port.pipe_bytes -= (size_t)n;
        else
            port.writable = n < 0 && errno == EINTR;
    }
    if (!port.out.len && port.out.cap > PORT_OUT_KEEP)
        buf_release(&port.out);
}

bool port_idle(void)
{
    return port.connected && port.writable && !port.out.len && !port.pipe_bytes;
}

bool port_takes_more(void)
{
    return port.connected && port.writable && !port.pipe_bytes && port.out.len < PORT_OUT_KEEP;
}

/* A frame that is half written must be whole before the next: what is left of it is queued. */
static struct buf *port_queue(void)
{
    while (port.pipe_bytes) {
        ssize_t n = read(port.pipe[0], buf_reserve(&port.out, port.pipe_bytes), port.pipe_bytes);
        assert(n > 0);
        port.out.len += (size_t)n;
        port.pipe_bytes -= (size_t)n;
    }
    return &port.out;
}

void port_send(unsigned type, uint32_t stream, const void *message)
{
    if (port.connected)
        wire_put(port_queue(), type, 0, stream, message);
}

void port_send_data(unsigned type, uint32_t stream, const void *data, size_t size)
{
    uint8_t header[WIRE_HEADER_SIZE];
    struct buf *out = port_queue();

    wire_header(header, type, 0, stream, (uint32_t)size);
    buf_append(out, header, sizeof(header));
    buf_append(out, data, size);
}

/* Reads into the queue, behind room for the header. An empty pipe is read too, to see its end. */
static ssize_t port_copy_pipe(unsigned type, uint32_t stream, int fd, size_t ready, size_t max)
{
    size_t size = ready ? ready : 1;
    if (size > PORT_SPLICE_MIN)
        size = PORT_SPLICE_MIN;
    if (size > max)
        size = max;
    uint8_t *at = buf_reserve(&port.out, WIRE_HEADER_SIZE + size);
    ssize_t n = read(fd, at + WIRE_HEADER_SIZE, size);

    if (n > 0) {
        wire_header(at, type, 0, stream, (uint32_t)n);
        port.out.len += WIRE_HEADER_SIZE + (size_t)n;
    }
    return n;
}

ssize_t port_send_pipe(unsigned type, uint32_t stream, int fd, size_t max)
{
    uint8_t header[WIRE_HEADER_SIZE];
    int ready = 0;

    if (ioctl(fd, FIONREAD, &ready) < 0 || ready < PORT_SPLICE_MIN || max < PORT_SPLICE_MIN)
        return port_copy_pipe(type, stream, fd, ready > 0 ? (size_t)ready : 0, max);
    size_t size = (size_t)ready < max ? (size_t)ready : max;
    if (size > WIRE_DATA_MAX)
        size = WIRE_DATA_MAX;
    /* The header goes into the same pipe, so that the port gets both in one piece. */
    wire_header(header, type, 0, stream, (uint32_t)size);
    if (write(port.pipe[1], header, sizeof(header)) != sizeof(header))
        return -1;
    ssize_t n = splice(fd, NULL, port.pipe[1], NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    port.pipe_bytes = sizeof(header) + (n > 0 ? (size_t)n : 0);
    if (n == (ssize_t)size)
        return n;
    /* The container itself read from its pipe in between: the header is wrong. */
    int why = errno;
    port_queue();
    if (n > 0)
        wire_header(port.out.data, type, 0, stream, (uint32_t)n);
    else
        buf_clear(&port.out);
    errno = why;
    return n;
}
