/* Clients: their sockets go to the keeper that has what they want. */
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/exec_int.h"

enum { PARKED_CHECK_MS = 1000 };

/* Its HTTP is over, a sentence in the stream is what it can be told. */
static void client_refuse(int fd, bool raw, const char *why)
{
    CLEANUP_FREE char *line = str_printf("husk: %s%s\n", why, raw ? "\r" : "");
    uint32_t size = htobe32((uint32_t)strlen(line));
    uint8_t header[8] = {2}; /* of standard error */
    struct iovec iov[] = {{header, raw ? 0 : sizeof(header)}, {line, strlen(line)}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov)};
    memcpy(header + 4, &size, sizeof(size));
    if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_debug("refuse a client: %s", strerror(errno));
    close(fd);
}

static bool has_tty(const struct exec *exec, const struct container *ctr)
{
    struct process process;
    process_of(ctr, world_pod(exec->world, ctr->pod), world_image(exec->world, ctr->image),
               &process);
    bool tty = process.tty;
    process_clear(&process);
    return tty;
}

/* ---- who came too early --------------------------------------------------------------------- */

static void parked_free(struct exec *exec, struct parked *parked)
{
    DL_DELETE(exec->parked, parked);
    exec->parked_count--;
    if (parked->fd >= 0)
        close(parked->fd);
    buf_release(&parked->early);
    free(parked);
}

void parked_free_all(struct exec *exec)
{
    while (exec->parked)
        parked_free(exec, exec->parked);
    timer_free(exec->parked_timer);
    exec->parked_timer = NULL;
}

/* The container was to run, and is not any more: its pod could not be started, or was stopped. */
static bool parked_in_vain(struct parked *parked, const struct container *ctr)
{
    bool awaited = ctr->want == CTR_WANT_RUNNING || ctr_is_up(ctr);
    bool before = parked->awaited;
    parked->awaited = awaited;
    return before && !awaited;
}

/* Lets go of those whose container or client is gone, or that wait in vain. */
static void parked_check(void *arg)
{
    struct exec *exec = arg;
    struct parked *parked, *next;
    DL_FOREACH_SAFE(exec->parked, parked, next) {
        const struct container *ctr = world_ctr(exec->world, parked->ctr);
        const struct pod *pod = ctr ? world_pod(exec->world, ctr->pod) : NULL;
        bool left = send(parked->fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
        bool in_vain = ctr && parked_in_vain(parked, ctr);
        if (in_vain && !left) {
            client_refuse(parked->fd, has_tty(exec, ctr),
                          str_or(pod ? pod->reason : NULL, "its pod was not started"));
            parked->fd = -1;
        }
        if (left || in_vain || !ctr)
            parked_free(exec, parked);
    }
    if (exec->parked)
        timer_set(exec->parked_timer, PARKED_CHECK_MS);
}

int exec_parked_check(const struct exec *exec, struct error **ret_error)
{
    if (exec->parked_count < exec->config.parked_max)
        return 0;
    return error_set(ret_error, ERROR_LIMIT, 0,
                     "%u clients wait for containers to start already, as many as connections_max "
                     "allows",
                     exec->parked_count);
}

static void park(struct exec *exec, const struct container *ctr, struct tty_size size, int fd,
                 const void *early, size_t early_size)
{
    struct parked *parked = xcalloc(1, sizeof(*parked));
    parked->ctr = ctr->object.ref;
    parked->awaited = ctr->want == CTR_WANT_RUNNING;
    parked->size = size;
    parked->fd = fd;
    buf_append(&parked->early, early, early_size);
    DL_APPEND(exec->parked, parked);
    exec->parked_count++;
    if (!exec->parked_timer)
        exec->parked_timer = timer_new(exec->loop, parked_check, exec);
    if (exec->parked_count == 1) /* or it would be put off for as long as clients come */
        timer_set(exec->parked_timer, PARKED_CHECK_MS);
}

/* ---- attach --------------------------------------------------------------------------------- */

/* The client has its answer long since: all that is left is the end of its socket, which the
 * keeper sees to. */
static void attach_replied(const struct error *error, uint64_t value, void *arg)
{
    if (error)
        log_debug("attach: %s", error_text(error));
}

static void attach_send(struct exec *exec, struct link *link, const struct container *ctr, int fd,
                        const void *early, size_t early_size)
{
    bool tty = has_tty(exec, ctr);
    struct wire_attach message = {
        .ctr = ctr->id,
        .framing = tty ? WIRE_FRAMING_RAW : WIRE_FRAMING_STDCOPY,
        .early = {early, (uint32_t)early_size},
        .detachable = tty,
    };
    link_ask(link, WIRE_ATTACH, &message, fd, attach_replied, NULL);
}

struct tty_size parked_hand_over(struct exec *exec, struct link *link, const struct container *ctr)
{
    struct tty_size size = {0};
    struct parked *parked, *next;
    DL_FOREACH_SAFE(exec->parked, parked, next) {
        if (!ref_eq(parked->ctr, ctr->object.ref))
            continue;
        attach_send(exec, link, ctr, parked->fd, parked->early.data, parked->early.len);
        parked->fd = -1;
        size = parked->size.rows ? parked->size : size;
        parked_free(exec, parked);
    }
    return size;
}

void exec_attach(struct exec *exec, struct ref ref, struct tty_size size, int fd, const void *early,
                 size_t early_size)
{
    const struct container *ctr = world_ctr(exec->world, ref);
    struct link *link = ctr ? link_of_pod(exec, ctr->pod) : NULL;
    if (ctr && link && exec_has(exec, ctr) && ctr->state != CTR_PENDING)
        attach_send(exec, link, ctr, fd, early, early_size);
    else if (ctr && exec_parked_check(exec, NULL) == 0)
        park(exec, ctr, size, fd, early, early_size);
    else
        close(fd);
}

/* ---- further processes ---------------------------------------------------------------------- */

/* Fails at once, by the same way as later. */
static struct link *link_or_done(struct exec *exec, struct ref pod,
                                 void (*done)(const struct error *, uint64_t, void *), void *arg)
{
    struct link *link = link_of_pod(exec, pod);
    CLEANUP_ERROR struct error *error = NULL;
    if (link)
        return link;
    error_set(&error, ERROR_STATE, 0, "its pod does not run");
    done(error, 0, arg);
    return NULL;
}

void exec_start(struct exec *exec, const struct exec_process *process, int fd, const void *early,
                size_t early_size,
                void (*done)(const struct error *error, uint64_t value, void *arg), void *arg)
{
    const struct container *ctr = world_ctr(exec->world, process->ctr);
    if (fd >= 0 && !link_of_pod(exec, process->pod))
        client_refuse(fd, process->tty || process->raw, "its pod does not run any more");
    struct link *link = link_or_done(exec, process->pod, done, arg);
    if (!link)
        return;
    struct wire_exec_start message = {
        .exec = process->id,
        .ctr = ctr ? ctr->id : "",
        .argv = process->argv,
        .env = process->env,
        .cwd = process->cwd,
        .user = process->user,
        .flags = (process->tty ? WIRE_TTY : 0) | (process->stdin_open ? WIRE_STDIN_OPEN : 0),
        .rows = process->rows,
        .cols = process->cols,
        .framing = process->tty || process->raw ? WIRE_FRAMING_RAW : WIRE_FRAMING_STDCOPY,
        .early = {early, (uint32_t)early_size},
    };
    link_ask(link, WIRE_EXEC_START, &message, fd, done, arg);
}

int exec_resize(struct exec *exec, struct ref pod, const char *ctr, const char *id, uint32_t rows,
                uint32_t cols, struct error **ret_error)
{
    struct link *link = link_of_pod(exec, pod);
    struct wire_tty_size message = {.ctr = ctr, .exec = id, .rows = rows, .cols = cols};
    if (!link)
        return error_set(ret_error, ERROR_STATE, 0, "its pod does not run");
    conn_send(link->conn, WIRE_TTY_SIZE, 0, &message);
    return 0;
}

void exec_kill(struct exec *exec, struct ref pod, const char *ctr, const char *id, uint32_t signal,
               void (*done)(const struct error *error, uint64_t value, void *arg), void *arg)
{
    struct link *link = link_or_done(exec, pod, done, arg);
    struct wire_kill message = {.ctr = ctr, .exec = id, .signal = signal};
    if (link)
        link_ask(link, WIRE_KILL, &message, -1, done, arg);
}

/* ---- images --------------------------------------------------------------------------------- */

struct job *exec_load(struct exec *exec, int fd, const struct load_ops *ops, void *arg)
{
    return pool_load(exec->pool, fd, ops, arg);
}

void exec_load_forget(struct job *job)
{
    job_forget(job);
}
