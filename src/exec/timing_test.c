#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "exec/timing.h"

static struct timing *timing;

static int begin(void **state)
{
    timing = timing_new();
    return 0;
}

static int end(void **state)
{
    timing_free(timing);
    return 0;
}

static void marks_are_in_the_order_of_time_wherever_they_come_from(void **state)
{
    const struct timing_mark *marks;
    CLEANUP_BUF struct buf out = {0};

    timing_begin(timing, "c", "create", 1000000);
    timing_add(timing, "c", "run", 9000000);
    timing_add_text(timing, "c", "qemu=4500000");
    timing_add_text(timing, "c", "qemu=4600000"); /* the first counts */
    timing_add(timing, "c", "early", 999999);
    assert_int_equal(timing_marks(timing, "c", &marks), 3);
    assert_string_equal(marks[1].name, "qemu");
    assert_int_equal(marks[1].ns, 4500000);
    assert_string_equal(marks[2].name, "run");
    timing_describe(timing, "c", &out);
    buf_append(&out, "", 1);
    assert_string_equal((char *)out.data, "qemu 3.5, run 8.0");
}

static void what_a_keeper_sends_is_taken_with_care(void **state)
{
    static const char *const bad[] = {"",
                                      "=5",
                                      "x",
                                      "x=",
                                      "x=-1",
                                      "x=5",
                                      "x=99999999999999999999",
                                      "Up=2000000",
                                      "a b=2000000",
                                      "name-of-sixteen-=2000000",
                                      "x=18446744073709551615"};
    const struct timing_mark *marks;
    char text[64];

    timing_begin(timing, "c", "create", 1000000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        timing_add_text(timing, "c", bad[i]);
    assert_int_equal(timing_marks(timing, "c", &marks), 1);
    timing_add_text(timing, "nobody", "x=2000000");
    assert_int_equal(timing_marks(timing, "nobody", &marks), 0);
    for (int i = 0; i < TIMING_MARKS_MAX + 5; i++) {
        snprintf(text, sizeof(text), "m%d=%d", i, 1000001 + i);
        timing_add_text(timing, "c", text);
    }
    assert_int_equal(timing_marks(timing, "c", &marks), TIMING_MARKS_MAX);
}

static void the_oldest_records_are_dropped(void **state)
{
    const struct timing_mark *marks;
    char ctr[16];

    for (int i = 0; i < TIMING_RECORDS_MAX + 1; i++) {
        snprintf(ctr, sizeof(ctr), "c%d", i);
        timing_begin(timing, ctr, "create", 1);
    }
    assert_int_equal(timing_marks(timing, "c0", &marks), 0);
    assert_int_equal(timing_marks(timing, "c1", &marks), 1);
    timing_begin(timing, "c1", "start", 7); /* again: its old marks are gone */
    assert_int_equal(timing_marks(timing, "c1", &marks), 1);
    assert_string_equal(marks[0].name, "start");
}

static void steps_have_their_distribution_without_the_time_of_the_user(void **state)
{
    struct timing_step step;
    char ctr[16];

    for (uint64_t i = 1; i <= 100; i++) {
        snprintf(ctr, sizeof(ctr), "c%d", (int)i);
        timing_begin(timing, ctr, "create", 1000000);
        timing_add(timing, ctr, "layer", 1000000 + i * 1000000);
        timing_add(timing, ctr, "start", 5000000000);
        timing_runs(timing, ctr);
        timing_runs(timing, ctr);
    }
    assert_true(timing_step(timing, 0, &step));
    assert_string_equal(step.name, "layer");
    assert_int_equal(step.count, 100);
    assert_int_equal((int)step.p50_ms, 50);
    assert_int_equal((int)step.p90_ms, 90);
    assert_int_equal((int)step.p99_ms, 99);
    assert_true(timing_step(timing, 1, &step));
    assert_int_equal(step.count, 0);
    assert_false(timing_step(timing, 2, &step));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(marks_are_in_the_order_of_time_wherever_they_come_from),
        TEST(what_a_keeper_sends_is_taken_with_care),
        TEST(the_oldest_records_are_dropped),
        TEST(steps_have_their_distribution_without_the_time_of_the_user),
    };

    return cmocka_run_group_tests_name("timing", tests, NULL, NULL);
}
