/* husk-share. It runs as root with the rights that mounting and virtiofsd need, and is the only
 * process of a VM that has them; it hears only of numbers and of paths, which it checks. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#include "base/buf.h"
#include "base/str.h"
#include "keeper/confine.h"
#include "keeper/share.h"

/* In the VM's directory. A file system in memory covers it, with a directory for each number; that
 * is what virtiofsd serves, and the guest can change nothing there but what is mounted on it. */
#define SHARE_DIR "share"
#define ROOTS_DIR SHARE_DIR "/roots"

enum {
    CONTROL_FD = 3,
    LISTENER_FD,
    ERRORS_FD, /* what virtiofsd says */
    FD_COUNT,
    DIR_MODE = 0700,
    BUSY_WAIT_NS = 2 * 1000 * 1000, /* between two tries to unmount … */
    BUSY_TRIES = 500,               /* … of which there are so many */
    TAIL_MAX = 300,                 /* bytes of virtiofsd's last words */
};

/* What is mounted, and a lock on the image's directory, without which it might be removed when the
 * image is made anew (disk/overlay.c). */
struct mounted {
    struct mounted *next;
    uint32_t number;
    int lock;
};

struct server {
    struct mounted *mounts;
    int root;  /* of the daemon */
    int roots; /* ROOTS_DIR, where new directories can be made */
    pid_t virtiofsd;
    char tail[TAIL_MAX + 1];
};

/* ---- the place ------------------------------------------------------------------------------ */

/* The mount on ROOTS_DIR is read-only, and shared with the namespace that virtiofsd makes for
 * itself: what is mounted here later appears there. */
static int place_make(struct server *s)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if ((mkdir(SHARE_DIR, DIR_MODE) < 0 && errno != EEXIST) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("husk-share", SHARE_DIR, "tmpfs", flags, "mode=0700,size=1m,nr_inodes=4096") < 0 ||
        mkdir(ROOTS_DIR, DIR_MODE) < 0)
        return -1;
    s->roots = open(ROOTS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->roots < 0 || mount(ROOTS_DIR, ROOTS_DIR, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, ROOTS_DIR, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | flags, NULL) < 0)
        return -1;
    return mount(NULL, ROOTS_DIR, NULL, MS_SHARED, NULL);
}

/* ---- virtiofsd ------------------------------------------------------------------------------ */

/* Nobody else changes the files, so the guest may remember what it knows of them for ever. A file
 * that the guest's kernel knows is an open descriptor: as many as we may have. virtiofsd gives up
 * its rights itself, but for those over files. */
static void virtiofsd_exec(const char *program, const char *options)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    dup2(ERRORS_FD, STDOUT_FILENO);
    dup2(ERRORS_FD, STDERR_FILENO);
    dup2(LISTENER_FD, CONTROL_FD);
    syscall(SYS_close_range, CONTROL_FD + 1, ~0U, 0);
    execl(program, "virtiofsd", "--fd=3", "--rlimit-nofile=0", "-o", options, (char *)NULL);
    dprintf(STDERR_FILENO, "it cannot be run: %s\n", strerror(errno));
    _exit(127);
}

/* It needs the whole path, in which a backslash takes its meaning from a comma. */
static char *virtiofsd_options(void)
{
    char home[PATH_MAX];
    struct buf out = {0};

    if (!getcwd(home, sizeof(home)))
        return NULL;
    buf_append_str(&out, "cache=always,xattr,posix_acl,log_level=warn,source=");
    for (const char *c = home; *c; c++)
        buf_printf(&out, "%s%c", *c == ',' || *c == '\\' ? "\\" : "", *c);
    buf_append_str(&out, "/" ROOTS_DIR);
    return buf_take_str(&out);
}

static int virtiofsd_start(struct server *s, const char *program)
{
    CLEANUP_FREE char *options = virtiofsd_options();
    int ends[2];

    if (!options || pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    s->virtiofsd = fork();
    if (s->virtiofsd == 0) {
        dup3(ends[1], ERRORS_FD, 0);
        virtiofsd_exec(program, options);
    }
    close(ends[1]);
    close(LISTENER_FD);
    if (s->virtiofsd < 0)
        return -1;
    return dup3(ends[0], ERRORS_FD, O_CLOEXEC) < 0 || close(ends[0]) < 0 ? -1 : 0;
}

/* Keeps the end of what it says. False: it has closed its end, as it does when it ends. */
static bool virtiofsd_listen(struct server *s)
{
    char text[512];
    ssize_t n = TEMP_FAILURE_RETRY(read(ERRORS_FD, text, sizeof(text)));
    size_t have = strlen(s->tail);

    for (ssize_t i = 0; i < n; i++) {
        if (have == TAIL_MAX) {
            memmove(s->tail, s->tail + TAIL_MAX / 2, TAIL_MAX - TAIL_MAX / 2);
            have -= TAIL_MAX / 2;
        }
        s->tail[have++] = text[i] == '\n' ? ';' : text[i];
    }
    s->tail[have] = '\0';
    return n > 0;
}

static void virtiofsd_ended(struct server *s)
{
    struct share_reply reply = {.ended = 1};
    char how[64] = "ended";
    int status = 0;
    size_t size = strlen(s->tail);

    while (size > 0 && (s->tail[size - 1] == ';' || s->tail[size - 1] == ' '))
        s->tail[--size] = '\0';
    if (TEMP_FAILURE_RETRY(waitpid(s->virtiofsd, &status, 0)) == s->virtiofsd) {
        reply.failed = status != 0;
        if (WIFSIGNALED(status))
            snprintf(how, sizeof(how), "was killed by signal %d", WTERMSIG(status));
        else
            snprintf(how, sizeof(how), "exited with status %d", WEXITSTATUS(status));
    }
    snprintf(reply.text, sizeof(reply.text), "virtiofsd, which serves its files, %s%s%s", how,
             size ? ": " : "", s->tail);
    str_make_plain(reply.text);
    send(CONTROL_FD, &reply, sizeof(reply), MSG_NOSIGNAL);
}

/* ---- mounts --------------------------------------------------------------------------------- */

/* A directory below the root and in `room` of it, by no link. */
static int directory_open(const struct server *s, const char *room, const char *path)
{
    const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                                 .resolve =
                                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

    if (!str_starts(path, room) || strstr(path, "..")) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_openat2, s->root, path, &how, sizeof(how));
}

/* Of "overlay/NAME/root" what is around it. */
static int image_lock(const struct server *s, const char *image)
{
    const struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                                 .resolve =
                                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    char path[SHARE_PATH_MAX];
    char *slash;

    strcpy(path, image);
    slash = strrchr(path, '/');
    if (!slash)
        return -1;
    *slash = '\0';
    int fd = (int)syscall(SYS_openat2, s->root, path, &how, sizeof(how));
    if (fd >= 0 && flock(fd, LOCK_SH) < 0) { /* waits: for a moment, for whoever collects */
        close(fd);
        return -1;
    }
    return fd;
}

static int overlay_mount(const int fds[3], const char *place)
{
    char options[128];

    snprintf(options, sizeof(options),
             "lowerdir=/proc/self/fd/%d,upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d", fds[0],
             fds[1], fds[2]);
    return mount("husk-share", place, "overlay", MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

static int layers_mount(const struct server *s, const struct share_request *r, const char *place)
{
    int layer = directory_open(s, "pods/", r->layer), result = -1;
    const int fds[] = {
        directory_open(s, "overlay/", r->image),
        layer < 0 ? -1 : openat(layer, "upper", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
        layer < 0 ? -1 : openat(layer, "work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
    };
    int err = errno;

    if (fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0) {
        result = overlay_mount(fds, place);
        err = errno;
    }
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (layer >= 0)
        close(layer);
    errno = err;
    return result;
}

static void mounted_add(struct server *s, uint32_t number, int lock)
{
    struct mounted *m = xcalloc(1, sizeof(*m));

    m->number = number;
    m->lock = lock;
    LL_PREPEND(s->mounts, m);
}

static void mounted_remove(struct server *s, uint32_t number)
{
    struct mounted *m;

    LL_SEARCH_SCALAR(s->mounts, m, number, number);
    if (!m)
        return;
    LL_DELETE(s->mounts, m);
    close(m->lock);
    free(m);
}

static void request_mount(struct server *s, const struct share_request *r,
                          struct share_reply *reply)
{
    int lock = image_lock(s, r->image);
    char name[16], place[64];

    snprintf(name, sizeof(name), "%u", r->number);
    snprintf(place, sizeof(place), ROOTS_DIR "/%u", r->number);
    if (lock >= 0 && mkdirat(s->roots, name, DIR_MODE) == 0 && layers_mount(s, r, place) == 0) {
        mounted_add(s, r->number, lock);
        return;
    }
    reply->failed = 1;
    snprintf(reply->text, sizeof(reply->text), "mount of '%s' over '%s' by overlayfs: %s", r->layer,
             r->image, strerror(errno));
    unlinkat(s->roots, name, AT_REMOVEDIR);
    if (lock >= 0)
        close(lock);
}

/* virtiofsd holds what the guest's kernel has not yet said that it forgets. That says nothing to
 * us, but does not take long; a guest that forgets nothing keeps the files until it ends. */
static void request_unmount(struct server *s, const struct share_request *r,
                            struct share_reply *reply)
{
    const struct timespec pause = {.tv_nsec = BUSY_WAIT_NS};
    char name[16], place[64];
    int result = -1;

    snprintf(name, sizeof(name), "%u", r->number);
    snprintf(place, sizeof(place), ROOTS_DIR "/%u", r->number);
    for (int i = 0; i < BUSY_TRIES && (result = umount2(place, 0)) < 0 && errno == EBUSY; i++)
        nanosleep(&pause, NULL); /* waits: for a file system that nobody tells about */
    if (result < 0 && umount2(place, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT) {
        reply->failed = 1;
        snprintf(reply->text, sizeof(reply->text), "unmount of '%s': %s", name, strerror(errno));
    }
    unlinkat(s->roots, name, AT_REMOVEDIR);
    mounted_remove(s, r->number);
}

/* False: the keeper is gone. */
static bool request_serve(struct server *s)
{
    struct share_request r;
    struct share_reply reply = {0};
    ssize_t n = TEMP_FAILURE_RETRY(recv(CONTROL_FD, &r, sizeof(r), 0));

    if (n != sizeof(r))
        return false;
    r.image[sizeof(r.image) - 1] = r.layer[sizeof(r.layer) - 1] = '\0';
    if (r.op == SHARE_MOUNT)
        request_mount(s, &r, &reply);
    else
        request_unmount(s, &r, &reply);
    return send(CONTROL_FD, &reply, sizeof(reply), MSG_NOSIGNAL) == sizeof(reply);
}

/* ---- its life ------------------------------------------------------------------------------- */

static void serve(struct server *s)
{
    struct pollfd fds[] = {{.fd = CONTROL_FD, .events = POLLIN},
                           {.fd = ERRORS_FD, .events = POLLIN}};

    for (;;) {
        /* waits: this process does nothing else */
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents && !virtiofsd_listen(s)) {
            virtiofsd_ended(s);
            return;
        }
        if (fds[0].revents && !request_serve(s))
            return;
    }
}

_Noreturn static void child_main(const char *virtiofsd, const char *root, int control, int listener)
{
    struct server s = {.roots = -1};
    struct share_reply reply = {.ended = 1, .failed = 1};

    prctl(PR_SET_NAME, "husk-share");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(1);
    control = fcntl(control, F_DUPFD_CLOEXEC, FD_COUNT);
    listener = fcntl(listener, F_DUPFD_CLOEXEC, FD_COUNT);
    if (dup3(control, CONTROL_FD, O_CLOEXEC) < 0 || dup3(listener, LISTENER_FD, O_CLOEXEC) < 0 ||
        dup3(STDERR_FILENO, ERRORS_FD, O_CLOEXEC) < 0 ||
        syscall(SYS_close_range, FD_COUNT, ~0U, 0) < 0)
        _exit(1);
    s.root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s.root < 0 || place_make(&s) < 0 || confine_share() < 0 ||
        virtiofsd_start(&s, virtiofsd) < 0) {
        snprintf(reply.text, sizeof(reply.text), "its files cannot be served: %s", strerror(errno));
        send(CONTROL_FD, &reply, sizeof(reply), MSG_NOSIGNAL);
        _exit(1);
    }
    serve(&s);
    _exit(0); /* the kernel ends all that is in our namespace of processes */
}

/* A socket that virtiofsd takes one connection of, and that connection, which is made already. */
static int vhost_make(int *ret_listener, int *ret_ours)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(address.sun_family); /* no name: the kernel gives it one */

    *ret_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *ret_ours = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*ret_listener < 0 || *ret_ours < 0 ||
        bind(*ret_listener, (struct sockaddr *)&address, size) < 0 || listen(*ret_listener, 1) < 0)
        return -1;
    size = sizeof(address);
    if (getsockname(*ret_listener, (struct sockaddr *)&address, &size) < 0)
        return -1;
    return connect(*ret_ours, (struct sockaddr *)&address, size);
}

int share_fork(const char *virtiofsd, const char *root, struct share_child *ret,
               struct error **ret_error)
{
    int control[2] = {-1, -1}, listener = -1;

    *ret = (struct share_child){.pid = -1, .pidfd = -1, .control = -1, .vhost = -1};
    if (vhost_make(&listener, &ret->vhost) == 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) == 0) {
        struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_PIDFD,
                                  .pidfd = (uintptr_t)&ret->pidfd,
                                  .exit_signal = SIGCHLD};
        ret->pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        if (ret->pid == 0) {
            fcntl(control[1], F_SETFL, 0);
            child_main(virtiofsd, root, control[1], listener);
        }
    }
    int err = errno;
    if (listener >= 0)
        close(listener);
    if (control[1] >= 0)
        close(control[1]);
    ret->control = control[0];
    return ret->pid > 0 ? 0 : error_set(ret_error, ERROR_IO, err, "start husk-share");
}
