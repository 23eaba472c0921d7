#include "init/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init/util.h"
#include "proto/wire.h"

/* Of <sched.h>, which does not go together with the kernel's header of struct clone_args. */
int setns(int fd, int type);

enum {
    OUTPUT_PIPE_SIZE = 1 << 20, /* a writer is not stopped at every page */
    INPUT_PIPE_SIZE = 1 << 20,  /* same */
};

static int own_pid_namespace = -1;

void ends_close(struct ends *e)
{
    for (int i = 0; i < END_COUNT; i++) {
        fd_closep(&e->ours[i]);
        fd_closep(&e->theirs[i]);
    }
}

/* Only our end is non-blocking: the program expects an ordinary pipe. */
static int pipe_open(int *ret_read, int *ret_write, int *ours, int size)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    *ret_read = fds[0];
    *ret_write = fds[1];
    fcntl(fds[0], F_SETPIPE_SZ, size);
    return fcntl(*ours, F_SETFL, O_NONBLOCK);
}

int ends_open(struct ends *e, uint32_t flags)
{
    int status[2];
    *e = (struct ends){{-1, -1, -1, -1}, {-1, -1, -1, -1}};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
        return -1;
    e->ours[END_STATUS] = status[0];
    e->theirs[END_STATUS] = status[1];
    if (flags & WIRE_TTY)
        return 0;
    if (flags & WIRE_STDIN_OPEN &&
        pipe_open(&e->theirs[0], &e->ours[0], &e->ours[0], INPUT_PIPE_SIZE) < 0)
        return -1;
    if (pipe_open(&e->ours[1], &e->theirs[1], &e->ours[1], OUTPUT_PIPE_SIZE) < 0)
        return -1;
    return pipe_open(&e->ours[2], &e->theirs[2], &e->ours[2], OUTPUT_PIPE_SIZE);
}

static pid_t spawn(uint64_t flags, int group, int *ret_pidfd)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP | flags,
                              .exit_signal = SIGCHLD,
                              .cgroup = (uint64_t)group,
                              .pidfd = (uint64_t)(uintptr_t)ret_pidfd};
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

pid_t spawn_first(int group, int *ret_pidfd)
{
    return spawn(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD, group,
                 ret_pidfd);
}

static int namespace_open(pid_t pid, const char *kind)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int spawn_mounts(pid_t pid)
{
    return namespace_open(pid, "mnt");
}

int spawn_ipc(pid_t pid)
{
    return namespace_open(pid, "ipc");
}

/* A child in the pid namespace of a container must be born there. */
pid_t spawn_joining(int group, int pidfd)
{
    if (pidfd < 0)
        return spawn(0, group, NULL);
    if (own_pid_namespace < 0)
        own_pid_namespace = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (setns(pidfd, CLONE_NEWPID) < 0)
        return -1;
    pid_t pid = spawn(0, group, NULL);
    int why = errno;
    if (pid)
        setns(own_pid_namespace, CLONE_NEWPID);
    errno = why;
    return pid;
}

int spawn_sibling(int group, pid_t *ret_born, void (*run)(void *arg), void *arg)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP | CLONE_VM | CLONE_VFORK | CLONE_PARENT |
                                       CLONE_PARENT_SETTID,
                              .cgroup = (uint64_t)group,
                              .parent_tid = (uint64_t)(uintptr_t)ret_born};
    long result = SYS_clone3;

    /* Not by syscall(2), which would return twice on one stack. */
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(&args), "S"(sizeof(args))
                     : "rcx", "r11", "memory");
    if (result == 0)
        run(arg);
    if (result < 0)
        errno = (int)-result;
    return result < 0 ? -1 : 0;
}
