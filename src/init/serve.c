#include "init/serve.h"

#include <sys/wait.h>

#include "base/str.h"
#include "init/boot.h"

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

static void serve_pod_setup(const struct wire_frame *frame, const void *message)
{
    const struct wire_pod_setup *m = message;
    clock_set_ns(m->time_ns);
    entropy_add(m->entropy.data, m->entropy.size);
    serve_reply(m->seq, NULL);
}

static void serve_power_off(const struct wire_frame *frame, const void *message)
{
    power_off();
}

static void serve_set_time(const struct wire_frame *frame, const void *message)
{
    clock_set_ns(((const struct wire_set_time *)message)->time_ns);
}

/* Handlers of messages that have fields, and of those that are bare bytes. */
static const struct {
    unsigned type;
    void (*serve)(const struct wire_frame *frame, const void *message);
} handlers[] = {
    {WIRE_POD_SETUP, serve_pod_setup},
    {WIRE_POWER_OFF, serve_power_off},
    {WIRE_SET_TIME, serve_set_time},
};

static void serve_frame(const struct wire_frame *frame)
{
    union {
        struct wire_pod_setup pod_setup;
        struct wire_ctr_start ctr_start;
        struct wire_exec exec;
        struct wire_signal signal;
        uint8_t any[512];
    } message;
    CLEANUP_ERROR struct error *error = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (handlers[i].type != frame->type)
            continue;
        if (wire_get(frame, &message, &error) == 0)
            handlers[i].serve(frame, &message);
        else
            serve_say(3, error->message);
        wire_clear(frame->type, &message);
    }
}

static void serve_greeted(void)
{
}

const struct port_ops serve_ops = {serve_frame, serve_greeted};
