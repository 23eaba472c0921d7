#include "init/container.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/disk.h"
#include "init/grow.h"
#include "init/janitor.h"
#include "init/joiner.h"
#include "init/layer.h"
#include "init/port.h"
#include "init/process.h"
#include "init/serve.h"
#include "init/slot.h"
#include "init/util.h"

enum {
    CONTAINERS_MAX = 256,
    START_MEMORY = 8 << 20,   /* bytes, most of it for a moment only */
    DISK_DEADLINE_MS = 10000, /* for a disk to appear */
    DISK_LOOK_MS = 500,       /* without news, then the hosts are asked */
    /* For an ended container's mounts to go: less than the keeper waits for an answer (30 s). */
    CLEAR_DEADLINE_MS = 25 * 1000,
    CLEAR_LOOK_MS = 2,
    UNMOUNT_DELAY_MS = 1000, /* if nobody clears it before, or turns the VM off */
};

struct pod pod;

static struct container *containers;
static uint32_t pod_clear_seq; /* 0: none is under way */
static bool pod_was_rehearsal;
static struct alarm pod_alarm;
static uint64_t pod_deadline_ms;

/* ---- the table ------------------------------------------------------------------------------ */

struct container *container_find(const char *id)
{
    for (struct container *c = containers; c; c = c->next)
        if (str_eq(c->start.ctr, id))
            return c;
    return NULL;
}

/* It is part of paths. */
static bool id_valid(const char *id)
{
    return *id && strlen(id) <= 64 && !id[strspn(id, "0123456789abcdef")];
}

static void container_free(struct container *c)
{
    struct container **at = &containers;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    layer_let_go(c);
    alarm_unset(&c->alarm);
    if (c->group_name)
        cgroup_remove(c->group_name);
    fd_closep(&c->group);
    fd_closep(&c->pidfd);
    fd_closep(&c->mounts);
    fd_closep(&c->ipc);
    fd_closep(&c->oom_watch);
    wire_clear(WIRE_CTR_START, &c->start);
    free(c->payload);
    free(c->group_name);
    free(c->image_device);
    free(c->layer_device);
    free(c);
}

const char *container_hostname(const struct container *c)
{
    return str_or(c->start.hostname, str_or(pod.hostname, "husk"));
}

/* ---- start ---------------------------------------------------------------------------------- */

static int container_spawn(struct container *c, struct error **ret_error)
{
    const struct wire_ctr_start *s = &c->start;
    struct launch launch = launch_of(c);

    if (slot_start(c, &launch)) {
        c->state = CONTAINER_STARTING;
        return 0;
    }
    c->group_name = xstrdup(s->ctr);
    c->group = cgroup_new(s->ctr, s->memory_max_bytes, s->pids_max, ret_error);
    if (c->group < 0)
        return -1;
    c->state = CONTAINER_STARTING;
    return process_start(&launch, c->stream, s->seq, ret_error);
}

/* What a start takes is in part not counted as the container's: without it the whole guest would be
 * busy with looking for memory, and answer nothing. */
static int memory_check(const struct container *c, struct error **ret_error)
{
    if (c == containers && !c->next)
        return 0; /* alone: the VM was made for it */
    uint64_t available = memory_bytes("MemAvailable");
    if (available >= START_MEMORY)
        return 0;
    return error_set(ret_error, ERROR_LIMIT, 0,
                     "no memory for another container: %u of the VM's %u MiB are available, and a "
                     "start may take %u; give the pod more memory, or fewer containers",
                     (unsigned)(available >> 20), (unsigned)(memory_bytes("MemTotal") >> 20),
                     START_MEMORY >> 20);
}

static int container_run(struct container *c, struct error **ret_error)
{
    if (memory_check(c, ret_error) < 0)
        return -1;
    if (container_spawn(c, ret_error) < 0)
        return -1;
    process_credit(process_find(c->stream), WIRE_STDOUT, c->out_credit);
    process_credit(process_find(c->stream), WIRE_STDERR, c->err_credit);
    return 0;
}

void container_credit(uint32_t stream, unsigned channel, uint32_t bytes)
{
    for (struct container *c = containers; c; c = c->next) {
        if (c->state != CONTAINER_WAITING || c->stream != stream)
            continue;
        uint32_t *credit = channel == WIRE_STDOUT ? &c->out_credit : &c->err_credit;
        *credit = bytes > UINT32_MAX - *credit ? UINT32_MAX : *credit + bytes;
    }
}

void container_forget_credit(void)
{
    for (struct container *c = containers; c; c = c->next)
        c->out_credit = c->err_credit = 0;
}

static void container_refuse(struct container *c, const struct error *error)
{
    serve_reply(c->start.seq, error);
    container_free(c);
}

/* Runs it if its disks are there, else waits on. */
static void container_look(struct container *c)
{
    CLEANUP_ERROR struct error *error = NULL;

    bool alone = !str_empty(c->start.layer_top);
    if (!c->image_device && !alone)
        c->image_device = disk_find(c->start.image_disk);
    if (!c->layer_device)
        c->layer_device = disk_find(c->start.layer_disk);
    if ((c->image_device || alone) && c->layer_device) {
        if (!grow_ready())
            return;
        alarm_unset(&c->alarm);
        if (container_run(c, &error) < 0)
            container_refuse(c, error);
    } else if (now_ms() >= c->deadline_ms) {
        error_set(&error, ERROR_TIMEOUT, 0, "disk '%s' did not appear within %d seconds",
                  c->image_device || alone ? c->start.layer_disk : c->start.image_disk,
                  DISK_DEADLINE_MS / 1000);
        container_refuse(c, error);
    }
}

static struct container *container_of_alarm(struct alarm *alarm)
{
    return (struct container *)((char *)alarm - offsetof(struct container, alarm));
}

static void container_alarm(struct alarm *alarm)
{
    struct container *c = container_of_alarm(alarm);
    disk_rescan();
    alarm_set(&c->alarm, DISK_LOOK_MS, container_alarm);
    container_look(c);
}

void container_look_again(void)
{
    for (struct container *c = containers, *next; c; c = next) {
        next = c->next;
        if (c->state == CONTAINER_WAITING)
            container_look(c);
    }
}

void container_limits_changed(void)
{
    for (const struct container *c = containers; c; c = c->next)
        if (c->group >= 0)
            cgroup_limit(c->group, c->start.memory_max_bytes, c->start.pids_max);
    slots_limits_changed();
}

static int start_check(const struct wire_ctr_start *m, uint32_t stream, struct error **ret_error)
{
    size_t count = 0;
    for (const struct container *c = containers; c; c = c->next)
        if (++count == CONTAINERS_MAX)
            return error_set(ret_error, ERROR_LIMIT, 0, "a guest can have at most %d containers",
                             CONTAINERS_MAX);
    if (!id_valid(m->ctr))
        return error_set(ret_error, ERROR_INVALID, 0, "container id '%s' is malformed", m->ctr);
    if (container_find(m->ctr))
        return error_set(ret_error, ERROR_EXISTS, 0, "container '%s' is there already", m->ctr);
    if (!stream || process_find(stream))
        return error_set(ret_error, ERROR_EXISTS, 0, "stream %u is in use", stream);
    if (!m->argv || !m->argv[0])
        return error_set(ret_error, ERROR_INVALID, 0, "container '%s' has no command", m->ctr);
    if (str_empty(m->layer_top) && disk_check(m->image_disk, ret_error) < 0)
        return -1;
    if (!str_empty(m->layer_top) && (strchr(m->layer_top, '/') || m->layer_top[0] == '.'))
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is no name of a directory",
                         m->layer_top);
    if (disk_is_shared(m->layer_disk) && str_empty(m->layer_top))
        return error_set(ret_error, ERROR_INVALID, 0, "no directory of '%s' is named",
                         m->layer_disk);
    return disk_check(m->layer_disk, ret_error);
}

void container_start(const struct wire_frame *frame, uint32_t seq)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct container *c = xcalloc(1, sizeof(*c));
    struct wire_frame copy = *frame;

    c->payload = xmemdup(frame->payload, frame->length);
    c->payload_size = frame->length;
    copy.payload = c->payload;
    c->stream = frame->stream;
    c->group = c->pidfd = c->mounts = c->ipc = c->oom_watch = -1;
    if (wire_get(&copy, &c->start, &error) < 0 ||
        start_check(&c->start, frame->stream, &error) < 0) {
        serve_reply(seq, error);
        wire_clear(WIRE_CTR_START, &c->start);
        free(c->payload);
        free(c);
        return;
    }
    c->next = containers;
    containers = c;
    c->deadline_ms = now_ms() + DISK_DEADLINE_MS;
    alarm_set(&c->alarm, DISK_LOOK_MS, container_alarm);
    container_look(c);
}

/* ---- exec ----------------------------------------------------------------------------------- */

static int exec_start(const struct wire_frame *frame, const struct wire_exec *m,
                      struct error **ret_error)
{
    struct container *c = *m->ctr ? container_find(m->ctr) : NULL;
    uint32_t stream = frame->stream;

    if (*m->ctr && !c)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not in this guest",
                         m->ctr);
    if (c && (c->state != CONTAINER_RUNNING))
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' is not running", m->ctr);
    if (!stream || process_find(stream))
        return error_set(ret_error, ERROR_EXISTS, 0, "stream %u is in use", stream);
    if (!m->argv || !m->argv[0])
        return error_set(ret_error, ERROR_INVALID, 0, "no command");

    CLEANUP_STRV char **env = NULL;
    struct launch launch = launch_of_exec(c, m, &env);
    if (joiner_exec(&launch, frame, m->seq))
        return 0;
    return process_start(&launch, stream, m->seq, ret_error);
}

void container_exec(const struct wire_frame *frame, const struct wire_exec *message)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (exec_start(frame, message, &error) < 0)
        serve_reply(message->seq, error);
}

/* ---- end ------------------------------------------------------------------------------------ */

static void container_unmount(struct container *c)
{
    if (c->ipc >= 0)
        janitor_close(&c->ipc);
    if (c->mounts >= 0)
        c->unmount = janitor_close(&c->mounts);
}

static void unmount_ring(struct alarm *alarm)
{
    container_unmount(container_of_alarm(alarm));
}

void container_ended(struct container *c, bool refused)
{
    c->state = CONTAINER_ENDED;
    joiner_leave(c);
    layer_let_go(c);
    fd_closep(&c->pidfd);
    if (refused)
        container_free(c);
    else
        alarm_set(&c->alarm, UNMOUNT_DELAY_MS, unmount_ring);
}

static bool container_clean(struct container *c)
{
    container_unmount(c);
    return janitor_done(c->unmount) && !process_alive(c) && cgroup_remove(c->group_name) &&
           disk_free(c->layer_device);
}

static void clear_look(struct alarm *alarm)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct container *c = container_of_alarm(alarm);
    uint32_t seq = c->clear_seq;

    if (container_clean(c) && !process_any(c)) {
        container_free(c);
        serve_reply(seq, NULL);
    } else if (now_ms() < c->deadline_ms) {
        alarm_set(alarm, CLEAR_LOOK_MS, clear_look);
    } else {
        c->clear_seq = 0;
        error_set(&error, ERROR_BUSY, 0, "its root is still in use");
        serve_reply(seq, error);
    }
}

void container_clear(const struct wire_ctr_clear *message)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct container *c = container_find(message->ctr);

    if (!c)
        error_set(&error, ERROR_NOT_FOUND, 0, "container '%s' is not in this guest", message->ctr);
    else if (c->state != CONTAINER_ENDED)
        error_set(&error, ERROR_STATE, 0, "container '%s' has not ended", message->ctr);
    else if (c->clear_seq)
        error_set(&error, ERROR_BUSY, 0, "container '%s' is being cleared", message->ctr);
    if (error) {
        serve_reply(message->seq, error);
        return;
    }
    layer_let_go(c);
    process_discard(c);
    c->clear_seq = message->seq;
    c->deadline_ms = now_ms() + CLEAR_DEADLINE_MS;
    clear_look(&c->alarm);
}

/* ---- the pod -------------------------------------------------------------------------------- */

static void pod_forget(void)
{
    free(pod.hostname);
    strv_free(pod.hosts);
    strv_free(pod.resolv);
    pod = (struct pod){0};
}

void pod_copy(const struct wire_pod_setup *message)
{
    pod_forget();
    pod.hostname = xstrdup(str_or(message->hostname, "husk"));
    pod.hosts = strv_copy(message->hosts);
    pod.resolv = strv_copy(message->resolv);
}

void pod_setup(const struct wire_pod_setup *message)
{
    pod_copy(message);
    if (sethostname(pod.hostname, strnlen(pod.hostname, 64)) < 0)
        say(4, "the hostname '%s' cannot be set", pod.hostname);
}

bool pod_idle(void)
{
    return !pod.hostname && !pod_clear_seq && !containers && !process_alive(NULL);
}

/* Takes away what is clean; true if nothing is left. */
static bool pod_sweep(void)
{
    for (struct container *c = containers, *next; c; c = next) {
        next = c->next;
        if (c->state == CONTAINER_ENDED && !process_any(c) && container_clean(c))
            container_free(c);
    }
    return !containers && !process_alive(NULL);
}

static void pod_look(struct alarm *alarm)
{
    CLEANUP_ERROR struct error *error = NULL;
    uint32_t seq = pod_clear_seq;

    if (!pod_was_rehearsal) {
        slots_give_up();
        cgroup_kill_all();
    }
    if (!pod_sweep()) {
        if (now_ms() < pod_deadline_ms) {
            alarm_set(alarm, CLEAR_LOOK_MS, pod_look);
            return;
        }
        error_set(&error, ERROR_BUSY, 0, "something of the pod does not end");
    }
    pod_clear_seq = 0;
    serve_reply(seq, error);
    slots_fill_later();
}

void containers_tell_usage(void)
{
    struct cgroup_usage usage;

    for (const struct container *c = containers; c; c = c->next) {
        if (c->state != CONTAINER_RUNNING || c->group < 0)
            continue;
        cgroup_usage(c->group, &usage);
        port_send(WIRE_CTR_USAGE, c->stream,
                  &(struct wire_ctr_usage){.memory_bytes = usage.memory_bytes,
                                           .memory_max_bytes = usage.memory_max_bytes,
                                           .pids = usage.pids,
                                           .pids_max = usage.pids_max});
    }
}

/* To unmount takes longer: it frees what is in the guest's memory, page by page. */
void containers_settle(void)
{
    bool settled = true;
    for (struct container *c = containers; c; c = c->next) {
        if (c->mounts >= 0 && layer_settle(c->layer_device))
            continue;
        settled = false;
        fd_closep(&c->mounts);
    }
    if (!settled)
        sync();
}

void pod_clear(const struct wire_pod_clear *message)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (pod_clear_seq) {
        error_set(&error, ERROR_BUSY, 0, "the pod is being cleared");
        serve_reply(message->seq, error);
        return;
    }
    error_set(&error, ERROR_CANCELLED, 0, "the pod is being cleared");
    for (struct container *c = containers, *next; c; c = next) {
        next = c->next;
        if (c->state == CONTAINER_WAITING)
            container_refuse(c, error);
    }
    process_discard(NULL);
    pod_forget();
    pod_clear_seq = message->seq;
    pod_was_rehearsal = message->rehearsed;
    pod_deadline_ms = now_ms() + CLEAR_DEADLINE_MS;
    pod_look(&pod_alarm);
}
