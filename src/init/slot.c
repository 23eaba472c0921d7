#include "init/slot.h"

#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "init/cgroup.h"
#include "init/events.h"
#include "init/janitor.h"
#include "init/process.h"
#include "init/root.h"
#include "init/util.h"

enum {
    SLOTS = 2,              /* that are kept ready */
    FILL_DELAY_MS = 300,    /* of an idle guest */
    REQUEST_SIZE = 64 << 10 /* a container that needs more is started the usual way */
};

struct slot {
    struct slot *next;
    pid_t pid;
    int pidfd;
    int mounts, ipc, oom_watch; /* as a container's */
    int group;
    char *name; /* of its cgroup */
    struct ends ends;
    struct launch_request *request; /* shared with it */
    bool ready;
    bool doomed; /* killed, and not reaped yet */
    int layer;   /* rooted: a directory of its layer, until that is flushed; else -1 */
};

static struct slot *slots;
static bool rooted_wanted; /* and not had yet */
static char refusal[LAUNCH_TEXT_MAX];
static unsigned slots_made;
static struct alarm fill_alarm;

/* ---- the table ------------------------------------------------------------------------------ */

static void slot_remove(struct slot *s)
{
    struct slot **at = &slots;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    if (s->name)
        cgroup_remove(s->name);
    ends_close(&s->ends);
    fd_closep(&s->layer);
    fd_closep(&s->pidfd);
    fd_closep(&s->mounts);
    fd_closep(&s->ipc);
    fd_closep(&s->oom_watch);
    fd_closep(&s->group);
    if (s->request)
        munmap(s->request, REQUEST_SIZE);
    free(s->name);
    free(s);
}

/* False if nothing came. *ret_fd is what came with it, or -1. */
static bool slot_receive(const struct slot *s, struct launch_status *ret, int *ret_fd)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {.iov_base = ret, .iov_len = sizeof(*ret)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};

    *ret_fd = -1;
    if (recvmsg(s->ends.ours[END_STATUS], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) !=
        sizeof(*ret))
        return false;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
    return true;
}

/* Takes what it has told: that it is ready, or why it never will be. */
static void slot_listen(struct slot *s)
{
    struct launch_status told;
    int fd;
    while (slot_receive(s, &told, &fd)) {
        if (told.report == LAUNCH_READY) {
            s->ready = !s->doomed;
            s->layer = fd;
            rooted_wanted &= !s->request->rooted;
        } else {
            snprintf(refusal, sizeof(refusal), "%s", told.text);
            say(LOG_WARNING, "no container can be prepared: %s", told.text);
        }
    }
}

void slot_ended(pid_t pid)
{
    struct slot *s = slots;
    while (s && s->pid != pid)
        s = s->next;
    if (!s)
        return;
    slot_listen(s);
    slot_remove(s);
}

bool slots_ready(void)
{
    bool ready = true;
    for (struct slot *s = slots; s; s = s->next) {
        slot_listen(s);
        ready &= s->ready || s->doomed;
    }
    return ready;
}

static void slot_doom(struct slot *s)
{
    s->ready = false;
    s->doomed = true;
    kill(s->pid, SIGKILL);
}

void slots_give_up(void)
{
    for (struct slot *s = slots; s; s = s->next)
        slot_doom(s);
}

void slots_limits_changed(void)
{
    for (const struct slot *s = slots; s; s = s->next)
        cgroup_limit(s->group, 0, 0);
}

/* ---- making --------------------------------------------------------------------------------- */

/* What is ready before there is a container, and of what. */
struct rooted {
    const struct root *root;
    const struct wire_freeze *message;
    bool warmed;
};

static int request_root(struct launch_request *r, const struct rooted *rooted,
                        struct error **ret_error)
{
    CLEANUP_BUF struct buf message = {0};

    wire_put(&message, WIRE_FREEZE, 0, 0, rooted->message);
    r->start_size = (uint32_t)message.len - WIRE_HEADER_SIZE;
    if (sizeof(*r) + r->start_size > REQUEST_SIZE ||
        strlen(rooted->root->image_device) >= sizeof(r->image_device) ||
        strlen(rooted->root->layer_device) >= sizeof(r->layer_device))
        return error_set(ret_error, ERROR_LIMIT, 0, "the request is too large for a slot");
    strcpy(r->image_device, rooted->root->image_device);
    strcpy(r->layer_device, rooted->root->layer_device);
    memcpy(r->bytes, message.data + WIRE_HEADER_SIZE, r->start_size);
    r->rooted = true;
    r->warmed = rooted->warmed;
    return 0;
}

static int request_make(struct slot *s, const struct rooted *rooted, struct error **ret_error)
{
    void *memory =
        mmap(NULL, REQUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(ret_error, ERROR_IO, errno, "memory for a request");
    s->request = memory;
    return rooted ? request_root(s->request, rooted, ret_error) : 0;
}

/* `rooted`: its root is made ahead, too; NULL: the request will name it. */
static int slot_spawn(struct slot *s, const struct rooted *rooted, struct error **ret_error)
{
    if (request_make(s, rooted, ret_error) < 0)
        return -1;
    if (ends_open(&s->ends, WIRE_STDIN_OPEN) < 0)
        return error_set(ret_error, ERROR_IO, errno, "standard streams");
    s->group = cgroup_new(s->name, 0, 0, ret_error);
    if (s->group < 0)
        return -1;
    s->pid = spawn_first(s->group, &s->pidfd);
    if (s->pid == 0) {
        const int *theirs = s->ends.theirs;
        struct launch_fds fds = {{theirs[0], theirs[1], theirs[2]}, theirs[END_STATUS]};
        launch_slot(&fds, s->request);
    }
    if (s->pid < 0)
        return error_set(ret_error, ERROR_IO, errno, "a process cannot be made");
    s->mounts = spawn_mounts(s->pid);
    s->ipc = spawn_ipc(s->pid);
    s->oom_watch = cgroup_oom_watch(s->group);
    for (int i = 0; i < END_COUNT; i++)
        fd_closep(&s->ends.theirs[i]);
    return 0;
}

static int slot_make(const struct rooted *rooted, struct error **ret_error)
{
    struct slot *s = xcalloc(1, sizeof(*s));

    *s = (struct slot){.next = slots,
                       .pidfd = -1,
                       .mounts = -1,
                       .ipc = -1,
                       .oom_watch = -1,
                       .group = -1,
                       .name = str_printf("slot-%u", ++slots_made),
                       .layer = -1,
                       .ends = {{-1, -1, -1, -1}, {-1, -1, -1, -1}}};
    slots = s;
    if (slot_spawn(s, rooted, ret_error) == 0)
        return 0;
    slot_remove(s);
    return -1;
}

void slots_fill(void)
{
    CLEANUP_ERROR struct error *error = NULL;
    int count = 0;
    janitor_open();
    for (const struct slot *s = slots; s; s = s->next)
        count += !s->doomed;
    while (count < SLOTS && slot_make(NULL, &error) == 0)
        count++;
    if (error)
        say(LOG_WARNING, "no container can be prepared: %s", error->message);
}

int slots_fill_rooted(const struct root *root, const struct wire_freeze *message, bool warmed,
                      struct error **ret_error)
{
    rooted_wanted = true;
    refusal[0] = 0;
    return slot_make(&(struct rooted){root, message, warmed}, ret_error);
}

int slots_flush(struct error **ret_error)
{
    if (rooted_wanted)
        return error_set(ret_error, ERROR_STATE, 0, "the image's root cannot be prepared: %s",
                         *refusal ? refusal : "it takes too long");
    for (struct slot *s = slots; s; s = s->next) {
        if (s->layer < 0)
            continue;
        if (ioctl(s->layer, FIFREEZE, 0) < 0 || ioctl(s->layer, FITHAW, 0) < 0)
            return error_set(ret_error, ERROR_IO, errno, "the writable layer cannot be flushed");
        fd_closep(&s->layer);
    }
    return 0;
}

static void fill_ring(struct alarm *alarm)
{
    if (pod_idle())
        slots_fill();
}

void slots_fill_later(void)
{
    alarm_set(&fill_alarm, FILL_DELAY_MS, fill_ring);
}

/* ---- use ------------------------------------------------------------------------------------ */

/* False if it does not fit. */
static bool request_write(struct launch_request *r, const struct container *c)
{
    CLEANUP_BUF struct buf setup = {0};
    struct wire_pod_setup message = {.hostname = pod.hostname,
                                     .hosts = (const char *const *)pod.hosts,
                                     .resolv = (const char *const *)pod.resolv};

    wire_put(&setup, WIRE_POD_SETUP, 0, 0, &message);
    const char *image = str_or(c->image_device, "");
    if (sizeof(*r) + c->payload_size + setup.len > REQUEST_SIZE ||
        strlen(image) >= sizeof(r->image_device) ||
        strlen(c->layer_device) >= sizeof(r->layer_device))
        return false;
    strcpy(r->image_device, image);
    strcpy(r->layer_device, c->layer_device);
    r->start_size = c->payload_size;
    r->setup_size = (uint32_t)setup.len - WIRE_HEADER_SIZE;
    memcpy(r->bytes, c->payload, r->start_size);
    memcpy(r->bytes + r->start_size, setup.data + WIRE_HEADER_SIZE, r->setup_size);
    return true;
}

static bool slot_tell(const struct slot *s, char what)
{
    return send(s->ends.ours[END_STATUS], &what, 1, MSG_NOSIGNAL) == 1;
}

void slots_warm(void)
{
    for (struct slot *s = slots; s; s = s->next) {
        slot_listen(s);
        if (s->ready && s->request->rooted)
            s->ready = !slot_tell(s, SLOT_WARM);
    }
}

static bool has_layer_of(const struct slot *s, const struct container *c)
{
    return s->request->rooted && str_eq(s->request->layer_device, c->layer_device);
}

/* One whose root is the container's; else one without. */
static struct slot *slot_pick(const struct container *c)
{
    struct slot *found = NULL;
    for (struct slot *s = slots; s; s = s->next) {
        slot_listen(s);
        if (s->ready && has_layer_of(s, c) && c->image_device &&
            str_eq(s->request->image_device, c->image_device))
            return s;
        if (s->ready && !s->request->rooted)
            found = s;
    }
    return found;
}

/* A slot that has the container's layer mounted and is not used goes, and is reaped later. */
static void slots_yield(const struct container *c)
{
    for (struct slot *s = slots; s; s = s->next) {
        if (has_layer_of(s, c))
            slot_doom(s);
    }
}

static bool slot_use(struct slot *s, struct container *c, const struct launch *launch)
{
    if (!process_room(NULL) || !request_write(s->request, c) || !slot_tell(s, SLOT_START))
        return false;
    process_adopt(launch, c->stream, c->start.seq, s->pid, &s->ends, NULL);
    c->group = fd_take(&s->group);
    c->pidfd = fd_take(&s->pidfd);
    c->mounts = fd_take(&s->mounts);
    c->ipc = fd_take(&s->ipc);
    c->oom_watch = fd_take(&s->oom_watch);
    c->group_name = s->name;
    s->name = NULL;
    if (c->start.memory_max_bytes || c->start.pids_max)
        cgroup_limit(c->group, c->start.memory_max_bytes, c->start.pids_max);
    slot_remove(s);
    return true;
}

bool slot_start(struct container *c, const struct launch *launch)
{
    struct slot *s = slot_pick(c);
    bool started = s && slot_use(s, c, launch);
    slots_yield(c); /* it is not among them any more if it was used */
    return started;
}
