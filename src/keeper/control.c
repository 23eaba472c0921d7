/* Messages of huskd: one row each in the table below. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/container.h"

/* ---- sending -------------------------------------------------------------------------------- */

void control_send(struct keeper *k, unsigned type, const void *message)
{
    if (k->control)
        conn_send(k->control, type, 0, message);
}

void control_reply(struct keeper *k, uint32_t seq, const struct error *error)
{
    struct wire_reply reply = wire_reply_from(seq, error);
    control_send(k, WIRE_REPLY, &reply);
}

void control_reply_value(struct keeper *k, uint32_t seq, uint64_t value)
{
    struct wire_reply reply = wire_reply_from(seq, NULL);
    reply.value = value;
    control_send(k, WIRE_REPLY, &reply);
}

void mark_add(char ***marks, const char *name)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    strv_push_take(marks, str_printf("%s=%lld%09ld", name, (long long)now.tv_sec, now.tv_nsec));
}

void marks_tell(struct keeper *k, const char *ctr, char ***marks)
{
    CLEANUP_STRV char **told = take(*marks);
    if (told)
        control_send(k, WIRE_TIMING,
                     &(struct wire_timing){.ctr = ctr, .marks = (const char *const *)told});
}

void control_event(struct keeper *k, unsigned level, const char *reason, const char *message)
{
    struct wire_vm_event event = {.level = level, .reason = reason, .message = message};
    log_write((enum log_level)level, "%s", message);
    control_send(k, WIRE_VM_EVENT, &event);
}

/* ---- the messages --------------------------------------------------------------------------- */

union message {
    uint32_t seq; /* the first field of each request */
    struct wire_hello hello;
    struct wire_vm_boot vm_boot;
    struct wire_pod_place pod_place;
    struct wire_pod_leave pod_leave;
    struct wire_run run;
    struct wire_stop stop;
    struct wire_kill kill;
    struct wire_drop drop;
    struct wire_attach attach;
    struct wire_exec_start exec_start;
    struct wire_tty_size tty_size;
    struct wire_vm_pause vm_pause;
    struct wire_vm_resume vm_resume;
    struct wire_vm_off vm_off;
    struct wire_snapshot snapshot;
    struct wire_dismiss dismiss;
    struct wire_vm_freeze vm_freeze;
    struct wire_vm_rehearse vm_rehearse;
    struct wire_layer_freeze layer_freeze;
    struct wire_layer_thaw layer_thaw;
    struct wire_usage usage;
};

/* One message that is being handled. A handler that returns -1 has its error replied; one that
 * returns 0 has replied, or will. */
struct call {
    struct keeper *k;
    const struct wire_frame *frame;
    const union message *m;
    int fd; /* what came with it, -1 if nothing; a handler that keeps it puts -1 here */
};

static int on_hello(struct call *c, struct error **ret_error)
{
    return 0; /* checked by the connection */
}

static int on_vm_boot(struct call *c, struct error **ret_error)
{
    return vm_boot(c->k, &c->m->vm_boot, c->fd, ret_error);
}

static int on_pod_place(struct call *c, struct error **ret_error)
{
    return vm_place(c->k, &c->m->pod_place, ret_error);
}

static int on_pod_leave(struct call *c, struct error **ret_error)
{
    return vm_leave(c->k, c->m->pod_leave.seq, ret_error);
}

static int on_run(struct call *c, struct error **ret_error)
{
    return container_run(c->k, c->frame, &c->m->run, &c->fd, ret_error);
}

static int on_stop(struct call *c, struct error **ret_error)
{
    return container_stop(c->k, &c->m->stop, ret_error);
}

static int on_drop(struct call *c, struct error **ret_error)
{
    return container_drop(c->k, &c->m->drop, ret_error);
}

/* The stream of a container's first process, or of an exec. */
static int stream_of(struct keeper *k, const char *ctr, const char *exec, struct stream **ret,
                     struct error **ret_error)
{
    struct container *c = *exec ? NULL : container_find(k, ctr);
    struct exec *e = *exec ? exec_find(k, exec) : NULL;
    if (!c && !e)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "%s '%s' is not in this VM",
                         *exec ? "exec" : "container", *exec ? exec : ctr);
    struct stream *s = c ? c->stream : e->stream;
    if (!s || s->ended)
        return error_set(ret_error, ERROR_STATE, 0, "%s '%s' does not run",
                         *exec ? "exec" : "container", *exec ? exec : c->name);
    *ret = s;
    return 0;
}

static void guest_answered(struct keeper *k, const struct error *error, void *arg)
{
    struct ask *asks = arg;
    ask_answer(k, &asks, error);
}

/* A request that only the guest can answer. */
static int guest_pass(struct keeper *k, uint32_t seq, unsigned type, uint32_t stream, void *message,
                      struct error **ret_error)
{
    struct ask *asks = NULL;
    if (ask_add(k, &asks, seq, ret_error) < 0)
        return -1;
    guest_request(k, type, stream, message, guest_answered, asks);
    return 0;
}

static int on_kill(struct call *c, struct error **ret_error)
{
    const struct wire_kill *m = &c->m->kill;
    struct stream *s;
    if (vm_check_usable(c->k, ret_error) < 0 || stream_of(c->k, m->ctr, m->exec, &s, ret_error) < 0)
        return -1;
    struct wire_signal signal = {.signal = m->signal, .all = m->all};
    if (guest_pass(c->k, m->seq, WIRE_SIGNAL, s->id, &signal, ret_error) < 0)
        return -1;
    if (m->signal == SIGKILL && s->ctr)
        stream_killed(s);
    return 0;
}

static int layer_hold(struct keeper *k, const char *ctr, bool held, struct error **ret_error)
{
    struct container *c = container_find(k, ctr);
    if (vm_check_usable(k, ret_error) < 0)
        return -1;
    if (!c)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not in this VM", ctr);
    c->layer_held = held;
    return 0;
}

/* Whoever asked for it is gone: nobody need wait for the end of its time. */
static void layers_let_go(struct keeper *k)
{
    struct container *c;
    DL_FOREACH(k->containers, c) {
        struct wire_layer_thaw message = {.ctr = c->id};
        if (c->layer_held)
            guest_request(k, WIRE_LAYER_THAW, 0, &message, NULL, NULL);
        c->layer_held = false;
    }
}

/* What has ended writes no more; but the guest is about to unmount its layer, and that does. */
static int on_layer_freeze(struct call *c, struct error **ret_error)
{
    struct wire_layer_freeze message = c->m->layer_freeze;
    struct container *ctr = container_find(c->k, message.ctr);
    if (vm_check_usable(c->k, ret_error) < 0)
        return -1;
    if (ctr && ctr->state == CONTAINER_ENDED)
        return container_clear_ask(ctr, message.seq, ret_error);
    if (layer_hold(c->k, message.ctr, true, ret_error) < 0)
        return -1;
    return guest_pass(c->k, message.seq, WIRE_LAYER_FREEZE, 0, &message, ret_error);
}

static int on_usage(struct call *c, struct error **ret_error)
{
    return usage_ask(c->k, c->m->usage.seq, ret_error);
}

static int on_layer_thaw(struct call *c, struct error **ret_error)
{
    struct wire_layer_thaw message = c->m->layer_thaw;
    if (layer_hold(c->k, message.ctr, false, ret_error) < 0)
        return -1;
    return guest_pass(c->k, message.seq, WIRE_LAYER_THAW, 0, &message, ret_error);
}

static int on_attach(struct call *c, struct error **ret_error)
{
    const struct wire_attach *m = &c->m->attach;
    struct client_spec spec = {.fd = c->fd,
                               .framing = (enum wire_framing)m->framing,
                               .detachable = m->detachable,
                               .early = m->early};
    if (c->fd < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "an attach without a socket");
    c->fd = -1;
    if (container_attach(c->k, m->ctr, &spec, ret_error) < 0)
        return -1;
    control_reply(c->k, m->seq, NULL);
    return 0;
}

static int on_exec_start(struct call *c, struct error **ret_error)
{
    int fd = c->fd;
    c->fd = -1;
    return exec_start(c->k, &c->m->exec_start, fd, ret_error);
}

/* No request: who resizes a process that is gone need not know. */
static int on_tty_size(struct call *c, struct error **ret_error)
{
    const struct wire_tty_size *m = &c->m->tty_size;
    struct wire_resize resize = {.rows = m->rows, .cols = m->cols};
    struct stream *s;
    if (stream_of(c->k, m->ctr, m->exec, &s, NULL) == 0)
        guest_send(c->k, WIRE_RESIZE, s->id, &resize);
    return 0;
}

static int on_vm_pause(struct call *c, struct error **ret_error)
{
    return vm_pause(c->k, c->m->vm_pause.seq, true, ret_error);
}

static int on_vm_resume(struct call *c, struct error **ret_error)
{
    return vm_pause(c->k, c->m->vm_resume.seq, false, ret_error);
}

static int on_vm_off(struct call *c, struct error **ret_error)
{
    return vm_off(c->k, c->m->vm_off.seq, c->m->vm_off.grace_ms, ret_error);
}

static int on_vm_freeze(struct call *c, struct error **ret_error)
{
    return template_freeze(c->k, &c->m->vm_freeze, ret_error);
}

static int on_vm_rehearse(struct call *c, struct error **ret_error)
{
    return rehearsal_begin(c->k, &c->m->vm_rehearse, ret_error);
}

static int on_snapshot(struct call *call, struct error **ret_error)
{
    struct keeper *k = call->k;
    struct container *c;
    struct exec *e;
    vm_tell(k);
    DL_FOREACH(k->containers, c)
        container_tell(c);
    DL_FOREACH(k->execs, e)
        exec_tell(e);
    control_reply(k, call->m->snapshot.seq, NULL);
    return 0;
}

static void linger_over(void *arg)
{
    keeper_stop(arg);
}

/* Clients that still read what their process wrote get the time that it takes them. */
static int on_dismiss(struct call *c, struct error **ret_error)
{
    struct keeper *k = c->k;
    if (k->asked && k->state != WIRE_VM_GONE) {
        log_warning("dismissed while the VM runs: it goes on");
        return 0;
    }
    k->dismissed = true;
    watch_free(take(k->listener_watch));
    close(k->listener);
    k->listener = -1;
    k->linger = timer_new(k->loop, linger_over, k);
    timer_set(k->linger, LINGER_DEADLINE_MS);
    keeper_check_end(k);
    return 0;
}

static const struct handler {
    unsigned type;
    bool request; /* has a seq, and is answered */
    int (*handle)(struct call *call, struct error **ret_error);
} handlers[] = {
    {WIRE_HELLO, false, on_hello},
    {WIRE_VM_BOOT, true, on_vm_boot},
    {WIRE_POD_PLACE, true, on_pod_place},
    {WIRE_POD_LEAVE, true, on_pod_leave},
    {WIRE_RUN, true, on_run},
    {WIRE_STOP, true, on_stop},
    {WIRE_KILL, true, on_kill},
    {WIRE_DROP, true, on_drop},
    {WIRE_ATTACH, true, on_attach},
    {WIRE_EXEC_START, true, on_exec_start},
    {WIRE_TTY_SIZE, false, on_tty_size},
    {WIRE_VM_PAUSE, true, on_vm_pause},
    {WIRE_VM_RESUME, true, on_vm_resume},
    {WIRE_VM_OFF, true, on_vm_off},
    {WIRE_VM_FREEZE, true, on_vm_freeze},
    {WIRE_VM_REHEARSE, true, on_vm_rehearse},
    {WIRE_LAYER_FREEZE, true, on_layer_freeze},
    {WIRE_LAYER_THAW, true, on_layer_thaw},
    {WIRE_USAGE, true, on_usage},
    {WIRE_SNAPSHOT, true, on_snapshot},
    {WIRE_DISMISS, false, on_dismiss},
};

static const struct handler *handler_of(unsigned type)
{
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
        if (handlers[i].type == type)
            return &handlers[i];
    return NULL;
}

/* ---- the connection ------------------------------------------------------------------------- */

static void control_frame(struct conn *conn, const struct wire_frame *frame, int fd, void *arg)
{
    struct keeper *k = arg;
    CLEANUP_ERROR struct error *error = NULL;
    const struct handler *h = handler_of(frame->type);
    union message m = {0};
    struct call call = {.k = k, .frame = frame, .m = &m, .fd = fd};

    if (conn != k->control || !h) {
        if (!h)
            log_warning("huskd sent message %u, which is not known", frame->type);
    } else if (wire_get(frame, &m, &error) < 0) {
        log_error("huskd: %s", error_text(error));
        conn_close(conn, false);
    } else if (h->handle(&call, &error) < 0 && h->request) {
        control_reply(k, m.seq, error);
    }
    if (h)
        wire_clear(frame->type, &m);
    if (call.fd >= 0)
        close(call.fd);
}

static void control_closed(struct conn *conn, const struct error *why, void *arg)
{
    struct keeper *k = arg;
    if (why)
        log_warning("the connection to huskd: %s", error_text(why));
    if (conn != k->control)
        return;
    k->control = NULL;
    layers_let_go(k);
    /* A template that is being made is of no use to the next huskd, nor is a zygote. */
    bool useless = k->mode == WIRE_BOOT_TEMPLATE || k->mode == WIRE_BOOT_ZYGOTE;
    if (!k->asked || k->stopping) {
        loop_stop(k->loop);
    } else if (useless) {
        k->dismissed = true;
        vm_break(k, "huskd has ended");
        keeper_check_end(k);
    }
}

static const struct conn_ops control_ops = {.frame = control_frame, .closed = control_closed};

/* Only who could kill us anyway may rule us. */
static bool peer_is_allowed(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    return peer.uid == 0 || peer.uid == getuid();
}

static void control_accept(int events, void *arg)
{
    struct keeper *k = arg;
    int fd = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!peer_is_allowed(fd)) {
        log_warning("a connection of another user was refused");
        close(fd);
        return;
    }
    if (k->control) { /* huskd has been started again */
        conn_close(k->control, false);
        layers_let_go(k);
    }
    timer_unset(k->orphan);
    k->connection++;
    k->control = conn_new(k->loop, fd, &control_ops, k);
    conn_send_hello(k->control, "keeper");
}

static void orphaned(void *arg)
{
    log_info("nobody has asked for a VM");
    keeper_stop(arg);
}

void control_listen(struct keeper *k)
{
    if (k->listener >= 0)
        k->listener_watch = watch_new(k->loop, k->listener, WATCH_READ, control_accept, k);
    k->orphan = timer_new(k->loop, orphaned, k);
    timer_set(k->orphan, ORPHAN_DEADLINE_MS);
}
