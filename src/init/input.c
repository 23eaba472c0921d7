#include "init/input.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "init/pace.h"
#include "init/port.h"
#include "init/process.h"
#include "init/util.h"

enum {
    GATHER_MAX = 16,             /* frames that are handed over at once */
    BULK = 16 << 10,             /* what comes in such frames will go on for a while */
    GRANT_MIN = WIRE_WINDOW / 4, /* less is not worth a message */
};

/* Bytes that are off our hands may come again from the keeper. */
static void input_taken(struct process *p, size_t size)
{
    struct wire_credit credit = {.channel = WIRE_STDIN};
    p->owed += (uint32_t)size;
    if (p->owed < GRANT_MIN || p->input_ended)
        return;
    credit.bytes = p->owed;
    p->owed = 0;
    p->window += credit.bytes;
    port_send(WIRE_CREDIT, p->stream, &credit);
}

static int input_fd(const struct process *p)
{
    return p->tty ? p->out.source.fd : p->input.fd;
}

static size_t pieces_size(const struct iovec *pieces, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += pieces[i].iov_len;
    return size;
}

/* Takes `done` bytes away at the beginning. */
static void pieces_consume(struct iovec *pieces, int count, size_t done)
{
    for (int i = 0; i < count && done; i++) {
        size_t part = done < pieces[i].iov_len ? done : pieces[i].iov_len;
        pieces[i].iov_base = (uint8_t *)pieces[i].iov_base + part;
        pieces[i].iov_len -= part;
        done -= part;
    }
}

/* What the process takes, which is all if it reads no more, goes from the pieces. */
static void input_write(struct process *p, struct iovec *pieces, int count)
{
    size_t left = pieces_size(pieces, count), taken = 0;
    while (left) {
        ssize_t n = writev(input_fd(p), pieces, count);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            source_close(&p->input);
        size_t done = n < 0 ? left : (size_t)n;
        pieces_consume(pieces, count, done);
        left -= done;
        taken += done;
    }
    input_taken(p, taken);
}

/* After the last byte: end of file, which for a terminal is a character. */
static void input_end(struct process *p)
{
    struct termios settings;
    if (p->tty && p->out.source.fd >= 0 && tcgetattr(p->out.source.fd, &settings) == 0 &&
        write(p->out.source.fd, &settings.c_cc[VEOF], 1) < 0 && errno == EAGAIN)
        return; /* a full terminal: again when it is ready */
    p->input_closed = true;
    source_close(&p->input);
}

void input_flush(struct process *p)
{
    /* The terminal may still be on its way. */
    if (p->tty && p->out.source.fd < 0 && !p->out.finished)
        return;
    if (p->pending.len) {
        struct iovec all = {p->pending.data, p->pending.len};
        input_write(p, &all, 1);
        buf_consume(&p->pending, p->pending.len - all.iov_len);
    }
    if (p->pending.len)
        return;
    buf_release(&p->pending);
    if (p->input_ended && !p->input_closed)
        input_end(p);
}

static void input_ready(struct source *source, uint32_t events)
{
    struct process *p = (struct process *)((char *)source - offsetof(struct process, input));
    input_flush(p);
}

/* Input that came in several frames, and is still where it came. Handed over at once it wakes who
 * reads it once, who would otherwise run after each piece: under emulation each change of process
 * empties the TLB. */
static struct {
    uint32_t stream;
    struct iovec pieces[GATHER_MAX];
    int count;
} gathered;

void input_over(void)
{
    struct process *p = gathered.count ? process_find(gathered.stream) : NULL;
    int count = gathered.count;
    gathered.count = 0;
    if (!p || p->input_closed)
        return;
    if (!p->pending.len && input_fd(p) >= 0)
        input_write(p, gathered.pieces, count);
    for (int i = 0; i < count; i++)
        buf_append(&p->pending, gathered.pieces[i].iov_base, gathered.pieces[i].iov_len);
    input_flush(p);
}

void input_take(struct process *p, const uint8_t *data, size_t size)
{
    if (p->input_ended)
        return;
    if (size > p->window) {
        say(4, "stream %u: %zu bytes of input came without credit", p->stream, size);
        return;
    }
    p->window -= (uint32_t)size;
    if (gathered.count == GATHER_MAX || (gathered.count && gathered.stream != p->stream))
        input_over();
    if (size >= BULK)
        pace_bulk();
    gathered.stream = p->stream;
    gathered.pieces[gathered.count++] = (struct iovec){(void *)(uintptr_t)data, size};
    p->input_ended = !size;
}

void input_open(struct process *p, int fd)
{
    source_open(&p->input, fd, EPOLLOUT, input_ready);
}

void input_grant_first(struct process *p)
{
    struct wire_credit credit = {.channel = WIRE_STDIN, .bytes = WIRE_WINDOW};
    p->window = credit.bytes;
    port_send(WIRE_CREDIT, p->stream, &credit);
}

void input_drop(struct process *p)
{
    p->input_ended = p->input_closed = true;
    source_close(&p->input);
    buf_release(&p->pending);
}
