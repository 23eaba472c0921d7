#include "init/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/container.h"
#include "init/events.h"
#include "init/util.h"

#define FILES_MAX      "9223372036854775807" /* the kernel's own most */
#define REPORTED_ORDER "5"                   /* free pieces of 128 KiB, or more, are given back */

enum {
    MODULE_LIST_MAX = 16 << 10,
    KIND_MAX = 16,                /* "0x001a" of a virtio device */
    FDS_MAX = 65536,              /* of husk-init: a few for each process */
    MEMORY_RESERVE = 12 << 20,    /* kept from containers, for the kernel and husk-init */
    THREADS_RESERVE = 128,        /* same, in tasks */
    POWER_OFF_DEADLINE_MS = 5000, /* for everything to die and unmount */
    KILL_AGAIN_MS = 50,           /* what was born after the first time */
};

/* In this order. */
static const struct {
    const char *type, *path;
    unsigned long flags;
    const char *options;
} mounts[] = {
    {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"},
    {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
};

/* The kernel cannot pivot_root away from the initramfs itself, but from a bind mount of it. */
static void root_cover(void)
{
    if (mount("/", "/rootfs", NULL, MS_BIND, NULL) < 0 || chdir("/rootfs") < 0 ||
        mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        say(LOG_ERR, "the initramfs cannot be covered: %s", strerror(errno));
}

void boot_mounts(void)
{
    struct rlimit fds = {FDS_MAX, FDS_MAX};

    umask(022);
    root_cover();
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        mkdir(mounts[i].path, 0755);
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, mounts[i].flags,
                  mounts[i].options) < 0)
            say(LOG_ERR, "mount of %s: %s", mounts[i].path, strerror(errno));
    }
    /* Whatever the kernel gave: descriptors 0 to 2 must not become those of a pipe. */
    for (int fd = 0; fd >= 0 && fd < 3;)
        fd = open("/dev/null", O_RDWR);
    setrlimit(RLIMIT_NOFILE, &fds);
    file_write("/proc/self/oom_score_adj", "-1000");
    /* In a user namespace of its own a container would have every privilege over what it mounts
     * there: its cgroup, for one. Docker forbids it by a filter of system calls. */
    file_write("/proc/sys/user/max_user_namespaces", "0");
    /* Open files are counted as their container's memory; a limit for all together is one that a
     * container could use up for the others. */
    file_write("/proc/sys/fs/file-max", FILES_MAX);
}

void boot_modules(const char *stage)
{
    CLEANUP_FREE char *list = file_read("/modules/order", MODULE_LIST_MAX);
    char *rest = list;
    for (char *line = strtok_r(list, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *path = strchr(line, ' ');
        if (!path || strncmp(line, stage, (size_t)(path - line)) != 0)
            continue;
        CLEANUP_FD int fd = open(++path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            continue; /* it is loaded */
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            say(LOG_ERR, "module %s: %s", path, strerror(errno));
        /* The text of a loaded module is of no use any more: its memory is. */
        unlink(path);
    }
}

void boot_devices(void)
{
    DIR *dir = opendir("/sys/bus/virtio/devices");
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        CLEANUP_FREE char *path = str_printf("/sys/bus/virtio/devices/%s/device", e->d_name);
        CLEANUP_FREE char *kind = file_read(path, KIND_MAX);
        if (kind && *e->d_name != '.')
            boot_modules(kind);
    }
    if (dir)
        closedir(dir);
    /* What the kernel has chosen, when it found a balloon, are pieces of 2 MiB. It reports none
     * while fewer than 32 of them are free: that is never so in a small guest. */
    file_write("/sys/module/page_reporting/parameters/page_reporting_order", REPORTED_ORDER);
}

void boot_cgroups(void)
{
    /* Not the total: what the kernel holds already, or keeps free for itself, no limit could give.
     */
    uint64_t memory = memory_bytes("MemAvailable"),
             threads = file_number("/proc/sys/kernel/threads-max");

    memory = memory > 2ULL * MEMORY_RESERVE ? memory - MEMORY_RESERVE : memory / 2;
    threads = threads > 2ULL * THREADS_RESERVE ? threads - THREADS_RESERVE : threads / 2;
    file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids +cpu");
    cgroup_init(memory, threads);
}

void boot_loopback(void)
{
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};

    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return;
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        say(LOG_WARNING, "interface lo cannot be brought up: %s", strerror(errno));
}

/* A process that is gone has unmounted what only it had: what is left is the root file system, and
 * what is held for containers. */
static void kill_everything(void)
{
    const struct timespec patience = {.tv_nsec = KILL_AGAIN_MS * 1000000L};
    uint64_t deadline = now_ms() + POWER_OFF_DEADLINE_MS;
    sigset_t child;
    pid_t pid;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    while (now_ms() < deadline) {
        kill(-1, SIGKILL);
        /* To look for processes takes longer than for all of them to end: so it is not done at each
         * end. */
        do {
            while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
                ;
            if (pid < 0 && errno == ECHILD)
                return;
        } while (sigtimedwait(&child, NULL, &patience) > 0);
    }
    say(LOG_WARNING, "some processes do not end");
}

_Noreturn void power_off(void (*halted)(void))
{
    /* A machine without ACPI cannot be switched off by its guest, but a reset ends it too, for
     * QEMU runs with -no-reboot. */
    bool acpi = access("/sys/firmware/acpi/tables/DSDT", F_OK) == 0;

    kill_everything();
    containers_settle();
    if (halted)
        halted();
    reboot(acpi ? RB_POWER_OFF : RB_AUTOBOOT);
    /* Only here if the power is still on. */
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}
