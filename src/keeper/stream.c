#include "keeper/stream.h"

#include <malloc.h>

#include <endian.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/str.h"
#include "keeper/container.h"

static const unsigned channel_types[OUT_COUNT] = {WIRE_STDOUT, WIRE_STDERR};

struct stream *stream_new(struct keeper *k, uint32_t process_flags)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    s->keeper = k;
    s->tty = process_flags & WIRE_TTY;
    s->takes_input = process_flags & WIRE_STDIN_OPEN;
    s->id = ++k->last_stream;
    DL_APPEND(k->streams, s);
    return s;
}

struct stream *stream_find(struct keeper *k, uint32_t id)
{
    struct stream *s;
    DL_FOREACH(k->streams, s)
        if (s->id == id && !s->ended)
            return s;
    return NULL;
}

/* ---- the log -------------------------------------------------------------------------------- */

static void log_failed(struct stream *s, struct error *error)
{
    if (!s->log_failed && s->ctr) {
        CLEANUP_FREE char *text =
            str_printf("container '%s': some of its output is not in its log: %s", s->ctr->name,
                       error_text(error));
        control_event(s->keeper, 4, "LogFailed", text);
    }
    s->log_failed = true;
    error_free(error);
}

void stream_flush_log(struct stream *s)
{
    struct error *error = NULL;
    if (!s->log_dirty)
        return;
    s->log_dirty = false;
    if (log_file_flush(s->log, &error) < 0)
        log_failed(s, error);
}

static void stream_log(struct stream *s, unsigned channel, const void *data, size_t size)
{
    if (!s->log)
        return;
    log_file_write(s->log, channel == OUT_STDERR ? LOG_STDERR : LOG_STDOUT, data, size);
    s->log_dirty = true;
}

/* ---- output --------------------------------------------------------------------------------- */

static void unread_drop_first(struct stream *s)
{
    uint32_t size;
    memcpy(&size, s->unread.data + 4, sizeof(size));
    buf_consume(&s->unread, STDCOPY_HEADER_SIZE + be32toh(size));
}

/* Keeps the newest ATTACH_REPLAY_MAX bytes. */
static void unread_add(struct stream *s, unsigned channel, const uint8_t *data, size_t size)
{
    size_t most = ATTACH_REPLAY_MAX - STDCOPY_HEADER_SIZE;
    if (size > most) {
        data += size - most;
        size = most;
    }
    while (s->unread.len + STDCOPY_HEADER_SIZE + size > ATTACH_REPLAY_MAX)
        unread_drop_first(s);
    uint32_t length = htobe32((uint32_t)size);
    uint8_t header[STDCOPY_HEADER_SIZE] = {(uint8_t)(channel + 1)};
    memcpy(header + 4, &length, sizeof(length));
    buf_append(&s->unread, header, sizeof(header));
    buf_append(&s->unread, data, size);
}

static void stream_spread(struct stream *s, unsigned channel, const void *data, size_t size)
{
    struct client *c, *next;
    stream_log(s, channel, data, size);
    if (!s->was_attached)
        unread_add(s, channel, data, size);
    DL_FOREACH_SAFE(s->clients, c, next)
        client_output(c, channel, data, size);
}

void stream_output(struct stream *s, unsigned channel, const void *data, size_t size)
{
    if (size > s->out[channel].window) {
        vm_break(s->keeper, "the guest sent more output than it was allowed to");
        return;
    }
    if (!size)
        return; /* the end of this channel; EXITED tells the rest */
    s->out[channel].window -= (uint32_t)size;
    s->out[channel].owed += (uint32_t)size;
    if (s->ctr && !s->ctr->was_heard)
        container_heard(s->ctr);
    stream_spread(s, channel, data, size);
    stream_grant(s);
}

void stream_remark(struct stream *s, const char *line)
{
    CLEANUP_FREE char *text = str_printf("husk: %s%s\n", line, s->tty ? "\r" : "");
    stream_spread(s, OUT_STDERR, text, strlen(text));
}

static void grant_channel(struct stream *s, unsigned channel, uint32_t bytes)
{
    struct wire_credit credit = {.channel = channel_types[channel], .bytes = bytes};
    s->out[channel].window += bytes;
    guest_send(s->keeper, WIRE_CREDIT, s->id, &credit);
}

void stream_open(struct stream *s)
{
    for (unsigned i = 0; i < OUT_COUNT; i++)
        grant_channel(s, i, WIRE_WINDOW);
}

void stream_grant(struct stream *s)
{
    size_t lag = 0;
    struct client *c;
    DL_FOREACH(s->clients, c)
        if (c->out.len > lag)
            lag = c->out.len;
    if (s->killed)
        lag -= lag < STREAM_KILLED_MAX ? lag : STREAM_KILLED_MAX;
    for (unsigned i = 0; i < OUT_COUNT && !s->ended; i++) {
        if (s->out[i].owed < lag + STREAM_GRANT_MIN)
            continue;
        uint32_t bytes = s->out[i].owed - (uint32_t)lag;
        s->out[i].owed -= bytes;
        grant_channel(s, i, bytes);
    }
}

void stream_killed(struct stream *s)
{
    s->killed = true;
    stream_grant(s);
}

/* ---- input ---------------------------------------------------------------------------------- */

void stream_input(struct stream *s, const void *data, size_t size)
{
    s->input_credit -= size;
    if (s->keeper->guest)
        conn_send_data(s->keeper->guest, WIRE_STDIN, s->id, data, size);
}

void stream_end_input(struct stream *s)
{
    if (!s->takes_input || s->input_ended || s->ended)
        return;
    s->input_ended = true;
    if (s->keeper->guest)
        conn_send_data(s->keeper->guest, WIRE_STDIN, s->id, NULL, 0);
}

void stream_hang_up(struct stream *s)
{
    if (s->ended)
        return;
    s->input_ended = true;
    guest_send(s->keeper, WIRE_HANG_UP, s->id, &(struct wire_hang_up){});
}

static void stream_resume_input(struct stream *s)
{
    struct client *c, *next;
    DL_FOREACH_SAFE(s->clients, c, next)
        client_continue(c);
}

void stream_credit(struct stream *s, uint32_t bytes)
{
    if (s->input_credit > UINT32_MAX) /* an honest guest grants no more than its buffers hold */
        return;
    s->input_credit += bytes;
    stream_resume_input(s);
}

void streams_resume_input(struct keeper *k)
{
    struct stream *s;
    DL_FOREACH(k->streams, s)
        stream_resume_input(s);
}

/* ---- the end -------------------------------------------------------------------------------- */

void stream_close_log(struct stream *s)
{
    struct error *error = NULL;
    if (log_file_close(take(s->log), &error) < 0)
        log_failed(s, error);
    s->log_dirty = false;
}

void stream_finish(struct stream *s)
{
    struct client *c, *next;
    s->ended = true;
    stream_close_log(s);
    DL_FOREACH_SAFE(s->clients, c, next)
        client_leave(c);
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    stream_finish(s);
    DL_DELETE(s->keeper->streams, s);
    buf_release(&s->unread);
    free(s);
    malloc_trim(0); /* main() has the buffers of streams kept until now */
}
