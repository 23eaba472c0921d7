#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "logs/log_file.h"

static char *dir;
static char *path, *old;

static char *file_text(const char *name)
{
    char *text = xcalloc(1, 4 << 20);
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, (4 << 20) - 1);
    assert_true(n >= 0);
    if (fd >= 0)
        close(fd);
    return text;
}

static struct log_file *log_new(uint64_t max)
{
    struct log_file *log = NULL;
    unlink(path);
    unlink(old);
    assert_int_equal(log_file_open(path, max, &log, NULL), 0);
    return log;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

static void a_line_is_one_object(void **state)
{
    struct log_file *log = log_new(0);
    log_file_write(log, LOG_STDOUT, "hello\nwor", 9);
    log_file_write(log, LOG_STDERR, "oops\n", 5);
    log_file_write(log, LOG_STDOUT, "ld\n", 3);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    char *world = strstr(text, "{\"log\":\"world\\n\",\"stream\":\"stdout\",\"time\":\"");
    char *oops = strstr(text, "{\"log\":\"oops\\n\",\"stream\":\"stderr\",\"time\":\"");
    assert_ptr_equal(strstr(text, "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\""), text);
    assert_non_null(oops);
    assert_true(world > oops);
    assert_int_equal(count(text, "Z\"}\n"), 3);
}

static void the_last_line_needs_no_newline(void **state)
{
    struct log_file *log = log_new(0);
    log_file_write(log, LOG_STDOUT, "bye", 3);
    assert_int_equal(log_file_flush(log, NULL), 0);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    assert_non_null(strstr(text, "{\"log\":\"bye\",\"stream\""));
}

static void what_is_no_text_becomes_text(void **state)
{
    struct log_file *log = log_new(0);
    log_file_write(log, LOG_STDOUT, "\"\\\t\x01\xc3\xa4\xff\xed\xa0\x80\xf0\x9f\x98\x80\n", 15);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    const char *want = "{\"log\":\"\\\"\\\\\\t\\u0001\xc3\xa4\\ufffd\\ufffd\\ufffd\\ufffd"
                       "\xf0\x9f\x98\x80\\n\",";
    assert_memory_equal(text, want, strlen(want));
}

static void a_long_line_is_cut_into_pieces(void **state)
{
    struct log_file *log = log_new(0);
    CLEANUP_FREE char *line = xmalloc(100001);
    memset(line, 'x', 100000);
    line[100000] = '\n';
    for (size_t at = 0; at < 100001; at += 777)
        log_file_write(log, LOG_STDOUT, line + at, at + 777 < 100001 ? 777 : 100001 - at);
    log_file_write(log, LOG_STDOUT, line, 100001);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    assert_int_equal(count(text, "{\"log\""), 2 * 7);
    assert_int_equal(count(text, "\\n\",\"stream\""), 2);
    assert_int_equal(count(text, "x"), 200000);
}

static void a_full_file_is_rotated(void **state)
{
    struct log_file *log = log_new(1000);
    for (int i = 0; i < 40; i++) {
        log_file_write(log, LOG_STDOUT, "0123456789\n", 11);
        assert_int_equal(log_file_flush(log, NULL), 0);
    }
    assert_int_equal(log_file_close(log, NULL), 0);
    struct stat now, before;
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(stat(old, &before), 0);
    assert_true(before.st_size >= 1000 && before.st_size < 1200);
    assert_true(now.st_size < 1200);
}

static void a_file_that_cannot_be_written_fails_and_recovers(void **state)
{
    struct log_file *log = log_new(0);
    struct rlimit unlimited, limit;
    struct error *error = NULL;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &unlimited);
    limit = unlimited;
    limit.rlim_cur = 100;
    setrlimit(RLIMIT_FSIZE, &limit);
    log_file_write(log, LOG_STDOUT, "the first line\nthe second line\n", 31);
    assert_int_equal(log_file_flush(log, &error), -1);
    assert_non_null(strstr(error_text(error), path));
    error_free(error);
    setrlimit(RLIMIT_FSIZE, &unlimited);
    log_file_write(log, LOG_STDOUT, "the third line\n", 15);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    assert_non_null(strstr(text, "\n{\"log\":\"the third line\\n\""));
}

static void half_a_line_of_the_run_before_spoils_no_other(void **state)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs("{\"log\":\"half a l", file);
    fclose(file);
    struct log_file *log = NULL;
    assert_int_equal(log_file_open(path, 0, &log, NULL), 0);
    log_file_write(log, LOG_STDOUT, "first\n", 6);
    assert_int_equal(log_file_close(log, NULL), 0);
    CLEANUP_FREE char *text = file_text(path);
    assert_non_null(strstr(text, "\n{\"log\":\"first\\n\""));
}

static int setup(void **state)
{
    dir = scratch_make("log");
    path = str_printf("%s/log", dir);
    old = str_printf("%s/log.1", dir);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    unlink(old);
    free(path);
    free(old);
    int rc = rmdir(dir);
    free(dir);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_object),
        cmocka_unit_test(the_last_line_needs_no_newline),
        cmocka_unit_test(what_is_no_text_becomes_text),
        cmocka_unit_test(a_long_line_is_cut_into_pieces),
        cmocka_unit_test(a_full_file_is_rotated),
        cmocka_unit_test(a_file_that_cannot_be_written_fails_and_recovers),
        cmocka_unit_test(half_a_line_of_the_run_before_spoils_no_other),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
