#include "init/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/str.h"
#include "init/ahead.h"
#include "init/container.h"
#include "init/root.h"
#include "init/spawn.h"
#include "init/user.h"
#include "init/util.h"
#include "init/warm.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum {
    NOT_FOUND = 127, /* what shells answer */
    NOT_EXECUTABLE = 126,
    ROWS_DEFAULT = 24,
    COLS_DEFAULT = 80,
    CAPABILITIES_MAX = 64, /* bits of the kernel's sets */
    FDS_SOFT = 1024,       /* as usual on Linux */
    FDS_HARD = 524288,
    ACCOUNTS_MAX = 1 << 20, /* bytes read of /etc/passwd and /etc/group */
};

/* Docker's default set: what a root of a container keeps. */
#define CAP(name) (1ULL << CAP_##name)
static const uint64_t capabilities = CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FSETID) | CAP(FOWNER) |
                                     CAP(MKNOD) | CAP(NET_RAW) | CAP(SETGID) | CAP(SETUID) |
                                     CAP(SETFCAP) | CAP(SETPCAP) | CAP(NET_BIND_SERVICE) |
                                     CAP(SYS_CHROOT) | CAP(KILL) | CAP(AUDIT_WRITE);

/* All that a child keeps of husk-init's descriptors, besides 0 to 2. */
enum { STATUS_FD = 3, CONTAINER_FD = 4, KEPT_FDS = 5 };

/* ---- telling the parent --------------------------------------------------------------------- */

static void status_send(const struct launch_status *status, int to, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)status, .iov_len = sizeof(*status)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    while (sendmsg(to, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static void refusal_send(const struct error *error, int to)
{
    struct launch_status status = {
        .report = LAUNCH_REFUSED, .kind = error->kind, .err = error->err};
    snprintf(status.text, sizeof(status.text), "%s", error->message);
    status_send(&status, to, -1);
}

_Noreturn static void refuse(const struct error *error)
{
    refusal_send(error, STATUS_FD);
    _exit(NOT_EXECUTABLE);
}

_Noreturn __attribute__((format(printf, 2, 3))) static void cannot_run(int code, const char *format,
                                                                       ...)
{
    struct launch_status status = {.report = LAUNCH_CANNOT_RUN, .code = code};
    va_list ap;
    va_start(ap, format);
    vsnprintf(status.text, sizeof(status.text), format, ap);
    va_end(ap);
    status_send(&status, STATUS_FD, -1);
    _exit(code);
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* Nothing of husk-init's own may be seen or kept by what comes now. */
static void shed(void)
{
    struct rlimit fds = {FDS_SOFT, FDS_HARD};
    sigset_t none;

    /* Until exec, others in the container must not look into this process. */
    prctl(PR_SET_DUMPABLE, 0);
    file_write("/proc/self/oom_score_adj", "0");
    /* The only one that husk-init ignores; it handles none. */
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setrlimit(RLIMIT_NOFILE, &fds);
}

/* What is open here can be walked to through /proc/self/fd by any path that the image or the
 * container chose (a working directory, a symbolic link), and would lead into the guest: so it is
 * closed before the first such path, not at exec. A status that is not there tells the parent
 * nothing, and the child ends. */
static void descriptors_close(int pidfd, const struct launch_fds *fds)
{
    int status = fcntl(fds->status, F_DUPFD_CLOEXEC, KEPT_FDS);
    int container = pidfd >= 0 ? fcntl(pidfd, F_DUPFD_CLOEXEC, KEPT_FDS) : -1;

    for (int fd = 0; fd < 3; fd++)
        if (fds->stdio[fd] >= 0)
            dup2(fds->stdio[fd], fd);
    if (dup3(status, STATUS_FD, O_CLOEXEC) < 0)
        _exit(NOT_EXECUTABLE);
    close(CONTAINER_FD);
    if (container >= 0)
        dup3(container, CONTAINER_FD, O_CLOEXEC);
    syscall(SYS_close_range, KEPT_FDS, ~0U, 0);
}

static int namespaces_join(const struct launch *l, struct error **ret_error)
{
    if (l->container &&
        setns(CONTAINER_FD, CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
        return error_set(ret_error, ERROR_STATE, errno, "container '%s' cannot be joined",
                         l->container->start.ctr);
    close(CONTAINER_FD);
    return 0;
}

static int root_make(const struct launch *l, struct error **ret_error)
{
    if (!l->first)
        return 0;
    const struct container *c = l->container;
    const char *hostname = container_hostname(c);
    struct root root = {.image_device = c->image_device,
                        .layer_device = c->layer_device,
                        .layer_top = c->start.layer_top};
    struct root_gifts gifts = {.hostname = hostname,
                               .hosts = (const char *const *)pod.hosts,
                               .resolv = (const char *const *)pod.resolv};

    if (sethostname(hostname, strlen(hostname)) < 0)
        return error_set(ret_error, ERROR_INVALID, errno, "hostname '%s'", hostname);
    if (!l->rooted && root_enter(&root, NULL, ret_error) < 0)
        return -1;
    return root_give(&gifts, ret_error);
}

/* A terminal of the container's own devpts; its other end goes to husk-init. */
static int terminal_open(const struct launch *l, struct error **ret_error)
{
    struct launch_status status = {.report = LAUNCH_TERMINAL};
    struct winsize size = {.ws_row = (unsigned short)(l->rows ? l->rows : ROWS_DEFAULT),
                           .ws_col = (unsigned short)(l->cols ? l->cols : COLS_DEFAULT)};
    int unlock = 0, number = 0;
    char path[32];

    CLEANUP_FD int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 ||
        ioctl(master, TIOCGPTN, &number) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a terminal");
    snprintf(path, sizeof(path), "/dev/pts/%d", number);
    CLEANUP_FD int slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
        return error_set(ret_error, ERROR_IO, errno, "terminal '%s'", path);
    status_send(&status, STATUS_FD, master);
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    return l->first ? root_console(path, ret_error) : 0;
}

static int stdio_open(const struct launch *l, const struct launch_fds *fds,
                      struct error **ret_error)
{
    if (l->flags & WIRE_TTY)
        return terminal_open(l, ret_error);
    for (int fd = 0; fd < 3; fd++) {
        CLEANUP_FD int null = fds->stdio[fd] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
        if (fds->stdio[fd] < 0 && dup2(null, fd) < 0)
            return error_set(ret_error, ERROR_IO, errno, "standard streams");
    }
    return 0;
}

/* A shell opens /dev/stderr by its path: what it points to must be the user's. /dev/null is
 * everybody's. */
static void stdio_own(const struct user *user)
{
    struct stat st;
    for (int fd = 0; fd < 3; fd++)
        if (fstat(fd, &st) == 0 && st.st_rdev != makedev(1, 3) && st.st_uid != user->uid &&
            fchown(fd, user->uid, (gid_t)-1) < 0)
            continue; /* then it cannot */
}

static int user_of(const struct launch *l, const char *passwd, const char *group, struct user *ret,
                   struct error **ret_error)
{
    return user_resolve(ret, passwd, group, str_or(l->user, ""), l->groups, ret_error);
}

/* What a slot that has its root has read of users before there was a request. */
static struct {
    bool read;
    char *passwd, *group;
} accounts;

static int user_find(const struct launch *l, struct user *ret, struct error **ret_error)
{
    if (accounts.read)
        return user_of(l, accounts.passwd, accounts.group, ret, ret_error);
    CLEANUP_FREE char *passwd = file_read("/etc/passwd", ACCOUNTS_MAX);
    CLEANUP_FREE char *group = file_read("/etc/group", ACCOUNTS_MAX);
    return user_of(l, passwd, group, ret, ret_error);
}

static int directory_make(const struct launch *l, struct error **ret_error)
{
    const char *cwd = str_or(l->cwd, "/");
    if (!l->first)
        return 0;
    if (*cwd != '/')
        return error_set(ret_error, ERROR_INVALID, 0, "working directory '%s' is not absolute",
                         cwd);
    if (mkdir_all(cwd, 0755) < 0)
        return error_set(ret_error, ERROR_IO, errno, "working directory '%s'", cwd);
    return l->flags & WIRE_READ_ONLY ? root_seal(ret_error) : 0;
}

static int capabilities_set(uint64_t set)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)set, .permitted = (uint32_t)set},
        {.effective = (uint32_t)(set >> 32), .permitted = (uint32_t)(set >> 32)}};
    return (int)syscall(SYS_capset, &header, data);
}

/* What no program of the container can ever have. To drop from it is itself a privilege; the
 * process keeps what it has. */
static int bounds_drop(struct error **ret_error)
{
    for (int cap = 0; cap < CAPABILITIES_MAX; cap++) {
        if (capabilities >> cap & 1 || prctl(PR_CAPBSET_DROP, cap) == 0)
            continue;
        if (errno == EINVAL)
            break; /* the kernel knows no more */
        return error_set(ret_error, ERROR_IO, errno, "capability %d cannot be dropped", cap);
    }
    return 0;
}

/* The bounding set is dropped before: that is itself a privilege. Another user than root loses all
 * capabilities with setresuid(2). There are no threads for the C library to tell. */
static int privileges_drop(const struct user *user, struct error **ret_error)
{
    if (syscall(SYS_setgroups, user->group_count, user->groups) < 0 ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0 ||
        syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
        return error_set(ret_error, ERROR_IO, errno, "change to user %u, group %u", user->uid,
                         user->gid);
    if (capabilities_set(user->uid ? 0 : capabilities) < 0)
        return error_set(ret_error, ERROR_IO, errno, "capabilities cannot be set");
    return 0;
}

int launch_confine(void)
{
    return capabilities_set(capabilities);
}

/* ---- the environment ------------------------------------------------------------------------ */

static const char *env_get(char *const *env, const char *name)
{
    size_t size = strlen(name);
    STRV_FOREACH(s, env)
        if (strncmp(*s, name, size) == 0 && (*s)[size] == '=')
            return *s + size + 1;
    return NULL;
}

/* A later setting of a name replaces an earlier one. */
static char **env_build(const struct launch *l, const struct user *user)
{
    char **env = NULL;
    STRV_FOREACH(s, l->env) {
        size_t name = strcspn(*s, "=");
        char **same = env;
        while (same && *same && !(strncmp(*same, *s, name) == 0 && (*same)[name] == '='))
            same++;
        if (same && *same)
            *same = *s;
        else
            strv_push(&env, *s);
    }
    if (!env_get(env, "PATH"))
        strv_push(&env, "PATH=" PATH_DEFAULT);
    if (!env_get(env, "HOME"))
        strv_push_take(&env, str_printf("HOME=%s", user->home));
    if (l->container && !env_get(env, "HOSTNAME"))
        strv_push_take(&env, str_printf("HOSTNAME=%s", container_hostname(l->container)));
    if (l->flags & WIRE_TTY && !env_get(env, "TERM"))
        strv_push(&env, "TERM=xterm");
    return env;
}

/* ---- the program ---------------------------------------------------------------------------- */

/* Why execve of a file failed, in the words of a shell. Returns only if there is no such file. */
static void exec_failed(const char *name, const char *path)
{
    int why = errno;
    if (why == ENOENT && access(path, F_OK) == 0)
        cannot_run(NOT_FOUND, "cannot run '%s': its interpreter is missing", name);
    if (why == ENOENT || why == ENOTDIR)
        return;
    cannot_run(NOT_EXECUTABLE, "cannot run '%s': %s", name, strerror(why));
}

_Noreturn static void program_run(const struct launch *l, char *const *env)
{
    const char *name = l->argv[0];
    char *const *argv = (char *const *)(uintptr_t)l->argv;
    bool denied = false;

    if (!*name) /* else it would be each directory of PATH */
        cannot_run(NOT_FOUND, "cannot run '': the command's name is empty");
    if (strchr(name, '/')) {
        execve(name, argv, env);
        exec_failed(name, name);
        cannot_run(NOT_FOUND, "cannot run '%s': no such file", name);
    }
    const char *dir = env_get(env, "PATH");
    for (size_t size; dir; dir = dir[size] ? dir + size + 1 : NULL) {
        char path[PATH_MAX];
        size = strcspn(dir, ":");
        if (snprintf(path, sizeof(path), "%.*s/%s", size ? (int)size : 1, size ? dir : ".", name) >=
            PATH_MAX)
            continue;
        /* execve(2) makes half a process before it looks for the file. */
        if (access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
            continue;
        execve(path, argv, env);
        /* As execvp(3): one that may not be executed does not hide another. */
        if (errno == EACCES)
            denied = true;
        else
            exec_failed(name, path);
    }
    if (denied)
        cannot_run(NOT_EXECUTABLE, "cannot run '%s': %s", name, strerror(EACCES));
    cannot_run(NOT_FOUND, "cannot run '%s': not found in PATH", name);
}

/* ---- from the request to the program -------------------------------------------------------- */

struct launch launch_of(struct container *c)
{
    const struct wire_ctr_start *s = &c->start;
    return (struct launch){.container = c,
                           .first = true,
                           .argv = s->argv,
                           .env = s->env,
                           .cwd = s->cwd,
                           .user = s->user,
                           .groups = s->groups,
                           .flags = s->flags,
                           .rows = s->rows,
                           .cols = s->cols};
}

struct launch launch_of_exec(struct container *c, const struct wire_exec *m, char ***ret_env)
{
    char **env = c ? strv_copy(c->start.env) : NULL;
    STRV_FOREACH(s, m->env)
        strv_push(&env, *s);
    *ret_env = env;
    return (struct launch){.container = c,
                           .argv = m->argv,
                           .env = (const char *const *)env,
                           .cwd = str_or(m->cwd, c ? c->start.cwd : ""),
                           .user = str_or(m->user, c ? c->start.user : ""),
                           .groups = c && !*m->user ? c->start.groups : NULL,
                           .flags = m->flags,
                           .rows = m->rows,
                           .cols = m->cols};
}

static int namespaces_make(struct error **ret_error)
{
    /* After the process is in its cgroup, so that this is the root that it sees. */
    if (unshare(CLONE_NEWCGROUP) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a cgroup namespace");
    return root_prepare(ret_error);
}

/* What a process makes on its way, and leaves to a joiner whose memory it had. */
struct leavings {
    struct user user;
    char **env;
    bool bounded; /* the joiner, or slot, has dropped the bounding set already */
};

_Noreturn static void launch_run(const struct launch *l, const struct launch_fds *fds,
                                 struct leavings *made)
{
    struct error *error = NULL;
    struct user *user = &made->user;

    if (root_make(l, &error) < 0 || stdio_open(l, fds, &error) < 0 ||
        user_find(l, user, &error) < 0 || directory_make(l, &error) < 0)
        refuse(error);
    stdio_own(user);
    if ((!made->bounded && bounds_drop(&error) < 0) || privileges_drop(user, &error) < 0)
        refuse(error);
    if (chdir(str_or(l->cwd, "/")) < 0)
        cannot_run(NOT_EXECUTABLE, "cannot run '%s': working directory '%s': %s", l->argv[0],
                   l->cwd, strerror(errno));
    made->env = env_build(l, user);
    program_run(l, made->env);
}

_Noreturn void launch_child(const struct launch *l, const struct launch_fds *fds)
{
    struct error *error = NULL;

    descriptors_close(l->container ? l->container->pidfd : -1, fds);
    shed();
    setsid();
    if ((l->first ? namespaces_make(&error) : namespaces_join(l, &error)) < 0)
        refuse(error);
    launch_run(l, fds, &(struct leavings){0});
}

_Noreturn static void launch_request(const struct launch_request *r)
{
    struct error *error = NULL;
    struct wire_frame start = {
        .type = WIRE_CTR_START, .payload = r->bytes, .length = r->start_size};
    struct wire_frame setup = {
        .type = WIRE_POD_SETUP, .payload = r->bytes + r->start_size, .length = r->setup_size};
    struct wire_pod_setup message;
    const char *image = *r->image_device ? r->image_device : NULL;
    struct container c = {.image_device = (char *)(uintptr_t)image,
                          .layer_device = (char *)(uintptr_t)r->layer_device};

    if (wire_get(&start, &c.start, &error) < 0 || wire_get(&setup, &message, &error) < 0)
        refuse(error);
    pod_copy(&message);
    struct launch l = launch_of(&c);
    l.rooted = r->rooted;
    /* Its ends are 0 to 2 already. */
    struct launch_fds fds = {{l.flags & WIRE_STDIN_OPEN ? 0 : -1, 1, 2}, STATUS_FD};
    launch_run(&l, &fds, &(struct leavings){.bounded = true});
}

/* The message FREEZE says what the program will be, if nobody asks for another. */
static void slot_read_ahead(const struct launch_request *r)
{
    struct wire_frame frame = {.type = WIRE_FREEZE, .payload = r->bytes, .length = r->start_size};
    struct wire_freeze m;

    if (wire_get(&frame, &m, NULL) == 0) {
        accounts.passwd = file_read("/etc/passwd", ACCOUNTS_MAX);
        accounts.group = file_read("/etc/group", ACCOUNTS_MAX);
        accounts.read = true;
        read_ahead(m.program, *m.path ? m.path : PATH_DEFAULT);
    }
    wire_clear(WIRE_FREEZE, &m);
}

_Noreturn void launch_slot(const struct launch_fds *fds, const struct launch_request *request)
{
    struct launch_status status = {.report = LAUNCH_READY};
    struct root root = {.image_device = request->image_device,
                        .layer_device = request->layer_device};
    struct error *error = NULL;
    int layer = -1;
    char go;

    descriptors_close(-1, fds);
    shed();
    setsid();
    if (namespaces_make(&error) < 0 || bounds_drop(&error) < 0 ||
        (request->rooted && root_enter(&root, &layer, &error) < 0))
        refuse(error);
    if (request->rooted)
        slot_read_ahead(request);
    for (go = request->warmed ? SLOT_WARM : SLOT_WAIT; go != SLOT_START;) {
        if (go == SLOT_WARM)
            warm_shell();
        status_send(&status, STATUS_FD, layer);
        fd_closep(&layer);
        if (recv(STATUS_FD, &go, sizeof(go), 0) != sizeof(go))
            _exit(0);
    }
    launch_request(request);
}

/* ---- joiners -------------------------------------------------------------------------------- */

/* Of a joiner, whose children have 0 to 3 as all others. */
enum { SOCKET_FD = 4, GROUP_FD = 5, JOINER_FDS = 6, EXECS_MAX = 256 };

struct joined {
    struct launch launch;
    struct leavings made;
    char **env; /* of `launch` */
};

static int joiner_join(const struct container *c, int socket, struct error **ret_error)
{
    int kept[] = {fcntl(socket, F_DUPFD_CLOEXEC, JOINER_FDS),
                  fcntl(c->group, F_DUPFD_CLOEXEC, JOINER_FDS)};

    shed();
    if (setns(c->pidfd,
              CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
        return error_set(ret_error, ERROR_STATE, errno, "container '%s' cannot be joined",
                         c->start.ctr);
    if (dup3(kept[0], SOCKET_FD, O_CLOEXEC) < 0 || dup3(kept[1], GROUP_FD, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "descriptors");
    syscall(SYS_close_range, JOINER_FDS, ~0U, 0);
    syscall(SYS_close_range, 0, STATUS_FD, 0);
    return bounds_drop(ret_error);
}

/* The ends that come with a message take the lowest free numbers, in their order: 0 to 3. */
static bool joiner_wait(void)
{
    char control[CMSG_SPACE((STATUS_FD + 1) * sizeof(int))], go;
    struct iovec iov = {.iov_base = &go, .iov_len = sizeof(go)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};

    return recvmsg(SOCKET_FD, &message, 0) == sizeof(go) &&
           fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC) == 0;
}

/* In the new process, whose memory is the joiner's. */
static void joined_run(void *arg)
{
    struct joined *joined = arg;
    struct launch_fds fds = {{0, 1, 2}, STATUS_FD};

    syscall(SYS_close_range, SOCKET_FD, ~0U, 0);
    setsid();
    launch_run(&joined->launch, &fds, &joined->made);
}

static void joiner_serve(struct container *c, struct join_request *request)
{
    struct wire_frame frame = {
        .type = WIRE_EXEC, .payload = request->bytes, .length = request->size};
    CLEANUP_ERROR struct error *error = NULL;
    struct joined joined = {.made.bounded = true};
    struct wire_exec message;

    if (wire_get(&frame, &message, &error) == 0) {
        joined.launch = launch_of_exec(c, &message, &joined.env);
        if (spawn_sibling(GROUP_FD, &request->born, joined_run, &joined) < 0)
            error_set(&error, ERROR_IO, errno, "a process cannot be made");
        wire_clear(WIRE_EXEC, &message);
    }
    if (error)
        refusal_send(error, STATUS_FD);
    strv_free(joined.env);
    strv_free(joined.made.env);
    user_done(&joined.made.user);
    syscall(SYS_close_range, 0, STATUS_FD, 0);
}

_Noreturn void launch_joiner(struct container *c, int socket, struct join_request *request)
{
    struct launch_status ready = {.report = LAUNCH_READY};
    CLEANUP_ERROR struct error *error = NULL;

    if (joiner_join(c, socket, &error) < 0)
        refusal_send(error, SOCKET_FD);
    /* A process that failed may have left something in this memory: it goes with the joiner. */
    for (int execs = 0; !error && execs < EXECS_MAX; execs++) {
        status_send(&ready, SOCKET_FD, -1);
        if (!joiner_wait())
            break;
        joiner_serve(c, request);
    }
    _exit(0);
}
