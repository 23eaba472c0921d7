#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "keeper/exits.h"

static char *dir;
static char *path;

struct seen {
    unsigned count;
    char *text;
};

static void found(const struct exit_record *r, void *arg)
{
    struct seen *seen = arg;
    free(seen->text);
    seen->count++;
    seen->text = str_printf("%s/%s/%llu/%u/%u/%d/%s/%llu/%llu", r->ctr, r->exec,
                            (unsigned long long)r->run, r->code, r->signal, r->oom, r->reason,
                            (unsigned long long)r->started_ns, (unsigned long long)r->finished_ns);
}

static int journal_open(void)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void what_is_appended_is_read(void **state)
{
    struct exit_record r = {.ctr = "c1",
                            .exec = "",
                            .run = 3,
                            .code = 137,
                            .signal = 9,
                            .oom = true,
                            .reason = "out of \"memory\"",
                            .started_ns = 1700000000000000001u,
                            .finished_ns = 1700000000000000002u};
    struct seen seen = {0};
    int fd = journal_open();
    assert_int_equal(exits_append(fd, &r, NULL), 0);
    assert_int_equal(exits_append(fd, &r, NULL), 0);
    close(fd);
    assert_int_equal(exits_read(path, found, &seen, NULL), 0);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.text, "c1//3/137/9/1/out of \"memory\"/1700000000000000001/"
                                   "1700000000000000002");
    free(seen.text);
}

static void a_torn_or_foreign_line_is_left_out(void **state)
{
    static const char junk[] = "{\"ctr\":\"x\"}\nnonsense\n[]\n{\"ctr\":\"c2\",\"exec\":\"e\",\"ru";
    struct exit_record r = {.ctr = "c1", .exec = "e1", .reason = "\xff\xfe not text"};
    struct seen seen = {0};
    int fd = journal_open();
    assert_int_equal(exits_append(fd, &r, NULL), 0);
    assert_int_equal(write(fd, junk, sizeof(junk) - 1), sizeof(junk) - 1);
    close(fd);
    assert_int_equal(exits_read(path, found, &seen, NULL), 0);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.text, "c1/e1/0/0/0/0/?? not text/0/0");
    free(seen.text);
}

static void a_full_disk_spoils_no_other_record(void **state)
{
    struct exit_record r = {.ctr = "c1", .exec = "", .code = 1, .reason = ""};
    struct rlimit unlimited, limit;
    struct seen seen = {0};
    struct error *error = NULL;
    int fd = journal_open();
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &unlimited);
    limit = unlimited;
    limit.rlim_cur = 50;
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(exits_append(fd, &r, &error), -1);
    error_free(error);
    setrlimit(RLIMIT_FSIZE, &unlimited);
    r.code = 2;
    assert_int_equal(exits_append(fd, &r, NULL), 0);
    close(fd);
    assert_int_equal(exits_read(path, found, &seen, NULL), 0);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.text, "c1//0/2/0/0//0/0");
    free(seen.text);
}

static void a_journal_that_is_not_there_has_no_records(void **state)
{
    struct seen seen = {0};
    unlink(path);
    assert_int_equal(exits_read(path, found, &seen, NULL), 0);
    assert_int_equal(seen.count, 0);
}

static int setup(void **state)
{
    dir = scratch_make("exits");
    path = str_printf("%s/" EXITS_FILE, dir);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    free(path);
    int rc = rmdir(dir);
    free(dir);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_read),
        cmocka_unit_test(a_torn_or_foreign_line_is_left_out),
        cmocka_unit_test(a_full_disk_spoils_no_other_record),
        cmocka_unit_test(a_journal_that_is_not_there_has_no_records),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
