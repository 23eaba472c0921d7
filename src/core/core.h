/* The core decides. It is pure: it makes no system call, has no clock and no source of chance,
 * and touches nothing but the world and its own queues. So it can be simulated and replayed.
 *
 * In come events: requests of users, completions of effects, facts about VMs and containers,
 * timers. Each is a call from here, handled to its end at once. Out come, in queues:
 *
 *      changes    in the world (dirty objects, feed): for store_commit()
 *      replies    one to each request, sooner or later
 *      effects    what is to be done in the real world
 *
 * At the end of a loop turn huskd does, in this order and never another:
 *
 *      core_clock, events …  →  store_commit(world)  →  replies  →  effects
 *
 * Where replies or effects stand that must not be undone by the end of the host (core_is_bound),
 * the commit is synced to the disk before them.
 *
 * Effects are idempotent: after a crash the same may be asked again, and what is already so is
 * success. Each is completed once by core_done() (also when it failed, or its deadline passed),
 * or never if the process dies. A completion that nobody waits for any more is dropped by its
 * token. Effects of one object are asked one at a time, but KILL may come beside another one.
 */
#ifndef HUSK_CORE_CORE_H
#define HUSK_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/world.h"

struct core;

enum {
    OPS_MAX = 8192, /* operations that wait at a time */
    STOP_GRACE_DEFAULT_MS = 10000,
    STOP_OF_REMOVED_MS = 5000, /* of a container whose pod goes, then its VM is ended */
    VM_OFF_GRACE_MS = 30000,   /* to power off, which includes writing what only memory has */
    BACKOFF_FIRST_MS = 1000,   /* of what is tried again; doubled each time */
    BACKOFF_MAX_MS = 300000,
    BACKOFF_FORGET_MS = 10000,
    TTL_LOOK_MS = 300000, /* between looks at how long a pod has to live: a clock may jump */
    TTL_UNSTARTED_S = 60, /* a pod with a time to live is started in this, or removed */
};

/* `seed` feeds the ids that the core makes; take it from the kernel's random pool. The world is
 * the caller's, and outlives the core. */
struct core *core_new(struct world *world, uint64_t seed);
void core_free(struct core *core);

/* When containers, and pods whose VM died, are started again. */
struct restart_policy {
    uint64_t first_ms;  /* delay before the first restart; doubled each time */
    uint64_t max_ms;    /* longest delay; at least first_ms */
    uint64_t forget_ms; /* a run at least as long as this starts the back-off anew */
};
/* Instead of BACKOFF_…_MS. Takes effect at the next restart. */
void core_set_restarts(struct core *core, const struct restart_policy *policy);

/* Idle VMs that are kept ready; a pod that asks for just so much takes one. Those of an image have
 * the root of a container of it ready, and are for pods with just that container. */
struct pool_shape {
    uint32_t cpus;
    uint64_t memory_mb;
    uint32_t count;                     /* of VMs that are idle */
    uint64_t layer_mb;                  /* of an image: size of the container's writable layer */
    char image[IMAGE_NAME_LEN_MAX + 1]; /* full name; "": of none */
};
enum {
    POOL_SHAPES_MAX = 16,
    POOL_VMS_MAX = 256,  /* of all shapes together */
    POOL_DELAY_MS = 300, /* between a VM's going and the boot of the next, if none has failed */
};
/* At most POOL_SHAPES_MAX shapes, no two alike. Instead of what was set before: what is too much
 * is ended. */
void core_set_pool(struct core *core, const struct pool_shape *shapes, size_t count);

/* These pods do without the generic VMs of the pool, which are left to others. */
void core_image_quick(struct core *core, const char *image_id, const struct image_quick *quick);

/* What there is of a shape. */
struct pool_status {
    const struct pool_shape *shape;
    uint32_t idle, coming;
    bool waits; /* for its image, which is not here */
};
/* Of the shape with that number, from 0; false if there is none. */
bool core_pool_status(const struct core *core, size_t number, struct pool_status *ret);

/* The daemon is about to end with all that runs: nothing is started any more, neither on request
 * nor by a policy. */
void core_end(struct core *core);

/* What time it is, before the events of a turn: CLOCK_REALTIME. May jump. */
void core_clock(struct core *core, int64_t wall_ns);

/* ---- requests ------------------------------------------------------------------------------- */

/*                     which object     what else is read
 * POD_CREATE          –                pod_spec (taken)
 * POD_START           pod              vm (optional: an idle one)
 * POD_STOP            pod              grace_ms, keep_vm. One with a time to live of 0 s is removed
 *                                      then, and this is answered when it is gone
 * POD_REMOVE          pod              force
 * POD_KILL            pod              signal
 * POD_PAUSE, _UNPAUSE pod
 * POD_REPLACE         pod, other       grace_ms; `other` is started on the VM of `pod`
 * CTR_CREATE          pod              ctr_spec (taken)
 * CTR_START           ctr
 * CTR_STOP            ctr              grace_ms
 * CTR_KILL            ctr              signal
 * CTR_REMOVE          ctr              force
 * CTR_WAIT            ctr              answered when it has ended (at once, if it has): the value
 *                                      is its exit code. One that never ran is waited for
 * VM_CREATE           –                cpus, memory_mb
 * VM_KILL             vm               a pod in it goes back to created
 * IMAGE_ADD           –                image_new
 * IMAGE_TAG           image            name
 * IMAGE_REMOVE        image            name (what was typed: a name is untagged), force
 */
#define REQUESTS(X)                                                                                \
    X(POD_CREATE, "create")                                                                        \
    X(POD_START, "start")                                                                          \
    X(POD_STOP, "stop")                                                                            \
    X(POD_REMOVE, "remove")                                                                        \
    X(POD_KILL, "kill")                                                                            \
    X(POD_PAUSE, "pause")                                                                          \
    X(POD_UNPAUSE, "unpause")                                                                      \
    X(POD_REPLACE, "replace")                                                                      \
    X(CTR_CREATE, "create")                                                                        \
    X(CTR_START, "start")                                                                          \
    X(CTR_STOP, "stop")                                                                            \
    X(CTR_KILL, "kill")                                                                            \
    X(CTR_REMOVE, "remove")                                                                        \
    X(CTR_WAIT, "wait")                                                                            \
    X(VM_CREATE, "create")                                                                         \
    X(VM_KILL, "kill")                                                                             \
    X(IMAGE_ADD, "add")                                                                            \
    X(IMAGE_TAG, "tag")                                                                            \
    X(IMAGE_REMOVE, "remove")

enum request_kind {
#define X(upper, verb) REQ_##upper,
    REQUESTS(X)
#undef X
        REQ_COUNT
};

struct request {
    enum request_kind kind;
    uint64_t op; /* the caller's own number of it, given back in the reply; not 0, not in use */
    struct ref pod, other, ctr, vm, image;
    struct pod_spec *pod_spec;     /* taken over, whatever happens */
    struct ctr_spec *ctr_spec;     /* taken over */
    const struct image *image_new; /* id, config_text, names, size_bytes, created_ns, files */
    const char *name;
    unsigned signal;   /* 0: SIGTERM */
    uint32_t grace_ms; /* 0: kill at once; huskd puts its default in */
    uint32_t cpus;
    uint64_t memory_mb;
    bool force, keep_vm;
};

void core_request(struct core *core, struct request *request);
/* Nobody waits for that reply any more: there will be none. What was asked goes on. */
void core_cancel(struct core *core, uint64_t op);
/* What an operation waits for, as "pod 'web': step 'vm'"; owned, NULL if it does not wait. */
char *core_waits_for(const struct core *core, uint64_t op);

struct reply {
    uint64_t op;
    struct error *error;                /* NULL: done; owned by whoever took the reply */
    struct ref ref;                     /* of what was created */
    char id[NAME_LEN_MAX + CTR_ID_LEN]; /* its id: of a pod, container, VM or image */
    int64_t value;                      /* CTR_WAIT: the exit code */
    unsigned kind;                      /* of the request; REQ_COUNT: answered at once */
    uint64_t turn;                      /* the core's, in which it was asked */
};
/* The next reply; false if there is no more. */
bool core_next_reply(struct core *core, struct reply *ret);

/* Among what is due is something that the world must be durable for: an answer, the end of what
 * cannot be made again, or a container's exit code, which nobody can tell a second time. Others,
 * such as a VM that boots, are no more once the host has ended: a world from before them is then
 * as true. */
bool core_is_bound(const struct core *core);
/* What was asked so far is committed. */
void core_committed(struct core *core);
/* What was committed so far is durable. */
void core_synced(struct core *core);

/* While the store is tight on space, whatever needs more of it is refused with NO_SPACE. */
void core_set_tight(struct core *core, bool tight);

/* The world has been cleared (a commit failed; the world is about to be loaded again): every
 * operation is answered with that error, and whether it goes on all the same, having been committed
 * before; every effect and timer is forgotten. */
void core_reset(struct core *core, const struct error *why);

/* ---- effects -------------------------------------------------------------------------------- */

/* EFFECT(upper, name, noun of the object, deadline in ms)
 *
 * MAKE_LAYER    ctr     its writable layer, of pod->spec.storage_mb
 * REMOVE_FILES  pod|ctr layer and log of a container; the whole directory of a pod
 * VM_SPAWN      vm      directory, keeper, QEMU; done when the guest said hello. vm->pod, if any,
 *                       says whose disks to have in it from the start. Fills `result`
 * VM_REHEARSE   vm      of the pool: does what a pod will do first, so that it is warm
 * POD_PLACE     pod     into pod->vm. The layer of one that is for an image becomes the container's
 *                       at once, before whatever is asked later
 * CTR_RUN       ctr     run number ctr->run, in pod->vm; done when it runs
 * CTR_STOP      ctr     signal, after grace_ms SIGKILL; done when it has ended (or is not there)
 * CTR_KILL      ctr     signal to its first process; what is not there is ERROR_STATE
 * CTR_DROP      ctr     the VM lets go of its disks
 * POD_LEAVE     pod     out of pod->vm, which is idle then
 * VM_PAUSE, VM_RESUME   vm
 * VM_OFF        vm      asks the guest, after grace_ms ends QEMU; a keeper that does not answer is
 *                       killed with its QEMU. Done when QEMU is gone and all ends of containers
 *                       (its keeper's journal too) were told. Asked again if it fails
 * VM_CLEAN      vm      kills what is left, dismisses the keeper, removes <root>/vms/<id>, and the
 *                       journal with it: only asked when all that it knows is in the store.
 *                       VM_OFF and VM_CLEAN overtake what else was asked of that VM and its
 *                       containers (a VM_SPAWN too): nothing of it may take effect afterwards
 * IMAGE_FILES   image   removes image->files
 * TIMER         any     core_done() after delay_ms, without an error
 */
#define EFFECTS(X)                                                                                 \
    X(MAKE_LAYER, "make-layer", NOUN_CTR, 60000)                                                   \
    X(REMOVE_FILES, "remove-files", NOUN_CTR, 60000)                                               \
    X(VM_SPAWN, "vm-spawn", NOUN_VM, 180000)                                                       \
    X(VM_REHEARSE, "vm-rehearse", NOUN_VM, 60000)                                                  \
    X(POD_PLACE, "pod-place", NOUN_POD, 30000)                                                     \
    X(CTR_RUN, "ctr-run", NOUN_CTR, 60000)                                                         \
    X(CTR_STOP, "ctr-stop", NOUN_CTR, 30000)                                                       \
    X(CTR_KILL, "ctr-kill", NOUN_CTR, 30000)                                                       \
    X(CTR_DROP, "ctr-drop", NOUN_CTR, 45000)                                                       \
    X(POD_LEAVE, "pod-leave", NOUN_POD, 45000)                                                     \
    X(VM_PAUSE, "vm-pause", NOUN_VM, 30000)                                                        \
    X(VM_RESUME, "vm-resume", NOUN_VM, 30000)                                                      \
    X(VM_OFF, "vm-off", NOUN_VM, 10000)                                                            \
    X(VM_CLEAN, "vm-clean", NOUN_VM, 60000)                                                        \
    X(IMAGE_FILES, "image-files", NOUN_IMAGE, 60000)                                               \
    X(TIMER, "timer", NOUN_POD, 0)

enum effect_kind {
#define X(upper, name, noun, deadline) EFFECT_##upper,
    EFFECTS(X)
#undef X
        EFFECT_COUNT
};

const char *effect_name(enum effect_kind kind);

/* Copied by value, given back in core_done(). */
struct token {
    struct ref ref;  /* of the object */
    uint8_t noun;    /* enum noun: its table */
    uint8_t kind;    /* enum effect_kind */
    uint32_t serial; /* of this asking */
};

struct effect {
    struct token token;   /* token.kind: what to do, to which object */
    uint32_t deadline_ms; /* after which exec reports ERROR_TIMEOUT; grace_ms is included */
    uint32_t signal;      /* CTR_STOP, CTR_KILL */
    uint32_t grace_ms;    /* CTR_STOP, VM_OFF */
    uint64_t delay_ms;    /* TIMER */
};
/* The next effect; false if there is no more. An effect whose object is gone meanwhile, or that
 * is no longer wanted, is not handed out. */
bool core_next_effect(struct core *core, struct effect *ret);

/* What VM_SPAWN found out; NULL or zeroes for every other effect. */
struct effect_result {
    const char *accel, *machine;
    int32_t qemu_pid;
    const char *template; /* NULL: it was not cloned */
};
void core_done(struct core *core, struct token token, const struct error *error,
               const struct effect_result *result);

/* ---- facts ---------------------------------------------------------------------------------- */

/* The end of a container's first process. CTR_STATE, or a line of a dead keeper's journal. */
struct ctr_end {
    uint64_t run;
    uint32_t code, signal;
    bool oom;
    const char *reason; /* "" or NULL: none */
    int64_t started_ns, finished_ns;
};
/* Dropped if it is of another run than the container's last, or already known. */
void core_ctr_ended(struct core *core, struct ref ctr, const struct ctr_end *end);
/* It runs: gives started_ns. */
void core_ctr_started(struct core *core, struct ref ctr, uint64_t run, int64_t started_ns);

/* QEMU or the keeper is gone: say first what is known of its containers' ends. */
void core_vm_gone(struct core *core, struct ref vm, const char *reason);
/* Frozen or thawed by somebody else. */
void core_vm_paused(struct core *core, struct ref vm, bool paused);
/* It was frozen, or is about to be, because it cannot go on: why, until it is thawed. */
void core_vm_stuck(struct core *core, struct ref vm, const char *why);
/* Something that a keeper wants in the events of the VM's pod. */
void core_vm_event(struct core *core, struct ref vm, const char *reason, const char *message);

/* ---- after a start: the world was loaded ---------------------------------------------------- */

struct vm_snapshot_ctr {
    const char *id;
    uint64_t run;
    bool ended; /* then it was also told by core_ctr_ended() */
    int64_t started_ns;
};
struct vm_snapshot {
    bool ready; /* false: still booting */
    bool paused;
    const char *pod_uid; /* placed in it; "" if none */
    int32_t qemu_pid;
    const struct vm_snapshot_ctr *ctrs;
    size_t ctr_count;
};
/* The keeper of that VM was found alive. Say core_ctr_ended() of its ended containers first. */
void core_vm_adopted(struct core *core, struct ref vm, const struct vm_snapshot *snapshot);
/* Every VM was adopted or said to be gone (one that was not is taken for gone): half-done recipes
 * go on or are undone. Once after each load; also with an empty world. */
void core_reloaded(struct core *core);

/* ---- for tests and tools -------------------------------------------------------------------- */

/* Whether anything is under way: an effect that was asked and not completed, or an operation. */
bool core_is_quiet(const struct core *core);
/* Names of all steps of all recipes, "start:vm" …; NULL-terminated. */
const char *const *core_steps(void);
/* The step that a token's effect belongs to, as in core_steps(); NULL if none. */
const char *core_step_of(const struct core *core, struct token token);

#endif
