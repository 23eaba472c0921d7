#include "init/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init/events.h"

enum { EVENT_MAX = 4096 };

static struct source source = {.fd = -1};
static void (*on_change)(const char *event);

/* A message is strings, of which the first says it all; more of it than fits is cut. */
static void uevent_drain(void (*change)(const char *event))
{
    char event[EVENT_MAX + 1];
    for (;;) {
        ssize_t n = recv(source.fd, event, EVENT_MAX, MSG_DONTWAIT);
        bool lost = n < 0 && errno == ENOBUFS;
        if (n < 0 && !lost)
            return;
        event[lost ? 0 : n] = 0;
        if (change)
            change(lost ? NULL : event);
    }
}

static void uevent_ready(struct source *s, uint32_t events)
{
    uevent_drain(on_change);
}

void uevent_open(void (*changed)(const char *event))
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

    on_change = changed;
    if (fd < 0)
        return;
    bind(fd, (struct sockaddr *)&address, sizeof(address));
    source_open(&source, fd, EPOLLIN, uevent_ready);
}

bool uevent_wait(uint64_t deadline_ms)
{
    uint64_t now = now_ms();
    struct pollfd ready = {.fd = source.fd, .events = POLLIN};

    if (now >= deadline_ms || poll(&ready, 1, (int)(deadline_ms - now)) <= 0)
        return false;
    uevent_drain(NULL);
    return true;
}
