#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/container.h"
#include "keeper/exits.h"

struct exec *exec_find(struct keeper *k, const char *id)
{
    struct exec *e;
    DL_FOREACH(k->execs, e)
        if (str_eq(e->id, id))
            return e;
    return NULL;
}

void exec_free(struct exec *e)
{
    struct keeper *k = e->keeper;
    guest_cancel(k, e);
    stream_free(e->stream);
    ask_answer(k, &e->asks, NULL);
    DL_DELETE(k->execs, e);
    free(e->id);
    free(e->ctr);
    free(e->name);
    free(e->reason);
    free(e);
}

void exec_tell(struct exec *e)
{
    struct wire_exec_state state = {
        .exec = e->id, .ctr = e->ctr, .ended = !e->stream, .code = e->code, .reason = e->reason};
    if (!e->rehearsal && (e->running || !e->stream))
        control_send(e->keeper, WIRE_EXEC_STATE, &state);
}

/* ---- start ---------------------------------------------------------------------------------- */

static int exec_check(struct keeper *k, const struct wire_exec_start *m, const char **ret_name,
                      struct error **ret_error)
{
    struct container *c = container_find(k, m->ctr);
    struct exec *e;
    size_t count = 0;
    if (*m->ctr && !c)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not in this VM", m->ctr);
    if (c && c->state != CONTAINER_RUNNING)
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' does not run", c->name);
    if (exec_find(k, m->exec))
        return error_set(ret_error, ERROR_EXISTS, 0, "exec '%s' was started already", m->exec);
    DL_FOREACH(k->execs, e)
        count += e->stream != NULL;
    if (count >= EXECS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "more than %d execs in one VM", EXECS_MAX);
    *ret_name = c ? c->name : "";
    return 0;
}

static struct exec *exec_new(struct keeper *k, const struct wire_exec_start *m, const char *name)
{
    struct exec *e = xcalloc(1, sizeof(*e));
    e->keeper = k;
    e->id = xstrdup(m->exec);
    e->ctr = xstrdup(m->ctr);
    e->name = xstrdup(name);
    e->reason = xstrdup("");
    e->stream = stream_new(k, m->flags);
    e->stream->exec = e;
    e->stream->was_attached = true; /* what a detached exec writes is not kept */
    DL_APPEND(k->execs, e);
    return e;
}

/* Tells its clients, with the place that it is of. */
static void exec_remark(struct exec *e, const char *what)
{
    CLEANUP_FREE char *line =
        *e->ctr ? str_printf("container '%s': %s", e->name, what) : str_printf("guest: %s", what);
    stream_remark(e->stream, line);
}

static void exec_failed(struct exec *e, const struct error *error)
{
    CLEANUP_FREE char *place =
        *e->ctr ? str_printf("container '%s'", e->name) : xstrdup("the guest");
    CLEANUP_FREE char *text =
        str_printf("exec in %s: cannot be started: %s", place, error->message);
    CLEANUP_ERROR struct error *wrapped = NULL;
    stream_remark(e->stream, text);
    error_set(&wrapped, error->kind, 0, "%s", text);
    ask_answer(e->keeper, &e->asks, wrapped);
    struct keeper *rehearsing = e->rehearsal ? e->keeper : NULL;
    exec_free(e);
    if (rehearsing)
        rehearsal_go_on(rehearsing, wrapped);
}

static void exec_is_running(struct exec *e)
{
    e->running = true;
    e->started_ns = realtime_ns();
    exec_tell(e);
    ask_answer(e->keeper, &e->asks, NULL);
}

static void started(struct keeper *k, const struct error *error, void *arg)
{
    struct exec *e = arg;
    if (e->running || !e->stream)
        return; /* it has even ended since */
    if (error)
        exec_failed(e, error);
    else
        exec_is_running(e);
}

static void exec_launch(struct exec *e, const struct wire_exec_start *m)
{
    struct keeper *k = e->keeper;
    uint32_t id = e->stream->id;
    struct wire_exec exec = {.ctr = m->ctr,
                             .argv = m->argv,
                             .env = m->env,
                             .cwd = m->cwd,
                             .user = m->user,
                             .flags = m->flags,
                             .rows = m->rows,
                             .cols = m->cols};
    guest_request(k, WIRE_EXEC, id, &exec, started, e);
    struct stream *s = stream_find(k, id);
    if (s) /* it has not failed at once */
        stream_open(s);
}

int exec_start(struct keeper *k, const struct wire_exec_start *m, int fd, struct error **ret_error)
{
    struct client *client = NULL;
    struct error *error = NULL;
    const char *name = "";
    if (fd >= 0)
        client = client_new(k, &(struct client_spec){.fd = fd,
                                                     .framing = (enum wire_framing)m->framing,
                                                     .detachable = m->flags & WIRE_TTY,
                                                     .early = m->early});
    if (vm_check_usable(k, &error) < 0 || exec_check(k, m, &name, &error) < 0) {
        if (client)
            client_refuse(client, error->message);
        return error_move(ret_error, &error);
    }
    struct exec *e = exec_new(k, m, name);
    ask_add(k, &e->asks, m->seq, NULL);
    if (client)
        client_join(client, e->stream, NULL);
    exec_launch(e, m);
    return 0;
}

int exec_rehearse(struct keeper *k, const struct wire_exec_start *m, struct error **ret_error)
{
    const char *name;
    if (exec_check(k, m, &name, ret_error) < 0)
        return -1;
    struct exec *e = exec_new(k, m, name);
    e->rehearsal = true;
    exec_launch(e, m);
    return 0;
}

/* ---- end ------------------------------------------------------------------------------------ */

/* Forgets the oldest of those that have ended. */
static void execs_trim(struct keeper *k)
{
    struct exec *e, *oldest = NULL;
    size_t count = 0;
    DL_FOREACH(k->execs, e) {
        if (e->stream)
            continue;
        count++;
        if (!oldest)
            oldest = e;
    }
    if (count > EXECS_REMEMBERED)
        exec_free(oldest);
}

/* Journal, then huskd, then the clients. */
static void exec_end(struct exec *e)
{
    struct keeper *k = e->keeper;
    CLEANUP_ERROR struct error *error = NULL;
    struct stream *s = take(e->stream);
    struct exit_record record = {.ctr = e->ctr,
                                 .exec = e->id,
                                 .code = e->code,
                                 .reason = e->reason,
                                 .started_ns = e->started_ns,
                                 .finished_ns = realtime_ns()};
    if (!e->rehearsal && exits_append(k->exits_fd, &record, &error) < 0)
        log_error("%s", error_text(error));
    exec_tell(e);
    stream_free(s);
    if (e->rehearsal) {
        exec_free(e);
        rehearsal_go_on(k, NULL);
    } else {
        execs_trim(k);
    }
}

void exec_exited(struct exec *e, const struct wire_exited *m)
{
    free(e->reason);
    e->reason = guest_text(m->reason);
    e->code = m->code & 0xff;
    if (*m->reason)
        exec_remark(e, e->reason); /* its program could not be run: it never was running */
    else if (!e->running)
        exec_is_running(e);
    struct ask *asks = take(e->asks);
    struct keeper *k = e->keeper;
    exec_end(e);
    ask_answer(k, &asks, NULL); /* after the state, which has the reason */
}

void execs_lost(struct keeper *k, const char *why)
{
    struct exec *e, *next;
    DL_FOREACH_SAFE(k->execs, e, next) {
        if (!e->stream)
            continue;
        exec_remark(e, why);
        str_set(&e->reason, why);
        e->code = CODE_VM_ENDED;
        exec_end(e);
    }
}
