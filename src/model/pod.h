/* A pod: the unit of scheduling. A spec, containers, and while it runs a VM of its own.
 *
 *      creating → created → starting → running
 *                    ↑          └→ stopping ←┘
 *                    └──────────────┘
 *      any of them → (stopping →) removing → gone
 *
 * `want` is what the user asked, `state` what is true; only the core moves either. `step` is the
 * row of the state's recipe (core/recipe.c) that is being done; it is stored, so that a new
 * daemon goes on there.
 *
 *  creating   spec is stored; layers are being made. A failure leaves nothing.
 *  created    layers exist; there is no VM and no container is up.
 *  starting   a VM is made or taken, the pod placed, containers started in order.
 *  running    `vm` is associated with this pod. Stays so when the last container ends.
 *  stopping   containers are stopped, then the VM ends or (keep_vm) is left idle. Also the way
 *             back from a start that failed, and from the death of the VM.
 *  removing   there is no VM; files are being removed.
 */
#ifndef HUSK_MODEL_POD_H
#define HUSK_MODEL_POD_H

#include <uthash.h>

#include "model/object.h"
#include "model/spec.h"

enum pod_state {
    POD_CREATING,
    POD_CREATED,
    POD_STARTING,
    POD_RUNNING,
    POD_STOPPING,
    POD_REMOVING,
    POD_STATE_COUNT
};

enum pod_want { POD_WANT_CREATED, POD_WANT_RUNNING, POD_WANT_GONE, POD_WANT_COUNT };

enum {
    POD_UID_LEN = 16, /* hexadecimal digits; names the pod's directory, never used twice */
    PODS_MAX = 16384,
};

struct container;

struct pod {
    struct object object;
    char uid[POD_UID_LEN + 1];
    struct pod_spec spec; /* as asked, id and hostname filled in; containers moved to theirs */
    struct container *containers; /* list, in order of declaration */
    uint32_t container_count;
    int64_t created_ns; /* wall clock */
    int64_t started_ns; /* when it last became running; 0: never */

    enum pod_want want;
    enum pod_state state;
    uint32_t step;      /* of the recipe of `state` */
    struct ref vm;      /* from starting until the VM is gone or left */
    char *target_vm;    /* start on this VM, when it is idle; NULL: on a new one */
    bool placed;        /* POD_PLACE was done in vm */
    bool keep_vm;       /* stopping: leave the VM idle */
    bool failed;        /* stopping: because of `reason`, not because it was asked */
    char *reason;       /* why it is not what was wanted; NULL: nothing to say */
    uint32_t backoff;   /* starts in a row that ended early: 2^n seconds until the next */
    int64_t restart_ns; /* wall clock of the start that is due by policy; 0: none */
    int64_t expires_ns; /* it has finished: wall clock of its removal by spec.ttl; 0: none is due */

    /* the core's own, not stored */
    uint32_t effect;   /* serial of the effect that is on its way, 0: none */
    uint32_t grace_ms; /* of the stop that goes on */
    uint32_t timer;    /* serial of the timer that is set, 0: none */
    uint32_t retries;  /* of removing its files */
    struct op *ops;    /* operations that wait for it */

    /* tables of world.c */
    UT_hash_handle by_id;
    UT_hash_handle by_uid;
};

const char *pod_state_name(enum pod_state state);
int pod_state_from_name(const char *name);
/* Nothing of it is up, nor will be if nobody asks for it: its containers have ended, or were not
 * started, or it was stopped, or never started. */
bool pod_has_finished(const struct pod *pod);

const char *pod_want_name(enum pod_want want);
int pod_want_from_name(const char *name);

void pod_free(struct pod *pod);

#define POD_FOREACH_CTR(c, pod) for (struct container *c = (pod)->containers; c; c = c->next)

#endif
