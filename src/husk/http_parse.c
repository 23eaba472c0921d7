#include "husk/http_parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

static int corrupt(struct error **ret_error, const char *what)
{
    return error_set(ret_error, ERROR_CORRUPT, 0, "the daemon's answer is not HTTP: %s", what);
}

/* ---- head ----------------------------------------------------------------------------------- */

/* The length of a value without the blanks round it, of which *value is moved past the first. */
static size_t trim(const char **value, size_t size)
{
    while (size && (**value == ' ' || **value == '\t')) {
        (*value)++;
        size--;
    }
    while (size && ((*value)[size - 1] == ' ' || (*value)[size - 1] == '\t'))
        size--;
    return size;
}

static bool has_token(const char *value, const char *token)
{
    for (const char *at = value; (at = strcasestr(at, token)); at++) {
        char after = at[strlen(token)];
        bool starts = at == value || at[-1] == ',' || at[-1] == ' ';
        if (starts && (!after || after == ',' || after == ' ' || after == ';'))
            return true;
    }
    return false;
}

static int on_length(struct http_head *head, const char *value, struct error **ret_error)
{
    uint64_t length;
    if (!str_to_u64(value, 0, INT64_MAX, &length))
        return corrupt(ret_error, "bad Content-Length");
    if (head->has_length && head->length != length)
        return corrupt(ret_error, "two different Content-Lengths");
    head->has_length = true;
    head->length = length;
    return 0;
}

static int on_encoding(struct http_head *head, const char *value, struct error **ret_error)
{
    if (strcasecmp(value, "chunked") != 0)
        return corrupt(ret_error, "a Transfer-Encoding other than chunked");
    head->chunked = true;
    return 0;
}

static int on_connection(struct http_head *head, const char *value, struct error **ret_error)
{
    if (has_token(value, "close"))
        head->close = true;
    return 0;
}

static int on_type(struct http_head *head, const char *value, struct error **ret_error)
{
    size_t size = strlen(value);
    if (size >= sizeof(head->type))
        return corrupt(ret_error, "the Content-Type is too long");
    memcpy(head->type, value, size + 1);
    return 0;
}

static const struct {
    const char *name;
    int (*apply)(struct http_head *head, const char *value, struct error **ret_error);
} FIELDS[] = {
    {"content-length", on_length},
    {"transfer-encoding", on_encoding},
    {"connection", on_connection},
    {"content-type", on_type},
};

static int field_apply(struct http_head *head, const char *line, size_t size,
                       struct error **ret_error)
{
    const char *colon = memchr(line, ':', size);
    if (!colon || colon == line || isspace((unsigned char)*line))
        return corrupt(ret_error, "a bad header line");
    size_t name_size = (size_t)(colon - line);
    const char *value = colon + 1;
    size_t value_size = trim(&value, size - name_size - 1);
    if (memchr(value, 0, value_size))
        return corrupt(ret_error, "a zero byte in a header");
    for (size_t i = 0; i < ARRAY_SIZE(FIELDS); i++) {
        if (strlen(FIELDS[i].name) != name_size ||
            strncasecmp(FIELDS[i].name, line, name_size) != 0)
            continue;
        CLEANUP_FREE char *text = xstrndup(value, value_size);
        return FIELDS[i].apply(head, text, ret_error);
    }
    return 0;
}

/* "HTTP/1.1 200 OK". */
static int status_parse(struct http_head *head, const char *line, size_t size,
                        struct error **ret_error)
{
    static const char version[] = "HTTP/1.";
    const size_t digits = sizeof(version) + 1; /* after "HTTP/1.1 " */
    if (size < digits + 3 || memcmp(line, version, sizeof(version) - 1) != 0 ||
        line[digits - 1] != ' ')
        return corrupt(ret_error, "no status line");
    char minor = line[sizeof(version) - 1];
    if (minor != '0' && minor != '1')
        return corrupt(ret_error, "another version of HTTP");
    head->close = minor == '0';
    for (size_t i = digits; i < digits + 3; i++) {
        if (!isdigit((unsigned char)line[i]))
            return corrupt(ret_error, "no status code");
        head->status = head->status * 10 + (line[i] - '0');
    }
    if (head->status < 100 || (size > digits + 3 && line[digits + 3] != ' '))
        return corrupt(ret_error, "a bad status code");
    return 0;
}

int http_head_parse(const char *data, size_t size, struct http_head *ret, size_t *ret_used,
                    struct error **ret_error)
{
    size_t limit = size < HTTP_HEAD_MAX ? size : HTTP_HEAD_MAX;
    const char *end = memmem(data, limit, "\r\n\r\n", 4);
    if (!end && size >= HTTP_HEAD_MAX)
        return corrupt(ret_error, "its headers are too long");
    if (!end) /* refuse early what can never become HTTP */
        return size >= 5 && memcmp(data, "HTTP/", 5) != 0 ? corrupt(ret_error, "no status line")
                                                          : 0;
    *ret = (struct http_head){0};
    const char *line = data, *stop;
    while (line < end + 2 && (stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2))) {
        size_t length = (size_t)(stop - line);
        int rc = line == data ? status_parse(ret, line, length, ret_error)
                              : field_apply(ret, line, length, ret_error);
        if (rc < 0)
            return -1;
        line = stop + 2;
    }
    if (ret->chunked && ret->has_length)
        return corrupt(ret_error, "both Content-Length and chunks");
    *ret_used = (size_t)(end + 4 - data);
    return 1;
}

/* ---- body ----------------------------------------------------------------------------------- */

enum chunk_state {
    CHUNK_SIZE,      /* hexadecimal digits */
    CHUNK_EXTENSION, /* after ';', up to the CR */
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER, /* at the start of a trailer line, or of the empty last one */
    CHUNK_TRAILER_TEXT,
    CHUNK_END_LF,
};

void http_body_init(struct http_body *body, const struct http_head *head)
{
    *body = (struct http_body){.mode = HTTP_BODY_TO_END};
    bool empty = head->status < 200 || head->status == 204 || head->status == 304;
    if (empty || head->has_length)
        body->mode = HTTP_BODY_LENGTH;
    else if (head->chunked)
        body->mode = HTTP_BODY_CHUNKED;
    body->left = empty ? 0 : head->length;
    body->done = body->mode == HTTP_BODY_LENGTH && body->left == 0;
}

static int size_step(struct http_body *body, char c, struct error **ret_error)
{
    enum { DIGITS_MAX = 15 }; /* so that the size cannot overflow */
    if (isxdigit((unsigned char)c)) {
        int digit = isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
        if (++body->digits > DIGITS_MAX)
            return corrupt(ret_error, "a chunk is too large");
        body->left = body->left * 16 + (uint64_t)digit;
        return 0;
    }
    if (!body->digits || (c != ';' && c != '\r' && c != ' '))
        return corrupt(ret_error, "a bad chunk size");
    body->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
    return 0;
}

static int extra_step(struct http_body *body, char c, char until, unsigned next,
                      struct error **ret_error)
{
    if (++body->extra > HTTP_CHUNK_EXTRA_MAX)
        return corrupt(ret_error, "a chunk's extension or the trailer is too long");
    if (c == until)
        body->state = next;
    return 0;
}

static int expect(struct http_body *body, char c, char expected, unsigned next,
                  struct error **ret_error)
{
    if (c != expected)
        return corrupt(ret_error, "a chunk does not end where it should");
    body->state = next;
    return 0;
}

/* One byte of a chunked body's framing. */
static int frame_step(struct http_body *body, char c, struct error **ret_error)
{
    switch (body->state) {
    case CHUNK_SIZE:
        return size_step(body, c, ret_error);
    case CHUNK_EXTENSION:
        return extra_step(body, c, '\r', CHUNK_SIZE_LF, ret_error);
    case CHUNK_SIZE_LF:
        body->digits = 0;
        body->extra = 0;
        return expect(body, c, '\n', body->left ? CHUNK_DATA : CHUNK_TRAILER, ret_error);
    case CHUNK_DATA_CR:
        return expect(body, c, '\r', CHUNK_DATA_LF, ret_error);
    case CHUNK_DATA_LF:
        return expect(body, c, '\n', CHUNK_SIZE, ret_error);
    case CHUNK_TRAILER:
        body->state = c == '\r' ? CHUNK_END_LF : CHUNK_TRAILER_TEXT;
        return 0;
    case CHUNK_TRAILER_TEXT:
        return extra_step(body, c, '\n', CHUNK_TRAILER, ret_error);
    default:
        body->done = c == '\n';
        return expect(body, c, '\n', CHUNK_END_LF, ret_error);
    }
}

/* Content bytes of which at most body->left belong to this length or chunk. */
static size_t content_take(struct http_body *body, size_t size)
{
    size_t taken = size < body->left ? size : (size_t)body->left;
    body->left -= taken;
    return taken;
}

static int chunked_next(struct http_body *body, const char *data, size_t size, size_t *ret_used,
                        size_t *ret_size, struct error **ret_error)
{
    size_t used = 0;
    while (used < size && !body->done && body->state != CHUNK_DATA)
        if (frame_step(body, data[used++], ret_error) < 0)
            return -1;
    if (body->state == CHUNK_DATA) {
        *ret_size = content_take(body, size - used);
        used += *ret_size;
        if (body->left == 0)
            body->state = CHUNK_DATA_CR;
    }
    *ret_used = used;
    return 0;
}

int http_body_next(struct http_body *body, const char *data, size_t size, size_t *ret_used,
                   size_t *ret_size, struct error **ret_error)
{
    *ret_size = 0;
    if (body->mode == HTTP_BODY_CHUNKED)
        return chunked_next(body, data, size, ret_used, ret_size, ret_error);
    *ret_size = body->mode == HTTP_BODY_TO_END ? size : content_take(body, size);
    *ret_used = *ret_size;
    body->done = body->mode == HTTP_BODY_LENGTH && body->left == 0;
    return 0;
}
