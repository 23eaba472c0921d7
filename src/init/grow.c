#include "init/grow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/str.h"
#include "init/cgroup.h"
#include "init/container.h"
#include "init/events.h"
#include "init/util.h"

#define CPU_DIR     "/sys/devices/system/cpu"
#define CPU_NEWS    "/devices/system/cpu/cpu"
#define MEMORY_NEWS "/devices/system/memory/memory"
#define THREADS_MAX "/proc/sys/kernel/threads-max"

enum {
    LIST_MAX = 256,             /* "0-3,7" */
    DEADLINE_MS = 10000,        /* without news; then a container starts with what is there */
    OVERHEAD_PART = 32,         /* of new memory: the kernel's own tables for it */
    THREAD_BYTES = 8 * 16 << 10 /* the kernel's own rule: an eighth of memory in stacks */
};

static uint64_t memory_known;    /* bytes, in the limits */
static uint64_t memory_expected; /* bytes; 0: no more than there are */
static uint32_t cpus_expected;   /* same */
static uint32_t cpus_known;      /* at the last look */
static struct alarm late_alarm;

static void growth_late(struct alarm *alarm);

/* Something came, or all that is to come. */
static void growth_look(void)
{
    alarm_unset(&late_alarm);
    if (grow_ready())
        container_look_again();
    else
        alarm_set(&late_alarm, DEADLINE_MS, growth_late);
}

void grow_open(void)
{
    file_write("/sys/devices/system/memory/auto_online_blocks", "online");
    memory_known = memory_bytes("MemTotal");
}

/* ---- memory --------------------------------------------------------------------------------- */

static void memory_look(void)
{
    uint64_t total = memory_bytes("MemTotal");
    if (total <= memory_known)
        return;
    uint64_t more = total - memory_known, threads = file_number(THREADS_MAX);
    char text[24];

    memory_known = total;
    snprintf(text, sizeof(text), "%llu", (unsigned long long)(threads + more / THREAD_BYTES));
    file_write(THREADS_MAX, text);
    cgroup_grow(more - more / OVERHEAD_PART, more / THREAD_BYTES);
    container_limits_changed();
    if (!memory_expected)
        return;
    if (memory_known >= memory_expected)
        memory_expected = 0;
    growth_look();
}

/* ---- CPUs ----------------------------------------------------------------------------------- */

/* Calls `each` for the numbers of a list as sysfs writes it, and counts them. */
static uint32_t list_walk(const char *list, void (*each)(unsigned cpu))
{
    uint32_t count = 0;
    for (const char *at = list; *at >= '0' && *at <= '9';) {
        char *end;
        unsigned long from = strtoul(at, &end, 10), to = from;
        if (*end == '-')
            to = strtoul(end + 1, &end, 10);
        for (unsigned long cpu = from; cpu <= to; cpu++, count++)
            if (each)
                each((unsigned)cpu);
        at = *end == ',' ? end + 1 : end;
    }
    return count;
}

static void cpu_online(unsigned cpu)
{
    CLEANUP_FREE char *path = str_printf(CPU_DIR "/cpu%u/online", cpu);
    CLEANUP_FREE char *state = file_read(path, 1);
    if (state && *state == '0' && file_write(path, "1") < 0)
        say(LOG_WARNING, "CPU %u cannot be brought online: %m", cpu);
}

static uint32_t cpus_count(void)
{
    CLEANUP_FREE char *online = file_read(CPU_DIR "/online", LIST_MAX);
    return online ? list_walk(online, NULL) : 0;
}

static void cpus_look(void)
{
    CLEANUP_FREE char *present = file_read(CPU_DIR "/present", LIST_MAX);
    CLEANUP_FREE char *online = file_read(CPU_DIR "/online", LIST_MAX);
    if (present && online && !str_eq(present, online))
        list_walk(present, cpu_online);
    uint32_t count = cpus_count();
    if (!cpus_expected || count == cpus_known)
        return;
    cpus_known = count;
    if (count >= cpus_expected)
        cpus_expected = 0;
    growth_look();
}

/* ---- who waits ------------------------------------------------------------------------------ */

static void growth_late(struct alarm *alarm)
{
    if (cpus_expected)
        say(LOG_WARNING, "only %u of %u CPUs came", cpus_count(), cpus_expected);
    if (memory_expected)
        say(LOG_WARNING, "only %llu MiB of %llu MiB of memory came",
            (unsigned long long)memory_known >> 20, (unsigned long long)memory_expected >> 20);
    cpus_expected = 0;
    memory_expected = 0;
    growth_look();
}

void grow_expect(uint32_t cpus, uint64_t more_bytes)
{
    cpus_known = cpus_count();
    cpus_expected = cpus > 1 && cpus > cpus_known ? cpus : 0;
    memory_expected = more_bytes ? memory_known + more_bytes : 0;
    growth_look();
}

bool grow_ready(void)
{
    return !cpus_expected && !memory_expected;
}

void grow_event(const char *event)
{
    if (!event || strstr(event, CPU_NEWS))
        cpus_look();
    if (!event || strstr(event, MEMORY_NEWS))
        memory_look();
}
