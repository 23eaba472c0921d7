/* Framed connections: two ends of a socket pair in one loop. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "loop/loop.h"

enum { GUARD_MS = 20000, PIECE_SIZE = 100000, PIECES = 200 };

/* One end, and what came to it. */
struct end {
    struct conn *conn; /* NULL once it is closed */
    unsigned frames;
    size_t bytes;
    int fd;
    bool drained;
    char why[200];
};

static struct loop *loop;
static struct timer *guard;
static struct end here, there;
static unsigned stop_at_frames; /* of `there` */

static void guard_fired(void *arg)
{
    fail_msg("the loop did not come to its end in time");
}

static void on_frame(struct conn *conn, const struct wire_frame *frame, int fd, void *arg)
{
    struct end *end = arg;
    end->frames++;
    end->bytes += frame->type == WIRE_STDOUT ? frame->length : 0;
    if (fd >= 0)
        end->fd = fd;
    if (end == &there && end->frames == stop_at_frames)
        loop_stop(loop);
}

static void on_closed(struct conn *conn, const struct error *why, void *arg)
{
    struct end *end = arg;
    end->conn = NULL;
    snprintf(end->why, sizeof(end->why), "%s", why ? error_text(why) : "");
    loop_stop(loop);
}

static void on_drained(struct conn *conn, void *arg)
{
    ((struct end *)arg)->drained = true;
}

static const struct conn_ops ops = {on_frame, on_closed, on_drained};

static int raw[2]; /* raw[1] stays a plain socket if `there` is not made */

static void make_end(struct end *end, int fd)
{
    *end = (struct end){.fd = -1};
    end->conn = conn_new(loop, fd, &ops, end);
}

static int set_up(void **state)
{
    loop = loop_new();
    guard = timer_new(loop, guard_fired, NULL);
    timer_set(guard, GUARD_MS);
    stop_at_frames = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw), 0);
    make_end(&here, raw[0]);
    there.conn = NULL;
    return 0;
}

static void set_up_there(void)
{
    make_end(&there, raw[1]);
    conn_send_hello(here.conn, "huskd");
    conn_send_hello(there.conn, "keeper");
    stop_at_frames = 1;
    loop_run(loop);
}

static int tear_down(void **state)
{
    for (struct end *end = &here; end; end = end == &here ? &there : NULL) {
        if (!end->conn)
            continue;
        conn_close(end->conn, false);
        while (end->conn)
            loop_run(loop);
    }
    timer_free(guard);
    loop_free(loop);
    return 0;
}

static void run_until_frames(unsigned frames)
{
    stop_at_frames = frames;
    while (there.frames < frames)
        loop_run(loop);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void frames_arrive_in_order_and_whole(void **state)
{
    struct wire_signal message = {.seq = 1, .signal = 15};
    set_up_there();
    for (int i = 0; i < 100; i++)
        conn_send(here.conn, WIRE_SIGNAL, 1, &message);
    run_until_frames(101);
    assert_int_equal(there.frames, 101);
    assert_int_equal(conn_peer_pid(here.conn), getpid());
}

static void a_full_queue_says_so_and_says_when_it_is_not(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, PIECE_SIZE);
    set_up_there();
    conn_hold(there.conn, true);
    int sent = 0;
    for (; !conn_full(here.conn); sent++)
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    assert_false(here.drained);
    conn_hold(there.conn, false);
    run_until_frames(1 + (unsigned)sent);
    assert_int_equal(there.bytes, (size_t)sent * PIECE_SIZE);
    assert_true(here.drained);
    assert_false(conn_full(here.conn));
}

static void data_of_any_amount_comes_through(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, PIECE_SIZE);
    set_up_there();
    for (int i = 0; i < PIECES; i++)
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    conn_send_data(here.conn, WIRE_STDOUT, 1, NULL, 0);
    run_until_frames(1 + PIECES + 1);
    assert_int_equal(there.bytes, (size_t)PIECES * PIECE_SIZE);
}

static void a_peer_that_never_reads_is_cut_off(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, 1 << 20);
    set_up_there();
    conn_hold(there.conn, true);
    for (int i = 0; i <= CONN_QUEUE_MAX >> 20; i++)
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, 1 << 20);
    while (here.conn)
        loop_run(loop);
    assert_non_null(strstr(here.why, "does not read"));
}

static void a_descriptor_arrives_with_its_frame_behind_queued_bytes(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, PIECE_SIZE);
    struct wire_attach message = {.ctr = "c"};
    int fds[2];
    char c = 0;
    set_up_there();
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < 10; i++)
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    conn_send_fd(here.conn, WIRE_ATTACH, 0, &message, fds[1]);
    conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    run_until_frames(1 + 12);
    assert_true(there.fd >= 0);
    assert_int_equal(write(there.fd, "x", 1), 1);
    assert_int_equal(read(fds[0], &c, 1), 1);
    assert_int_equal(c, 'x');
    assert_true(fcntl(there.fd, F_GETFD) & FD_CLOEXEC);
    close(there.fd);
    close(fds[0]);
}

static void closing_with_flush_delivers_what_is_queued(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, PIECE_SIZE);
    set_up_there();
    for (int i = 0; i < 50; i++)
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    conn_close(here.conn, true);
    while (there.conn)
        loop_run(loop);
    assert_int_equal(there.bytes, 50 * PIECE_SIZE);
    assert_string_equal(there.why, "");
}

static void the_end_of_the_peer_is_an_ordinary_end(void **state)
{
    close(raw[1]);
    while (here.conn)
        loop_run(loop);
    assert_string_equal(here.why, "");
}

/* A peer that wrote and left: writing to it fails before its words are read. */
static void the_last_words_of_a_peer_that_left_are_delivered(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_signal message = {.seq = 1};
    wire_put_hello(&bytes, "huskd", "1");
    wire_put(&bytes, WIRE_SIGNAL, 0, 0, &message);
    wire_put(&bytes, WIRE_DISMISS, 0, 0, NULL);
    assert_int_equal(write(raw[1], bytes.data, bytes.len), bytes.len);
    close(raw[1]);
    conn_send_hello(here.conn, "keeper");
    conn_send(here.conn, WIRE_SIGNAL, 0, &message);
    while (here.conn)
        loop_run(loop);
    assert_int_equal(here.frames, 3);
    assert_string_equal(here.why, "");
}

/* The same, with bytes that wait and a peer that has not read what it was sent. */
static void last_words_are_delivered_behind_a_full_queue(void **state)
{
    CLEANUP_FREE char *piece = xcalloc(1, PIECE_SIZE);
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_attach message = {.ctr = "c"};
    int fds[2];
    wire_put_hello(&bytes, "huskd", "1");
    assert_int_equal(write(raw[1], bytes.data, bytes.len), bytes.len);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    while (!conn_full(here.conn))
        conn_send_data(here.conn, WIRE_STDOUT, 1, piece, PIECE_SIZE);
    conn_send_fd(here.conn, WIRE_ATTACH, 0, &message, fds[1]);
    close(raw[1]);
    while (here.conn)
        loop_run(loop);
    assert_int_equal(here.frames, 1);
    assert_true(here.drained);
    assert_string_equal(here.why, "");
    assert_int_equal(read(fds[0], piece, 1), 0); /* nobody holds the other end */
    close(fds[0]);
}

/* What a hostile peer writes, and what is said about it. */
static void expect_broken(const void *bytes, size_t size, const char *why)
{
    assert_int_equal(write(raw[1], bytes, size), size);
    while (here.conn)
        loop_run(loop);
    assert_non_null(strstr(here.why, why));
    close(raw[1]);
}

static void a_peer_that_does_not_greet_is_broken(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_signal message = {.seq = 1};
    buf_append(&bytes, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_put(&bytes, WIRE_SIGNAL, 0, 0, &message);
    expect_broken(bytes.data, bytes.len, "did not say hello");
}

static void a_peer_of_another_version_is_told_apart(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_hello hello = {
        .version = WIRE_VERSION + 7, .lowest = WIRE_VERSION + 7, .role = "keeper"};
    buf_append(&bytes, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_put(&bytes, WIRE_HELLO, 0, 0, &hello);
    expect_broken(bytes.data, bytes.len, "versions");
}

static void a_descriptor_that_did_not_come_is_an_error(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    struct wire_attach message = {.ctr = "c"};
    wire_put_hello(&bytes, "keeper", "1");
    wire_put(&bytes, WIRE_ATTACH, WIRE_FLAG_FD, 0, &message);
    expect_broken(bytes.data, bytes.len, "did not come");
}

static void a_frame_too_large_is_an_error(void **state)
{
    CLEANUP_BUF struct buf bytes = {0};
    uint8_t header[WIRE_HEADER_SIZE];
    wire_put_hello(&bytes, "keeper", "1");
    wire_header(header, WIRE_STDOUT, 0, 0, WIRE_PAYLOAD_MAX + 1);
    buf_append(&bytes, header, sizeof(header));
    expect_broken(bytes.data, bytes.len, "claims");
}

#define conn_unit_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        conn_unit_test(frames_arrive_in_order_and_whole),
        conn_unit_test(a_full_queue_says_so_and_says_when_it_is_not),
        conn_unit_test(data_of_any_amount_comes_through),
        conn_unit_test(a_peer_that_never_reads_is_cut_off),
        conn_unit_test(a_descriptor_arrives_with_its_frame_behind_queued_bytes),
        conn_unit_test(closing_with_flush_delivers_what_is_queued),
        conn_unit_test(the_end_of_the_peer_is_an_ordinary_end),
        conn_unit_test(the_last_words_of_a_peer_that_left_are_delivered),
        conn_unit_test(last_words_are_delivered_behind_a_full_queue),
        conn_unit_test(a_peer_that_does_not_greet_is_broken),
        conn_unit_test(a_peer_of_another_version_is_told_apart),
        conn_unit_test(a_descriptor_that_did_not_come_is_an_error),
        conn_unit_test(a_frame_too_large_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
