#include "init/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/container.h"
#include "init/input.h"
#include "init/joiner.h"
#include "init/port.h"
#include "init/serve.h"
#include "init/slot.h"
#include "init/util.h"

enum {
    PROCESSES_MAX = 1024,
    TERMINAL_READ = 4096, /* what the kernel gives at once */
    PUMP_FRAMES = 64,     /* of output, before input has its turn */
    STATUS_SIGNALLED = 128,
};

static struct process *processes;
/* The one that was freed last. It is of a size that the allocator maps and unmaps each time. */
static struct process *spare;

/* ---- the table ------------------------------------------------------------------------------ */

struct process *process_find(uint32_t stream)
{
    for (struct process *p = processes; p; p = p->next)
        if (p->stream == stream)
            return p;
    return NULL;
}

bool process_any(const struct container *container)
{
    for (const struct process *p = processes; p; p = p->next)
        if (p->container == container)
            return true;
    return false;
}

bool process_alive(const struct container *container)
{
    for (const struct process *p = processes; p; p = p->next)
        if (p->pid && (!container || p->container == container))
            return true;
    return false;
}

static void process_free(struct process *p)
{
    struct process **at = &processes;
    while (*at && *at != p)
        at = &(*at)->next;
    if (*at)
        *at = p->next;
    source_close(&p->out.source);
    source_close(&p->err.source);
    source_close(&p->status);
    source_close(&p->input);
    buf_release(&p->pending);
    if (spare)
        free(p);
    else
        spare = p;
}

static struct process *process_new(const struct launch *launch, uint32_t stream, uint32_t seq)
{
    struct process *p = spare ? take(spare) : xmalloc(sizeof(*p));
    *p = (struct process){0};
    p->stream = stream;
    p->seq = seq;
    p->container = launch->container;
    p->first = launch->first;
    p->tty = launch->flags & WIRE_TTY;
    p->rows = launch->rows;
    p->cols = launch->cols;
    p->out = (struct channel){.source.fd = -1, .process = p, .type = WIRE_STDOUT};
    p->err = (struct channel){.source.fd = -1, .process = p, .type = WIRE_STDERR};
    p->status.fd = p->input.fd = -1;
    p->next = processes;
    processes = p;
    return p;
}

static int process_group(const struct process *p)
{
    return p->container ? p->container->group : -1;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void process_exited(const struct process *p)
{
    bool signalled = WIFSIGNALED(p->wait_status);
    int signal = signalled ? WTERMSIG(p->wait_status) : 0;
    int code = signalled ? STATUS_SIGNALLED + signal : WEXITSTATUS(p->wait_status);
    struct wire_exited exited = {
        .code = (uint32_t)code, .signal = (uint32_t)signal, .oom = p->oom, .reason = p->told.text};

    port_send(WIRE_EXITED, p->stream, &exited);
}

/* Forgets a process that has ended and of which everything was sent. */
static bool process_finish(struct process *p)
{
    if (p->pid || p->status.fd >= 0 || !p->out.finished || !p->err.finished)
        return false;
    if (!p->refused)
        process_exited(p);
    if (p->answer_late)
        serve_reply(p->seq, NULL);
    if (!p->first && p->container && p->container->state == CONTAINER_RUNNING)
        joiner_want(p->container);
    process_free(p);
    return true;
}

/* ---- output --------------------------------------------------------------------------------- */

static void output_ready(struct source *source, uint32_t events)
{
    struct channel *c = (struct channel *)((char *)source - offsetof(struct channel, source));
    c->readable = true;
    if (c->process->tty && events & EPOLLOUT)
        input_flush(c->process);
}

/* What remains of its output is not wanted, or there is none. */
static void channel_end(struct channel *c)
{
    if (c->finished)
        return;
    c->finished = true;
    source_close(&c->source);
    if (!c->process->refused)
        port_send_data(c->type, c->process->stream, NULL, 0);
}

static ssize_t terminal_send(const struct channel *c)
{
    uint8_t data[TERMINAL_READ];
    size_t max = c->credit < sizeof(data) ? c->credit : sizeof(data);
    ssize_t n = read(c->source.fd, data, max);
    if (n > 0)
        port_send_data(c->type, c->process->stream, data, (size_t)n);
    return n;
}

/* Without credit nothing may be read, but the end may be seen. */
static ssize_t channel_peek(const struct channel *c)
{
    struct pollfd ready = {.fd = c->source.fd, .events = POLLIN};
    poll(&ready, 1, 0);
    if (ready.revents & POLLIN)
        return 1;
    errno = EAGAIN;
    return ready.revents ? 0 : -1;
}

/* What may be read now. After the end it is only what was written before it: a grandchild that
 * writes on and on would never let the process end. A terminal is hung up for those. */
static size_t channel_limit(const struct channel *c)
{
    bool bounded = !c->process->pid && !c->process->tty;
    return bounded && c->left < c->credit ? c->left : c->credit;
}

/* What was written is sent, or is of no interest. */
static bool channel_is_over(const struct channel *c)
{
    const struct process *p = c->process;
    return p->discard || c->source.fd < 0 || (!p->pid && !p->tty && !c->left);
}

/* True if a frame was sent. */
static bool channel_pump(struct channel *c)
{
    struct process *p = c->process;
    ssize_t n;

    if (c->finished || (c->source.fd < 0 && p->pid) || (!c->readable && p->pid))
        return false;
    if (channel_is_over(c)) {
        channel_end(c);
        return true;
    }
    if (!c->credit)
        n = channel_peek(c);
    else if (p->tty)
        n = terminal_send(c);
    else
        n = port_send_pipe(c->type, p->stream, c->source.fd, channel_limit(c));
    if (n > 0 && c->credit) {
        c->credit -= (uint32_t)n;
        c->left -= (size_t)n < c->left ? (size_t)n : c->left;
    }
    if (n > 0)
        return c->credit > 0;
    c->readable = false;
    /* A terminal whose other end is closed says EIO. After the process has ended, whoever else
     * holds the pipe is not waited for. */
    if (n == 0 || (errno != EAGAIN && errno != EINTR) || (errno == EAGAIN && !p->pid))
        channel_end(c);
    return c->finished;
}

/* Data wants a port that has nothing else to do; the word that it is over goes in one piece with
 * that of the other channel, and with EXITED. */
static bool channel_turn(struct channel *c)
{
    if (!channel_is_over(c))
        port_flush();
    return (port_idle() || (channel_is_over(c) && port_takes_more())) && channel_pump(c);
}

bool process_pump(void)
{
    bool more = true;
    for (int frames = 0; more && frames < PUMP_FRAMES; frames++) {
        more = false;
        for (struct process *p = processes, *next; p; p = next) {
            next = p->next;
            more |= channel_turn(&p->out);
            more |= channel_turn(&p->err);
            process_finish(p);
        }
    }
    return more;
}

void process_credit(struct process *p, unsigned channel, uint32_t bytes)
{
    struct channel *c = channel == WIRE_STDOUT ? &p->out : channel == WIRE_STDERR ? &p->err : NULL;
    if (!c)
        return;
    c->credit = bytes > UINT32_MAX - c->credit ? UINT32_MAX : c->credit + bytes;
    c->readable = true;
}

void process_discard(const struct container *container)
{
    for (struct process *p = processes; p; p = p->next)
        if (!container || p->container == container)
            p->discard = true;
}

void process_forget_credit(void)
{
    for (struct process *p = processes; p; p = p->next) {
        p->out.credit = p->err.credit = 0;
        p->window = 0;
    }
}

/* ---- what the child tells ------------------------------------------------------------------- */

static void terminal_resize(const struct process *p)
{
    struct winsize size = {.ws_row = (unsigned short)p->rows, .ws_col = (unsigned short)p->cols};
    if (p->out.source.fd >= 0 && p->rows && p->cols)
        ioctl(p->out.source.fd, TIOCSWINSZ, &size);
}

static void terminal_attach(struct process *p, int master)
{
    if (p->hung_up) {
        close(master);
        return;
    }
    source_open(&p->out.source, master, EPOLLIN | EPOLLOUT, output_ready);
    terminal_resize(p);
    input_flush(p);
}

/* Takes one message: false if there is none, or no more to come. */
static bool status_receive(struct process *p, bool *ret_end)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct launch_status told;
    struct iovec iov = {.iov_base = &told, .iov_len = sizeof(told)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(p->status.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd = -1;

    *ret_end = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (n != sizeof(told))
        return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    if (told.report == LAUNCH_TERMINAL && fd >= 0)
        terminal_attach(p, fd);
    else
        p->told = told;
    return true;
}

static void process_refused(const struct process *p)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, p->told.kind, 0, "%s", p->told.text);
    error->err = p->told.err;
    serve_reply(p->seq, error);
}

/* Its joiner has done its part, or never will. */
static void process_parted(struct process *p)
{
    if (p->joiner)
        p->pid = joiner_born(p->joiner);
    p->joiner = NULL;
}

/* Its group, which it leads as soon as it has a session of its own. */
static void send_hangup(const struct process *p)
{
    if (p->pid && kill(-p->pid, SIGHUP) < 0)
        kill(p->pid, SIGHUP);
}

static void send_early_signals(struct process *p)
{
    for (int signal = 1; p->pid && p->signals; signal++, p->signals >>= 1)
        if (p->signals & 1)
            kill(p->pid, signal);
}

/* The child runs the program now, or never will. A refusal is answered when the child is gone, and
 * with it what it had made. */
static void status_ended(struct process *p)
{
    source_close(&p->status);
    process_parted(p);
    send_early_signals(p);
    if (p->hung_up)
        send_hangup(p);
    if (!p->pid && p->told.report == LAUNCH_NOTHING) {
        p->told = (struct launch_status){.report = LAUNCH_REFUSED, .kind = ERROR_IO};
        snprintf(p->told.text, sizeof(p->told.text), "what should have made the process has ended");
    }
    p->refused = p->told.report == LAUNCH_REFUSED;
    if (p->refused) {
        channel_end(&p->out);
        channel_end(&p->err);
        if (!p->pid)
            process_refused(p);
        return;
    }
    if (p->first && p->container->state == CONTAINER_STARTING)
        p->container->state = CONTAINER_RUNNING;
    p->answer_late = !p->first && p->told.report == LAUNCH_CANNOT_RUN;
    if (!p->answer_late)
        serve_reply(p->seq, NULL);
}

static void status_read(struct process *p)
{
    bool end = false;
    while (p->status.fd >= 0 && status_receive(p, &end))
        ;
    if (end)
        status_ended(p);
}

/* Nothing more comes. */
static void status_drain(struct process *p)
{
    status_read(p);
    if (p->status.fd >= 0)
        status_ended(p);
}

static void status_ready(struct source *source, uint32_t events)
{
    status_read((struct process *)((char *)source - offsetof(struct process, status)));
}

/* ---- the beginning -------------------------------------------------------------------------- */

static int process_spawn(struct process *p, const struct launch *launch, struct ends *e, int group,
                         struct error **ret_error)
{
    struct container *c = launch->container;
    pid_t pid =
        launch->first ? spawn_first(group, &c->pidfd) : spawn_joining(group, c ? c->pidfd : -1);
    if (pid == 0) {
        struct launch_fds fds = {{e->theirs[0], e->theirs[1], e->theirs[2]}, e->theirs[END_STATUS]};
        launch_child(launch, &fds);
    }
    if (pid < 0)
        return error_set(ret_error, ERROR_IO, errno, "a process cannot be made");
    p->pid = pid;
    if (launch->first)
        c->mounts = spawn_mounts(pid);
    return 0;
}

static void process_connect(struct process *p, struct ends *e, bool input)
{
    source_open(&p->status, fd_take(&e->ours[END_STATUS]), EPOLLIN, status_ready);
    if (!p->tty) {
        source_open(&p->out.source, fd_take(&e->ours[END_STDOUT]), EPOLLIN, output_ready);
        source_open(&p->err.source, fd_take(&e->ours[END_STDERR]), EPOLLIN, output_ready);
    }
    if (input && !p->tty)
        input_open(p, fd_take(&e->ours[END_STDIN]));
    if (input || p->tty)
        input_grant_first(p);
    else
        p->input_ended = p->input_closed = true;
}

bool process_room(struct error **ret_error)
{
    size_t count = 0;
    for (const struct process *p = processes; p; p = p->next)
        count++;
    if (count < PROCESSES_MAX)
        return true;
    error_set(ret_error, ERROR_LIMIT, 0, "a guest can have at most %d processes", PROCESSES_MAX);
    return false;
}

int process_start(const struct launch *launch, uint32_t stream, uint32_t seq,
                  struct error **ret_error)
{
    struct ends ends;
    CLEANUP_FD int guest = -1;

    if (!process_room(ret_error))
        return -1;
    if (!launch->container && (guest = cgroup_guest(ret_error)) < 0)
        return -1;
    struct process *p = process_new(launch, stream, seq);
    int group = launch->container ? launch->container->group : guest;
    int failed = ends_open(&ends, launch->flags);
    if (failed < 0)
        error_set(ret_error, ERROR_IO, errno, "standard streams");
    else
        failed = process_spawn(p, launch, &ends, group, ret_error);
    if (failed == 0)
        process_connect(p, &ends, launch->flags & WIRE_STDIN_OPEN);
    else
        process_free(p);
    ends_close(&ends);
    return failed;
}

void process_adopt(const struct launch *launch, uint32_t stream, uint32_t seq, pid_t pid,
                   struct ends *ends, struct joiner *joiner)
{
    struct process *p = process_new(launch, stream, seq);
    p->pid = pid;
    p->joiner = joiner;
    process_connect(p, ends, launch->flags & WIRE_STDIN_OPEN);
}

/* ---- life ----------------------------------------------------------------------------------- */

/* 0: there is none any more, or not yet. */
static pid_t process_pid(const struct process *p)
{
    return p->joiner ? joiner_born(p->joiner) : p->pid;
}

void process_settle(const struct joiner *joiner)
{
    for (struct process *p = processes; p; p = p->next) {
        if (p->joiner != joiner)
            continue;
        process_parted(p);
        if (!p->pid)
            status_drain(p);
    }
}

void process_resize(struct process *p, uint32_t rows, uint32_t cols)
{
    p->rows = rows;
    p->cols = cols;
    terminal_resize(p);
}

int process_signal(struct process *p, int signal, bool all, struct error **ret_error)
{
    if (signal < 1 || signal >= NSIG)
        return error_set(ret_error, ERROR_INVALID, 0, "there is no signal %d", signal);
    pid_t pid = process_pid(p);
    if (!pid && p->joiner) { /* it is sent when the process has begun */
        p->signals |= UINT64_C(1) << (signal - 1);
        return 0;
    }
    if (!pid)
        return error_set(ret_error, ERROR_STATE, 0, "the process has ended");
    if (all && p->container)
        cgroup_signal(process_group(p), signal);
    else if (kill(all ? -pid : pid, signal) < 0)
        return error_set(ret_error, ERROR_IO, errno, "signal %d cannot be sent", signal);
    return 0;
}

void process_hang_up(struct process *p)
{
    p->hung_up = true;
    input_drop(p);
    channel_end(&p->out);
    channel_end(&p->err);
    if (p->status.fd < 0) /* else when it has begun */
        send_hangup(p);
}

static void channel_bound(struct channel *c)
{
    int ready = 0;
    if (c->source.fd >= 0 && ioctl(c->source.fd, FIONREAD, &ready) == 0)
        c->left = (size_t)ready;
}

static void process_ended(struct process *p, int wait_status)
{
    /* What it told is there now, and so is what it wrote. */
    status_drain(p);
    p->pid = 0;
    channel_bound(&p->out);
    channel_bound(&p->err);
    p->wait_status = wait_status;
    source_close(&p->input);
    if (p->first) {
        struct container *c = p->container;
        p->oom = cgroup_oom_killed(process_group(p), c->oom_watch);
        if (p->refused)
            p->container = NULL;
        container_ended(c, p->refused);
    }
    if (p->refused)
        process_refused(p);
}

void process_reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct process *p = processes;
        while (p && process_pid(p) != pid)
            p = p->next;
        if (p) {
            process_ended(p, status);
        } else {
            slot_ended(pid);
            joiner_ended(pid);
        }
    }
}
