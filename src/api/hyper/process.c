/* Further processes in containers: /exec/create makes a session, /exec/start runs it and gives the
 * client's socket to the pod's keeper, /exitcode waits for its end. And /attach, which joins the
 * first process.
 *
 *     created ──start──> starting ──keeper──> running ──keeper──> ended ──time──> forgotten
 *
 * Sessions are in memory only; those that run are told again by their keeper after a restart.
 */
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "api/hyper/hyper.h"
#include "base/log.h"

#define HIJACK_TYPE "application/vnd.docker.raw-stream"

enum { EXEC_ID_LEN = 15, CODE_NOT_EXECUTABLE = 126, CODE_NOT_FOUND = 127, CODE_UNKNOWN = 255 };

enum session_state { SESSION_CREATED, SESSION_STARTING, SESSION_RUNNING, SESSION_ENDED };

struct session_waiter {
    struct session_waiter *prev, *next;
    struct process_session *session;
    struct call *call;
    bool for_start; /* of a detached process: waits until it runs */
};

struct process_session {
    char id[EXEC_ID_LEN + 1];
    struct api *api;
    struct ref pod, ctr; /* ctr: none in the guest itself */
    char ctr_id[CTR_ID_LEN + 1];
    char vm[VM_ID_LEN + 1]; /* where it runs */
    char **argv, **env;
    char *cwd, *user;
    bool tty, stdin_open, raw;
    struct tty_size size;
    enum session_state state;
    uint32_t code;
    char *reason;
    uint64_t touched_ms; /* when it was made, or ended */
    bool asked;          /* a keeper owes an answer: must not be freed */
    bool lost;           /* nobody saw how it ended: `reason` is all that is known */
    bool not_run;        /* its program could not be run: `reason` says why */
    struct session_waiter *waiters;
    UT_hash_handle hh;
};

/* ---- the table ------------------------------------------------------------------------------ */

static void session_free(struct process_session *session)
{
    struct session_waiter *w;
    HASH_DEL(session->api->sessions, session);
    DL_FOREACH(session->waiters, w)
        w->session = NULL;
    strv_free(session->argv);
    strv_free(session->env);
    free(session->cwd);
    free(session->user);
    free(session->reason);
    free(session);
}

void sessions_free(struct api *api)
{
    struct process_session *session, *next;
    HASH_ITER(hh, api->sessions, session, next)
        session_free(session);
}

static struct process_session *session_find(const struct api *api, const char *id)
{
    struct process_session *session;
    HASH_FIND_STR(api->sessions, id, session);
    return session;
}

/* Forgets what is too old, and if the table is full the oldest that is of no use. */
static void sessions_expire(struct api *api)
{
    uint64_t now = loop_now_ms(api->loop);
    struct process_session *session, *next, *oldest = NULL;
    HASH_ITER(hh, api->sessions, session, next) {
        bool idle = session->state == SESSION_CREATED || session->state == SESSION_ENDED;
        if (!idle || session->asked || session->waiters)
            continue;
        if (now - session->touched_ms > PROCESS_KEEP_MS)
            session_free(session);
        else if (!oldest || session->touched_ms < oldest->touched_ms)
            oldest = session;
    }
    if (oldest && HASH_COUNT(api->sessions) >= PROCESSES_MAX)
        session_free(oldest);
}

static struct process_session *session_add(struct api *api, const char *id)
{
    struct process_session *session = xcalloc(1, sizeof(*session));
    session->api = api;
    session->touched_ms = loop_now_ms(api->loop);
    snprintf(session->id, sizeof(session->id), "%s", id);
    HASH_ADD_STR(api->sessions, id, session);
    return session;
}

static int session_new(struct api *api, struct process_session **ret, struct error **ret_error)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    char id[EXEC_ID_LEN + 1] = "exec-";
    sessions_expire(api);
    if (HASH_COUNT(api->sessions) >= PROCESSES_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d processes run by exec already",
                         PROCESSES_MAX);
    do {
        str_random(id + strlen("exec-"), EXEC_ID_LEN - strlen("exec-"), letters);
        id[EXEC_ID_LEN] = '\0';
    } while (session_find(api, id));
    *ret = session_add(api, id);
    return 0;
}

/* ---- who waits for a session ---------------------------------------------------------------- */

static void waiter_free(void *data)
{
    struct session_waiter *w = data;
    if (w->session)
        DL_DELETE(w->session->waiters, w);
    free(w);
}

static void session_wait(struct process_session *session, struct call *call, bool for_start)
{
    struct session_waiter *w = xcalloc(1, sizeof(*w));
    w->session = session;
    w->call = call;
    w->for_start = for_start;
    DL_APPEND(session->waiters, w);
    call->data = w;
    call->data_free = waiter_free;
}

static struct error *session_lost(const struct process_session *session)
{
    struct error *error = NULL;
    error_set(&error, ERROR_STATE, 0, "exec '%s': %s", session->id,
              str_or(session->reason, "its end was not seen"));
    return error;
}

/* Why a process could not be run: its exit code says the kind, as shells do. */
static struct error *session_not_run(const struct process_session *session)
{
    enum error_kind kind = session->code == CODE_NOT_FOUND        ? ERROR_NOT_FOUND
                           : session->code == CODE_NOT_EXECUTABLE ? ERROR_DENIED
                                                                  : ERROR_INVALID;
    const struct container *ctr = world_ctr(session->api->world, session->ctr);
    struct error *error = NULL;
    error_set(&error, kind, 0, "%s", session->reason);
    if (ctr)
        error_wrap(&error, "container '%s'", ctr->spec.name);
    return error;
}

static void waiters_answer(struct process_session *session, const struct error *error)
{
    struct session_waiter *w, *next;
    CLEANUP_ERROR struct error *lost = session->lost ? session_lost(session) : NULL;
    CLEANUP_ERROR struct error *not_run = session->not_run ? session_not_run(session) : NULL;
    if (!error)
        error = lost;
    DL_FOREACH_SAFE(session->waiters, w, next) {
        bool due =
            session->state == SESSION_ENDED || (w->for_start && session->state == SESSION_RUNNING);
        if (!due || http_replied(w->call->r))
            continue;
        if (error)
            http_reply_error(w->call->r, error);
        else if (w->for_start && not_run)
            http_reply_error(w->call->r, not_run);
        else if (w->for_start)
            call_json(w->call, 200, json_object());
        else
            call_json(w->call, 200, json_integer((json_int_t)session->code));
    }
}

static void session_end(struct process_session *session, uint32_t code, const char *reason,
                        const struct error *error)
{
    if (session->state == SESSION_ENDED)
        return;
    session->state = SESSION_ENDED;
    session->code = code;
    session->touched_ms = loop_now_ms(session->api->loop);
    str_set(&session->reason, reason);
    waiters_answer(session, error);
}

void api_process_state(const char *vm, const char *ctr, const char *id, bool ended, uint32_t code,
                       const char *reason, void *arg)
{
    struct api *api = arg;
    struct process_session *session = session_find(api, id);
    if (!session && (strlen(id) > EXEC_ID_LEN || HASH_COUNT(api->sessions) >= PROCESSES_MAX))
        return;
    if (!session) { /* begun by a former huskd */
        session = session_add(api, id);
        snprintf(session->ctr_id, sizeof(session->ctr_id), "%s", ctr);
    }
    const struct container *c = world_ctr_by_id(api->world, ctr);
    if (c) { /* others than before, if the world was loaded again */
        session->ctr = c->object.ref;
        session->pod = c->pod;
    }
    snprintf(session->vm, sizeof(session->vm), "%s", vm);
    if (ended) {
        session->not_run = session->state == SESSION_STARTING && !str_empty(reason);
        session_end(session, code, reason, NULL);
    } else if (session->state != SESSION_ENDED) {
        session->state = SESSION_RUNNING;
        waiters_answer(session, NULL);
    }
}

void api_vm_lost(const char *vm, void *arg)
{
    struct api *api = arg;
    struct process_session *session, *next;
    HASH_ITER(hh, api->sessions, session, next) {
        if (!str_eq(session->vm, vm) || session->state == SESSION_CREATED ||
            session->state == SESSION_ENDED)
            continue;
        session->lost = true;
        session_end(session, CODE_UNKNOWN, "its VM has ended", NULL);
    }
}

void session_exitcode(struct call *call, const char *id)
{
    struct process_session *session = session_find(call->api, id);
    struct error *error = NULL;
    if (!session) {
        error_set(&error, ERROR_NOT_FOUND, 0, "exec '%s' does not exist", id);
        call_fail(call, error);
    } else if (session->lost) {
        call_fail(call, session_lost(session));
    } else if (session->state == SESSION_CREATED) {
        error_set(&error, ERROR_STATE, 0, "exec '%s' was not started", id);
        call_fail(call, error);
    } else if (session->state == SESSION_ENDED) {
        call_json(call, 200, json_integer((json_int_t)session->code));
    } else {
        session_wait(session, call, false);
    }
}

/* ---- create --------------------------------------------------------------------------------- */

static int env_check(char **env, struct error **ret_error)
{
    STRV_FOREACH(entry, env)
        if (**entry == '=' || !strchr(*entry, '='))
            return error_set(ret_error, ERROR_INVALID, 0, "env: '%s' is not of the form NAME=VALUE",
                             *entry);
    return 0;
}

static int tty_size_read(struct call *call, struct tty_size *ret, struct error **ret_error)
{
    uint64_t rows = 0, cols = 0;
    if (call_number(call, "h", UINT16_MAX, 0, &rows, ret_error) < 0 ||
        call_number(call, "w", UINT16_MAX, 0, &cols, ret_error) < 0)
        return -1;
    *ret = (struct tty_size){(uint32_t)rows, (uint32_t)cols};
    return 0;
}

static int session_read(struct call *call, struct process_session *session,
                        struct error **ret_error)
{
    if (call_strings(call, "command", &session->argv, ret_error) < 0 ||
        call_strings(call, "env", &session->env, ret_error) < 0 ||
        env_check(session->env, ret_error) < 0 ||
        tty_size_read(call, &session->size, ret_error) < 0)
        return -1;
    if (!session->argv)
        return error_set(ret_error, ERROR_INVALID, 0, "command: there is nothing to run");
    session->cwd = xstrdup(call_query(call, "workdir"));
    session->user = xstrdup(call_query(call, "user"));
    session->tty = call_flag(call, "tty");
    session->stdin_open = call_flag(call, "stdin") || call_is_hyperctl(call);
    return 0;
}

/* What is asked of its processes would wait, and say nothing. */
static int pod_check_awake(const struct api *api, const struct pod *pod, struct error **ret_error)
{
    const struct vm *vm = world_vm(api->world, pod->vm);
    if (vm && vm->paused && pod->reason)
        return error_set(ret_error, ERROR_PAUSED, 0, "pod '%s' is paused: %s", pod->spec.id,
                         pod->reason);
    if (vm && vm->paused)
        return error_set(ret_error, ERROR_PAUSED, 0,
                         "pod '%s' is paused: 'husk unpause %s' lets it go on", pod->spec.id,
                         pod->spec.id);
    if (vm && vm->state == VM_ASSOCIATED && vm->effect)
        return error_set(ret_error, ERROR_BUSY, 0, "pod '%s' is being paused or unpaused",
                         pod->spec.id);
    return 0;
}

/* A process can be started in what runs; the refusal is a sentence. */
static int ctr_check_runs(const struct api *api, const struct container *ctr,
                          struct error **ret_error)
{
    if (ctr->state != CTR_RUNNING && ctr->state != CTR_STOPPING)
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' is not running but %s",
                         ctr->spec.name, ctr_status(ctr));
    if (!exec_has(api->exec, ctr))
        return error_set(ret_error, ERROR_STATE, 0, "container '%s': its VM is gone",
                         ctr->spec.name);
    return pod_check_awake(api, world_pod(api->world, ctr->pod), ret_error);
}

static void session_bind(struct process_session *session, const struct pod *pod,
                         const struct container *ctr)
{
    const struct vm *vm = world_vm(session->api->world, pod->vm);
    session->pod = pod->object.ref;
    session->ctr = ctr ? ctr->object.ref : REF_NONE;
    snprintf(session->ctr_id, sizeof(session->ctr_id), "%s", ctr ? ctr->id : "");
    snprintf(session->vm, sizeof(session->vm), "%s", vm ? vm->id : "");
}

void process_create(struct call *call)
{
    struct process_session *session = NULL;
    struct error *error = NULL;
    if (ctr_check_runs(call->api, call->ctr, &error) < 0 ||
        session_new(call->api, &session, &error) < 0 || session_read(call, session, &error) < 0) {
        if (session)
            session_free(session);
        call_fail(call, error);
        return;
    }
    session_bind(session, world_pod(call->api->world, call->ctr->pod), call->ctr);
    call_json(call, 201, json_string(session->id));
}

/* ---- start ---------------------------------------------------------------------------------- */

static void session_started(const struct error *error, uint64_t value, void *arg)
{
    struct process_session *session = arg;
    session->asked = false;
    if (error) {
        log_debug("%s: %s", session->id, error_text(error));
        session_end(session, CODE_UNKNOWN, error_text(error), error);
    } else if (session->state == SESSION_STARTING) {
        session->state = SESSION_RUNNING;
        waiters_answer(session, NULL);
    }
}

static void session_start(struct process_session *session, int fd, const void *early, size_t size)
{
    struct exec_process process = {
        .id = session->id,
        .pod = session->pod,
        .ctr = session->ctr,
        .argv = (const char *const *)session->argv,
        .env = (const char *const *)session->env,
        .cwd = session->cwd,
        .user = session->user,
        .tty = session->tty,
        .stdin_open = session->stdin_open && fd >= 0,
        .raw = session->raw,
        .rows = session->size.rows,
        .cols = session->size.cols,
    };
    session->asked = true;
    exec_start(session->api->exec, &process, fd, early, size, session_started, session);
}

static void session_hijacked(int fd, const void *early, size_t size, void *arg)
{
    struct process_session *session = arg;
    session->asked = false;
    if (fd >= 0)
        session_start(session, fd, early, size);
    else
        session_end(session, CODE_UNKNOWN, "its client has left", NULL);
}

static int hijack_check(const struct call *call, struct error **ret_error)
{
    const char *upgrade = http_header(call->r, "Upgrade");
    if (upgrade && strcasecmp(upgrade, "tcp") == 0)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "%s needs the headers 'Connection: Upgrade' and 'Upgrade: tcp'",
                     http_path(call->r));
}

static void session_hijack(struct call *call, struct process_session *session)
{
    session->state = SESSION_STARTING;
    session->asked = true; /* until the socket is ours */
    http_hijack(call->r, HIJACK_TYPE, session_hijacked, session);
}

/* The session that the query names, of that container. */
static int session_named(const struct call *call, struct process_session **ret,
                         struct error **ret_error)
{
    const char *id = call_query(call, "exec");
    if (!id)
        return error_set(ret_error, ERROR_INVALID, 0, "'exec' is missing in the query of %s",
                         http_path(call->r));
    *ret = session_find(call->api, id);
    if (!*ret || !str_eq((*ret)->ctr_id, call->ctr->id))
        return error_set(ret_error, ERROR_NOT_FOUND, 0,
                         "exec '%s' of container '%s' does not exist", id, call->ctr->spec.name);
    return 0;
}

void process_start(struct call *call)
{
    bool detached = call_flag(call, "detach");
    struct process_session *session;
    struct error *error = NULL;
    if (session_named(call, &session, &error) == 0 && session->state != SESSION_CREATED)
        error_set(&error, ERROR_STATE, 0, "exec '%s' was started before", session->id);
    if (!error && ctr_check_runs(call->api, call->ctr, &error) == 0 && !detached)
        hijack_check(call, &error);
    if (error) {
        call_fail(call, error);
        return;
    }
    if (!detached) {
        session_hijack(call, session);
        return;
    }
    session->state = SESSION_STARTING;
    session_wait(session, call, true);
    session_start(session, -1, NULL, 0);
}

void process_in_guest(struct call *call)
{
    struct process_session *session = NULL;
    struct error *error = NULL;
    if (call->pod->state != POD_RUNNING)
        error_set(&error, ERROR_STATE, 0, "pod '%s' is not running but %s", call->pod->spec.id,
                  pod_status(call->api->world, call->pod));
    if (error || pod_check_awake(call->api, call->pod, &error) < 0 ||
        hijack_check(call, &error) < 0 || session_new(call->api, &session, &error) < 0 ||
        session_read(call, session, &error) < 0) {
        if (session)
            session_free(session);
        call_fail(call, error);
        return;
    }
    session_bind(session, call->pod, NULL);
    session->raw = true;
    session->stdin_open = true;
    session_hijack(call, session);
}

/* ---- signals and terminals ------------------------------------------------------------------ */

static void kill_answered(const struct error *error, uint64_t value, void *arg)
{
    struct session_waiter *w = arg;
    if (w->call && error)
        http_reply_error(w->call->r, error);
    else if (w->call)
        call_json(w->call, 200, json_object());
    if (w->call)
        w->call->data_free = NULL;
    free(w);
}

/* The client left before the keeper answered. */
static void kill_forget(void *data)
{
    struct session_waiter *w = data;
    w->call = NULL;
}

void process_kill(struct call *call)
{
    struct process_session *session;
    struct error *error = NULL;
    unsigned signal;
    if (session_named(call, &session, &error) < 0 || call_signal(call, &signal, &error) < 0) {
        call_fail(call, error);
        return;
    }
    struct session_waiter *w = xcalloc(1, sizeof(*w));
    w->call = call;
    call->data = w;
    call->data_free = kill_forget;
    exec_kill(call->api->exec, session->pod, session->ctr_id, session->id,
              signal ? signal : signal_from_name("TERM"), kill_answered, w);
}

void tty_resize(struct call *call)
{
    const char *id = call_query(call, "exec");
    struct error *error = NULL;
    struct tty_size size = {0};
    tty_size_read(call, &size, &error);
    if (!error && (!size.rows || !size.cols))
        error_set(&error, ERROR_INVALID, 0, "a terminal needs a height 'h' and a width 'w'");
    if (!error)
        exec_resize(call->api->exec, call->ctr->pod, call->ctr->id, str_or(id, ""), size.rows,
                    size.cols, &error);
    if (error)
        call_fail(call, error);
    else
        http_reply(call->r, 200, NULL, NULL);
}

/* ---- attach --------------------------------------------------------------------------------- */

struct attach {
    struct api *api;
    struct ref ctr;
    struct tty_size size;
};

/* An ended container whose keeper is gone, and that nobody is about to start. */
static bool attach_is_late(const struct api *api, const struct container *ctr)
{
    return ctr->state == CTR_ENDED && ctr->want != CTR_WANT_RUNNING && !exec_has(api->exec, ctr);
}

static void attach_taken(int fd, const void *early, size_t size, void *arg)
{
    struct attach *attach = arg;
    const struct container *ctr = world_ctr(attach->api->world, attach->ctr);
    if (fd >= 0 && ctr && attach_is_late(attach->api, ctr))
        log_replay(attach->api, ctr, fd);
    else if (fd >= 0)
        exec_attach(attach->api->exec, attach->ctr, attach->size, fd, early, size);
    free(attach);
}

void ctr_attach(struct call *call)
{
    const struct container *ctr = call->ctr;
    struct tty_size size = {0};
    struct error *error = NULL;
    if (hijack_check(call, &error) == 0 && tty_size_read(call, &size, &error) == 0 &&
        ctr->state == CTR_REMOVING)
        error_set(&error, ERROR_STATE, 0, "container '%s' is being removed", ctr->spec.name);
    if (!error && ctr_is_up(ctr))
        pod_check_awake(call->api, world_pod(call->api->world, ctr->pod), &error);
    else if (!error)
        exec_parked_check(call->api->exec, &error);
    if (error) {
        call_fail(call, error);
        return;
    }
    struct attach *attach = xcalloc(1, sizeof(*attach));
    attach->api = call->api;
    attach->ctr = ctr->object.ref;
    attach->size = size;
    http_hijack(call->r, HIJACK_TYPE, attach_taken, attach);
}
