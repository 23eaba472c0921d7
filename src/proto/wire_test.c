/* The wire: every message there and back, and what a broken or hostile peer sends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"
#include "proto/wire.h"

enum { FRAMES_OF_A_TYPE = 3 };

/* ---- values of each type, different for each field ------------------------------------------ */

static const char *const words[] = {"one", "", "two words", NULL};

static void fill_u32(wire_u32 *f, unsigned n)
{
    *f = 0x80000001u + n;
}
static void fill_u64(wire_u64 *f, unsigned n)
{
    *f = 0x8000000000000001ull + n;
}
static void fill_i32(wire_i32 *f, unsigned n)
{
    *f = -1 - (int32_t)n;
}
static void fill_str(wire_str *f, unsigned n)
{
    *f = words[n % 3];
}
static void fill_strv(wire_strv *f, unsigned n)
{
    *f = n % 2 ? words : NULL;
}
static void fill_blob(wire_blob *f, unsigned n)
{
    *f = (wire_blob){(const uint8_t *)"\0\1\2\3", n % 5};
}

static void same_u32(wire_u32 a, wire_u32 b)
{
    assert_true(a == b);
}
static void same_u64(wire_u64 a, wire_u64 b)
{
    assert_true(a == b);
}
static void same_i32(wire_i32 a, wire_i32 b)
{
    assert_true(a == b);
}
static void same_str(wire_str a, wire_str b)
{
    assert_string_equal(str_or(a, ""), b);
}
static void same_strv(wire_strv a, wire_strv b)
{
    assert_int_equal(strv_count(a), strv_count(b));
    for (size_t i = 0; i < strv_count(a); i++)
        assert_string_equal(a[i], b[i]);
}
static void same_blob(wire_blob a, wire_blob b)
{
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
}

/* ---- helpers -------------------------------------------------------------------------------- */

static void feed(struct wire_decoder *d, const void *data, size_t size)
{
    memcpy(wire_decoder_space(d, size), data, size);
    wire_decoder_fed(d, size);
}

/* The only frame of `bytes`. */
static struct wire_frame frame_of(struct wire_decoder *d, const struct buf *bytes)
{
    struct wire_frame frame;
    feed(d, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    feed(d, bytes->data, bytes->len);
    assert_int_equal(wire_decoder_peek(d, &frame, NULL), 1);
    return frame;
}

/* ---- every message -------------------------------------------------------------------------- */

/* For each message of wire.def: one is filled, goes through the decoder and is compared; then its
 * payload is cut at every byte. */
static void check_frame(unsigned type, const struct wire_frame *frame)
{
    assert_int_equal(frame->type, type);
    assert_int_equal(frame->stream, 7 + type);
    assert_int_equal(frame->flags, 0);
}

#define WIRE_BEGIN(upper, lower, number)                                                           \
    static void fill_message_##lower(struct wire_##lower *m, unsigned n)                           \
    {                                                                                              \
        memset(m, 0, sizeof(*m));
#define WIRE_FIELD(lower, type, name) fill_##type(&m->name, n++);
#define WIRE_END(lower)               }
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END

#define WIRE_BEGIN(upper, lower, number)                                                           \
    static void same_message_##lower(const struct wire_##lower *a, const struct wire_##lower *b)   \
    {
#define WIRE_FIELD(lower, type, name) same_##type(a->name, b->name);
#define WIRE_END(lower)               }
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END

#define WIRE_BEGIN(upper, lower, number)                                                           \
    static void round_trip_##lower(unsigned n)                                                     \
    {                                                                                              \
        CLEANUP_BUF struct buf bytes = {0};                                                        \
        struct wire_decoder decoder = {0};                                                         \
        struct wire_##lower in, out;                                                               \
        fill_message_##lower(&in, n);                                                              \
        wire_put(&bytes, WIRE_##upper, 0, 7 + WIRE_##upper, &in);                                  \
        struct wire_frame frame = frame_of(&decoder, &bytes);                                      \
        check_frame(WIRE_##upper, &frame);                                                         \
        assert_int_equal(wire_get(&frame, &out, NULL), 0);                                         \
        same_message_##lower(&in, &out);                                                           \
        wire_clear(WIRE_##upper, &out);                                                            \
        for (; frame.length; frame.length--) {                                                     \
            wire_get(&frame, &out, NULL);                                                          \
            wire_clear(WIRE_##upper, &out);                                                        \
        }                                                                                          \
        wire_decoder_reset(&decoder);                                                              \
    }
#define WIRE_FIELD(lower, type, name)
#define WIRE_END(lower)
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END

static void every_message_arrives_as_it_was_sent_and_survives_being_cut(void **state)
{
    for (unsigned n = 0; n < FRAMES_OF_A_TYPE; n++) {
#define WIRE_BEGIN(upper, lower, number) round_trip_##lower(n);
#define WIRE_FIELD(lower, type, name)
#define WIRE_END(lower)
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END
    }
}

static void every_message_has_a_number_and_a_name_of_its_own(void **state)
{
    static const struct {
        unsigned number;
        const char *name;
    } all[] = {
#define WIRE_BEGIN(upper, lower, number) {number, #upper},
#define WIRE_FIELD(lower, type, name)
#define WIRE_END(lower)
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END
    };
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        assert_string_equal(wire_name(all[i].number), all[i].name);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(all[i].number, all[j].number);
    }
    assert_null(wire_name(0));
    assert_null(wire_name(65535));
}

/* ---- versions that differ ------------------------------------------------------------------- */

static void fields_of_a_newer_peer_are_ignored_and_of_an_older_one_are_empty(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_decoder decoder = {0};
    struct wire_exited out;
    struct wire_exited in = {.code = 3, .reason = "because"};
    wire_put(&bytes, WIRE_EXITED, 0, 1, &in);
    struct wire_frame frame = frame_of(&decoder, &bytes);

    uint8_t longer[64];
    memset(longer, 0xee, sizeof(longer));
    memcpy(longer, frame.payload, frame.length);
    struct wire_frame newer = frame;
    newer.payload = longer;
    newer.length = sizeof(longer);
    assert_int_equal(wire_get(&newer, &out, NULL), 0);
    assert_string_equal(out.reason, "because");

    struct wire_frame older = frame;
    older.length = 4;
    assert_int_equal(wire_get(&older, &out, NULL), 0);
    assert_int_equal(out.code, 3);
    assert_int_equal(out.signal, 0);
    assert_string_equal(out.reason, "");
    wire_decoder_reset(&decoder);
}

static void peers_without_a_common_version_are_told_so(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    struct wire_hello same = {.version = WIRE_VERSION, .lowest = WIRE_LOWEST, .role = "guest"};
    struct wire_hello newer = {
        .version = WIRE_VERSION + 2, .lowest = WIRE_VERSION + 1, .role = "guest"};
    assert_int_equal(wire_check_hello(&same, NULL), 0);
    assert_int_equal(wire_check_hello(&newer, &e), -1);
    assert_int_equal(e->kind, ERROR_UNSUPPORTED);
    assert_non_null(strstr(error_text(e), "guest"));
}

static void a_reply_carries_an_error_as_it_was(void **state)
{
    CLEANUP_ERROR struct error *e = NULL, *back = NULL;
    error_set(&e, ERROR_NO_SPACE, 28, "write 'layer'");
    struct wire_reply reply = wire_reply_from(9, e);
    assert_int_equal(reply.seq, 9);
    assert_int_equal(wire_reply_check(&reply, &back), -1);
    assert_int_equal(back->kind, e->kind);
    assert_int_equal(back->err, e->err);
    assert_string_equal(error_text(back), error_text(e));

    struct wire_reply done = wire_reply_from(10, NULL);
    assert_int_equal(wire_reply_check(&done, NULL), 0);
    struct wire_reply unknown = {.failed = 5000, .message = "new kind"};
    assert_int_equal(wire_reply_check(&unknown, NULL), -1);
}

/* ---- the stream of bytes -------------------------------------------------------------------- */

static void frames_are_found_whatever_the_pieces_are(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_exited in = {.code = 1, .reason = "x"};
    wire_put_hello(&bytes, "guest", "1");
    for (unsigned i = 0; i < 5; i++)
        wire_put(&bytes, WIRE_EXITED, 0, i, &in);
    for (size_t piece = 1; piece <= bytes.len; piece++) {
        struct wire_decoder d = {0};
        struct wire_frame frame;
        unsigned frames = 0;
        for (size_t at = 0; at < bytes.len; at += piece) {
            feed(&d, bytes.data + at, piece < bytes.len - at ? piece : bytes.len - at);
            for (; wire_decoder_peek(&d, &frame, NULL) > 0; wire_decoder_next(&d, &frame))
                frames++;
        }
        assert_int_equal(frames, 6);
        wire_decoder_reset(&d);
    }
}

static void noise_before_the_magic_is_thrown_away(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_decoder d = {0};
    struct wire_frame frame;
    for (unsigned i = 0; i < 1000; i++)
        buf_append(&bytes, i % 3 ? "\xff" : "h", 1);
    wire_put_hello(&bytes, "guest", "1");
    for (size_t i = 0; i < bytes.len; i++)
        feed(&d, bytes.data + i, 1);
    assert_int_equal(wire_decoder_peek(&d, &frame, NULL), 1);
    assert_int_equal(frame.type, WIRE_HELLO);
    wire_decoder_reset(&d);
}

static void a_peer_may_start_anew_between_frames(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_decoder d = {0};
    struct wire_frame frame;
    unsigned hellos = 0;
    wire_put_hello(&bytes, "guest", "1");
    wire_put_hello(&bytes, "guest", "2");
    for (size_t i = 0; i < bytes.len; i++) {
        feed(&d, bytes.data + i, 1);
        for (; wire_decoder_peek(&d, &frame, NULL) > 0; wire_decoder_next(&d, &frame))
            hellos += frame.type == WIRE_HELLO;
    }
    assert_int_equal(hellos, 2);
    wire_decoder_reset(&d);
}

static void a_peer_may_start_anew_behind_what_makes_no_sense(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_decoder d = {0};
    struct wire_frame frame;
    wire_put_hello(&bytes, "guest", "1");
    for (int i = 0; i < 100; i++)
        buf_append(&bytes, "\xf0\xf0\xf0", 3);
    wire_put_hello(&bytes, "guest", "2");
    feed(&d, bytes.data, bytes.len);
    assert_int_equal(wire_decoder_peek(&d, &frame, NULL), 1);
    wire_decoder_next(&d, &frame);
    assert_int_equal(wire_decoder_peek(&d, &frame, NULL), -1);
    wire_decoder_skip(&d);
    assert_int_equal(wire_decoder_peek(&d, &frame, NULL), 1);
    assert_int_equal(frame.type, WIRE_HELLO);
    wire_decoder_next(&d, &frame);
    assert_int_equal(wire_decoder_peek(&d, &frame, NULL), 0);
    wire_decoder_reset(&d);
}

/* As a port hands out pages: of the next frame only the beginning ever comes with this one. */
static void a_frame_of_data_is_not_moved_once_its_header_is_there(void **state)
{
    enum { FRAMES = 8, PIECE = 4096, ROOM = 32 << 10 };
    CLEANUP_BUF struct buf bytes = {0};
    CLEANUP_FREE uint8_t *data = xcalloc(1, WIRE_DATA_MAX);
    struct wire_decoder d = {.synced = true};
    struct wire_frame frame;
    size_t frames = 0;

    for (int i = 0; i < FRAMES; i++) {
        uint8_t header[WIRE_HEADER_SIZE];
        wire_header(header, WIRE_STDIN, 0, 1, WIRE_DATA_MAX);
        buf_append(&bytes, header, sizeof(header));
        buf_append(&bytes, data, WIRE_DATA_MAX);
    }
    while (bytes.len) {
        size_t size = bytes.len < PIECE ? bytes.len : PIECE;
        bool begun = d.in.len >= WIRE_HEADER_SIZE;
        const uint8_t *before = d.in.data;
        memcpy(wire_decoder_space(&d, ROOM), bytes.data, size);
        if (begun && d.in.len > PIECE)
            assert_ptr_equal(d.in.data, before);
        wire_decoder_fed(&d, size);
        buf_consume(&bytes, size);
        for (; wire_decoder_peek(&d, &frame, NULL) == 1; frames++)
            wire_decoder_next(&d, &frame);
    }
    assert_int_equal(frames, FRAMES);
    wire_decoder_reset(&d);
}

static void a_frame_that_claims_too_much_is_corrupt_at_once(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    struct wire_decoder d = {0};
    struct wire_frame frame;
    uint8_t header[WIRE_HEADER_SIZE];
    wire_header(header, WIRE_STDOUT, 0, 1, WIRE_PAYLOAD_MAX + 1);
    feed(&d, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    feed(&d, header, sizeof(header));
    assert_int_equal(wire_decoder_peek(&d, &frame, &e), -1);
    assert_int_equal(e->kind, ERROR_CORRUPT);
    wire_decoder_reset(&d);
}

static void malformed_fields_are_named(void **state)
{
    static const struct {
        unsigned type;
        const char *payload;
        uint32_t length;
        const char *field;
    } cases[] = {
        /* a number of three bytes */
        {WIRE_EXITED, "\1\0\0", 3, "code"},
        /* a string that says it is longer than the payload */
        {WIRE_GUEST_LOG, "\6\0\0\0\xff\0\0\0a", 9, "line"},
        /* one without its NUL, and one with a NUL inside */
        {WIRE_GUEST_LOG, "\6\0\0\0\2\0\0\0ab", 10, "line"},
        {WIRE_GUEST_LOG, "\6\0\0\0\4\0\0\0a\0b\0", 12, "line"},
        /* a vector that claims more strings than there are bytes */
        {WIRE_JOB_REMOVE, "\1\0\0\0\0\0\0\0\xff\xff\0\0", 12, "paths"},
        {WIRE_JOB_REMOVE, "\1\0\0\0\0\0\0\0\xff\xff\xff\xff", 12, "paths"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error *e = NULL;
        uint64_t message[64];
        struct wire_frame frame = {.type = (uint16_t)cases[i].type,
                                   .payload = (const uint8_t *)cases[i].payload,
                                   .length = cases[i].length};
        assert_int_equal(wire_get(&frame, message, &e), -1);
        wire_clear(cases[i].type, message);
        assert_int_equal(e->kind, ERROR_CORRUPT);
        assert_non_null(strstr(error_text(e), cases[i].field));
    }
}

static void an_unknown_message_is_an_error(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    uint64_t message[64];
    struct wire_frame frame = {.type = 999};
    assert_int_equal(wire_get(&frame, message, &e), -1);
    assert_non_null(strstr(error_text(e), "999"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_arrives_as_it_was_sent_and_survives_being_cut),
        cmocka_unit_test(every_message_has_a_number_and_a_name_of_its_own),
        cmocka_unit_test(fields_of_a_newer_peer_are_ignored_and_of_an_older_one_are_empty),
        cmocka_unit_test(peers_without_a_common_version_are_told_so),
        cmocka_unit_test(a_reply_carries_an_error_as_it_was),
        cmocka_unit_test(frames_are_found_whatever_the_pieces_are),
        cmocka_unit_test(noise_before_the_magic_is_thrown_away),
        cmocka_unit_test(a_peer_may_start_anew_between_frames),
        cmocka_unit_test(a_peer_may_start_anew_behind_what_makes_no_sense),
        cmocka_unit_test(a_frame_of_data_is_not_moved_once_its_header_is_there),
        cmocka_unit_test(a_frame_that_claims_too_much_is_corrupt_at_once),
        cmocka_unit_test(malformed_fields_are_named),
        cmocka_unit_test(an_unknown_message_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
