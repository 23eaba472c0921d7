/* One HTTP/1.1 connection to huskd over its unix socket.
 *
 * Blocking: a command does one thing at a time. While it waits for the daemon, `idle` is called
 * now and then, which is how the status line on a terminal lives. The connection is kept for
 * the next request; a request that finds it closed in the meantime opens it again.
 */
#ifndef HUSK_HUSK_HTTP_H
#define HUSK_HUSK_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "husk/http_parse.h"

enum {
    HTTP_BUFFER_SIZE = 256 << 10,
    HTTP_REPLY_MAX = 256 << 20, /* a body that is kept whole */
    HTTP_IDLE_MS = 100,         /* between two calls of idle */
};

struct http {
    const char *socket; /* path; not owned */
    int fd;             /* -1: not connected */
    char *buffer;       /* HTTP_BUFFER_SIZE bytes, NULL until needed */
    size_t start, end;  /* what was read and is not used yet */
    bool used;          /* it has carried a request before */
    bool reached;       /* the daemon was there once: if it goes away, it may come back */
    struct http_head head;
    struct http_body body;
    void (*idle)(void *arg); /* NULL: wait without looking up */
    void *idle_arg;
};

void http_init(struct http *http, const char *socket);
/* Closes; the struct can be used again. */
void http_close(struct http *http);

struct http_request {
    const char *method;
    const char *target; /* path and query */
    const char *type;   /* Content-Type of the body, NULL if there is none */
    const char *header; /* one more line of the head, NULL: none */
    const char *body;
    size_t size;
    bool chunked; /* the body follows by http_send(), in chunks of the caller's; no_wait is implied
                   */
    bool upgrade; /* ask for the hijacked stream */
    bool no_wait; /* return once it is sent; http_read_head() gets the response's head */
};

/* Sends the request and returns when the response's head is there (http->head), whatever its
 * status, or with `no_wait` at once. */
int http_begin(struct http *http, const struct http_request *request, struct error **ret_error);
/* All of it, to the daemon. */
int http_send(struct http *http, const void *data, size_t size, struct error **ret_error);
/* Waits for the response's head. */
int http_read_head(struct http *http, struct error **ret_error);
/* The next piece of the body, in the connection's own buffer until the next call; *ret_size is 0
 * at its end. */
int http_read(struct http *http, char **ret_data, size_t *ret_size, struct error **ret_error);
/* All that is left of the body, appended. */
int http_read_all(struct http *http, struct buf *ret, struct error **ret_error);

/* A path with a query of name, value pairs up to a NULL name; pairs whose value is NULL are left
 * out. Owned by the caller. */
char *http_target(const char *path, ...) __attribute__((sentinel));

#endif
