#include "init/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "init/events.h"
#include "init/util.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

enum {
    PROCS_MAX_BYTES = 1 << 20,
    EVENTS_MAX_BYTES = 512,
    STAT_MAX_BYTES = 8 << 10,
    LIMIT_TEXT = 24,
    OTHERS_PART = 16,
};

static uint64_t memory_all, pids_all; /* of all containers together */

static void limit_set(int group, const char *file, uint64_t limit)
{
    char text[LIMIT_TEXT];
    snprintf(text, sizeof(text), "%" PRIu64, limit);
    if (limit)
        file_write_at(group, file, text);
}

static int group_open(const char *path, struct error **ret_error)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "cgroup '%s'", path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "cgroup '%s'", path);
    return fd;
}

/* One container that takes all it can leaves room for another to be started; and what comes to an
 * end by a limit of its own does not take processes of others along. */
static uint64_t memory_default(void)
{
    return memory_all - memory_all / OTHERS_PART;
}

void cgroup_limit(int group, uint64_t memory_max_bytes, uint32_t pids_max)
{
    limit_set(group, "memory.max", memory_max_bytes ? memory_max_bytes : memory_default());
    limit_set(group, "pids.max", pids_max ? pids_max : pids_all / 2);
}

void cgroup_grow(uint64_t memory_bytes, uint64_t pids)
{
    CLEANUP_FD int pod = group_open(CGROUP_ROOT "/pod", NULL);
    CLEANUP_FD int guest = group_open(CGROUP_ROOT "/guest", NULL);

    memory_all += memory_bytes;
    pids_all += pids;
    limit_set(pod, "memory.max", memory_all);
    limit_set(pod, "pids.max", pids_all * 3 / 4);
    limit_set(guest, "memory.max", memory_all);
    limit_set(guest, "pids.max", pids_all / 4);
}

void cgroup_init(uint64_t memory_max_bytes, uint64_t pids_max)
{
    cgroup_grow(memory_max_bytes, pids_max);
    file_write(CGROUP_ROOT "/pod/cgroup.subtree_control", "+memory +pids +cpu");
}

int cgroup_new(const char *id, uint64_t memory_max_bytes, uint32_t pids_max,
               struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf(CGROUP_ROOT "/pod/%s", id);
    int fd = group_open(path, ret_error);
    if (fd < 0)
        return -1;
    cgroup_limit(fd, memory_max_bytes, pids_max);
    return fd;
}

int cgroup_guest(struct error **ret_error)
{
    return group_open(CGROUP_ROOT "/guest", ret_error);
}

bool cgroup_remove(const char *id)
{
    CLEANUP_FREE char *path = str_printf(CGROUP_ROOT "/pod/%s", id);
    return rmdir(path) == 0 || errno == ENOENT;
}

int cgroup_open(const char *id)
{
    CLEANUP_FREE char *path = str_printf(CGROUP_ROOT "/pod/%s", str_or(id, "-"));
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Documentation/admin-guide/cgroup-v2.rst of Linux: "frozen" in cgroup.events, which is readable
 * with POLLPRI whenever something of it has changed. */
int cgroup_freeze(int group, bool on, int deadline_ms)
{
    const char *wanted = on ? "frozen 1" : "frozen 0";
    CLEANUP_FD int events = openat(group, "cgroup.events", O_RDONLY | O_CLOEXEC);
    uint64_t deadline = now_ms() + (uint64_t)deadline_ms;
    char text[EVENTS_MAX_BYTES];

    if (events < 0 || file_write_at(group, "cgroup.freeze", on ? "1" : "0") < 0)
        return -1;
    for (;;) {
        struct pollfd changed = {.fd = events, .events = POLLPRI};
        ssize_t n = pread(events, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, wanted))
            return 0;
        uint64_t now = now_ms();
        if (now >= deadline) {
            errno = ETIMEDOUT;
            return -1;
        }
        poll(&changed, 1, (int)(deadline - now));
    }
}

void cgroup_signal(int group, int signal)
{
    if (signal == SIGKILL) {
        file_write_at(group, "cgroup.kill", "1");
        return;
    }
    CLEANUP_FREE char *list = file_read_at(group, "cgroup.procs", PROCS_MAX_BYTES);
    char *rest = list;
    for (char *pid = strtok_r(list, "\n", &rest); pid; pid = strtok_r(NULL, "\n", &rest))
        if (atoi(pid) > 1)
            kill(atoi(pid), signal);
}

void cgroup_kill_all(void)
{
    file_write(CGROUP_ROOT "/pod/cgroup.kill", "1");
    file_write(CGROUP_ROOT "/guest/cgroup.kill", "1");
}

/* Of a file that is a number, or "max"; 0 then, and if there is none. */
static uint64_t number_at(int group, const char *file)
{
    CLEANUP_FREE char *text = file_read_at(group, file, LIMIT_TEXT);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* Of a line "name number". */
static uint64_t line_at(int group, const char *file, const char *name, size_t max)
{
    CLEANUP_FREE char *text = file_read_at(group, file, max);
    const char *at = text ? strstr(text, name) : NULL;
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* Pages of files that nobody has asked for again are first to go when memory is wanted: docker does
 * not count them either. */
void cgroup_usage(int group, struct cgroup_usage *ret)
{
    uint64_t memory = number_at(group, "memory.current"),
             cache = line_at(group, "memory.stat", "inactive_file ", STAT_MAX_BYTES);

    *ret = (struct cgroup_usage){.memory_bytes = memory > cache ? memory - cache : 0,
                                 .memory_max_bytes = number_at(group, "memory.max"),
                                 .pids = (uint32_t)number_at(group, "pids.current"),
                                 .pids_max = (uint32_t)number_at(group, "pids.max")};
}

/* The same file says POLLPRI from the first change after it was read. */
int cgroup_oom_watch(int group)
{
    char text[EVENTS_MAX_BYTES];
    int fd = openat(group, "memory.events", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof(text)) < 0)
        fd_closep(&fd);
    return fd;
}

bool cgroup_oom_killed(int group, int watch)
{
    struct pollfd changed = {.fd = watch, .events = POLLPRI};
    if (watch >= 0 && poll(&changed, 1, 0) == 0)
        return false;
    return line_at(group, "memory.events", "oom_kill ", EVENTS_MAX_BYTES) > 0;
}
