/* Inside of the core. core.c has the queues and the entrances; one file a noun has its life. */
#ifndef HUSK_CORE_CORE_INT_H
#define HUSK_CORE_CORE_INT_H

#include <uthash.h>

#include "core/core.h"

/* A request that was admitted and is not answered. In core->ops, and in its object's list. */
struct op {
    uint64_t id;
    enum request_kind kind;
    enum noun noun; /* of the object that it waits for */
    struct ref ref;
    struct op *next;     /* of the object */
    struct error *error; /* it has failed, and is answered with this once all is undone */
    uint64_t turn;       /* of core.turn: it is not committed yet if that is still the same */
    uint64_t run;        /* CTR_START: that run, or a later one */
    uint32_t serial;     /* …_KILL: of its CTR_KILL effects */
    uint32_t left;       /* …_KILL: effects that are not completed */
    UT_hash_handle hh;
};

struct woken {
    struct ref ref;
    enum noun noun;
};

/* vm_pool.c */
struct vm_pool {
    struct pool_shape shapes[POOL_SHAPES_MAX];
    size_t shape_count;
    uint32_t failures[POOL_SHAPES_MAX]; /* in a row: VMs that ended before a pod took them */
    bool due;                    /* pods, VMs or images have changed since it was last looked at */
    bool waits[POOL_SHAPES_MAX]; /* it was told that the shape's image is not here */
};

struct core {
    struct world *world;
    uint64_t random; /* state of the generator of ids */
    int64_t wall_ns;
    bool loading; /* until core_reloaded(): facts are taken in, nothing is decided */
    bool tight;
    bool ending;
    bool ends_recorded; /* exit codes were taken in since core_synced() */
    struct vm_pool pool;
    struct restart_policy restarts;
    uint64_t turn;   /* counts commits */
    uint32_t serial; /* of the last effect or timer */
    uint32_t asked;  /* effects handed out and not completed */
    struct op *ops;  /* by id */
    struct reply *replies;
    size_t reply_at, reply_count, reply_capacity;
    struct effect *effects;
    size_t effect_at, effect_count, effect_capacity;
    struct woken *woken;
    size_t woken_at, woken_count, woken_capacity;
};

/* ---- core.c --------------------------------------------------------------------------------- */

/* The object is looked at before this event is over; its waiting operations too. */
void core_wake(struct core *core, struct object *object);
/* Notes that a stored field has changed, and wakes. */
void core_changed(struct core *core, struct object *object);
/* Until nothing is awake. Each entrance ends with it. */
void core_settle(struct core *core);

/* Asks an effect of the object, whose slot (`effect`) must be free. Returns it, to add to. */
struct effect *core_ask(struct core *core, enum effect_kind kind, struct object *object,
                        uint32_t *slot);
/* Sets the object's one timer, instead of an earlier one. */
void core_set_timer(struct core *core, struct object *object, uint32_t *slot, uint64_t delay_ms);
/* Until the wall-clock time, within the longest delay of restarts. */
uint64_t core_delay_until(const struct core *core, int64_t wall_ns);
/* Before what has failed so often is tried again. */
uint64_t core_backoff_ms(uint32_t failures);
/* The same for restarts, which an administrator can set. */
uint64_t core_restart_ms(const struct core *core, uint32_t restarts);

void core_random_hex(struct core *core, char *ret, size_t digits);
void core_random_letters(struct core *core, char *ret, size_t count, char first);

struct error *error_copy(const struct error *error);

/* ---- ops.c ---------------------------------------------------------------------------------- */

struct op **object_ops(struct object *object);
const char *object_name(const struct object *object);
struct op *op_add(struct core *core, const struct request *request, struct object *object);
/* Answers and forgets. `error` is taken. */
void op_answer(struct core *core, struct op *op, struct error *error, int64_t value);
/* Answers a request that never became an operation. `error` is taken; object may be NULL. */
void core_answer(struct core *core, uint64_t op, struct error *error, const struct object *object);
/* Those that have reached, or can no longer reach, what they wait for. */
void ops_settle(struct core *core, struct object *object);
/* The object goes: nothing may wait for it any more. */
void ops_gone(struct core *core, struct object *object);
bool ops_have(struct object *object, enum request_kind kind);
/* Gives a copy to each operation of that kind which has no error yet. */
void ops_fail(struct object *object, enum request_kind kind, const struct error *error);
void ops_clear(struct core *core, const struct error *why);
/* What was answered in this turn, and is not sent yet, never happened. */
void replies_fail(struct core *core, const struct error *why);

/* ---- request.c ------------------------------------------------------------------------------ */

int pod_admit(const struct pod *pod, enum request_kind kind, bool force, struct error **ret_error);
int ctr_admit(const struct container *ctr, enum request_kind kind, bool force,
              struct error **ret_error);

/* ---- pod.c ---------------------------------------------------------------------------------- */

void pod_move(struct core *core, struct pod *pod, enum pod_state state);
void pod_advance(struct core *core, struct pod *pod);
/* The user asks for it: containers stop wanting to run. */
void pod_stop_asked(struct core *core, struct pod *pod, enum pod_want want);
/* Into `stopping`, from starting or running. */
void pod_begin_stop(struct core *core, struct pod *pod, uint32_t grace_ms, bool keep_vm);
/* What it was about to be, or was, has come to an end because of `why`. */
void pod_fail(struct core *core, struct pod *pod, const struct error *why);
/* The VM that its containers could use now; NULL if there is none. */
struct vm *pod_usable_vm(const struct core *core, const struct pod *pod);
/* That its VM has to power off: for what only its memory has, unless the layers go anyway. */
uint32_t pod_off_grace_ms(const struct pod *pod);
const char *pod_step_name(const struct pod *pod);
void pod_effect_done(struct core *core, struct pod *pod, enum effect_kind kind,
                     const struct error *error);
void pod_resume_timer(struct core *core, struct pod *pod);
bool pod_runs_long(const struct core *core, int64_t started_ns);

/* ---- container.c ---------------------------------------------------------------------------- */

void ctr_move(struct core *core, struct container *ctr, enum ctr_state state);
void ctr_advance(struct core *core, struct container *ctr);
bool ctr_is_due(const struct container *ctr); /* wants to run, and no timer holds it back */
void ctr_run(struct core *core, struct pod *pod, struct container *ctr);
void ctr_stop_asked(struct core *core, struct container *ctr);
/* The VM is gone, and nobody saw how it ended. */
void ctr_lost(struct core *core, struct container *ctr, const char *reason);
/* Forgets an effect that only the VM could complete. */
void ctr_vm_gone(struct core *core, struct container *ctr, const char *reason);
void ctr_effect_done(struct core *core, struct container *ctr, enum effect_kind kind,
                     const struct error *error);
void ctr_resume_timer(struct core *core, struct container *ctr);
void ctr_forget(struct core *core, struct container *ctr);

/* ---- vm.c ----------------------------------------------------------------------------------- */

struct vm *vm_make(struct core *core, uint32_t cpus, uint64_t memory_mb, struct pod *pod);
void vm_advance(struct core *core, struct vm *vm);
/* To be turned off; the pod in it is told. reason NULL: it was asked for. */
void vm_begin_stop(struct core *core, struct vm *vm, uint32_t grace_ms, const char *reason);
/* After a start: a pod waits for it, and nothing was done in it yet. */
bool vm_is_unused(const struct core *core, const struct vm *vm);
/* It is cleaned away, and its pod, whose start goes on, gets another one. */
void vm_replace(struct core *core, struct vm *vm, const char *reason);
void vm_dead(struct core *core, struct vm *vm, const char *reason);
/* A VM that is turned off: its pod, none of whose containers is up, goes on without it. */
void vm_let_go(struct core *core, struct vm *vm);
void vm_take(struct core *core, struct vm *vm, struct pod *pod);
void vm_leave(struct core *core, struct vm *vm, struct pod *pod);
/* A pod was placed in it. */
void vm_leaves_pool(struct core *core, struct vm *vm);
void vm_effect_done(struct core *core, struct vm *vm, enum effect_kind kind,
                    const struct error *error, const struct effect_result *result);

/* ---- vm_pool.c ------------------------------------------------------------------------------ */

/* An idle VM of the pool that is as the pod asks; NULL if there is none. */
struct vm *vm_pool_find(const struct core *core, const struct pod *pod);
/* Pods are starting: the pool boots nothing now. */
bool vm_pool_waits(const struct core *core);
/* Before a VM is given up that nobody asked to end. */
void vm_pool_lost(struct core *core, const struct vm *vm);
/* Ends what is too much, and makes one that is missing. */
void vm_pool_settle(struct core *core);

/* ---- image.c -------------------------------------------------------------------------------- */

void image_advance(struct core *core, struct image *image);
/* A VM that was for that image (NULL: none) is so no more. */
void image_wake(struct core *core, const char *id);
void image_effect_done(struct core *core, struct image *image, enum effect_kind kind,
                       const struct error *error);
void request_image_add(struct core *core, struct request *request);
void request_image_tag(struct core *core, struct request *request);
void request_image_remove(struct core *core, struct request *request);

#endif
