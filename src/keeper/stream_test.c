#include <setjmp.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_comes_back_only_as_the_slowest_client_reads),
        cmocka_unit_test(a_guest_that_sends_more_than_it_may_is_ended),
    };
    return cmocka_run_group_tests(tests, fixture_enter, fixture_leave);
}
