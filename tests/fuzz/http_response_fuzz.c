/* The command line's HTTP responses, head and body, in pieces, whatever the bytes. */
#include <assert.h>

#include "husk/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_body(const struct http_head *head, const char *text, size_t size, size_t piece)
{
    struct http_body body;
    struct error *error = NULL;
    http_body_init(&body, head);
    for (size_t at = 0; at < size && !body.done && !error;) {
        size_t used = 0, got = 0, left = size - at;
        if (http_body_next(&body, text + at, left < piece ? left : piece, &used, &got, &error) < 0)
            break;
        assert(used <= left && got <= used);
        assert(used || body.done);
        at += used;
    }
    error_free(error);
}

/* The first byte says how large the pieces of the body are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_head head;
    struct error *error = NULL;
    size_t piece = size ? 1 + data[0] : 1, used = 0;
    const char *text = (const char *)data + (size > 0);

    size -= size > 0;
    if (http_head_parse(text, size, &head, &used, &error) > 0) {
        assert(used <= size);
        read_body(&head, text + used, size - used, piece);
    }
    error_free(error);
    return 0;
}
