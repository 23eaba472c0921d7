/* An HTTP/1.1 server on a unix socket that runs in the loop: requests in, replies out, whenever
 * the reply is ready. Knows nothing of pods. libmicrohttpd parses; nothing here blocks.
 *
 * Life of a request:
 *
 *     head read ──> ops->begin ──> ops->body… ──> ops->run ──> http_reply…() ──> ops->gone
 *                      │                             (any time later)
 *                      └──> http_reply…()  refuses it before its body is read
 *
 * `gone` is called exactly once, when the reply was delivered or the client has left: afterwards
 * the request is freed. A client that leaves while its request waits for a reply is noticed.
 */
#ifndef HUSK_API_HTTP_H
#define HUSK_API_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"
#include "loop/loop.h"

enum {
    HTTP_MEMORY_MAX = 256 << 10, /* of one connection: head of the request and its buffers */
    HTTP_BODY_MAX = 1 << 20,     /* of a body that is collected */
    HTTP_IDLE_S = 120,           /* a connection that sends nothing is closed */
    HTTP_PULL_SIZE = 64 << 10,   /* largest piece of a streamed reply */
    HTTP_PULL_BROKEN = -2,       /* a streamed reply cannot go on */
};

struct http;
struct http_request;

struct http_ops {
    /* The head is here. Set what follows: http_request_set(), http_take_body(). */
    void (*begin)(struct http_request *r, void *arg);
    /* All of the body is here. */
    void (*run)(struct http_request *r, void *arg);
    /* The request ends: forget it. */
    void (*gone)(struct http_request *r, void *arg);
};

/* Serves connections of `listener` (taken over), at most `connections_max` at a time; more are
 * told so and closed. */
struct http *http_new(struct loop *loop, int listener, unsigned connections_max,
                      const struct http_ops *ops, void *arg, struct error **ret_error);
/* No new connections; those that are there go on. */
void http_stop_accepting(struct http *http);
void http_free(struct http *http);

/* ---- what was asked ------------------------------------------------------------------------- */

const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r);
/* NULL if it is not there. Valid as long as the request. */
const char *http_query(const struct http_request *r, const char *name);
/* All values that a name has in the query; a strv, owned by the caller. */
char **http_query_all(const struct http_request *r, const char *name);
const char *http_header(const struct http_request *r, const char *name);
/* The collected body; not NUL-terminated. */
const struct buf *http_body(const struct http_request *r);
/* The owner's pointer, NULL at first. */
void http_set_data(struct http_request *r, void *data);
void *http_data(const struct http_request *r);

/* From ops->begin: pieces of the body go to `took` as they come, without a limit in all. It
 * returns how many bytes it took; if fewer than came, the client waits until http_more_body(). */
void http_take_body(struct http_request *r, size_t (*took)(struct http_request *r, const void *data,
                                                           size_t size, void *arg));
void http_more_body(struct http_request *r);

/* ---- what is answered: exactly one of these ---------------------------------------------------
 */

/* The content is taken over (released). type may be NULL for an empty body. */
void http_reply(struct http_request *r, unsigned status, const char *type, struct buf *content);
/* A sentence and a newline; or JSON with kind and message if the request accepts that. */
void http_reply_error(struct http_request *r, const struct error *error);

/* A reply of unknown length: `pull` writes up to `size` bytes and returns how many; 0: nothing
 * now, http_wake() will say when; -1: the end; HTTP_PULL_BROKEN: there should have been more. */
void http_reply_stream(struct http_request *r, unsigned status, const char *type,
                       ssize_t (*pull)(struct http_request *r, char *to, size_t size, void *arg));
void http_wake(struct http_request *r);

/* Answers 101 and gives the connection away: `taken` gets a descriptor that is its own (close it)
 * once the answer has left, and the bytes that came after the request's head; the descriptor is
 * -1 if the client left before. ops->gone follows. */
void http_hijack(struct http_request *r, const char *type,
                 void (*taken)(int fd, const void *early, size_t size, void *taken_arg),
                 void *taken_arg);
bool http_replied(const struct http_request *r);

#endif
