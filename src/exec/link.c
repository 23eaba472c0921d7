/* One keeper: its process, its connection, what was asked of it. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/making.h"

enum { KEEPER_ARGUMENTS_MAX = 8, KEEPER_BACKLOG = 128 };

struct ask {
    struct ask *prev, *next;
    uint32_t seq;
    void (*done)(const struct error *error, uint64_t value, void *arg); /* NULL: forgotten */
    void *arg;
};

/* ---- requests ------------------------------------------------------------------------------- */

struct ask *link_ask(struct link *link, unsigned type, void *message, int fd,
                     void (*done)(const struct error *error, uint64_t value, void *arg), void *arg)
{
    struct ask *ask = xcalloc(1, sizeof(*ask));
    assert(link->conn);
    *ask = (struct ask){.seq = ++link->next_seq, .done = done, .arg = arg};
    DL_APPEND(link->asks, ask);
    *(wire_u32 *)message = ask->seq;
    if (fd >= 0)
        conn_send_fd(link->conn, type, 0, message, fd);
    else
        conn_send(link->conn, type, 0, message);
    return ask;
}

void ask_forget(struct ask *ask)
{
    ask->done = NULL;
}

static void ask_answer(struct link *link, struct ask *ask, const struct error *error,
                       uint64_t value)
{
    DL_DELETE(link->asks, ask);
    if (ask->done)
        ask->done(error, value, ask->arg);
    free(ask);
}

void asks_fail(struct link *link)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_UNAVAILABLE, 0, "the keeper of vm '%s' has ended", link->vm);
    while (link->asks)
        ask_answer(link, link->asks, error, 0);
}

/* ---- what the keeper says ------------------------------------------------------------------- */

static void came_reply(struct link *link, const void *message)
{
    const struct wire_reply *reply = message;
    CLEANUP_ERROR struct error *error = NULL;
    struct ask *ask;
    wire_reply_check(reply, &error);
    DL_SEARCH_SCALAR(link->asks, ask, seq, reply->seq);
    if (ask)
        ask_answer(link, ask, error, reply->value);
    link->usages_told = true;
}

static void came_vm_state(struct link *link, const void *message)
{
    const struct wire_vm_state *state = message;
    link->ready = state->state == WIRE_VM_READY;
    link->gone = state->state == WIRE_VM_GONE;
    link->paused = state->paused;
    link->no_hello = state->no_hello;
    link->qemu_pid = state->qemu_pid;
    str_set(&link->pod, state->pod);
    str_set(&link->reason, state->reason);
    vm_state_came(link);
}

static void known_add(struct link *link, const struct wire_ctr_state *state)
{
    link->known = xrealloc(link->known, (link->known_count + 1) * sizeof(*link->known));
    link->known[link->known_count++] = (struct known){.id = xstrdup(state->ctr),
                                                      .run = state->run,
                                                      .ended = state->ended,
                                                      .started_ns = (int64_t)state->started_ns};
}

void link_forget_known(struct link *link)
{
    for (size_t i = 0; i < link->known_count; i++)
        free(link->known[i].id);
    free(link->known);
    link->known = NULL;
    link->known_count = 0;
}

static void came_ctr_state(struct link *link, const void *message)
{
    const struct wire_ctr_state *state = message;
    struct container *ctr = world_ctr_by_id(link->exec->world, state->ctr);
    struct core *core = exec_core(link->exec);
    if (link->adopting)
        known_add(link, state);
    if (!ctr)
        return;
    struct ctr_end end = {.run = state->run,
                          .code = state->code,
                          .signal = state->signal,
                          .oom = state->oom,
                          .reason = state->reason,
                          .started_ns = (int64_t)state->started_ns,
                          .finished_ns = (int64_t)state->finished_ns};
    if (state->ended)
        core_ctr_ended(core, ctr->object.ref, &end);
    else if (!link->adopting)
        core_ctr_started(core, ctr->object.ref, state->run, (int64_t)state->started_ns);
}

static void came_exec_state(struct link *link, const void *message)
{
    const struct wire_exec_state *state = message;
    const struct exec_hooks *hooks = &link->exec->hooks;
    if (hooks->process)
        hooks->process(link->vm, state->ctr, state->exec, state->ended, state->code, state->reason,
                       hooks->arg);
}

static void came_vm_event(struct link *link, const void *message)
{
    const struct wire_vm_event *event = message;
    if (str_eq(event->reason, WIRE_EVENT_ZYGOTE_FAILED))
        boot_not_copied(link, event->message);
    else if (ref_is(link->ref))
        core_vm_event(exec_core(link->exec), link->ref, event->reason, event->message);
    if (str_eq(event->reason, WIRE_EVENT_DISK_FULL))
        core_vm_stuck(exec_core(link->exec), link->ref, event->message);
}

static void came_timing(struct link *link, const void *message)
{
    const struct wire_timing *timing = message;
    const struct vm *vm = world_vm(link->exec->world, link->ref);
    const struct pod *pod = vm ? world_pod(link->exec->world, vm->pod) : NULL;
    STRV_FOREACH(mark, timing->marks) {
        if (!str_empty(timing->ctr))
            timing_add_text(link->exec->timing, timing->ctr, *mark);
        for (struct container *ctr = pod && str_empty(timing->ctr) ? pod->containers : NULL; ctr;
             ctr = ctr->next)
            timing_add_text(link->exec->timing, ctr->id, *mark);
    }
}

static void came_ctr_usage(struct link *link, const void *message)
{
    usage_came(link, message);
}

static const struct {
    unsigned type;
    size_t size;
    void (*came)(struct link *link, const void *message);
} messages[] = {
    {WIRE_REPLY, sizeof(struct wire_reply), came_reply},
    {WIRE_VM_STATE, sizeof(struct wire_vm_state), came_vm_state},
    {WIRE_CTR_STATE, sizeof(struct wire_ctr_state), came_ctr_state},
    {WIRE_EXEC_STATE, sizeof(struct wire_exec_state), came_exec_state},
    {WIRE_VM_EVENT, sizeof(struct wire_vm_event), came_vm_event},
    {WIRE_TIMING, sizeof(struct wire_timing), came_timing},
    {WIRE_CTR_USAGE, sizeof(struct wire_ctr_usage), came_ctr_usage},
};

static void link_frame(struct conn *conn, const struct wire_frame *frame, int fd, void *arg)
{
    struct link *link = arg;
    CLEANUP_ERROR struct error *error = NULL;
    if (fd >= 0)
        close(fd);
    if (!link->listed)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        if (messages[i].type != frame->type)
            continue;
        CLEANUP_FREE void *message = xcalloc(1, messages[i].size);
        if (wire_get(frame, message, &error) == 0)
            messages[i].came(link, message);
        else
            log_error("vm '%s': %s", link->vm, error_text(error));
        wire_clear(frame->type, message);
        return;
    }
}

static void link_closed(struct conn *conn, const struct error *why, void *arg)
{
    struct link *link = arg;
    link->conn = NULL;
    if (!link->listed) {
        link_free(link);
        return;
    }
    if (why)
        log_warning("vm '%s': keeper: %s", link->vm, error_text(why));
    if (link->adopting)
        adopt_link_closed(link);
    else
        vm_link_closed(link);
}

static const struct conn_ops link_ops = {link_frame, link_closed, NULL};

/* ---- the process ---------------------------------------------------------------------------- */

/* Outlives its link, and reaps. */
struct keeper_child {
    struct child *child;
};

static void keeper_ended(int status, void *arg)
{
    struct keeper_child *keeper = arg;
    child_free(keeper->child);
    free(keeper);
}

static void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
#define CLEANUP_FD __attribute__((cleanup(closep)))

/* The root may be deeper than the 108 bytes of a socket's address: it goes by a descriptor. */
static void address_make(int directory, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/keeper.sock", directory);
}

static int directory_open(struct link *link, bool make, int *ret_fd, struct error **ret_error)
{
    CLEANUP_FREE char *path = path_of_vm(link->vm);
    CLEANUP_FREE char *full = path_full(link->exec, path);
    if (make && mkdir(full, 0700) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "mkdir '%s'", full);
    *ret_fd = open(full, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_fd < 0)
        return error_set(ret_error, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_IO, errno,
                         "open '%s'", full);
    return 0;
}

static int listener_make(int directory, int *ret_fd, struct error **ret_error)
{
    struct sockaddr_un address;
    address_make(directory, &address);
    *ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*ret_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "socket");
    if (unlinkat(directory, "keeper.sock", 0) < 0 && errno != ENOENT)
        return error_set(ret_error, ERROR_IO, errno, "remove an old keeper.sock");
    if (bind(*ret_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(*ret_fd, KEEPER_BACKLOG) < 0)
        return error_set(ret_error, ERROR_IO, errno, "listen on keeper.sock");
    return 0;
}

int link_connect(struct link *link, struct error **ret_error)
{
    CLEANUP_FD int directory = -1;
    struct sockaddr_un address;
    if (directory_open(link, false, &directory, ret_error) < 0)
        return -1;
    address_make(directory, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        bool none = errno == ECONNREFUSED || errno == ENOENT;
        error_set(ret_error, none ? ERROR_NOT_FOUND : ERROR_IO, errno, "connect to the keeper");
        close(fd);
        return -1;
    }
    link->conn = conn_new(link->exec->loop, fd, &link_ops, link);
    conn_send_hello(link->conn, "huskd");
    return 0;
}

int link_spawn(struct link *link, struct error **ret_error)
{
    struct exec *exec = link->exec;
    CLEANUP_FD int directory = -1, listener = -1, out = -1;
    if (directory_open(link, true, &directory, ret_error) < 0 ||
        listener_make(directory, &listener, ret_error) < 0)
        return -1;
    out = openat(directory, "keeper.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0)
        return error_set(ret_error, ERROR_IO, errno, "open keeper.log of vm '%s'", link->vm);
    CLEANUP_FREE char *path = path_of_vm(link->vm);
    CLEANUP_FREE char *cwd = path_full(exec, path);
    CLEANUP_FREE char *pods = path_full(exec, "pods");
    const char *templates =
        link->making && link->making->ops->writes_template ? exec->config.template_dir : NULL;
    const char *argv[KEEPER_ARGUMENTS_MAX + 1] = {exec->config.keeper, link->vm};
    size_t argc = 2;
    if (storage_shares(&exec->config)) {
        argv[argc++] = "--share";
        argv[argc++] = exec->config.virtiofsd;
        argv[argc++] = exec->config.root;
    }
    argv[argc++] = pods;
    argv[argc++] = templates;
    const int fds[] = {-1, out, out, listener};
    struct child_spec spec = {.path = exec->config.keeper,
                              .argv = argv,
                              .cwd = cwd,
                              .fds = fds,
                              .fd_count = ARRAY_SIZE(fds),
                              .new_session = true};
    struct keeper_child *keeper = xcalloc(1, sizeof(*keeper));
    keeper->child = child_spawn(exec->loop, &spec, keeper_ended, keeper, ret_error);
    if (!keeper->child) {
        free(keeper);
        return -1;
    }
    return link_connect(link, ret_error);
}

/* Whoever works in the directory of a VM belongs to it. Ids of processes that were written down
 * could be somebody else's by now. */
void link_kill_leftovers(const struct exec *exec, const char *vm)
{
    CLEANUP_FREE char *path = path_of_vm(vm);
    CLEANUP_FREE char *home = path_full(exec, path);
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char name[64], where[4096];
        uint64_t pid;
        if (!str_to_u64(entry->d_name, 1, INT32_MAX, &pid))
            continue;
        snprintf(name, sizeof(name), "%d/cwd", (int)pid);
        ssize_t n = readlinkat(dirfd(proc), name, where, sizeof(where) - 1);
        if (n < 0)
            continue;
        where[n] = '\0';
        if (str_eq(where, home))
            kill((pid_t)pid, SIGKILL);
    }
    if (proc)
        closedir(proc);
}

/* ---- the table of links --------------------------------------------------------------------- */

struct link *link_find(const struct exec *exec, const char *vm)
{
    struct link *link;
    DL_FOREACH(exec->links, link)
        if (str_eq(link->vm, vm))
            return link;
    return NULL;
}

struct link *link_of_vm(const struct exec *exec, struct ref ref)
{
    const struct vm *vm = world_vm(exec->world, ref);
    struct link *link = vm ? link_find(exec, vm->id) : NULL;
    return link && link->conn && !link->gone ? link : NULL;
}

struct link *link_of_pod(const struct exec *exec, struct ref ref)
{
    const struct pod *pod = world_pod(exec->world, ref);
    return pod ? link_of_vm(exec, pod->vm) : NULL;
}

struct link *link_new(struct exec *exec, const char *vm, struct ref ref)
{
    struct link *link = xcalloc(1, sizeof(*link));
    link->exec = exec;
    link->listed = true;
    link->ref = ref;
    snprintf(link->vm, sizeof(link->vm), "%s", vm);
    DL_APPEND(exec->links, link);
    return link;
}

/* The connection stays until the keeper closes it: were it closed here, the keeper might fail to
 * write to it, and never read that it may go. */
void link_dismiss(struct link *link)
{
    boot_forget(link);
    DL_DELETE(link->exec->links, link);
    link->listed = false;
    asks_fail(link);
    conn_send(link->conn, WIRE_DISMISS, 0, NULL);
}

void link_free(struct link *link)
{
    if (link->listed) {
        boot_forget(link);
        DL_DELETE(link->exec->links, link);
    }
    link->listed = false;
    asks_fail(link);
    if (link->conn) { /* which calls once more: then is the end */
        conn_close(link->conn, true);
        return;
    }
    timer_free(link->deadline);
    link_forget_known(link);
    free(link->pod);
    free(link->reason);
    free(link->why_cold);
    free(link->usages);
    free(link);
}
