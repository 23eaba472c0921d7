#include "init/joiner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/events.h"
#include "init/process.h"
#include "init/util.h"

enum {
    JOINERS_MAX = 8,        /* one costs some 100 KiB */
    REQUEST_SIZE = 64 << 10 /* an exec that needs more is started the usual way */
};

struct joiner {
    struct joiner *next;
    struct container *container;
    pid_t pid;
    int socket;
    struct join_request *request; /* shared with it */
    bool ready;                   /* it waits for a request */
};

static struct joiner *joiners;
static struct container *wanted_in;
static struct alarm wanted_alarm;

/* ---- the table ------------------------------------------------------------------------------ */

static struct joiner *joiner_of(const struct container *c)
{
    struct joiner *j = joiners;
    while (j && j->container != c)
        j = j->next;
    return j;
}

pid_t joiner_born(const struct joiner *j)
{
    return __atomic_load_n(&j->request->born, __ATOMIC_ACQUIRE);
}

static void joiner_free(struct joiner *j)
{
    struct joiner **at = &joiners;
    while (*at && *at != j)
        at = &(*at)->next;
    if (*at)
        *at = j->next;
    process_settle(j);
    fd_closep(&j->socket);
    if (j->request)
        munmap(j->request, REQUEST_SIZE);
    free(j);
}

void joiner_ended(pid_t pid)
{
    struct joiner *j = joiners;
    while (j && j->pid != pid)
        j = j->next;
    if (j)
        joiner_free(j);
}

/* ---- making --------------------------------------------------------------------------------- */

static int joiner_spawn(struct joiner *j, struct error **ret_error)
{
    CLEANUP_FD int group = cgroup_guest(ret_error);
    int pair[2];

    if (group < 0)
        return -1;
    void *memory =
        mmap(NULL, REQUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(ret_error, ERROR_IO, errno, "memory for a request");
    j->request = memory;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a socket");
    j->socket = pair[0];
    j->pid = spawn_joining(group, -1);
    if (j->pid == 0)
        launch_joiner(j->container, pair[1], j->request);
    close(pair[1]);
    if (j->pid < 0)
        return error_set(ret_error, ERROR_IO, errno, "a process cannot be made");
    return 0;
}

static void wanted_ring(struct alarm *alarm)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct container *c = take(wanted_in);
    int count = 0;

    for (const struct joiner *j = joiners; j; j = j->next)
        count++;
    if (!c || c->state != CONTAINER_RUNNING || count >= JOINERS_MAX || joiner_of(c))
        return;
    struct joiner *j = xcalloc(1, sizeof(*j));
    *j = (struct joiner){.next = joiners, .container = c, .socket = -1};
    joiners = j;
    if (joiner_spawn(j, &error) == 0)
        return;
    say(LOG_WARNING, "execs in container '%s' cannot be prepared: %s", c->start.ctr,
        error->message);
    joiner_free(j);
}

void joiner_want(struct container *c)
{
    if (joiner_of(c))
        return;
    wanted_in = c;
    alarm_set(&wanted_alarm, 0, wanted_ring);
}

void joiner_leave(const struct container *c)
{
    struct joiner *j = joiner_of(c);
    if (wanted_in == c)
        wanted_in = NULL;
    if (!j)
        return;
    kill(j->pid, SIGKILL);
    joiner_free(j);
}

/* ---- use ------------------------------------------------------------------------------------ */

/* Takes what it has told: that it is ready, or why it never will be. */
static void joiner_listen(struct joiner *j)
{
    struct launch_status told;
    while (recv(j->socket, &told, sizeof(told), MSG_DONTWAIT) == sizeof(told)) {
        if (told.report == LAUNCH_READY)
            j->ready = true;
        else
            say(LOG_WARNING, "execs cannot be prepared: %s", told.text);
    }
    if (j->ready)
        process_settle(j);
}

/* All four, so that they become 0 to 3 there; /dev/null is in the place of what is not. */
static bool ends_send(int to, const struct ends *e)
{
    CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char control[CMSG_SPACE(END_COUNT * sizeof(int))] = {0}, go = 0;
    struct iovec iov = {.iov_base = &go, .iov_len = sizeof(go)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    int fds[END_COUNT];

    for (int i = 0; i < END_COUNT; i++)
        fds[i] = e->theirs[i] < 0 ? null : e->theirs[i];
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(c), fds, sizeof(fds));
    return sendmsg(to, &message, MSG_NOSIGNAL) == sizeof(go);
}

bool joiner_exec(const struct launch *launch, const struct wire_frame *frame, uint32_t seq)
{
    struct joiner *j = launch->container ? joiner_of(launch->container) : NULL;
    struct ends ends;

    if (!j)
        return false;
    joiner_listen(j);
    if (!j->ready || !process_room(NULL) || sizeof(*j->request) + frame->length > REQUEST_SIZE)
        return false;
    j->request->born = 0;
    j->request->size = frame->length;
    memcpy(j->request->bytes, frame->payload, frame->length);
    bool sent = ends_open(&ends, launch->flags) == 0 && ends_send(j->socket, &ends);
    if (sent) {
        j->ready = false;
        process_adopt(launch, frame->stream, seq, j->pid, &ends, j);
    }
    ends_close(&ends);
    return sent;
}
