/* The wire's decoder, fed as a guest would feed it: in pieces, whatever the bytes. */
#include <stdlib.h>

#include "base/str.h"
#include "proto/wire.h"

enum { MESSAGE_SIZE_MAX = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_message(const struct wire_frame *frame)
{
    /* As large as the largest struct wire_…, and aligned as any of them. */
    uint64_t message[MESSAGE_SIZE_MAX / sizeof(uint64_t)];
    struct error *error = NULL;

    if (!wire_name(frame->type))
        return;
    wire_get(frame, message, &error);
    wire_clear(frame->type, message);
    error_free(error);
}

/* The first byte says how large the pieces are; the magic is given, it is not to be guessed. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_decoder decoder = {0};
    struct wire_frame frame;
    struct error *error = NULL;
    size_t piece = size ? 1 + data[0] : 1, at = size ? 1 : 0;

    memcpy(wire_decoder_space(&decoder, WIRE_MAGIC_SIZE), WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_decoder_fed(&decoder, WIRE_MAGIC_SIZE);
    while (at < size && !error) {
        size_t n = size - at < piece ? size - at : piece;
        memcpy(wire_decoder_space(&decoder, n), data + at, n);
        wire_decoder_fed(&decoder, n);
        at += n;
        while (wire_decoder_peek(&decoder, &frame, &error) > 0) {
            read_message(&frame);
            wire_decoder_next(&decoder, &frame);
        }
    }
    error_free(error);
    wire_decoder_reset(&decoder);
    return 0;
}
