#include "husk/http.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/str.h"

void http_init(struct http *http, const char *socket)
{
    *http = (struct http){.socket = socket, .fd = -1};
}

void http_close(struct http *http)
{
    if (http->fd >= 0)
        close(http->fd);
    free(http->buffer);
    http->fd = -1;
    http->buffer = NULL;
    http->start = http->end = 0;
    http->used = false;
}

char *http_target(const char *path, ...)
{
    struct buf target = {0};
    const char *name, *value;
    char separator = '?';
    va_list ap;

    buf_append_str(&target, path);
    va_start(ap, path);
    while ((name = va_arg(ap, const char *))) {
        value = va_arg(ap, const char *);
        if (!value)
            continue;
        buf_printf(&target, "%c%s=", separator, name);
        separator = '&';
        for (; *value; value++)
            if (isalnum((unsigned char)*value) || strchr("-_.~", *value))
                buf_append(&target, value, 1);
            else
                buf_printf(&target, "%%%02X", (unsigned char)*value);
    }
    va_end(ap);
    return buf_take_str(&target);
}

/* ---- connecting ----------------------------------------------------------------------------- */

static int unreachable(const char *path, int err, struct error **ret_error)
{
    static const struct {
        int err;
        const char *why, *way_out;
    } known[] = {
        {ENOENT, "no such file", "start it with 'huskd' or name its socket with --socket"},
        {ECONNREFUSED, "nobody listens there", "is huskd running?"},
        {EACCES, "permission denied", "join the group 'husk' or become root"},
        {ENOTSOCK, "not a socket", "name huskd's socket with --socket"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].err == err)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0, "cannot reach huskd at '%s': %s; %s",
                             path, known[i].why, known[i].way_out);
    return error_set(ret_error, ERROR_UNAVAILABLE, err, "cannot reach huskd at '%s'", path);
}

static int http_connect(struct http *http, struct error **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(http->socket) >= sizeof(address.sun_path))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "the socket's path '%s' is longer than %zu bytes", http->socket,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, http->socket, strlen(http->socket));
    http->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (http->fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a socket");
    while (connect(http->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno == EINTR)
            continue;
        int err = errno;
        http_close(http);
        return unreachable(http->socket, err, ret_error);
    }
    http->reached = true;
    if (!http->buffer)
        http->buffer = xmalloc(HTTP_BUFFER_SIZE);
    return 0;
}

/* ---- sending -------------------------------------------------------------------------------- */

int http_send(struct http *http, const void *data, size_t size, struct error **ret_error)
{
    const char *at = data;
    while (size) {
        ssize_t n = send(http->fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, errno, "send to huskd");
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static void request_format(struct buf *out, const struct http_request *request)
{
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: husk\r\nUser-Agent: husk/" HUSK_VERSION "\r\n",
               request->method, request->target);
    if (request->upgrade)
        buf_append_str(out, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
    buf_append_str(out, "Accept: application/json\r\n");
    if (request->type)
        buf_printf(out, "Content-Type: %s\r\n", request->type);
    if (request->header)
        buf_printf(out, "%s\r\n", request->header);
    if (request->chunked)
        buf_append_str(out, "Transfer-Encoding: chunked\r\n");
    else if (request->size || strcmp(request->method, "POST") == 0)
        buf_printf(out, "Content-Length: %zu\r\n", request->size);
    buf_append_str(out, "\r\n");
    if (request->body)
        buf_append(out, request->body, request->size);
}

/* The daemon may have closed a kept connection in the meantime: then it is made anew. */
static bool is_stale(const struct http *http)
{
    char byte;
    return recv(http->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

int http_begin(struct http *http, const struct http_request *request, struct error **ret_error)
{
    CLEANUP_BUF struct buf out = {0};
    if (http->fd >= 0 && (!http->body.done || http->head.close || is_stale(http)))
        http_close(http);
    if (http->fd < 0 && http_connect(http, ret_error) < 0)
        return -1;
    http->body = (struct http_body){0};
    request_format(&out, request);
    CLEANUP_ERROR struct error *unsent = NULL;
    bool answer = !request->chunked && !request->no_wait;
    int rc = http_send(http, out.data, out.len, &unsent);
    /* What refuses a request need not read all of it, and its answer says why. */
    if (rc < 0 && (!answer || http_read_head(http, NULL) < 0))
        return error_move(ret_error, &unsent);
    return rc < 0 || !answer ? 0 : http_read_head(http, ret_error);
}

/* ---- receiving ------------------------------------------------------------------------------ */

static void wait_readable(struct http *http)
{
    struct pollfd poller = {.fd = http->fd, .events = POLLIN};
    while (http->idle && poll(&poller, 1, HTTP_IDLE_MS) == 0)
        http->idle(http->idle_arg);
}

/* Reads what there is after http->end; *ret_got is 0 at the end of the stream. */
static int fill(struct http *http, size_t *ret_got, struct error **ret_error)
{
    if (http->start == http->end)
        http->start = http->end = 0;
    wait_readable(http);
    for (;;) {
        ssize_t n = recv(http->fd, http->buffer + http->end, HTTP_BUFFER_SIZE - http->end, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, errno, "read from huskd");
        http->end += (size_t)n;
        *ret_got = (size_t)n;
        return 0;
    }
}

int http_read_head(struct http *http, struct error **ret_error)
{
    for (;;) {
        size_t used = 0, got;
        int rc = http_head_parse(http->buffer + http->start, http->end - http->start, &http->head,
                                 &used, ret_error);
        if (rc < 0)
            return -1;
        http->start += used;
        if (rc > 0 && http->head.status == 100) /* Continue: the real one follows */
            continue;
        if (rc > 0)
            break;
        if (fill(http, &got, ret_error) < 0)
            return -1;
        if (got == 0)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                             "huskd closed the connection without an answer");
    }
    http_body_init(&http->body, &http->head);
    return 0;
}

int http_read(struct http *http, char **ret_data, size_t *ret_size, struct error **ret_error)
{
    *ret_size = 0;
    while (!http->body.done) {
        size_t used, got;
        char *at = http->buffer + http->start;
        if (http_body_next(&http->body, at, http->end - http->start, &used, ret_size, ret_error) <
            0)
            return -1;
        http->start += used;
        *ret_data = at + used - *ret_size;
        if (*ret_size)
            return 0;
        if (http->body.done)
            break;
        if (fill(http, &got, ret_error) < 0)
            return -1;
        if (got == 0 && http->body.mode != HTTP_BODY_TO_END)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                             "huskd closed the connection in the middle of its answer");
        if (got == 0) {
            http->head.close = true;
            http->body.done = true;
        }
    }
    return 0;
}

int http_read_all(struct http *http, struct buf *ret, struct error **ret_error)
{
    for (;;) {
        char *data;
        size_t size;
        if (http_read(http, &data, &size, ret_error) < 0)
            return -1;
        if (size == 0)
            return 0;
        if (ret->len + size > HTTP_REPLY_MAX)
            return error_set(ret_error, ERROR_TOO_LARGE, 0, "huskd's answer is over %d MB",
                             HTTP_REPLY_MAX >> 20);
        buf_append(ret, data, size);
    }
}
