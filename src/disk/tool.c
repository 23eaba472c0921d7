#include "disk/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"

enum {
    DEADLINE_MS = 60000,
    WORDS_MAX = 1024, /* of what it says, for the sentence */
};

/* Not in the PATH of ordinary users. */
static char *program_of(const char *name)
{
    static const char *const places[] = {"/usr/sbin", "/sbin"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        char *path = str_printf("%s/%s", places[i], name);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup(name);
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Gathers what the child says until it closes its end; false: it took too long. */
static bool output_read(int fd, struct buf *out)
{
    int64_t deadline = now_ms() + DEADLINE_MS;

    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - now_ms();
        if (left <= 0 || poll(&ready, 1, (int)left) == 0)
            return false;
        uint8_t *space = buf_reserve(out, WORDS_MAX);
        ssize_t n = TEMP_FAILURE_RETRY(read(fd, space, WORDS_MAX));
        if (n <= 0)
            return true;
        if (out->len < WORDS_MAX)
            out->len += (size_t)n;
    }
}

/* In the child. It dies with the worker: what it writes to must not stay open. */
static void child_exec(const char *program, const char *const *argv, pid_t parent, int out)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent && dup2(null, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(out, STDERR_FILENO) >= 0)
        execvp(program, (char *const *)(uintptr_t)argv);
    dprintf(out, "%s\n", strerror(errno));
    _exit(127);
}

static int child_start(const char *program, const char *const *argv, pid_t *ret_pid)
{
    pid_t parent = getpid();
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    *ret_pid = fork();
    if (*ret_pid == 0)
        child_exec(program, argv, parent, ends[1]);
    int err = errno;
    close(ends[1]);
    if (*ret_pid > 0)
        return ends[0];
    close(ends[0]);
    errno = err;
    return -1;
}

int tool_run(const char *const *argv, struct error **ret_error)
{
    return tool_run_until(argv, 0, ret_error);
}

int tool_run_until(const char *const *argv, int status_max, struct error **ret_error)
{
    CLEANUP_FREE char *program = program_of(argv[0]);
    CLEANUP_BUF struct buf out = {0};
    pid_t pid = -1;
    int status = 0;

    int fd = child_start(program, argv, &pid);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "run '%s'", program);
    bool ended = output_read(fd, &out);
    close(fd);
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ended)
        return error_set(ret_error, ERROR_TIMEOUT, 0, "%s did not end in time", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) <= status_max)
        return 0;
    buf_append(&out, "", 1);
    return error_set(ret_error, ERROR_IO, 0, "%s failed: %.*s", argv[0],
                     (int)strcspn((const char *)out.data, "\n"), (const char *)out.data);
}
