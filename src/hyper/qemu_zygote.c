/* Zygotes from outside: one that is started listens at its door, and a clone is had by knocking
 * there. What happens behind it is in zygote.c.
 */
#include "hyper/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/str.h"
#include "hyper/qemu_args.h"
#include "hyper/qemu_int.h"

#define DOOR "zygote.sock"

enum {
    BACKLOG = 128,
    /* The copy goes there as its own user, who need not be ours. Nobody can list it, and all that
     * is in it is its owner's alone. */
    DIRECTORY_MODE = 0711,
};

static void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
#define CLEANUP_FD __attribute__((cleanup(closep)))

int zygote_listen(int *ret_fd, struct error **ret_error)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = DOOR};
    *ret_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (*ret_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "socket");
    if (bind(*ret_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(*ret_fd, BACKLOG) < 0)
        return error_set(ret_error, ERROR_IO, errno, "listen on '" DOOR "'");
    return 0;
}

/* ---- asking for a copy ---------------------------------------------------------------------- */

/* The directory's path may be longer than a socket's address. */
static int door_knock(const char *directory, int *ret_fd, struct error **ret_error)
{
    CLEANUP_FD int at = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const struct timeval timeout = {.tv_sec = ZYGOTE_DEADLINE_MS / 1000};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (at < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", directory);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" DOOR, at);
    *ret_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (*ret_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "socket");
    setsockopt(*ret_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    setsockopt(*ret_fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    if (connect(*ret_fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(ret_error, ERROR_IO, errno, "connect to '%s/" DOOR "'", directory);
    return 0;
}

static void give(struct zygote_request *r, int *fds, int number, int fd)
{
    if (fd < 0)
        return;
    fds[r->count] = fd;
    r->numbers[r->count++] = number;
}

static int request_send(int door, const struct zygote_request *request, const int *fds,
                        struct error **ret_error)
{
    union {
        char bytes[CMSG_SPACE(ZYGOTE_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)request, .iov_len = sizeof(*request)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(request->count * sizeof(int))};
    *CMSG_FIRSTHDR(&message) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                                .cmsg_type = SCM_RIGHTS,
                                                .cmsg_len = CMSG_LEN(request->count * sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, request->count * sizeof(int));
    if (sendmsg(door, &message, MSG_NOSIGNAL) != (ssize_t)sizeof(*request))
        return error_set(ret_error, ERROR_IO, errno, "ask the zygote");
    return 0;
}

/* What comes from the zygote is no more than what it says: its guest may have broken into it. Of a
 * process that has ended already the kernel says -1. */
static bool is_pidfd_of(int fd, pid_t pid)
{
    char path[64], text[512] = "", line[32];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    snprintf(line, sizeof(line), "\nPid:\t%d\n", (int)pid);
    CLEANUP_FD int info = open(path, O_RDONLY | O_CLOEXEC);
    return info >= 0 && read(info, text, sizeof(text) - 1) > 0 &&
           (strstr(text, line) || strstr(text, "\nPid:\t-1\n"));
}

static int answer_receive(int door, pid_t *ret_pid, int *ret_pidfd, struct error **ret_error)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct zygote_answer a;
    struct iovec iov = {.iov_base = &a, .iov_len = sizeof(a)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(door, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *rights = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_type == SCM_RIGHTS)
        memcpy(ret_pidfd, CMSG_DATA(rights), sizeof(*ret_pidfd));
    if (n != sizeof(a))
        return error_set(ret_error, n < 0 ? ERROR_TIMEOUT : ERROR_UNAVAILABLE, 0,
                         n < 0 ? "the zygote does not answer" : "the zygote has ended");
    a.text[sizeof(a.text) - 1] = '\0';
    str_make_plain(a.text);
    if (a.pid <= 0 || *ret_pidfd < 0)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "the zygote: %s", a.text);
    if (!is_pidfd_of(*ret_pidfd, a.pid))
        return error_set(ret_error, ERROR_CORRUPT, 0, "the zygote names no process of its own");
    *ret_pid = a.pid;
    return 0;
}

/* waits: for the zygote's answer, some milliseconds; a keeper has nothing else to do yet. */
static int copy_make(struct hyper *h, const struct hyper_spec *spec, const int *fds,
                     struct error **ret_error)
{
    CLEANUP_FD int door = -1, leash = -1, directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct zygote_request request = {0};
    int given[ZYGOTE_FDS_MAX], ends[2], pidfd = -1;
    pid_t pid = 0;
    if (directory < 0 || chmod(".", DIRECTORY_MODE) < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '.'");
    if (door_knock(spec->copy_of, &door, ret_error) < 0)
        return -1;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "pipe");
    leash = ends[0];
    snprintf(request.name, sizeof(request.name), "%s", spec->vm);
    give(&request, given, STDOUT_FILENO, fds[STDOUT_FILENO]);
    give(&request, given, STDERR_FILENO, fds[STDERR_FILENO]);
    give(&request, given, ZYGOTE_LEASH, leash);
    for (int i = QEMU_FD_MONITOR; i <= QEMU_FD_CONSOLE; i++)
        give(&request, given, i, fds[i]);
    give(&request, given, ZYGOTE_DIRECTORY, directory);
    give(&request, given, ZYGOTE_RULES, spec->rules_fd);
    if (request_send(door, &request, given, ret_error) < 0 ||
        answer_receive(door, &pid, &pidfd, ret_error) < 0) {
        close(ends[1]); /* should there be a copy that we do not know of, that is its end */
        closep(&pidfd);
        return -1;
    }
    h->child = child_adopt(h->loop, pid, pidfd, ends[1], qemu_ended, h);
    return 0;
}

bool zygote_copy(struct hyper *h, const struct hyper_spec *spec, const int *fds)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (str_empty(spec->copy_of))
        return false;
    if (copy_make(h, spec, fds, &error) < 0) {
        h->events->not_copied(error->message, h->arg);
        return false;
    }
    if (h->events->mark)
        h->events->mark("copied", h->arg);
    return true;
}

/* ---- a copy begins -------------------------------------------------------------------------- */

static const struct step run_steps[] = {{.command = "cont"}};

/* The zygote's virtual CPUs are stopped, and so are the copy's. */
void zygote_begin_copy(struct hyper *h, const struct hyper_spec *spec)
{
    for (unsigned i = 0; i < spec->disk_count; i++)
        if (spec->disks[i].fd >= 0 && !spec->disks[i].inherited)
            qemu_disk_put(h, i, &spec->disks[i], qemu_clone_done, h);
    op_start(h, (struct op){.steps = run_steps,
                            .step_count = ARRAY_SIZE(run_steps),
                            .fd = -1,
                            .done = qemu_clone_done,
                            .arg = h});
}

/* ---- a zygote comes to rest ----------------------------------------------------------------- */

static const struct step stop_steps[] = {{.command = "stop"}};

void qemu_settle(struct hyper *h, hyper_done *done, void *arg)
{
    uint32_t slots = h->filled & ~h->read_only;
    struct batch *batch = batch_new(1 + (unsigned)__builtin_popcount(slots), done, arg);
    op_start(h, (struct op){.steps = stop_steps,
                            .step_count = ARRAY_SIZE(stop_steps),
                            .fd = -1,
                            .done = batch_done,
                            .arg = batch});
    for (unsigned i = 0; i < HYPER_BOOT_DISKS_MAX; i++)
        if (slots & 1u << i)
            qemu_disk_forget(h, i, batch_done, batch);
}
