/* What every new process needs of husk-init: the ends of its stdio, and a clone in the right
 * namespaces and cgroup.
 */
#ifndef HUSK_INIT_SPAWN_H
#define HUSK_INIT_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

enum { END_STDIN, END_STDOUT, END_STDERR, END_STATUS, END_COUNT };

/* Both ends of what connects a process with husk-init; -1 where there is none. */
struct ends {
    int ours[END_COUNT], theirs[END_COUNT];
};

/* `flags` are of enum wire_process_flag. -1 and errno if it fails; close what there is then too. */
int ends_open(struct ends *e, uint32_t flags);
void ends_close(struct ends *e);

/* As fork(2), in new namespaces of mounts, pids, IPC and hostname: the first of a container. */
pid_t spawn_first(int group, int *ret_pidfd);
/* Its namespaces of mounts and of IPC, as descriptors. */
int spawn_mounts(pid_t pid);
int spawn_ipc(pid_t pid);
/* As fork(2), in the pid namespace of the process of `pidfd`; -1: in the guest's own. */
pid_t spawn_joining(int group, int pidfd);

/* As vfork(2), for a process that then does nothing but end: the child runs `run`, which does not
 * return, in the caller's memory while the caller waits until it executes or ends. It is a sibling
 * of the caller, in the cgroup of the descriptor and in the pid namespace that setns(2) chose for
 * children. `*ret_born` becomes its pid, as the caller sees it, before it first runs. */
int spawn_sibling(int group, pid_t *ret_born, void (*run)(void *arg), void *arg);

#endif
