/* HTTP/1.1 responses, as bytes (RFC 9112). Pure: no descriptor is touched, so that it can be
 * fuzzed. Strict: what is not well-formed is an error, as is anything over the limits.
 */
#ifndef HUSK_HUSK_HTTP_PARSE_H
#define HUSK_HUSK_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    HTTP_HEAD_MAX = 32 << 10,    /* status line and headers */
    HTTP_TYPE_MAX = 128,         /* a Content-Type that is looked at */
    HTTP_CHUNK_EXTRA_MAX = 4096, /* extension of one chunk, or all trailers */
};

struct http_head {
    int status;
    char type[HTTP_TYPE_MAX]; /* Content-Type, "" if there is none */
    bool has_length;
    uint64_t length;
    bool chunked;
    bool close; /* the connection ends after this response */
};

/* 1: complete, *ret_used bytes of `data` were the head; 0: more bytes are needed; -1: an error. */
int http_head_parse(const char *data, size_t size, struct http_head *ret, size_t *ret_used,
                    struct error **ret_error);

enum http_body_mode { HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_TO_END };

struct http_body {
    enum http_body_mode mode;
    unsigned state;  /* of the chunk reader */
    unsigned digits; /* of the chunk size so far */
    size_t extra;    /* bytes of extension or trailer so far */
    uint64_t left;   /* of the length, or of the chunk */
    bool done;
};

/* `head` alone says how the body ends; a response to a request other than HEAD. */
void http_body_init(struct http_body *body, const struct http_head *head);

/* Takes framing and at most one piece of content from the front of `data`: *ret_used bytes are
 * used up, and the last *ret_size of them are the content (perhaps none). Call again until all is
 * used or body->done. */
int http_body_next(struct http_body *body, const char *data, size_t size, size_t *ret_used,
                   size_t *ret_size, struct error **ret_error);

#endif
