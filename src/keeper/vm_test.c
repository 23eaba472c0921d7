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

/* ---- a hypervisor that takes its time ------------------------------------------------------- */

static hyper_done *held;
static void *held_arg;

static void hold(struct hyper *h, hyper_done *done, void *arg)
{
    held = done;
    held_arg = arg;
}

static void slow_down(struct fixture *f)
{
    static struct hyper_ops slow;
    slow = *f->k->ops;
    slow.pause = slow.resume = hold;
    f->k->ops = &slow;
}

static unsigned ask_count(const struct ask *asks)
{
    unsigned count = 0;
    for (; asks; asks = asks->next)
        count++;
    return count;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void who_pauses_what_is_being_paused_waits_for_the_same(void **state)
{
    struct fixture *f = begin();
    CLEANUP_ERROR struct error *error = NULL;
    slow_down(f);
    for (bool pause = true;; pause = false) {
        assert_int_equal(vm_pause(f->k, 1, pause, NULL), 0);
        assert_int_equal(vm_pause(f->k, 2, pause, NULL), 0);
        assert_int_equal(ask_count(f->k->pause_asks), 2);
        assert_int_equal(vm_pause(f->k, 3, !pause, &error), -1);
        assert_int_equal(error->kind, ERROR_BUSY);
        error_free(take(error));
        held(NULL, held_arg);
        assert_null(f->k->pause_asks);
        assert_int_equal(f->k->paused, pause);
        if (!pause)
            break;
    }
    fixture_done(f);
}

static void a_pod_that_is_being_placed_may_be_placed_again(void **state)
{
    struct fixture *f = begin();
    struct wire_pod_place place = {.pod = "pod", .hostname = "web"};
    assert_int_equal(vm_place(f->k, &place, NULL), 0);
    uint32_t setup = f->k->guest_seq;
    f->k->connection++; /* of the next huskd */
    assert_int_equal(vm_place(f->k, &place, NULL), 0);
    assert_int_equal(f->k->guest_seq, setup);
    assert_int_equal(ask_count(f->k->place_asks), 2);
    assert_int_equal(vm_place(f->k, &(struct wire_pod_place){.pod = "other"}, NULL), -1);
    fixture_agree(f);
    assert_null(f->k->place_asks);
    assert_string_equal(f->k->pod, "pod");
    fixture_done(f);
}

static void the_next_huskd_does_not_shorten_the_grace_that_was_given(void **state)
{
    struct fixture *f = begin();
    assert_int_equal(vm_off(f->k, 1, 100000, NULL), 0);
    uint64_t due = f->k->off_ms;
    f->k->connection++;
    assert_int_equal(vm_off(f->k, 2, 0, NULL), 0);
    assert_int_equal(f->k->off_ms, due);
    fixture_turn(f);
    assert_false(f->killed);
    assert_int_equal(vm_off(f->k, 3, 0, NULL), 0); /* it does when it asks again */
    fixture_turn(f);
    assert_true(f->killed);
    fixture_done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_pauses_what_is_being_paused_waits_for_the_same),
        cmocka_unit_test(a_pod_that_is_being_placed_may_be_placed_again),
        cmocka_unit_test(the_next_huskd_does_not_shorten_the_grace_that_was_given),
    };
    return cmocka_run_group_tests(tests, fixture_enter, fixture_leave);
}
