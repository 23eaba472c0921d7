#include "init/janitor.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init/events.h"
#include "init/util.h"

enum { JANITOR_FD = 3 };

static struct source source = {.fd = -1};
static uint64_t given, closed; /* descriptors */

/* ---- the process ---------------------------------------------------------------------------- */

static int fd_receive(int sock)
{
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t n;
    int fd = -1;

    while ((n = recvmsg(sock, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (n <= 0)
        _exit(0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

/* Each descriptor is followed by a byte that says that husk-init has closed its own. */
_Noreturn static void janitor_run(int sock)
{
    char byte = 0;
    dup2(sock, JANITOR_FD);
    syscall(SYS_close_range, JANITOR_FD + 1, ~0U, 0);
    for (;;) {
        int fd = fd_receive(JANITOR_FD);
        if (recv(JANITOR_FD, &byte, 1, 0) != 1)
            _exit(0);
        close(fd);
        send(JANITOR_FD, &byte, 1, MSG_NOSIGNAL);
    }
}

/* ---- husk-init ------------------------------------------------------------------------------ */

/* One byte for each that is closed. When the process is gone, all are. */
static void janitor_ready(struct source *s, uint32_t events)
{
    char byte;
    ssize_t n;
    while ((n = recv(s->fd, &byte, 1, MSG_DONTWAIT)) == 1)
        closed++;
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        source_close(s);
        closed = given;
    }
}

void janitor_open(void)
{
    int ends[2];
    if (source.fd >= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0)
        janitor_run(ends[1]);
    close(ends[1]);
    if (pid < 0)
        close(ends[0]);
    else
        source_open(&source, ends[0], EPOLLIN, janitor_ready);
}

static bool fd_send(int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    return sendmsg(source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

uint64_t janitor_close(int *fd)
{
    janitor_open();
    bool sent = source.fd >= 0 && fd_send(*fd);
    fd_closep(fd);
    if (!sent)
        return 0;
    send(source.fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    return ++given;
}

bool janitor_done(uint64_t ticket)
{
    return closed >= ticket;
}
