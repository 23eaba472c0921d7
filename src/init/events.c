#include "init/events.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { POLL_BATCH = 32 };

static int poll_fd = -1;
static struct epoll_event batch[POLL_BATCH];
static int batch_count; /* of events not yet handed out completely */
static struct alarm *alarms;

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void source_open(struct source *source, int fd, uint32_t events,
                 void (*ready)(struct source *source, uint32_t events))
{
    struct epoll_event event = {.events = events | EPOLLET, .data.ptr = source};
    if (poll_fd < 0)
        poll_fd = epoll_create1(EPOLL_CLOEXEC);
    *source = (struct source){fd, ready};
    /* Only memory can be missing here. The kernel never lets that happen to PID 1 for so little,
     * and a source that is never ready ends with its process. */
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
}

void source_close(struct source *source)
{
    if (source->fd < 0)
        return;
    epoll_ctl(poll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    close(source->fd);
    source->fd = -1;
    /* Its owner may be freed next: forget what this turn still holds for it. */
    for (int i = 0; i < batch_count; i++)
        if (batch[i].data.ptr == source)
            batch[i].data.ptr = NULL;
}

void alarm_set(struct alarm *alarm, uint64_t delay_ms, void (*ring)(struct alarm *alarm))
{
    alarm_unset(alarm);
    alarm->at_ms = now_ms() + delay_ms;
    alarm->ring = ring;
    alarm->next = alarms;
    alarms = alarm;
}

void alarm_unset(struct alarm *alarm)
{
    if (!alarm->at_ms)
        return;
    struct alarm **at = &alarms;
    while (*at != alarm)
        at = &(*at)->next;
    *at = alarm->next;
    alarm->at_ms = 0;
}

/* How long epoll may wait for the next alarm; -1: for ever. */
static int alarm_timeout_ms(void)
{
    uint64_t now = now_ms(), next = UINT64_MAX;
    for (struct alarm *a = alarms; a; a = a->next)
        if (a->at_ms < next)
            next = a->at_ms;
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : (int)(next - now);
}

/* An alarm may set or unset any other, so the search starts anew after each. */
static void alarms_ring(void)
{
    uint64_t now = now_ms();
    for (struct alarm *a = alarms; a;) {
        if (a->at_ms > now) {
            a = a->next;
            continue;
        }
        alarm_unset(a);
        a->ring(a);
        a = alarms;
    }
}

void poll_turn(bool busy)
{
    int n = epoll_wait(poll_fd, batch, POLL_BATCH, busy ? 0 : alarm_timeout_ms());
    batch_count = n > 0 ? n : 0;
    for (int i = 0; i < batch_count; i++) {
        struct source *source = batch[i].data.ptr;
        if (source)
            source->ready(source, batch[i].events);
    }
    batch_count = 0;
    alarms_ring();
}
