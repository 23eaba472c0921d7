/* The containers of the guest.
 *
 *     WAITING   for its disks; the request CTR_START is not answered yet
 *     STARTING  its first process makes its root
 *     RUNNING   its first process runs the program
 *     ENDED     that process is gone; its mounts go once the end is told
 *
 * A container is known until CTR_CLEAR; a start that was refused leaves none behind.
 */
#ifndef HUSK_INIT_CONTAINER_H
#define HUSK_INIT_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "init/events.h"
#include "proto/wire.h"

enum container_state { CONTAINER_WAITING, CONTAINER_STARTING, CONTAINER_RUNNING, CONTAINER_ENDED };

struct container {
    struct container *next;
    enum container_state state;
    uint8_t *payload; /* of the request: `start` points into it */
    uint32_t payload_size;
    struct wire_ctr_start start;
    uint32_t stream;                 /* of its first process */
    uint32_t out_credit, err_credit; /* WAITING: what the keeper granted already */
    char *image_device, *layer_device;
    int group; /* its cgroup's directory */
    char *group_name;
    int pidfd;            /* of its first process */
    int mounts;           /* its namespace of mounts, which is held until its end was told */
    int ipc;              /* the same of IPC, if it was made ahead; else -1 */
    int oom_watch;        /* of cgroup_oom_watch(), if it was made ahead; else -1 */
    uint64_t unmount;     /* the janitor's ticket for it */
    struct alarm alarm;   /* WAITING: the next look for disks; ENDED: unmount, or the next look */
    uint64_t deadline_ms; /* of what it waits for */
    uint32_t clear_seq;   /* of a CTR_CLEAR that is under way */
};

/* What POD_SETUP said. */
struct pod {
    char *hostname;
    char **hosts, **resolv;
};
extern struct pod pod;

/* Remembers what is said of the pod; the second also makes the guest's hostname that of the pod. */
void pod_copy(const struct wire_pod_setup *message);
void pod_setup(const struct wire_pod_setup *message);
/* Ends and clears every container; answers `seq` when that is done. */
void pod_clear(const struct wire_pod_clear *message);
/* Every container's layer is on its disk, whole and clean, when it returns; nobody can write to it
 * any more. Their processes are gone. */
void containers_settle(void);
/* True if there is no pod, and nothing of one. */
bool pod_idle(void);

/* NULL if there is none of that id. */
struct container *container_find(const char *id);
void container_start(const struct wire_frame *frame, uint32_t seq);
void container_exec(const struct wire_frame *frame, const struct wire_exec *message);
void container_clear(const struct wire_ctr_clear *message);

/* Credit for the first process of a container that still waits. */
void container_credit(uint32_t stream, unsigned channel, uint32_t bytes);
void container_forget_credit(void);

/* Its first process was reaped, after a refusal or after it had run. */
void container_ended(struct container *c, bool refused);
const char *container_hostname(const struct container *c);
/* What a container may wait for (a disk, a CPU) may be there now. */
void container_look_again(void);
/* Sends a CTR_USAGE for each container that runs. */
void containers_tell_usage(void);
/* The limits of the guest have changed, and with them those of containers without their own. */
void container_limits_changed(void);

#endif
