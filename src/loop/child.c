/* Children by fork and exec. libuv's uv_spawn is not used: it has no parent-death signal, no
 * no_new_privs and no supplementary groups; and a pidfd needs no SIGCHLD handler. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "loop/loop_int.h"

enum { CHILD_FDS_MAX = 64, CHILD_GROUPS_MAX = 64 };

struct child {
    pid_t pid;
    int pidfd;
    bool adopted; /* it is somebody else's to reap */
    int leash;    /* of one that was adopted, and lives; else -1 */
    struct watch *watch;
    void (*ended)(int status, void *arg);
    void *arg;
};

/* Who the child becomes, looked up before the fork. */
struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[CHILD_GROUPS_MAX];
    int group_count;
};

static int identity_find(const char *user, struct identity *ret, struct error **ret_error)
{
    errno = 0;
    struct passwd *pw = getpwnam(user);
    if (!pw)
        return error_set(ret_error, ERROR_NOT_FOUND, errno, "user '%s' does not exist", user);
    ret->uid = pw->pw_uid;
    ret->gid = pw->pw_gid;
    ret->group_count = CHILD_GROUPS_MAX;
    if (getgrouplist(user, pw->pw_gid, ret->groups, &ret->group_count) < 0)
        return error_set(ret_error, ERROR_LIMIT, 0, "user '%s' is in more than %d groups", user,
                         CHILD_GROUPS_MAX);
    return 0;
}

/* Not root's group: it would open more than the device. */
static void identity_add_group(struct identity *who, const char *device)
{
    struct stat st;
    if (stat(device, &st) < 0 || !S_ISCHR(st.st_mode) || !st.st_gid)
        return;
    if ((st.st_mode & S_IRWXG) && who->group_count < CHILD_GROUPS_MAX)
        who->groups[who->group_count++] = st.st_gid;
}

static bool identity_has_group(const struct identity *who, gid_t gid)
{
    for (int i = 0; i < who->group_count; i++)
        if (who->groups[i] == gid)
            return true;
    return who->gid == gid;
}

/* `wanted` is of 0444 for reading and 0222 for writing. */
static int identity_may(const struct identity *who, const char *path, mode_t wanted, bool *ret_may,
                        struct error **ret_error)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "'%s'", path);
    mode_t whose = st.st_uid == who->uid                ? S_IRWXU
                   : identity_has_group(who, st.st_gid) ? S_IRWXG
                                                        : S_IRWXO;
    *ret_may = who->uid == 0 || (st.st_mode & whose & wanted) == (whose & wanted);
    return 0;
}

int child_user_may_read(const char *user, const char *path, struct error **ret_error)
{
    struct identity who = {0};
    bool may;
    if (identity_find(user, &who, ret_error) < 0 ||
        identity_may(&who, path, S_IRUSR | S_IRGRP | S_IROTH, &may, ret_error) < 0)
        return -1;
    return may ? 0
               : error_set(ret_error, ERROR_DENIED, 0, "user '%s' may not read '%s'", user, path);
}

int child_user_may_use(const char *user, const char *device, struct error **ret_error)
{
    struct identity who = {0};
    bool may;
    if (identity_find(user, &who, ret_error) < 0)
        return -1;
    identity_add_group(&who, device);
    if (identity_may(&who, device, 0666, &may, ret_error) < 0)
        return -1;
    return may ? 0
               : error_set(ret_error, ERROR_DENIED, 0, "user '%s' may not use '%s'", user, device);
}

/* ---- between fork and exec: only system calls ----------------------------------------------- */

static int child_place_fds(const struct child_spec *spec, int error_fd)
{
    int moved[CHILD_FDS_MAX];
    int base = (int)spec->fd_count;

    for (int i = 0; i < base; i++) {
        int fd = spec->fds[i];
        int null = fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
        moved[i] = fcntl(fd < 0 ? null : fd, F_DUPFD_CLOEXEC, base);
        if (moved[i] < 0)
            return -1;
    }
    int kept = fcntl(error_fd, F_DUPFD_CLOEXEC, base);
    if (kept < 0)
        return -1;
    for (int i = 0; i < base; i++)
        if (dup2(moved[i], i) < 0)
            return -1;
    if (syscall(SYS_close_range, base, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return -1;
    return kept;
}

static int child_become(const struct identity *who)
{
    if (setgroups((size_t)who->group_count, who->groups) < 0 && errno != EPERM)
        return -1;
    if (setresgid(who->gid, who->gid, who->gid) < 0)
        return -1;
    return setresuid(who->uid, who->uid, who->uid);
}

static void child_reset_signals(void)
{
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_exec(const struct child_spec *spec, const struct identity *who, pid_t parent,
                       int error_fd)
{
    child_reset_signals();
    int fd = child_place_fds(spec, error_fd);
    bool ok = fd >= 0 && (!spec->new_session || setsid() >= 0) &&
              (!spec->cwd || chdir(spec->cwd) == 0) && (!who || child_become(who) == 0) &&
              (!spec->no_new_privileges || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) &&
              /* After the change of user, which clears it. */
              (!spec->die_with_parent || prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    if (ok && spec->die_with_parent && getppid() != parent)
        _exit(128 + SIGKILL);
    if (ok)
        execve(spec->path, (char *const *)(uintptr_t)spec->argv,
               spec->env ? (char *const *)(uintptr_t)spec->env : environ);
    int err = errno;
    ssize_t told = write(fd >= 0 ? fd : error_fd, &err, sizeof(err));
    _exit(told == sizeof(err) ? 127 : 126);
}

/* ---- in the parent -------------------------------------------------------------------------- */

static void child_ended(int events, void *arg)
{
    struct child *child = arg;
    siginfo_t info = {0};

    if (!child->adopted &&
        (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0 || !info.si_pid))
        return;
    watch_free(child->watch);
    child->watch = NULL;
    child->pid = 0;
    child->ended(child->adopted               ? CHILD_STATUS_UNKNOWN
                 : info.si_code == CLD_EXITED ? info.si_status
                                              : 128 + info.si_status,
                 child->arg);
}

static struct child *child_new(struct loop *loop, pid_t pid, int pidfd,
                               void (*ended)(int status, void *arg), void *arg)
{
    struct child *child = xcalloc(1, sizeof(*child));
    child->pid = pid;
    child->pidfd = pidfd;
    child->leash = -1;
    child->ended = ended;
    child->arg = arg;
    child->watch = watch_new(loop, pidfd, WATCH_READ, child_ended, child);
    return child;
}

struct child *child_adopt(struct loop *loop, pid_t pid, int pidfd, int leash,
                          void (*ended)(int status, void *arg), void *arg)
{
    struct child *child = child_new(loop, pid, pidfd, ended, arg);
    child->adopted = true;
    child->leash = leash;
    return child;
}

static pid_t child_fork(const struct child_spec *spec, const struct identity *who,
                        struct error **ret_error)
{
    int report[2], err = 0;
    pid_t parent = getpid();

    if (pipe2(report, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "pipe for '%s'", spec->path);
    pid_t pid = fork();
    if (pid == 0)
        child_exec(spec, who, parent, report[1]);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return error_set(ret_error, ERROR_IO, errno, "fork for '%s'", spec->path);
    }
    ssize_t n = read(report[0], &err, sizeof(err)); /* ends at exec */
    close(report[0]);
    if (n == sizeof(err)) {
        waitpid(pid, NULL, 0);
        return error_set(ret_error, ERROR_IO, err, "cannot run '%s'", spec->path);
    }
    return pid;
}

struct child *child_spawn(struct loop *loop, const struct child_spec *spec,
                          void (*ended)(int status, void *arg), void *arg, struct error **ret_error)
{
    struct identity who = {0};

    if (spec->fd_count < 3 || spec->fd_count > CHILD_FDS_MAX) {
        error_set(ret_error, ERROR_LIMIT, 0, "'%s' cannot be given %zu descriptors", spec->path,
                  spec->fd_count);
        return NULL;
    }
    if (spec->user && identity_find(spec->user, &who, ret_error) < 0)
        return NULL;
    if (spec->user && spec->device)
        identity_add_group(&who, spec->device);
    pid_t pid = child_fork(spec, spec->user ? &who : NULL, ret_error);
    if (pid < 0)
        return NULL;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        error_set(ret_error, ERROR_IO, errno, "pidfd of '%s'", spec->path);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return NULL;
    }
    return child_new(loop, pid, pidfd, ended, arg);
}

/* What comes until the other end is closed; false: that took too long. */
static bool said_read(int fd, char said[CHILD_SAID_MAX + 1])
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    size_t have = 0;
    char more[256];
    ssize_t n;

    memset(said, 0, CHILD_SAID_MAX + 1);
    for (;;) {
        if (poll(&ready, 1, CHILD_ASK_MS) == 0)
            return false;
        n = TEMP_FAILURE_RETRY(read(fd, more, sizeof(more)));
        if (n <= 0)
            return true;
        for (ssize_t i = 0; i < n && have < CHILD_SAID_MAX; i++)
            said[have++] = more[i];
    }
}

int child_ask(const char *path, const char *const *argv, char **ret_said, struct error **ret_error)
{
    int ends[2], status = 0;
    char said[CHILD_SAID_MAX + 1];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "pipe for '%s'", path);
    const int fds[] = {-1, ends[1], ends[1]};
    const struct child_spec spec = {
        .path = path, .argv = argv, .fds = fds, .fd_count = 3, .die_with_parent = true};
    pid_t pid = child_fork(&spec, NULL, ret_error);
    close(ends[1]);
    bool ended = pid > 0 && said_read(ends[0], said);
    close(ends[0]);
    if (pid < 0)
        return -1;
    if (!ended)
        kill(pid, SIGKILL);
    TEMP_FAILURE_RETRY(waitpid(pid, &status, 0));
    if (!ended)
        return error_set(ret_error, ERROR_TIMEOUT, 0, "'%s' did not end in time", path);
    *ret_said = xstrdup(said);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t child_pid(const struct child *child)
{
    return child->pid;
}

static void leash_drop(struct child *child)
{
    if (child->leash >= 0)
        close(child->leash);
    child->leash = -1;
}

void child_kill(struct child *child, int signal)
{
    if (child->adopted)
        leash_drop(child);
    else if (child->pid)
        syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0);
}

void child_free(struct child *child)
{
    if (!child)
        return;
    watch_free(child->watch);
    close(child->pidfd);
    leash_drop(child);
    free(child);
}
