/* husk-share, asked by a keeper that is not to be trusted. What stands in for virtiofsd only waits.
 * Needs root: it mounts, where nobody sees it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "keeper/share.h"

enum { DEADLINE_MS = 20000 };

static char home[512];
static struct share_child child;

static char *path_of(const char *name)
{
    return str_printf("%s/%s", home, name);
}

static void file_make(const char *name, const char *text, mode_t mode)
{
    CLEANUP_FREE char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void start(const char *program)
{
    struct error *error = NULL;
    assert_int_equal(chdir(home), 0);
    assert_int_equal(share_fork(program, home, &child, &error), 0);
}

static int setup(void **state)
{
    static const char *const directories[] = {
        "overlay", "overlay/a",   "overlay/a/root", "pods",
        "pods/p",  "pods/p/c",    "pods/p/c/upper", "pods/p/c/work",
        "secret",  "secret/root", "pods/p/evil",    "pods/p/evil/work",
    };
    snprintf(home, sizeof(home), "%s/husk-share.XXXXXX", str_or(getenv("TMPDIR"), "/tmp"));
    assert_non_null(mkdtemp(home));
    for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
        CLEANUP_FREE char *path = path_of(directories[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    file_make("overlay/a/root/file", "of the image", 0644);
    CLEANUP_FREE char *link = path_of("overlay/link"), *upper = path_of("pods/p/evil/upper");
    assert_int_equal(symlink("../secret", link), 0);
    assert_int_equal(symlink("../../../secret", upper), 0);
    return 0;
}

/* It is gone once the keeper's end of the socket is, and all that it started. */
static void end(void)
{
    siginfo_t info;
    struct pollfd ended = {.fd = child.pidfd, .events = POLLIN};
    close(child.control);
    assert_int_equal(poll(&ended, 1, DEADLINE_MS), 1);
    assert_int_equal(waitid(P_PIDFD, (id_t)child.pidfd, &info, WEXITED), 0);
    close(child.pidfd);
    close(child.vhost);
}

static int teardown(void **state)
{
    assert_int_equal(chdir("/"), 0);
    CLEANUP_FREE char *command = str_printf("rm -rf '%s'", home);
    return system(command);
}

static struct share_reply ask(enum share_op op, unsigned number, const char *image,
                              const char *layer)
{
    struct share_request r = {.op = op, .number = number};
    struct share_reply reply = {.failed = 99};
    struct pollfd ready = {.fd = child.control, .events = POLLIN};
    snprintf(r.image, sizeof(r.image), "%s", image);
    snprintf(r.layer, sizeof(r.layer), "%s", layer);
    assert_int_equal(send(child.control, &r, sizeof(r), MSG_NOSIGNAL), sizeof(r));
    assert_int_equal(poll(&ready, 1, DEADLINE_MS), 1);
    assert_int_equal(recv(child.control, &reply, sizeof(reply), 0), sizeof(reply));
    return reply;
}

/* As husk-share sees it. */
static char *inside(const char *name)
{
    return str_printf("/proc/%d/root%s/share/roots/%s", child.pid, home, name);
}

static void waits_forever(void)
{
    file_make("virtiofsd", "#!/bin/sh\nexec sleep 1000\n", 0755);
    CLEANUP_FREE char *program = path_of("virtiofsd");
    start(program);
}

static void a_layer_is_mounted_where_nobody_sees_it(void **state)
{
    waits_forever();
    struct share_reply reply = ask(SHARE_MOUNT, 7, "overlay/a/root", "pods/p/c");
    assert_string_equal(reply.text, "");
    CLEANUP_FREE char *file = inside("7/file"), *made = inside("7/made"), *root = inside("7");
    CLEANUP_FREE char *outside = path_of("share/roots"), *upper = path_of("pods/p/c/upper/made");
    CLEANUP_FREE char *other = inside("other");
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(mkdir(made, 0700), 0);
    assert_int_equal(access(upper, F_OK), 0);
    assert_int_equal(access(outside, F_OK), -1);
    assert_int_equal(mkdir(other, 0700), -1); /* what is served is read-only but for the roots */
    assert_int_equal(errno, EROFS);
    reply = ask(SHARE_UNMOUNT, 7, "", "");
    assert_string_equal(reply.text, "");
    assert_int_equal(access(root, F_OK), -1);
    assert_int_equal(ask(SHARE_UNMOUNT, 7, "", "").failed, 0);
    end();
}

static void what_is_no_image_or_layer_is_refused(void **state)
{
    static const char *const pairs[][2] = {
        {"secret/root", "pods/p/c"},
        {"overlay/../secret/root", "pods/p/c"},
        {"overlay/link/root", "pods/p/c"},
        {"/etc", "pods/p/c"},
        {"overlay/a/root", "secret"},
        {"overlay/a/root", "pods/../secret"},
        {"overlay/a/root", "pods/p/evil"},
        {"overlay/a/root", "pods/p"},
        {"", ""},
    };
    waits_forever();
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        struct share_reply reply = ask(SHARE_MOUNT, (unsigned)i, pairs[i][0], pairs[i][1]);
        assert_true(reply.failed && *reply.text);
    }
    /* It is as good as before. */
    assert_int_equal(ask(SHARE_MOUNT, 100, "overlay/a/root", "pods/p/c").failed, 0);
    end();
}

static void the_end_of_virtiofsd_is_told_with_its_last_words(void **state)
{
    struct share_reply reply = {0};
    struct pollfd ready = {.events = POLLIN};
    file_make("virtiofsd", "#!/bin/sh\necho first; echo it is broken >&2; exit 3\n", 0755);
    CLEANUP_FREE char *program = path_of("virtiofsd");
    start(program);
    ready.fd = child.control;
    assert_int_equal(poll(&ready, 1, DEADLINE_MS), 1);
    assert_int_equal(recv(child.control, &reply, sizeof(reply), 0), sizeof(reply));
    assert_true(reply.ended && reply.failed);
    assert_string_equal(reply.text, "virtiofsd, which serves its files, exited with status 3: "
                                    "first;it is broken");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_layer_is_mounted_where_nobody_sees_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_image_or_layer_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_of_virtiofsd_is_told_with_its_last_words, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
