#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/logread.h"
#include "api/times.h"
#include "base/buf.h"
#include "base/scratch.h"
#include "base/str.h"

static char *directory, *path, *older;

static int make_directory(void **state)
{
    directory = scratch_make("logread");
    path = str_printf("%s/log", directory);
    older = str_printf("%s/log.1", directory);
    return 0;
}

static int remove_directory(void **state)
{
    unlink(path);
    unlink(older);
    free(path);
    free(older);
    int rc = rmdir(directory);
    free(directory);
    return rc;
}

static void append(const char *file, const char *text)
{
    FILE *f = fopen(file, "a");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Line n, a second after line n - 1; odd ones come from stdout. */
static void append_lines(const char *file, int first, int last)
{
    for (int n = first; n <= last; n++) {
        CLEANUP_FREE char *line = str_printf(
            "{\"log\":\"line %d\\n\",\"stream\":\"%s\",\"time\":\"2026-01-01T00:00:%02d.5Z\"}\n", n,
            n % 2 ? "stdout" : "stderr", n);
        append(file, line);
    }
}

static char *read_all(struct log_read *log, size_t step)
{
    CLEANUP_BUF struct buf out = {0};
    size_t n;
    while ((n = log_read_some(log, (char *)buf_reserve(&out, step), step)))
        out.len += n;
    return out.len ? buf_take_str(&out) : xstrdup("");
}

static void reads_as(const struct log_query *query, const char *expected)
{
    struct log_read *log;
    assert_int_equal(log_read_open(path, query, &log, NULL), 0);
    CLEANUP_FREE char *text = read_all(log, 7);
    assert_string_equal(text, expected);
    log_read_free(log);
}

static const struct log_query ALL = {.tail = LOG_TAIL_ALL, .out = true, .err = true};

static int start_with_four_lines(void **state)
{
    unlink(path);
    unlink(older);
    append_lines(older, 1, 2);
    append_lines(path, 3, 4);
    return 0;
}

static void a_log_that_is_not_there_is_empty(void **state)
{
    unlink(path);
    unlink(older);
    reads_as(&ALL, "");
}

static void the_rotated_file_comes_first(void **state)
{
    reads_as(&ALL, "line 1\nline 2\nline 3\nline 4\n");
}

static void streams_are_picked(void **state)
{
    struct log_query query = ALL;
    query.out = false;
    reads_as(&query, "line 2\nline 4\n");
}

static void the_tail_reaches_into_the_rotated_file(void **state)
{
    static const char *const expected[] = {"",
                                           "line 4\n",
                                           "line 3\nline 4\n",
                                           "line 2\nline 3\nline 4\n",
                                           "line 1\nline 2\nline 3\nline 4\n",
                                           "line 1\nline 2\nline 3\nline 4\n"};
    struct log_query query = ALL;
    for (query.tail = 0; query.tail < ARRAY_SIZE(expected); query.tail++)
        reads_as(&query, expected[query.tail]);
}

static void what_is_older_is_left_out(void **state)
{
    struct log_query query = ALL;
    assert_true(time_read("2026-01-01T00:00:03.5Z", &query.since_ns));
    reads_as(&query, "line 3\nline 4\n");
}

static void each_line_may_begin_with_its_time(void **state)
{
    struct log_query query = ALL;
    query.tail = 1;
    query.timestamps = true;
    reads_as(&query, "2026-01-01T00:00:04.5Z line 4\n");
}

static void pieces_have_headers_if_wanted(void **state)
{
    struct log_query query = ALL;
    struct log_read *log;
    char text[64];
    query.tail = 1;
    query.framed = true;
    assert_int_equal(log_read_open(path, &query, &log, NULL), 0);
    assert_int_equal(log_read_some(log, text, sizeof(text)), 8 + 7);
    assert_memory_equal(text, "\2\0\0\0\0\0\0\7line 4\n", 15);
    log_read_free(log);
}

static void what_is_no_line_of_a_log_is_left_out(void **state)
{
    append(path, "not json\n{\"log\":1}\n\n{\"log\":\"half");
    reads_as(&ALL, "line 1\nline 2\nline 3\nline 4\n");
}

static void following_survives_a_rotation_and_half_lines(void **state)
{
    struct log_read *log;
    assert_int_equal(log_read_open(path, &ALL, &log, NULL), 0);
    free(read_all(log, 100));
    append(path, "{\"log\":\"line 5\\n\",\"stream\":\"stdout\",");
    CLEANUP_FREE char *half = read_all(log, 100);
    assert_string_equal(half, "");
    append(path, "\"time\":\"2026-01-01T00:00:05Z\"}\n");
    assert_int_equal(rename(path, older), 0);
    append_lines(path, 6, 6);
    CLEANUP_FREE char *after = read_all(log, 100);
    assert_string_equal(after, "line 5\nline 6\n");
    log_read_free(log);
}

static void a_follower_that_is_a_file_behind_misses_nothing(void **state)
{
    struct log_read *log;
    assert_int_equal(log_read_open(path, &ALL, &log, NULL), 0);
    free(read_all(log, 100));
    append_lines(path, 5, 5);
    assert_int_equal(rename(path, older), 0);
    append_lines(path, 6, 6);
    assert_int_equal(rename(path, older), 0); /* the file with line 5 has no name any more */
    append_lines(path, 7, 7);
    CLEANUP_FREE char *after = read_all(log, 100);
    assert_string_equal(after, "line 5\nline 6\nline 7\n");
    log_read_free(log);
}

static void the_moment_between_two_files_is_no_gap(void **state)
{
    struct log_read *log;
    assert_int_equal(rename(path, older), 0);
    assert_int_equal(log_read_open(path, &ALL, &log, NULL), 0);
    CLEANUP_FREE char *before = read_all(log, 100);
    assert_string_equal(before, "line 3\nline 4\n");
    append_lines(path, 5, 5);
    assert_int_equal(rename(path, older), 0);
    append_lines(path, 6, 6);
    CLEANUP_FREE char *after = read_all(log, 100);
    assert_string_equal(after, "line 5\nline 6\n");
    log_read_free(log);
}

static void a_line_that_is_too_long_is_left_out(void **state)
{
    CLEANUP_FREE char *line = xmalloc(2 * LOG_LINE_MAX + 2);
    memset(line, 'x', 2 * LOG_LINE_MAX);
    strcpy(line + 2 * LOG_LINE_MAX, "\n");
    append(path, line);
    append_lines(path, 5, 5);
    reads_as(&ALL, "line 1\nline 2\nline 3\nline 4\nline 5\n");
}

static void times_are_read_in_every_form(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"1970-01-01T00:00:01Z", 1000000000},
        {"1970-01-01T00:00:00.25Z", 250000000},
        {"1970-01-01T01:00:00.000000001+01:00", 1},
        {"12", 12000000000},
        {"12.5", 12500000000},
    };
    int64_t ns;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(time_read(good[i].text, &ns));
        assert_int_equal(ns, good[i].ns);
    }
    assert_false(time_read("", &ns));
    assert_false(time_read("yesterday", &ns));
    assert_false(time_read("1970-01-01T00:00:01", &ns));
    assert_false(time_read("99999999999999999999", &ns));
}

static void a_time_that_is_written_is_read_again(void **state)
{
    char text[TIME_TEXT_SIZE];
    int64_t ns;
    time_write(text, 1795296467000000042, true);
    assert_true(time_read(text, &ns));
    assert_int_equal(ns, 1795296467000000042);
    time_write(text, 0, true);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_is_not_there_is_empty),
        cmocka_unit_test_setup(the_rotated_file_comes_first, start_with_four_lines),
        cmocka_unit_test_setup(streams_are_picked, start_with_four_lines),
        cmocka_unit_test_setup(the_tail_reaches_into_the_rotated_file, start_with_four_lines),
        cmocka_unit_test_setup(what_is_older_is_left_out, start_with_four_lines),
        cmocka_unit_test_setup(each_line_may_begin_with_its_time, start_with_four_lines),
        cmocka_unit_test_setup(pieces_have_headers_if_wanted, start_with_four_lines),
        cmocka_unit_test_setup(what_is_no_line_of_a_log_is_left_out, start_with_four_lines),
        cmocka_unit_test_setup(following_survives_a_rotation_and_half_lines, start_with_four_lines),
        cmocka_unit_test_setup(a_follower_that_is_a_file_behind_misses_nothing,
                               start_with_four_lines),
        cmocka_unit_test_setup(the_moment_between_two_files_is_no_gap, start_with_four_lines),
        cmocka_unit_test_setup(a_line_that_is_too_long_is_left_out, start_with_four_lines),
        cmocka_unit_test(times_are_read_in_every_form),
        cmocka_unit_test(a_time_that_is_written_is_read_again),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
