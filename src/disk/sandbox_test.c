#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/scratch.h"
#include "base/str.h"
#include "disk/sandbox.h"

static char *scratch, *file, *beside, *other;
static pid_t maker;

static int gather(void *arg, const void *data, size_t size, struct error **ret_error)
{
    buf_append(arg, data, size);
    return 0;
}

static int run(sandbox_work *work, uint64_t max_bytes, struct buf *got, struct error **ret_error)
{
    const struct disk_output out = {gather, got, max_bytes};

    const struct sandbox_files files = {file, beside};

    return sandbox_run(&files, work, &out, ret_error);
}

/* ---- what is passed on ---------------------------------------------------------------------- */

static int work_long(const struct sandbox_files *files, const struct disk_output *out,
                     struct error **ret_error)
{
    uint8_t piece[10000];

    memset(piece, 'x', sizeof(piece));
    for (int i = 0; i < 500; i++)
        if (out->write(out->arg, piece, sizeof(piece), ret_error) < 0)
            return -1;
    return 0;
}

static int work_fail(const struct sandbox_files *files, const struct disk_output *out,
                     struct error **ret_error)
{
    return error_set(ret_error, ERROR_TOO_LARGE, 0, "it is\033too much");
}

static int work_crash(const struct sandbox_files *files, const struct disk_output *out,
                      struct error **ret_error)
{
    _exit(0);
}

static void what_it_writes_and_its_error_come_back(void **state)
{
    struct buf got = {0};
    struct error *error = NULL;

    assert_int_equal(run(work_long, 5000000, &got, NULL), 0);
    assert_int_equal(got.len, 5000000);
    assert_int_equal(run(work_fail, 10, &got, &error), -1);
    assert_int_equal(error->kind, ERROR_TOO_LARGE);
    assert_null(strchr(error_text(error), '\033'));
    error_freep(&error);
    error = NULL;
    assert_int_equal(run(work_crash, 10, &got, &error), -1);
    assert_int_equal(error->kind, ERROR_CORRUPT);
    error_freep(&error);
    error = NULL;
    assert_int_equal(run(work_long, 4999999, &got, &error), -1); /* whatever it believes */
    assert_int_equal(error->kind, ERROR_TOO_LARGE);
    error_freep(&error);
    buf_release(&got);
}

/* ---- what it can do ------------------------------------------------------------------------- */

static int opens(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : errno;
}

static int runs(const char *program)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int claim(bool held, const char *what, struct error **ret_error)
{
    return held ? 0 : error_set(ret_error, ERROR_STATE, 0, "%s: %s", what, strerror(errno));
}

static int work_look_around(const struct sandbox_files *files, const struct disk_output *out,
                            struct error **ret_error)
{
    CLEANUP_FREE char *made = str_printf("%s.new", other);
    const char *path = files->file;

    if (claim(opens(path, O_RDWR) == 0, "its file", ret_error) < 0 ||
        claim(opens(files->beside, O_RDONLY) == 0, "the one beside it", ret_error) < 0 ||
        claim(opens(files->beside, O_WRONLY) == EACCES, "write that", ret_error) < 0 ||
        claim(opens(other, O_RDONLY) == EACCES, "read another", ret_error) < 0 ||
        claim(opens(other, O_WRONLY) == EACCES, "write another", ret_error) < 0 ||
        claim(opens("/etc/passwd", O_RDONLY) == EACCES, "read the users", ret_error) < 0 ||
        claim(opens(made, O_WRONLY | O_CREAT) == EACCES, "make one", ret_error) < 0 ||
        claim(unlink(other) < 0 && errno == EACCES, "remove one", ret_error) < 0 ||
        claim(geteuid() != 0 || kill(maker, 0) < 0, "signal its maker", ret_error) < 0 ||
        claim(geteuid() != 0 || sethostname("x", 1) < 0, "rename the host", ret_error) < 0 ||
        claim(runs("/bin/true") == 0, "run a program", ret_error) < 0 ||
        sandbox_narrow(files, ret_error) < 0 ||
        claim(runs("/bin/true") == 127, "run one later", ret_error) < 0 ||
        claim(opens(path, O_RDONLY) == 0, "read its file later", ret_error) < 0 ||
        claim(opens(files->beside, O_RDONLY) == 0, "and the one beside", ret_error) < 0)
        return -1;
    return claim(opens(path, O_WRONLY) == EACCES, "write to its file later", ret_error);
}

static void it_reaches_its_file_and_nothing_else(void **state)
{
    struct buf got = {0};
    struct error *error = NULL;

    if (run(work_look_around, 10, &got, &error) < 0)
        fail_msg("%s", error_text(error));
    assert_int_equal(access(other, F_OK), 0);
    buf_release(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_writes_and_its_error_come_back),
        cmocka_unit_test(it_reaches_its_file_and_nothing_else),
    };

    scratch = scratch_make("sandbox");
    file = str_printf("%s/file", scratch);
    beside = str_printf("%s/beside", scratch);
    other = str_printf("%s/other", scratch);
    maker = getpid();
    close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    close(open(beside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    close(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file);
    unlink(beside);
    unlink(other);
    rmdir(scratch);
    free(scratch);
    free(file);
    free(beside);
    free(other);
    return failed;
}
