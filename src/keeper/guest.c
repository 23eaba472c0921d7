/* The agent in the guest: requests to it, and what it says, which may all be hostile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <utlist.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/container.h"
#include "keeper/stream.h"

enum { UUID_SIZE = 37 }; /* with its NUL */

struct guest_request {
    struct guest_request *next;
    uint32_t seq;
    unsigned type;
    uint64_t deadline_ms;
    guest_done *done; /* NULL: nobody waits any more */
    void *arg;
};

char *guest_text(const char *text)
{
    char *copy = xstrndup(text, GUEST_TEXT_MAX);
    str_make_plain(copy);
    return copy;
}

/* ---- requests ------------------------------------------------------------------------------- */

void guest_send(struct keeper *k, unsigned type, uint32_t stream, const void *message)
{
    if (k->guest)
        conn_send(k->guest, type, stream, message);
}

static void timer_arm(struct keeper *k)
{
    uint64_t now = loop_now_ms(k->loop);
    if (!k->requests || k->paused)
        timer_unset(k->request_timer);
    else
        timer_set(k->request_timer,
                  k->requests->deadline_ms > now ? k->requests->deadline_ms - now : 0);
}

static void request_finish(struct keeper *k, struct guest_request *r, const struct error *error)
{
    if (r->done)
        r->done(k, error, r->arg);
    free(r);
}

static void request_fail(struct keeper *k, enum error_kind kind, const char *why)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct guest_request *r = k->requests;
    LL_DELETE(k->requests, r);
    k->request_count--;
    error_set(&error, kind, 0, "%s: %s", wire_name(r->type), why);
    request_finish(k, r, error);
}

static void requests_late(void *arg)
{
    struct keeper *k = arg;
    while (k->requests && k->requests->deadline_ms <= loop_now_ms(k->loop))
        request_fail(k, ERROR_TIMEOUT, "the guest does not answer");
    timer_arm(k);
}

static int request_check(const struct keeper *k, struct error **ret_error)
{
    if (!k->guest)
        return error_set(ret_error, ERROR_STATE, 0, "the VM does not run");
    if (k->request_count >= GUEST_REQUESTS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d requests wait for the guest already",
                         GUEST_REQUESTS_MAX);
    return 0;
}

void guest_request(struct keeper *k, unsigned type, uint32_t stream, void *message,
                   guest_done *done, void *arg)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (request_check(k, &error) < 0) {
        if (done)
            done(k, error, arg);
        return;
    }
    struct guest_request *r = xcalloc(1, sizeof(*r));
    r->seq = ++k->guest_seq;
    r->type = type;
    r->deadline_ms = loop_now_ms(k->loop) + GUEST_DEADLINE_MS;
    r->done = done;
    r->arg = arg;
    LL_APPEND(k->requests, r);
    k->request_count++;
    memcpy(message, &r->seq, sizeof(r->seq));
    conn_send(k->guest, type, stream, message);
    timer_arm(k);
}

static void random_fill(void *ret, size_t size)
{
    if (getrandom(ret, size, 0) != (ssize_t)size)
        log_error("the host gives no random bytes: %s", strerror(errno));
}

/* RFC 9562, version 4. */
static void uuid_make(char ret[UUID_SIZE])
{
    uint8_t b[16];
    char hex[2 * sizeof(b) + 1];
    random_fill(b, sizeof(b));
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    str_hex(hex, b, sizeof(b));
    snprintf(ret, UUID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
}

void guest_awake(struct keeper *k, const struct wire_vm_boot *boot, guest_done *done)
{
    uint8_t entropy[ENTROPY_SIZE], id[16];
    char machine_id[2 * sizeof(id) + 1], boot_id[UUID_SIZE];
    struct wire_awake m = {.time_ns = realtime_ns(),
                           .entropy = {entropy, sizeof(entropy)},
                           .machine_id = machine_id,
                           .boot_id = boot_id,
                           .cpus = boot->cpus,
                           .more_bytes = boot->memory_bytes > boot->base_bytes
                                             ? boot->memory_bytes - boot->base_bytes
                                             : 0};
    random_fill(entropy, sizeof(entropy));
    random_fill(id, sizeof(id));
    str_hex(machine_id, id, sizeof(id));
    uuid_make(boot_id);
    guest_request(k, WIRE_AWAKE, 0, &m, done, k);
}

void guest_cancel(struct keeper *k, const void *arg)
{
    struct guest_request *r;
    LL_FOREACH(k->requests, r)
        if (r->arg == arg)
            r->done = NULL;
}

void guest_fail_requests(struct keeper *k, const char *why)
{
    while (k->requests)
        request_fail(k, ERROR_UNAVAILABLE, why);
}

void guest_stretch_deadlines(struct keeper *k, uint64_t by_ms)
{
    struct guest_request *r;
    LL_FOREACH(k->requests, r)
        r->deadline_ms += by_ms;
    timer_arm(k);
}

/* ---- messages ------------------------------------------------------------------------------- */

union message {
    struct wire_hello hello;
    struct wire_reply reply;
    struct wire_credit credit;
    struct wire_exited exited;
    struct wire_guest_log guest_log;
    struct wire_ctr_usage ctr_usage;
    struct wire_halted halted;
};

static void on_hello(struct keeper *k, struct stream *s, const union message *m)
{
    if (k->state == WIRE_VM_BOOTING && !k->waking)
        vm_greeted(k);
    else
        vm_break(k, "the guest's agent was started anew");
}

static void on_reply(struct keeper *k, struct stream *s, const union message *m)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *text = guest_text(m->reply.message);
    struct wire_reply reply = m->reply;
    struct guest_request *r;

    LL_SEARCH_SCALAR(k->requests, r, seq, reply.seq);
    if (!r)
        return; /* its deadline has passed */
    LL_DELETE(k->requests, r);
    k->request_count--;
    timer_arm(k);
    reply.message = text;
    wire_reply_check(&reply, &error);
    request_finish(k, r, error);
}

static void on_credit(struct keeper *k, struct stream *s, const union message *m)
{
    if (m->credit.channel == WIRE_STDIN)
        stream_credit(s, m->credit.bytes);
}

static void on_exited(struct keeper *k, struct stream *s, const union message *m)
{
    if (s->ctr)
        container_exited(s->ctr, &m->exited);
    else
        exec_exited(s->exec, &m->exited);
}

static void on_guest_log(struct keeper *k, struct stream *s, const union message *m)
{
    CLEANUP_FREE char *line = guest_text(m->guest_log.line);
    if (k->guest_lines++ < GUEST_LINES_MAX)
        log_write(m->guest_log.level < LOG_LEVEL_INFO ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
                  "guest: %s", line);
}

static void on_ctr_usage(struct keeper *k, struct stream *s, const union message *m)
{
    if (s->ctr)
        usage_came(s->ctr, &m->ctr_usage);
}

static void on_halted(struct keeper *k, struct stream *s, const union message *m)
{
    vm_halted(k);
}

static const struct handler {
    unsigned type;
    bool of_stream; /* names a process; ignored when that is not known any more */
    void (*handle)(struct keeper *k, struct stream *s, const union message *m);
} handlers[] = {
    {WIRE_HELLO, false, on_hello},         {WIRE_REPLY, false, on_reply},
    {WIRE_CREDIT, true, on_credit},        {WIRE_EXITED, true, on_exited},
    {WIRE_GUEST_LOG, false, on_guest_log}, {WIRE_HALTED, false, on_halted},
    {WIRE_CTR_USAGE, true, on_ctr_usage},
};

static const struct handler *handler_of(unsigned type)
{
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
        if (handlers[i].type == type)
            return &handlers[i];
    return NULL;
}

static void message_came(struct keeper *k, const struct wire_frame *frame)
{
    CLEANUP_ERROR struct error *error = NULL;
    const struct handler *h = handler_of(frame->type);
    struct stream *s = h && h->of_stream ? stream_find(k, frame->stream) : NULL;
    union message m = {0};

    if (!h) {
        vm_break(k, "the guest sent a message that is not for a keeper");
        return;
    }
    if (h->of_stream && !s)
        return;
    if (wire_get(frame, &m, &error) < 0)
        vm_break(k, error_text(error));
    else
        h->handle(k, s, &m);
    wire_clear(frame->type, &m);
}

void guest_frame(struct keeper *k, const struct wire_frame *frame)
{
    bool data = frame->type == WIRE_STDOUT || frame->type == WIRE_STDERR;
    if (k->broken)
        return;
    if (!data) {
        message_came(k, frame);
        return;
    }
    struct stream *s = stream_find(k, frame->stream);
    if (s)
        stream_output(s, frame->type == WIRE_STDOUT ? OUT_STDOUT : OUT_STDERR, frame->payload,
                      frame->length);
}

/* ---- the connection ------------------------------------------------------------------------- */

static void link_frame(struct conn *conn, const struct wire_frame *frame, int fd, void *arg)
{
    guest_frame(arg, frame);
}

static void link_drained(struct conn *conn, void *arg)
{
    streams_resume_input(arg);
}

static void link_closed(struct conn *conn, const struct error *why, void *arg)
{
    struct keeper *k = arg;
    k->guest = NULL;
    vm_link_ended(k, why);
}

static const struct conn_ops link_ops = {link_frame, link_closed, link_drained};

void guest_connect(struct keeper *k, int fd, bool cloned)
{
    if (!k->request_timer)
        k->request_timer = timer_new(k->loop, requests_late, k);
    k->guest = conn_new(k->loop, fd, &link_ops, k);
    if (cloned)
        conn_resume(k->guest);
    else
        conn_send_hello(k->guest, "keeper");
}
