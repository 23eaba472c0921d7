#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "keeper/confine.h"

static char *top, *home, *given, *other;

static int set_up(void **state)
{
    top = scratch_make("confine");
    home = str_printf("%s/home", top);
    given = str_printf("%s/given", top);
    other = str_printf("%s/other", top);
    return mkdir(home, 0700) < 0 || mkdir(given, 0700) < 0 || mkdir(other, 0700) < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    char *const directories[] = {home, given, other};
    for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
        CLEANUP_FREE char *file = str_printf("%s/file", directories[i]);
        unlink(file);
        rmdir(directories[i]);
        free(directories[i]);
    }
    int rc = rmdir(top);
    free(top);
    return rc;
}

/* 0, or the errno of making and writing a file there. */
static int file_write(const char *directory)
{
    CLEANUP_FREE char *path = str_printf("%s/file", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    ssize_t n = write(fd, "x", 1);
    close(fd);
    return n == 1 ? 0 : EIO;
}

static void require(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "confined: %s\n", what);
    _exit(1);
}

/* 0, or the errno of a connection to this host. */
static int tcp_connect(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err = connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
    close(fd);
    return err;
}

static void confined(void)
{
    long interface = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    CLEANUP_ERROR struct error *error = NULL;
    char missing[] = "/nonexistent/directory";
    char *const directories[] = {given, missing, NULL};

    require(chdir(home) == 0, "the working directory");
    int opened = open(other, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
    require(confine(directories, &error) == 0, error_text(error));
    require(file_write(home) == 0, "the working directory can be written to");
    require(file_write(given) == 0, "… and what is given");
    require(file_write(other) == EACCES, "… and nothing else");
    require(mkdir("../other/directory", 0700) < 0 && errno == EACCES, "nothing is made elsewhere");
    require(link("file", "../other/link") < 0, "nothing is linked to elsewhere");
    require(rename("file", "../other/file") < 0, "nothing is moved elsewhere");
    require(open("/dev/null", O_RDWR | O_CLOEXEC) >= 0, "the devices of all can be used");
    require(opened < 0 || write(opened, "x", 1) == 1, "what is open stays open");
    if (interface >= 4)
        require(tcp_connect() == EACCES, "nothing is connected to");
    if (interface >= 6)
        require(kill(getppid(), 0) < 0 && errno == EPERM, "others are sent no signal");
    require(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no new privileges");
    require(prctl(PR_CAPBSET_READ, 21) == 0 || geteuid() != 0, "CAP_SYS_ADMIN is dropped");
    require(prctl(PR_CAPBSET_READ, 7) == 1, "CAP_SETUID is kept");
    _exit(0);
}

static void a_confined_process_writes_only_where_it_may(void **state)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        confined();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_write(other), 0); /* its parent is not confined */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_confined_process_writes_only_where_it_may, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
