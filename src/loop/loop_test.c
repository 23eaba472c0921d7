/* The loop: timers, descriptors, children, signals. Framed connections are in conn_test.c. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "loop/loop.h"

enum { GUARD_MS = 25000 };

static struct loop *loop;
static struct timer *guard;

static void guard_fired(void *arg)
{
    fail_msg("the loop did not come to its end in time");
}

/* A loop of its own for each test, that does not wait for ever. */
static int set_up(void **state)
{
    loop = loop_new();
    guard = timer_new(loop, guard_fired, NULL);
    timer_set(guard, GUARD_MS);
    return 0;
}

static int tear_down(void **state)
{
    timer_free(guard);
    loop_free(loop);
    return 0;
}

/* ---- timers and turns ----------------------------------------------------------------------- */

static char order[16];

static void note(void *arg)
{
    size_t n = strlen(order);
    order[n] = *(const char *)arg;
    order[n + 1] = 0;
    if (order[n] == '!')
        loop_stop(loop);
}

static void timers_fire_once_in_the_order_of_their_delays(void **state)
{
    struct timer *slow = timer_new(loop, note, (void *)(uintptr_t) "b");
    struct timer *fast = timer_new(loop, note, (void *)(uintptr_t) "a");
    struct timer *unset = timer_new(loop, note, (void *)(uintptr_t) "x");
    struct timer *freed = timer_new(loop, note, (void *)(uintptr_t) "y");
    struct timer *last = timer_new(loop, note, (void *)(uintptr_t) "!");
    uint64_t start = loop_now_ms(loop);

    order[0] = 0;
    timer_set(slow, 20);
    timer_set(fast, 5);
    timer_set(unset, 1);
    timer_set(freed, 1);
    timer_set(last, 1);
    timer_set(last, 40);
    timer_unset(unset);
    timer_free(freed);
    loop_run(loop);
    assert_string_equal(order, "ab!");
    assert_true(loop_now_ms(loop) - start >= 39);
    timer_free(slow);
    timer_free(fast);
    timer_free(unset);
    timer_free(last);
    timer_free(NULL);
}

static struct timer *own;

static void free_myself(void *arg)
{
    timer_free(own);
    loop_stop(loop);
}

static void a_callback_may_free_the_object_that_called_it(void **state)
{
    own = timer_new(loop, free_myself, NULL);
    timer_set(own, 0);
    loop_run(loop);
}

static int hooks;

static void count_hook(void *arg)
{
    hooks++;
}

static void the_end_of_each_turn_is_told(void **state)
{
    struct timer *stop = timer_new(loop, note, (void *)(uintptr_t) "!");
    order[0] = 0;
    hooks = 0;
    loop_set_turn_end(loop, count_hook, NULL);
    timer_set(stop, 5);
    loop_run(loop);
    assert_true(hooks >= 1);
    timer_free(stop);
}

/* ---- descriptors and signals ---------------------------------------------------------------- */

struct pipe_test {
    int fds[2];
    struct watch *watch;
    int calls;
};

static void read_all(int events, void *arg)
{
    struct pipe_test *t = arg;
    char text[16];
    assert_int_equal(events, WATCH_READ);
    t->calls++;
    if (read(t->fds[0], text, sizeof(text)) > 0)
        return;
    watch_free(t->watch);
    loop_stop(loop);
}

static void a_watch_calls_for_bytes_and_for_the_end_of_them(void **state)
{
    struct pipe_test t = {0};
    assert_int_equal(pipe2(t.fds, O_CLOEXEC | O_NONBLOCK), 0);
    t.watch = watch_new(loop, t.fds[0], WATCH_READ, read_all, &t);
    assert_int_equal(write(t.fds[1], "x", 1), 1);
    close(t.fds[1]);
    loop_run(loop);
    assert_int_equal(t.calls, 2);
    close(t.fds[0]);
}

static void unwatched(int events, void *arg)
{
    fail_msg("a watch of nothing called");
}

static void a_watch_of_nothing_is_quiet(void **state)
{
    int fds[2];
    struct timer *stop = timer_new(loop, note, (void *)(uintptr_t) "!");
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct watch *watch = watch_new(loop, fds[0], WATCH_READ, unwatched, NULL);
    watch_set(watch, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    order[0] = 0;
    timer_set(stop, 20);
    loop_run(loop);
    watch_free(watch);
    timer_free(stop);
    close(fds[0]);
    close(fds[1]);
}

static void signal_is(int signal, void *arg)
{
    *(int *)arg = signal;
    loop_stop(loop);
}

static void a_signal_becomes_a_call(void **state)
{
    int came = 0;
    struct signal_watch *watch = signal_watch_new(loop, SIGUSR1, signal_is, &came);
    kill(getpid(), SIGUSR1);
    loop_run(loop);
    assert_int_equal(came, SIGUSR1);
    signal_watch_free(watch);
}

/* ---- children ------------------------------------------------------------------------------- */

static void child_is_over(int status, void *arg)
{
    *(int *)arg = status;
    loop_stop(loop);
}

static const int no_fds[] = {-1, -1, -1};

/* Runs `sh -c script` and returns its status. */
static int status_of(const char *script, int signal)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct child_spec spec = {
        .path = "/bin/sh", .argv = argv, .fds = no_fds, .fd_count = 3, .die_with_parent = true};
    int status = -1;
    struct child *child = child_spawn(loop, &spec, child_is_over, &status, NULL);
    assert_non_null(child);
    assert_true(child_pid(child) > 0);
    if (signal)
        child_kill(child, signal);
    loop_run(loop);
    assert_int_equal(child_pid(child), 0);
    child_kill(child, SIGKILL); /* of an ended child: nothing */
    child_free(child);
    return status;
}

static void the_status_of_a_child_is_its_code_or_128_and_its_signal(void **state)
{
    assert_int_equal(status_of("exit 0", 0), 0);
    assert_int_equal(status_of("exit 43", 0), 43);
    assert_int_equal(status_of("kill -TERM $$", 0), 128 + SIGTERM);
    assert_int_equal(status_of("exec sleep 100", SIGKILL), 128 + SIGKILL);
}

static void a_child_has_the_descriptors_it_was_given_and_no_others(void **state)
{
    int fds[2], status = -1;
    char text[64] = "";
    const char *const argv[] = {
        "sh", "-c",
        "i=0; while [ $i -lt 64 ]; do "
        "[ -e /proc/$$/fd/$i ] && printf '%s ' $i >&3; i=$((i + 1)); done; :",
        NULL};
    assert_int_equal(pipe2(fds, 0), 0); /* not close-on-exec: it must not get there all the same */
    const int given[] = {-1, -1, -1, fds[1]};
    struct child_spec spec = {.path = "/bin/sh", .argv = argv, .fds = given, .fd_count = 4};
    struct child *child = child_spawn(loop, &spec, child_is_over, &status, NULL);
    assert_non_null(child);
    loop_run(loop);
    assert_int_equal(status, 0);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "0 1 2 3 ");
    child_free(child);
    close(fds[0]);
    close(fds[1]);
}

static void a_program_that_cannot_run_is_an_error_that_names_it(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    const char *const argv[] = {"x", NULL};
    struct child_spec spec = {
        .path = "/nonexistent/program", .argv = argv, .fds = no_fds, .fd_count = 3};
    assert_null(child_spawn(loop, &spec, child_is_over, NULL, &e));
    assert_int_equal(e->kind, ERROR_NOT_FOUND);
    assert_non_null(strstr(error_text(e), "/nonexistent/program"));
}

static void an_unknown_user_is_an_error_that_names_it(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    const char *const argv[] = {"sh", NULL};
    struct child_spec spec = {
        .path = "/bin/sh", .argv = argv, .fds = no_fds, .fd_count = 3, .user = "no-such-user"};
    assert_null(child_spawn(loop, &spec, child_is_over, NULL, &e));
    assert_int_equal(e->kind, ERROR_NOT_FOUND);
    assert_non_null(strstr(error_text(e), "no-such-user"));
}

/* As root only: another user cannot become one. */
static void a_child_of_another_user_has_its_groups_and_that_of_its_device(void **state)
{
    CLEANUP_FREE char *directory = scratch_make("loop");
    CLEANUP_FREE char *device = str_printf("%s/device", directory);
    char text[64] = "";
    int fds[2], status = -1;
    const char *const argv[] = {"sh", "-c", "id -u >&3; id -G >&3; echo x > device", NULL};
    if (geteuid() != 0)
        return;
    assert_int_equal(chmod(directory, 0711), 0);
    assert_int_equal(mknod(device, S_IFCHR | 0600, makedev(1, 3)), 0);
    assert_int_equal(chown(device, 0, 4711), 0);
    assert_int_equal(chmod(device, 0660), 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    const int given[] = {-1, -1, -1, fds[1]};
    struct child_spec spec = {.path = "/bin/sh",
                              .argv = argv,
                              .cwd = directory, /* TMPDIR need not be open to others */
                              .fds = given,
                              .fd_count = 4,
                              .user = "nobody",
                              .device = device};
    struct child *child = child_spawn(loop, &spec, child_is_over, &status, NULL);
    assert_non_null(child);
    loop_run(loop);
    assert_int_equal(status, 0);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "65534\n65534 4711\n");
    assert_int_equal(child_user_may_use("nobody", device, NULL), 0);
    assert_int_equal(chown(device, 0, 0), 0); /* root's group opens too much to be given away */
    assert_int_equal(child_user_may_use("nobody", device, NULL), -1);
    unlink(device);
    assert_int_equal(rmdir(directory), 0);
    child_free(child);
    close(fds[0]);
    close(fds[1]);
}

static void what_another_user_may_read_is_told_by_the_file_alone(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    CLEANUP_FREE char *directory = scratch_make("loop");
    CLEANUP_FREE char *path = str_printf("%s/file", directory);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0604), 0);
    assert_int_equal(child_user_may_read("nobody", path, NULL), 0);
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_int_equal(child_user_may_read("root", path, NULL), 0);
    assert_int_equal(child_user_may_read("nobody", path, &e), -1);
    assert_int_equal(e->kind, ERROR_DENIED);
    assert_non_null(strstr(error_text(e), path));
    close(fd);
    unlink(path);
    assert_int_equal(rmdir(directory), 0);
}

#define loop_unit_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_unit_test(timers_fire_once_in_the_order_of_their_delays),
        loop_unit_test(a_callback_may_free_the_object_that_called_it),
        loop_unit_test(the_end_of_each_turn_is_told),
        loop_unit_test(a_watch_calls_for_bytes_and_for_the_end_of_them),
        loop_unit_test(a_watch_of_nothing_is_quiet),
        loop_unit_test(a_signal_becomes_a_call),
        loop_unit_test(the_status_of_a_child_is_its_code_or_128_and_its_signal),
        loop_unit_test(a_child_has_the_descriptors_it_was_given_and_no_others),
        loop_unit_test(a_program_that_cannot_run_is_an_error_that_names_it),
        loop_unit_test(an_unknown_user_is_an_error_that_names_it),
        loop_unit_test(a_child_of_another_user_has_its_groups_and_that_of_its_device),
        loop_unit_test(what_another_user_may_read_is_told_by_the_file_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
