#include "init/serve.h"

#include <syslog.h>

#include "base/str.h"
#include "init/boot.h"
#include "init/container.h"
#include "init/freeze.h"
#include "init/identity.h"
#include "init/input.h"
#include "init/layer.h"
#include "init/process.h"
#include "init/util.h"

void serve_say(int level, const char *line)
{
    struct wire_guest_log message = {.level = (uint32_t)level, .line = line};
    port_send(WIRE_GUEST_LOG, 0, &message);
}

void serve_reply(uint32_t seq, const struct error *error)
{
    struct wire_reply reply = wire_reply_from(seq, error);
    port_send(WIRE_REPLY, 0, &reply);
}

static void serve_freeze(const struct wire_frame *frame, const void *message)
{
    freeze_begin(message);
}

static void serve_prepare(const struct wire_frame *frame, const void *message)
{
    prepare_begin(message);
}

static void serve_awake(const struct wire_frame *frame, const void *message)
{
    freeze_end(message);
}

static void serve_pod_setup(const struct wire_frame *frame, const void *message)
{
    const struct wire_pod_setup *m = message;
    CLEANUP_ERROR struct error *error = NULL;

    if (freeze_refuses(m->seq))
        return;
    clock_set_ns(m->time_ns);
    if (m->entropy.size && entropy_add(m->entropy.data, m->entropy.size, &error) < 0)
        say(LOG_WARNING, "%s", error->message);
    pod_setup(m);
    serve_reply(m->seq, NULL);
}

static void serve_ctr_start(const struct wire_frame *frame, const void *message)
{
    uint32_t seq = ((const struct wire_ctr_start *)message)->seq;
    if (!freeze_refuses(seq))
        container_start(frame, seq);
}

static void serve_exec(const struct wire_frame *frame, const void *message)
{
    if (!freeze_refuses(((const struct wire_exec *)message)->seq))
        container_exec(frame, message);
}

static void serve_signal(const struct wire_frame *frame, const void *message)
{
    CLEANUP_ERROR struct error *error = NULL;
    const struct wire_signal *m = message;
    struct process *p = process_find(frame->stream);

    if (p)
        process_signal(p, (int)m->signal, m->all, &error);
    else
        error_set(&error, ERROR_NOT_FOUND, 0, "stream %u has no process", frame->stream);
    serve_reply(m->seq, error);
}

static void serve_resize(const struct wire_frame *frame, const void *message)
{
    const struct wire_resize *m = message;
    struct process *p = process_find(frame->stream);
    if (p && p->tty)
        process_resize(p, m->rows, m->cols);
}

static void serve_hang_up(const struct wire_frame *frame, const void *message)
{
    struct process *p = process_find(frame->stream);
    if (p)
        process_hang_up(p);
}

static void serve_ctr_clear(const struct wire_frame *frame, const void *message)
{
    container_clear(message);
}

static void serve_layer_freeze(const struct wire_frame *frame, const void *message)
{
    const struct wire_layer_freeze *m = message;
    layer_freeze(container_find(m->ctr), m);
}

static void serve_layer_thaw(const struct wire_frame *frame, const void *message)
{
    const struct wire_layer_thaw *m = message;
    layer_thaw(container_find(m->ctr), m);
}

static void serve_pod_clear(const struct wire_frame *frame, const void *message)
{
    pod_clear(message);
}

static void serve_usage(const struct wire_frame *frame, const void *message)
{
    uint32_t seq = ((const struct wire_usage *)message)->seq;
    if (freeze_refuses(seq))
        return;
    containers_tell_usage();
    serve_reply(seq, NULL);
}

/* To switch itself off takes the machine longer than all before: the keeper need not wait. */
static void say_halted(void)
{
    port_send(WIRE_HALTED, 0, &(struct wire_halted){});
    port_flush();
}

static void serve_power_off(const struct wire_frame *frame, const void *message)
{
    power_off(say_halted);
}

static void serve_set_clock(const struct wire_frame *frame, const void *message)
{
    const struct wire_set_clock *m = message;
    clock_set_ns(m->time_ns);
    serve_reply(m->seq, NULL);
}

/* Credit and input of a process that has just ended may cross its EXITED. */
static void serve_credit(const struct wire_frame *frame, const void *message)
{
    const struct wire_credit *m = message;
    struct process *p = process_find(frame->stream);
    if (p)
        process_credit(p, m->channel, m->bytes);
    else
        container_credit(frame->stream, m->channel, m->bytes);
}

static void serve_stdin(const struct wire_frame *frame, const void *message)
{
    struct process *p = process_find(frame->stream);
    if (p)
        input_take(p, frame->payload, frame->length);
}

static const struct {
    unsigned type;
    void (*serve)(const struct wire_frame *frame, const void *message);
} handlers[] = {
    {WIRE_STDIN, serve_stdin},
    {WIRE_CREDIT, serve_credit},
    {WIRE_POD_SETUP, serve_pod_setup},
    {WIRE_CTR_START, serve_ctr_start},
    {WIRE_EXEC, serve_exec},
    {WIRE_SIGNAL, serve_signal},
    {WIRE_RESIZE, serve_resize},
    {WIRE_HANG_UP, serve_hang_up},
    {WIRE_CTR_CLEAR, serve_ctr_clear},
    {WIRE_POD_CLEAR, serve_pod_clear},
    {WIRE_POWER_OFF, serve_power_off},
    {WIRE_SET_CLOCK, serve_set_clock},
    {WIRE_FREEZE, serve_freeze},
    {WIRE_PREPARE, serve_prepare},
    {WIRE_AWAKE, serve_awake},
    {WIRE_LAYER_FREEZE, serve_layer_freeze},
    {WIRE_LAYER_THAW, serve_layer_thaw},
    {WIRE_USAGE, serve_usage},
};

static void serve_frame(const struct wire_frame *frame)
{
    union {
        struct wire_credit credit;
        struct wire_pod_setup pod_setup;
        struct wire_ctr_start ctr_start;
        struct wire_exec exec;
        struct wire_signal signal;
        struct wire_resize resize;
        struct wire_ctr_clear ctr_clear;
        struct wire_pod_clear pod_clear;
        struct wire_set_clock set_clock;
        struct wire_freeze freeze;
        struct wire_prepare prepare;
        struct wire_awake awake;
        struct wire_layer_freeze layer_freeze;
        struct wire_layer_thaw layer_thaw;
        struct wire_usage usage;
    } message;
    CLEANUP_ERROR struct error *error = NULL;

    if (frame->type != WIRE_STDIN)
        input_over();
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (handlers[i].type != frame->type)
            continue;
        if (wire_get(frame, &message, &error) == 0)
            handlers[i].serve(frame, &message);
        else
            say(LOG_ERR, "%s", error->message);
        wire_clear(frame->type, &message);
        return;
    }
    say(LOG_WARNING, "message %u is not for a guest", frame->type);
}

static void serve_greeted(void)
{
    process_forget_credit();
    container_forget_credit();
}

const struct port_ops serve_ops = {serve_frame, input_over, serve_greeted};
