/* husk-init: PID 1 of a guest. It mounts, listens to the keeper, runs containers, and reaps. */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include "init/boot.h"
#include "init/container.h"
#include "init/disk.h"
#include "init/events.h"
#include "init/grow.h"
#include "init/identity.h"
#include "init/port.h"
#include "init/process.h"
#include "init/root.h"
#include "init/serve.h"
#include "init/slot.h"
#include "init/uevent.h"
#include "init/util.h"

static void child_ended(struct source *source, uint32_t events)
{
    struct signalfd_siginfo info;
    while (read(source->fd, &info, sizeof(info)) > 0)
        ;
    process_reap();
}

static void devices_changed(const char *event)
{
    grow_event(event);
    disks_event(event);
    container_look_again();
}

static void signals_open(void)
{
    static struct source source;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    source_open(&source, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), EPOLLIN, child_ended);
}

int main(void)
{
    boot_mounts();
    uevent_open(devices_changed);
    boot_modules("early");
    signals_open();
    if (!port_open(&serve_ops)) {
        say(LOG_CRIT, "the machine has no virtio-serial port named husk.agent");
        power_off(NULL);
    }
    say_to(serve_say);

    /* The keeper hears hello while the rest is made ready; its first request waits for that. */
    poll_turn(true);
    port_flush();
    boot_modules("late");
    boot_devices();
    boot_cgroups();
    grow_open();
    boot_loopback();
    identity_open();
    root_open();
    slots_fill_later();

    bool busy = false;
    for (;;) {
        poll_turn(busy);
        busy = port_read();
        busy |= process_pump();
        port_flush();
    }
}
