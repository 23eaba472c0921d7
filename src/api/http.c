/* libmicrohttpd inside our loop. It runs without threads and without a listening socket of its
 * own: its epoll descriptor is one of our watches, its next timeout one of our timers, and
 * accepted sockets are handed to it.
 *
 * A request that waits is "suspended": microhttpd takes it out of its epoll set and would not see
 * its client leave, so we watch the socket ourselves meanwhile.
 */
#include "api/http.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "api/jsonout.h"
#include "base/log.h"
#include "base/str.h"

enum { HTTP_ACCEPTS_A_TURN = 16 };

struct http {
    struct loop *loop;
    struct MHD_Daemon *daemon;
    struct watch *accept_watch;
    struct watch *daemon_watch;
    struct timer *timer;
    int listener;
    unsigned connections, connections_max;
    const struct http_ops *ops;
    void *arg;
    struct http_request *requests; /* all, a list */
    bool again;                    /* the library has work that its timeout does not tell */
};

struct http_request {
    struct http *http;
    struct http_request *prev, *next;
    struct MHD_Connection *connection;
    char *method, *path;
    void *data;
    struct buf body;
    size_t (*took)(struct http_request *, const void *, size_t, void *);

    struct MHD_Response *response; /* made, and not yet queued */
    unsigned status;
    ssize_t (*pull)(struct http_request *, char *, size_t, void *);
    void (*taken)(int, const void *, size_t, void *);
    void *taken_arg;

    struct watch *client; /* of the socket while suspended */
    bool ran, replied, suspended;
    bool left; /* the client has gone while we were suspended */
};

/* ---- suspended requests --------------------------------------------------------------------- */

/* A socket whose peer has closed it entirely refuses even no bytes; one whose peer has only
 * finished sending takes them. */
static bool client_is_gone(int fd)
{
    return send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

/* What is resumed or closed is seen to in the library's next run, which is ours to start. */
static void http_run_soon(struct http *http)
{
    http->again = true;
    timer_set(http->timer, 0);
}

static void request_resume(struct http_request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    watch_free(r->client);
    r->client = NULL;
    MHD_resume_connection(r->connection);
    http_run_soon(r->http);
}

static void client_ready(int events, void *arg)
{
    struct http_request *r = arg;
    int fd = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    bool left = n < 0 || client_is_gone(fd);
    /* Who has finished sending and is told an endless story has no way to leave but this one. */
    if (left || (n == 0 && r->pull)) {
        r->left = true;
        request_resume(r);
        return;
    }
    /* More input, or the end of input, which would be reported for ever. */
    watch_set(r->client, 0);
}

static void request_suspend(struct http_request *r)
{
    int fd = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    assert(!r->suspended);
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    r->client = watch_new(r->http->loop, fd, WATCH_READ, client_ready, r);
}

/* ---- requests ------------------------------------------------------------------------------- */

const char *http_method(const struct http_request *r)
{
    return r->method;
}

const char *http_path(const struct http_request *r)
{
    return r->path;
}

/* The values of one name of the query. */
struct values {
    const char *name;
    char ***all;
};

const char *http_query(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

static enum MHD_Result value_collect(void *arg, enum MHD_ValueKind kind, const char *name,
                                     const char *value)
{
    const struct values *values = arg;
    if (str_eq(name, values->name) && value)
        strv_push(values->all, value);
    return MHD_YES;
}

char **http_query_all(const struct http_request *r, const char *name)
{
    char **all = NULL;
    struct values values = {name, &all};
    MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, value_collect, &values);
    return all;
}

const char *http_header(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const struct buf *http_body(const struct http_request *r)
{
    return &r->body;
}

void http_set_data(struct http_request *r, void *data)
{
    r->data = data;
}

void *http_data(const struct http_request *r)
{
    return r->data;
}

bool http_replied(const struct http_request *r)
{
    return r->replied;
}

/* Input and output may pause for as long as they like from here on. */
static void request_set_patient(struct http_request *r)
{
    MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
}

void http_take_body(struct http_request *r, size_t (*took)(struct http_request *r, const void *data,
                                                           size_t size, void *arg))
{
    r->took = took;
    request_set_patient(r);
}

void http_more_body(struct http_request *r)
{
    request_resume(r);
}

static void body_collect(struct http_request *r, const char *data, size_t size)
{
    if (r->replied)
        return;
    if (r->body.len + size > HTTP_BODY_MAX) {
        CLEANUP_ERROR struct error *error = NULL;
        error_set(&error, ERROR_TOO_LARGE, 0, "the body of the request is larger than %d bytes",
                  HTTP_BODY_MAX);
        buf_release(&r->body);
        http_reply_error(r, error);
        return;
    }
    buf_append(&r->body, data, size);
}

/* Returns how many bytes were taken. */
static size_t body_take(struct http_request *r, const char *data, size_t size)
{
    if (!r->took || r->replied) {
        body_collect(r, data, size);
        return size;
    }
    size_t taken = r->took(r, data, size, r->http->arg);
    if (taken < size && !r->replied)
        request_suspend(r);
    return r->replied ? size : taken;
}

static enum MHD_Result response_queue(struct http_request *r)
{
    struct MHD_Response *response = take(r->response);
    enum MHD_Result result = MHD_queue_response(r->connection, r->status, response);
    MHD_destroy_response(response);
    return result;
}

static struct http_request *request_new(struct http *http, struct MHD_Connection *connection,
                                        const char *method, const char *path)
{
    struct http_request *r = xcalloc(1, sizeof(*r));
    r->http = http;
    r->connection = connection;
    r->method = xstrdup(method);
    r->path = xstrdup(path);
    DL_APPEND(http->requests, r);
    return r;
}

static void request_free(struct http_request *r)
{
    DL_DELETE(r->http->requests, r);
    watch_free(r->client);
    if (r->response)
        MHD_destroy_response(r->response);
    buf_release(&r->body);
    free(r->method);
    free(r->path);
    free(r);
}

/* Called again and again as microhttpd gets on with a request: with its head, with each piece of
 * its body, at its end, and after each time that it was resumed. */
static enum MHD_Result request_step(void *arg, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version, const char *upload,
                                    size_t *upload_size, void **data)
{
    struct http *http = arg;
    struct http_request *r = *data;
    if (!r) {
        *data = r = request_new(http, connection, method, url);
        http->ops->begin(r, http->arg);
        /* A reply at this point makes microhttpd close the connection instead of reading on. */
        return r->replied ? response_queue(r) : MHD_YES;
    }
    if (r->left)
        return MHD_NO;
    if (*upload_size) {
        *upload_size -= body_take(r, upload, *upload_size);
        return MHD_YES;
    }
    if (!r->ran && !r->replied) {
        r->ran = true;
        http->ops->run(r, http->arg);
    }
    if (r->replied && r->response)
        return response_queue(r);
    request_suspend(r);
    return MHD_YES;
}

static void request_completed(void *arg, struct MHD_Connection *connection, void **data,
                              enum MHD_RequestTerminationCode code)
{
    struct http *http = arg;
    struct http_request *r = *data;
    if (!r)
        return;
    *data = NULL;
    if (r->taken)
        r->taken(-1, NULL, 0, r->taken_arg);
    http->ops->gone(r, http->arg);
    request_free(r);
}

/* ---- replies -------------------------------------------------------------------------------- */

static void reply_ready(struct http_request *r, unsigned status, const char *type)
{
    assert(!r->replied && r->response);
    r->replied = true;
    r->status = status;
    if (type)
        MHD_add_response_header(r->response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    request_resume(r);
}

void http_reply(struct http_request *r, unsigned status, const char *type, struct buf *content)
{
    size_t size = content ? content->len : 0;
    CLEANUP_FREE char *text = size ? buf_take_str(content) : NULL;
    r->response = size ? MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE)
                       : MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (r->response)
        text = NULL;
    reply_ready(r, status, type);
}

static void error_put_json(struct buf *out, const struct error *error)
{
    json_open(out, NULL, '{');
    json_text(out, "kind", error_kind_name(error->kind));
    json_text(out, "message", error_text(error));
    json_close(out, '}');
    buf_append_str(out, "\n");
}

void http_reply_error(struct http_request *r, const struct error *error)
{
    CLEANUP_BUF struct buf out = {0};
    const char *accept = http_header(r, MHD_HTTP_HEADER_ACCEPT);
    bool json = accept && strstr(accept, "application/json");
    if (json)
        error_put_json(&out, error);
    else
        buf_printf(&out, "%s\n", error_text(error));
    http_reply(r, (unsigned)error_kind_http(error->kind),
               json ? "application/json" : "text/plain; charset=utf-8", &out);
}

static ssize_t stream_pull(void *arg, uint64_t position, char *to, size_t size)
{
    struct http_request *r = arg;
    if (r->left)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    ssize_t n = r->pull(r, to, size, r->http->arg);
    if (n > 0)
        return n;
    if (n < 0)
        return n == HTTP_PULL_BROKEN ? MHD_CONTENT_READER_END_WITH_ERROR
                                     : MHD_CONTENT_READER_END_OF_STREAM;
    request_suspend(r);
    return 0;
}

void http_reply_stream(struct http_request *r, unsigned status, const char *type,
                       ssize_t (*pull)(struct http_request *r, char *to, size_t size, void *arg))
{
    r->pull = pull;
    request_set_patient(r);
    r->response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_PULL_SIZE, stream_pull, r, NULL);
    reply_ready(r, status, type);
}

void http_wake(struct http_request *r)
{
    if (r->pull)
        request_resume(r);
}

/* The connection is ours now. microhttpd wants its descriptor back, to close it; the client's
 * stream lives on in our duplicate, since close() ends only the description's last descriptor,
 * and MHD_USE_TURBO keeps microhttpd from calling shutdown() before. */
static void connection_upgraded(void *arg, struct MHD_Connection *connection, void *data,
                                const char *extra, size_t extra_size, MHD_socket socket,
                                struct MHD_UpgradeResponseHandle *handle)
{
    struct http_request *r = arg;
    void (*taken)(int, const void *, size_t, void *) = take(r->taken);
    int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        log_error("duplicate a client's socket: %s", strerror(errno));
    taken(fd, extra, fd < 0 ? 0 : extra_size, r->taken_arg);
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
    http_run_soon(r->http);
}

void http_hijack(struct http_request *r, const char *type,
                 void (*taken)(int fd, const void *early, size_t size, void *taken_arg),
                 void *taken_arg)
{
    r->taken = taken;
    r->taken_arg = taken_arg;
    r->response = MHD_create_response_for_upgrade(connection_upgraded, r);
    MHD_add_response_header(r->response, MHD_HTTP_HEADER_UPGRADE, "tcp");
    reply_ready(r, MHD_HTTP_SWITCHING_PROTOCOLS, type);
}

/* ---- the server ----------------------------------------------------------------------------- */

static void http_run(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    http->again = false;
    MHD_run(http->daemon);
    if (http->again)
        timer_set(http->timer, 0);
    else if (MHD_get_timeout(http->daemon, &timeout_ms) == MHD_YES)
        timer_set(http->timer, timeout_ms);
}

static void http_ready(int events, void *arg)
{
    http_run(arg);
}

static void http_timeout(void *arg)
{
    http_run(arg);
}

static void refuse_connection(int fd)
{
    static const char busy[] =
        "huskd serves as many clients as its setting connections_max allows\n";
    /* Our end resets the connection, since the request was not read: the length tells the client
     * that it has all. */
    CLEANUP_FREE char *answer =
        str_printf("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                   "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                   sizeof(busy) - 1, busy);
    if (send(fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_debug("refuse a connection: %s", strerror(errno));
    close(fd);
}

static void connection_notify(void *arg, struct MHD_Connection *connection, void **data,
                              enum MHD_ConnectionNotificationCode code)
{
    struct http *http = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        http->connections++;
    else
        http->connections--;
}

static void accept_ready(int events, void *arg)
{
    struct http *http = arg;
    for (int i = 0; i < HTTP_ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof(address);
        int fd = accept4(http->listener, (struct sockaddr *)&address, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        if (http->connections >= http->connections_max)
            refuse_connection(fd);
        else if (MHD_add_connection(http->daemon, fd, (struct sockaddr *)&address, size) != MHD_YES)
            log_error("take a connection: %s", strerror(errno));
    }
    http_run(http);
}

__attribute__((format(printf, 2, 0))) static void library_log(void *arg, const char *format,
                                                              va_list ap)
{
    CLEANUP_FREE char *line = str_vprintf(format, ap);
    line[strcspn(line, "\n")] = '\0';
    log_debug("http: %s", line);
}

__attribute__((noreturn)) static void library_panic(void *arg, const char *file, unsigned line,
                                                    const char *reason)
{
    log_error("http: %s:%u: %s", file, line, reason ? reason : "panic");
    abort();
}

struct http *http_new(struct loop *loop, int listener, unsigned connections_max,
                      const struct http_ops *ops, void *arg, struct error **ret_error)
{
    struct http *http = xcalloc(1, sizeof(*http));
    *http = (struct http){.loop = loop,
                          .listener = listener,
                          .connections_max = connections_max,
                          .ops = ops,
                          .arg = arg};
    MHD_set_panic_func(library_panic, NULL);
    /* TURBO: see connection_upgraded(). */
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_UPGRADE | MHD_ALLOW_SUSPEND_RESUME |
            MHD_USE_TURBO | MHD_USE_ERROR_LOG,
        0, NULL, NULL, request_step, http, MHD_OPTION_EXTERNAL_LOGGER, library_log, NULL,
        MHD_OPTION_CONNECTION_LIMIT, connections_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_MEMORY_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_S,
        MHD_OPTION_NOTIFY_COMPLETED, request_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        connection_notify, http, MHD_OPTION_END);
    if (!http->daemon) {
        free(http);
        error_set(ret_error, ERROR_INTERNAL, errno, "start the HTTP server");
        return NULL;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    http->timer = timer_new(loop, http_timeout, http);
    http->daemon_watch = watch_new(loop, info->epoll_fd, WATCH_READ, http_ready, http);
    http->accept_watch = watch_new(loop, listener, WATCH_READ, accept_ready, http);
    return http;
}

void http_stop_accepting(struct http *http)
{
    watch_free(http->accept_watch);
    http->accept_watch = NULL;
    if (http->listener >= 0)
        close(http->listener);
    http->listener = -1;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    http_stop_accepting(http);
    /* The library insists that nothing is suspended when it stops. */
    struct http_request *r, *next;
    DL_FOREACH_SAFE(http->requests, r, next) {
        r->left = true;
        request_resume(r);
    }
    MHD_run(http->daemon);
    watch_free(http->daemon_watch);
    MHD_stop_daemon(http->daemon);
    timer_free(http->timer);
    free(http);
}
