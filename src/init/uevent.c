#include "init/uevent.h"

#include <linux/netlink.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init/events.h"

static struct source source = {.fd = -1};
static void (*on_change)(void);

static void uevent_drain(void)
{
    char trash[4096];
    /* ENOBUFS (news were lost) is news too. */
    while (recv(source.fd, trash, sizeof(trash), MSG_DONTWAIT) > 0)
        ;
}

static void uevent_ready(struct source *s, uint32_t events)
{
    uevent_drain();
    on_change();
}

void uevent_open(void (*changed)(void))
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
    uevent_drain();
    return true;
}
