#include "init/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
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
    int mounts; /* as a container's */
    int group;
    char *name; /* of its cgroup */
    struct ends ends;
    struct launch_request *request; /* shared with it */
    bool ready;
};

static struct slot *slots;
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
    fd_closep(&s->pidfd);
    fd_closep(&s->mounts);
    fd_closep(&s->group);
    if (s->request)
        munmap(s->request, REQUEST_SIZE);
    free(s->name);
    free(s);
}

/* Takes what it has told: that it is ready, or why it never will be. */
static void slot_listen(struct slot *s)
{
    struct launch_status told;
    while (recv(s->ends.ours[END_STATUS], &told, sizeof(told), MSG_DONTWAIT) == sizeof(told)) {
        if (told.report == LAUNCH_READY)
            s->ready = true;
        else
            say(LOG_WARNING, "no container can be prepared: %s", told.text);
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
        ready &= s->ready;
    }
    return ready;
}

void slots_limits_changed(void)
{
    for (const struct slot *s = slots; s; s = s->next)
        cgroup_limit(s->group, 0, 0);
}

/* ---- making --------------------------------------------------------------------------------- */

static int slot_spawn(struct slot *s, struct error **ret_error)
{
    void *memory =
        mmap(NULL, REQUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(ret_error, ERROR_IO, errno, "memory for a request");
    s->request = memory;
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
    for (int i = 0; i < END_COUNT; i++)
        fd_closep(&s->ends.theirs[i]);
    return 0;
}

static bool slot_make(void)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct slot *s = xcalloc(1, sizeof(*s));

    *s = (struct slot){.next = slots,
                       .pidfd = -1,
                       .mounts = -1,
                       .group = -1,
                       .name = str_printf("slot-%u", ++slots_made),
                       .ends = {{-1, -1, -1, -1}, {-1, -1, -1, -1}}};
    slots = s;
    if (slot_spawn(s, &error) == 0)
        return true;
    say(LOG_WARNING, "no container can be prepared: %s", error->message);
    slot_remove(s);
    return false;
}

void slots_fill(void)
{
    int count = 0;
    janitor_open();
    for (const struct slot *s = slots; s; s = s->next)
        count++;
    while (count < SLOTS && slot_make())
        count++;
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
    if (sizeof(*r) + c->payload_size + setup.len > REQUEST_SIZE ||
        strlen(str_or(c->image_device, "")) >= sizeof(r->image_device) ||
        strlen(c->layer_device) >= sizeof(r->layer_device))
        return false;
    strcpy(r->image_device, str_or(c->image_device, ""));
    strcpy(r->layer_device, c->layer_device);
    r->start_size = c->payload_size;
    r->setup_size = (uint32_t)setup.len - WIRE_HEADER_SIZE;
    memcpy(r->bytes, c->payload, r->start_size);
    memcpy(r->bytes + r->start_size, setup.data + WIRE_HEADER_SIZE, r->setup_size);
    return true;
}

bool slot_start(struct container *c, const struct launch *launch)
{
    struct slot *s = slots;
    if (!s)
        return false;
    slot_listen(s);
    if (!s->ready || !process_room(NULL) || !request_write(s->request, c) ||
        send(s->ends.ours[END_STATUS], "", 1, MSG_NOSIGNAL) != 1)
        return false;
    process_adopt(launch, c->stream, c->start.seq, s->pid, &s->ends, NULL);
    c->group = fd_take(&s->group);
    c->pidfd = fd_take(&s->pidfd);
    c->mounts = fd_take(&s->mounts);
    c->group_name = s->name;
    s->name = NULL;
    if (c->start.memory_max_bytes || c->start.pids_max)
        cgroup_limit(c->group, c->start.memory_max_bytes, c->start.pids_max);
    slot_remove(s);
    return true;
}
