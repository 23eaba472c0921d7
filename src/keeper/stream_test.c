#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "keeper/fixture.h"

static struct fixture *begin(void)
{
    static struct fixture f;
    fixture_init(&f);
    return &f;
}

static void credit_comes_back_only_as_the_slowest_client_reads(void **state)
{
    struct fixture *f = begin();
    CLEANUP_FREE char *block = xcalloc(1, WIRE_DATA_MAX);
    struct container *c = fixture_run(f, "a", 0, "");
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    for (int i = 0; i < WIRE_WINDOW / WIRE_DATA_MAX; i++)
        fixture_say_data(f, WIRE_STDOUT, c->stream->id, block, WIRE_DATA_MAX);
    uint32_t stuck = c->stream->out[OUT_STDOUT].window;
    assert_true(stuck < WIRE_WINDOW / 2 + WIRE_DATA_MAX);
    for (int i = 0; i < 20; i++) {
        free(fixture_read(client, false));
        fixture_turn(f);
    }
    assert_true(c->stream->out[OUT_STDOUT].window > WIRE_WINDOW * 3 / 4 - 1);
    close(client);
    fixture_done(f);
}

static void a_guest_that_sends_more_than_it_may_is_ended(void **state)
{
    struct fixture *f = begin();
    CLEANUP_FREE char *block = xcalloc(1, WIRE_WINDOW + 1);
    struct container *c = fixture_run(f, "a", 0, "");
    fixture_say_data(f, WIRE_STDOUT, c->stream->id, block, WIRE_WINDOW + 1);
    assert_true(f->killed);
    fixture_turn(f);
    assert_string_equal(f->k->reason, "the guest sent more output than it was allowed to");
    fixture_done(f);
}

/* The process writes all that it may, and the client reads nothing of it: so many bytes. */
static size_t write_all(struct fixture *f, const struct stream *s)
{
    static const uint8_t block[WIRE_DATA_MAX];
    size_t written = 0;
    for (uint32_t room; (room = s->out[OUT_STDOUT].window); written += room) {
        room = room < sizeof(block) ? room : sizeof(block);
        fixture_say_data(f, WIRE_STDOUT, s->id, block, room);
        assert_true(written < 8 * STREAM_KILLED_MAX);
    }
    return written;
}

static void who_is_killed_is_not_held_up_by_a_client_that_does_not_read(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    size_t before = write_all(f, c->stream);
    assert_int_equal(c->stream->out[OUT_STDOUT].window, 0);
    struct wire_stop stop = {.ctr = "a", .signal = SIGKILL, .grace_ms = 100000};
    assert_int_equal(container_stop(f->k, &stop, NULL), 0);
    assert_true(c->stream->out[OUT_STDOUT].window > 0);
    size_t after = write_all(f, c->stream);
    assert_true(after >= STREAM_KILLED_MAX - WIRE_WINDOW);
    assert_true(after <= STREAM_KILLED_MAX + WIRE_WINDOW);
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){.code = 137});
    assert_int_equal(c->state, CONTAINER_ENDED);
    assert_null(c->stop_asks);
    size_t got = 0;
    char some[4096];
    for (ssize_t n; got < before + after; got += (size_t)n) {
        fixture_turn(f);
        assert_true((n = read(client, some, sizeof(some))) > 0);
    }
    fixture_turn(f);
    free(fixture_read(client, true));
    close(client);
    fixture_done(f);
}

static void a_dismissed_keeper_stays_until_its_client_is_dead(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    write_all(f, c->stream);
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){0});
    fixture_end_vm(f, "QEMU exited with status 0");
    f->k->dismissed = true;
    fixture_turn(f);
    assert_non_null(f->k->leaving);
    assert_false(f->k->stopping);
    close(client);
    fixture_turn(f);
    assert_null(f->k->leaving);
    assert_true(f->k->stopping);
    fixture_done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_comes_back_only_as_the_slowest_client_reads),
        cmocka_unit_test(a_guest_that_sends_more_than_it_may_is_ended),
        cmocka_unit_test(who_is_killed_is_not_held_up_by_a_client_that_does_not_read),
        cmocka_unit_test(a_dismissed_keeper_stays_until_its_client_is_dead),
    };
    return cmocka_run_group_tests(tests, fixture_enter, fixture_leave);
}
