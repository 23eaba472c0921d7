/* Control groups (v2): one for each container under "pod", one for processes of the guest itself.
 * husk-init stays in the root, outside of all limits.
 */
#ifndef HUSK_INIT_CGROUP_H
#define HUSK_INIT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* The most that all containers together may take. */
void cgroup_init(uint64_t memory_max_bytes, uint64_t pids_max);
/* They may take so much more, since the guest has grown. */
void cgroup_grow(uint64_t memory_bytes, uint64_t pids);

/* Makes the group of a container and returns a descriptor of its directory, or -1. A limit of 0
 * is the guest's default. `id` must be a plain name. */
int cgroup_new(const char *id, uint64_t memory_max_bytes, uint32_t pids_max,
               struct error **ret_error);
/* Sets the limits of a container's group anew. */
void cgroup_limit(int group, uint64_t memory_max_bytes, uint32_t pids_max);
/* The group of what runs in the guest itself. */
int cgroup_guest(struct error **ret_error);
/* False while something is left in it. */
bool cgroup_remove(const char *id);

/* The directory of a container's group, as cgroup_new() returned it; -1 and errno. */
int cgroup_open(const char *id);
/* Freezes and thaws the processes of a group; when it returns 0 they are. -1 and errno. */
int cgroup_freeze(int group, bool on, int deadline_ms);
/* Sends a signal to every process of a group. */
void cgroup_signal(int group, int signal);
/* Kills everything but husk-init. */
void cgroup_kill_all(void);
/* What a group takes, and may take: bytes, processes and threads; 0: no limit. */
struct cgroup_usage {
    uint64_t memory_bytes, memory_max_bytes;
    uint32_t pids, pids_max;
};
void cgroup_usage(int group, struct cgroup_usage *ret);

/* A descriptor by which cgroup_oom_killed() knows at once that nothing has happened since; -1 if it
 * cannot be had. */
int cgroup_oom_watch(int group);
/* True if processes of a group were killed for memory. `watch` may be -1. */
bool cgroup_oom_killed(int group, int watch);

#endif
