#include "hyper/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"

enum { QMP_READ_SIZE = 16 << 10 };

struct command {
    struct command *next;
    uint64_t id;
    char *name;
    uint64_t deadline_ms;
    qmp_done *done;
    void *arg;
};

struct qmp {
    struct loop *loop;
    int fd;
    const struct qmp_events *events;
    void *arg;
    struct watch *watch;
    struct timer *timer;
    struct buf in;
    struct buf out; /* text that waits for the socket */
    int out_fd;     /* goes with the first byte of out; -1: none */
    bool closed;    /* nothing is read or written any more */
    uint64_t last_id;
    size_t pending_count;
    struct command *pending; /* oldest first */
    struct command **pending_end;
    bool busy; /* a callback runs: qmp_free() is put off to its end */
    bool freed;
};

/* ---- messages ------------------------------------------------------------------------------- */

static int message_check(struct qmp_message *m, struct error **ret_error)
{
    const json_t *event = json_object_get(m->root, "event");
    const json_t *error = json_object_get(m->root, "error");

    m->id = (uint64_t)json_integer_value(json_object_get(m->root, "id"));
    if (json_is_object(json_object_get(m->root, "QMP"))) {
        m->kind = QMP_GREETING;
    } else if (event) {
        m->kind = QMP_EVENT;
        m->text = json_string_value(event);
        m->data = json_object_get(m->root, "data");
    } else if (error) {
        m->kind = QMP_ERROR;
        m->text = json_string_value(json_object_get(error, "desc"));
    } else if ((m->data = json_object_get(m->root, "return"))) {
        m->kind = QMP_RETURN;
    } else {
        return error_set(ret_error, ERROR_CORRUPT, 0, "a QMP message of no known kind");
    }
    if ((m->kind == QMP_EVENT || m->kind == QMP_ERROR) && !m->text)
        return error_set(ret_error, ERROR_CORRUPT, 0, "a QMP %s without its text",
                         event ? "event" : "error");
    return 0;
}

int qmp_message_parse(const char *line, size_t size, struct qmp_message *ret,
                      struct error **ret_error)
{
    json_error_t where;
    *ret = (struct qmp_message){.root = json_loadb(line, size, JSON_REJECT_DUPLICATES, &where)};
    if (!json_is_object(ret->root)) {
        qmp_message_done(ret);
        return error_set(ret_error, ERROR_CORRUPT, 0, "a QMP message is not a JSON object: %s",
                         where.text);
    }
    if (message_check(ret, ret_error) == 0)
        return 0;
    qmp_message_done(ret);
    return -1;
}

void qmp_message_done(struct qmp_message *m)
{
    json_decref(m->root);
    *m = (struct qmp_message){0};
}

/* ---- open commands -------------------------------------------------------------------------- */

static struct command *pending_take(struct qmp *qmp, uint64_t id)
{
    struct command **at = &qmp->pending;
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    struct command *c = *at;
    if (!c)
        return NULL;
    *at = c->next;
    if (!c->next)
        qmp->pending_end = at;
    qmp->pending_count--;
    return c;
}

static void command_finish(struct command *c, const json_t *value, const struct error *error)
{
    c->done(value, error, c->arg);
    free(c->name);
    free(c);
}

static void command_fail(struct command *c, enum error_kind kind, const char *why)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, kind, 0, "QEMU's '%s': %s", c->name, why);
    command_finish(c, NULL, error);
}

static void timer_arm(struct qmp *qmp)
{
    uint64_t now = loop_now_ms(qmp->loop);
    if (!qmp->pending)
        timer_unset(qmp->timer);
    else
        timer_set(qmp->timer,
                  qmp->pending->deadline_ms > now ? qmp->pending->deadline_ms - now : 0);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void qmp_destroy(struct qmp *qmp)
{
    watch_free(qmp->watch);
    timer_free(qmp->timer);
    if (qmp->fd >= 0)
        close(qmp->fd);
    if (qmp->out_fd >= 0)
        close(qmp->out_fd);
    buf_release(&qmp->in);
    buf_release(&qmp->out);
    free(qmp);
}

static void fail_pending(struct qmp *qmp, enum error_kind kind, const char *why)
{
    while (qmp->pending)
        command_fail(pending_take(qmp, qmp->pending->id), kind, why);
}

static void qmp_end(struct qmp *qmp, const struct error *why)
{
    if (qmp->closed)
        return;
    qmp->closed = true;
    watch_set(qmp->watch, 0);
    timer_unset(qmp->timer);
    fail_pending(qmp, ERROR_UNAVAILABLE, why ? why->message : "the connection ended");
    if (!qmp->freed)
        qmp->events->closed(why, qmp->arg);
}

static void qmp_break(struct qmp *qmp, int err, const char *what)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_CORRUPT, err, "the connection to QEMU's monitor: %s", what);
    qmp_end(qmp, error);
}

/* Callbacks may free the client; these two are round everything that calls them. */
static void qmp_enter(struct qmp *qmp)
{
    qmp->busy = true;
}

static void qmp_leave(struct qmp *qmp)
{
    qmp->busy = false;
    if (qmp->freed)
        qmp_destroy(qmp);
}

void qmp_free(struct qmp *qmp)
{
    if (!qmp || qmp->freed)
        return;
    qmp->freed = qmp->closed = true;
    watch_set(qmp->watch, 0);
    timer_unset(qmp->timer);
    fail_pending(qmp, ERROR_CANCELLED, "the VM has ended");
    if (!qmp->busy)
        qmp_destroy(qmp);
}

/* ---- writing -------------------------------------------------------------------------------- */

static ssize_t send_with_fd(int sock, const void *data, size_t size, int fd)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void qmp_flush(struct qmp *qmp)
{
    while (!qmp->closed && qmp->out.len) {
        ssize_t n = send_with_fd(qmp->fd, qmp->out.data, qmp->out.len, qmp->out_fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (qmp->out_fd >= 0)
            close(qmp->out_fd);
        qmp->out_fd = -1;
        /* Nobody reads it any more: the read side sees the end, and says so. */
        buf_consume(&qmp->out, n < 0 ? qmp->out.len : (size_t)n);
    }
    if (!qmp->out.len)
        buf_release(&qmp->out);
    if (!qmp->closed)
        watch_set(qmp->watch, WATCH_READ | (qmp->out.len ? WATCH_WRITE : 0));
}

static void put_command(struct qmp *qmp, const char *name, json_t *arguments, uint64_t id)
{
    json_t *root = json_pack("{s:s, s:o*, s:I}", "execute", name, "arguments", arguments, "id",
                             (json_int_t)id);
    char *text = json_dumps(root, JSON_COMPACT);
    buf_append_str(&qmp->out, text);
    buf_append_str(&qmp->out, "\n");
    free(text);
    json_decref(root);
}

void qmp_send(struct qmp *qmp, const char *command, json_t *arguments, int fd, qmp_done *done,
              void *arg)
{
    struct command *c = xcalloc(1, sizeof(*c));
    c->id = ++qmp->last_id;
    c->name = xstrdup(command);
    c->done = done;
    c->arg = arg;
    c->deadline_ms = loop_now_ms(qmp->loop) + QMP_DEADLINE_MS;
    if (qmp->closed || qmp->pending_count >= QMP_PENDING_MAX || (fd >= 0 && qmp->out.len)) {
        json_decref(arguments);
        command_fail(c, qmp->closed ? ERROR_UNAVAILABLE : ERROR_LIMIT,
                     qmp->closed ? "the connection has ended" : "too many commands at once");
        return;
    }
    if (fd >= 0)
        qmp->out_fd = dup(fd);
    put_command(qmp, command, arguments, c->id);
    *qmp->pending_end = c;
    qmp->pending_end = &c->next;
    qmp->pending_count++;
    timer_arm(qmp);
    qmp_flush(qmp);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void answer_came(struct qmp *qmp, const struct qmp_message *m)
{
    struct command *c = pending_take(qmp, m->id);
    if (!c)
        return; /* its deadline has passed, or it agrees to the capabilities */
    timer_arm(qmp);
    if (m->kind == QMP_RETURN)
        command_finish(c, m->data, NULL);
    else
        command_fail(c, ERROR_INTERNAL, m->text);
}

static void message_came(struct qmp *qmp, const struct qmp_message *m)
{
    if (m->kind == QMP_EVENT)
        qmp->events->event(m->text, m->data, qmp->arg);
    else if (m->kind == QMP_GREETING)
        qmp->events->event(QMP_EVENT_GREETING, NULL, qmp->arg);
    else
        answer_came(qmp, m);
}

static void line_came(struct qmp *qmp, const char *line, size_t size)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct qmp_message m;
    if (qmp_message_parse(line, size, &m, &error) < 0) {
        qmp_end(qmp, error);
        return;
    }
    message_came(qmp, &m);
    qmp_message_done(&m);
}

static void lines_take(struct qmp *qmp)
{
    const uint8_t *end;
    while (!qmp->closed && (end = memchr(qmp->in.data, '\n', qmp->in.len))) {
        size_t size = (size_t)(end - qmp->in.data);
        line_came(qmp, (const char *)qmp->in.data, size);
        buf_consume(&qmp->in, size + 1);
    }
    if (!qmp->in.len)
        buf_release(&qmp->in);
    if (qmp->in.len > QMP_LINE_MAX && !qmp->closed)
        qmp_break(qmp, 0, "a message is too long");
}

static void qmp_read(struct qmp *qmp)
{
    uint8_t *at = buf_reserve(&qmp->in, QMP_READ_SIZE);
    ssize_t n = recv(qmp->fd, at, QMP_READ_SIZE, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        qmp_end(qmp, NULL);
        return;
    }
    qmp->in.len += (size_t)n;
    lines_take(qmp);
}

static void socket_ready(int events, void *arg)
{
    struct qmp *qmp = arg;
    qmp_enter(qmp);
    if (events & WATCH_WRITE)
        qmp_flush(qmp);
    if (events & WATCH_READ && !qmp->closed)
        qmp_read(qmp);
    qmp_leave(qmp);
}

static void deadline_passed(void *arg)
{
    struct qmp *qmp = arg;
    uint64_t now = loop_now_ms(qmp->loop);
    qmp_enter(qmp);
    while (qmp->pending && qmp->pending->deadline_ms <= now)
        command_fail(pending_take(qmp, qmp->pending->id), ERROR_TIMEOUT,
                     "no answer before the deadline");
    if (!qmp->closed)
        timer_arm(qmp);
    qmp_leave(qmp);
}

struct qmp *qmp_new(struct loop *loop, int fd, bool greeted, const struct qmp_events *events,
                    void *arg)
{
    struct qmp *qmp = xcalloc(1, sizeof(*qmp));
    qmp->loop = loop;
    qmp->fd = fd;
    qmp->out_fd = -1;
    qmp->events = events;
    qmp->arg = arg;
    qmp->pending_end = &qmp->pending;
    qmp->timer = timer_new(loop, deadline_passed, qmp);
    qmp->watch = watch_new(loop, fd, WATCH_READ, socket_ready, qmp);
    if (!greeted)
        buf_append_str(&qmp->out, "{\"execute\":\"qmp_capabilities\",\"id\":0}\n");
    qmp_flush(qmp);
    return qmp;
}
