/* The life of a pod: recipes, and the gap between want and have.
 *
 * A recipe belongs to a state; its steps are done in order, and the number of the one that is
 * being done is stored. A step looks at what is true and asks for what is missing, so it may be
 * begun again at any time: after a crash the recipe simply goes on. What undoes `start` is `stop`.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

enum progress { WAIT, DONE };

struct step {
    const char *name;
    enum effect_kind effect; /* what it asks for, if anything is missing */
    enum progress (*advance)(struct core *core, struct pod *pod);
};

enum { STEPS_MAX = 4 };

struct recipe {
    const char *name;
    struct step steps[STEPS_MAX + 1]; /* ends with a NULL name */
    void (*done)(struct core *core, struct pod *pod);
};

/* ---- moves ---------------------------------------------------------------------------------- */

static void pod_assert(const struct core *core, const struct pod *pod)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (pod_verify(core->world, pod, &error) == 0)
        return;
    fprintf(stderr, "husk: broken invariant: %s\n", error_text(error));
    abort();
}

/* The one place where a pod's state changes. */
void pod_move(struct core *core, struct pod *pod, enum pod_state state)
{
#define POD_VERB(...)
#define CTR_VERB(...)
#define CTR_STATE(...)
#define POD_STATE(name, phrase, busy, ...) [POD_##name] = {__VA_ARGS__},
    static const bool allowed[POD_STATE_COUNT][POD_STATE_COUNT] = {
#include "core/pod.def"
    };
    assert(allowed[pod->state][state]);
    pod_assert(core, pod);
    pod->state = state;
    pod->step = 0;
    pod_assert(core, pod);
    core_changed(core, &pod->object);
}

static void pod_tell(struct core *core, const struct pod *pod, const char *reason,
                     const char *message)
{
    world_tell(core->world, core->wall_ns, &pod->object, reason, "%s", message ? message : "");
}

struct vm *pod_usable_vm(const struct core *core, const struct pod *pod)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    return vm && pod->placed && vm->state == VM_ASSOCIATED && !vm->paused && !vm->effect ? vm
                                                                                         : NULL;
}

bool pod_runs_long(const struct core *core, int64_t started_ns)
{
    return started_ns && core->wall_ns - started_ns >= (int64_t)core->restarts.forget_ms * 1000000;
}

/* ---- create --------------------------------------------------------------------------------- */

static enum progress step_layers(struct core *core, struct pod *pod)
{
    enum progress progress = DONE;

    POD_FOREACH_CTR(c, pod) {
        core_wake(core, &c->object);
        if (c->state == CTR_CREATING)
            progress = WAIT;
    }
    return progress;
}

static void create_done(struct core *core, struct pod *pod)
{
    pod_move(core, pod, POD_CREATED);
    pod_tell(core, pod, "Created", NULL);
}

/* ---- start ---------------------------------------------------------------------------------- */

static enum progress start_failed(struct core *core, struct pod *pod, enum error_kind kind,
                                  const char *sentence)
{
    CLEANUP_ERROR struct error *error = NULL;

    error_set(&error, kind, 0, "%s", sentence);
    pod_fail(core, pod, error);
    return WAIT;
}

/* An idle VM of its own choice; or one that is about to be idle, when another pod leaves it. */
static enum progress take_target(struct core *core, struct pod *pod)
{
    struct vm *vm = world_vm_by_id(core->world, pod->target_vm);
    const struct pod *tenant = vm ? world_pod(core->world, vm->pod) : NULL;

    if (vm && vm->state == VM_IDLE) {
        vm_take(core, vm, pod);
        return DONE;
    }
    if (tenant && tenant->state == POD_STOPPING && tenant->keep_vm)
        return WAIT;
    CLEANUP_FREE char *sentence = str_printf("vm '%s' is not there any more", pod->target_vm);

    return start_failed(core, pod, ERROR_STATE, sentence);
}

static enum progress step_vm(struct core *core, struct pod *pod)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (vm)
        return vm->state == VM_ASSOCIATED ? DONE : WAIT;
    if (pod->target_vm)
        return take_target(core, pod);
    vm = vm_pool_find(core, pod);
    if (vm) {
        vm_take(core, vm, pod);
        return DONE;
    }
    if (core->world->tables[NOUN_VM].count >= VMS_MAX)
        return start_failed(core, pod, ERROR_LIMIT, "there are too many VMs");
    vm_make(core, (uint32_t)pod->spec.vcpu, pod->spec.memory_mb, pod);
    core_changed(core, &pod->object);
    return WAIT;
}

static enum progress step_place(struct core *core, struct pod *pod)
{
    if (pod->placed)
        return DONE;
    if (!pod->effect)
        core_ask(core, EFFECT_POD_PLACE, &pod->object, &pod->effect);
    return WAIT;
}

/* One after the other, in the order of the podfile. */
static enum progress step_run(struct core *core, struct pod *pod)
{
    POD_FOREACH_CTR(c, pod) {
        if (c->state == CTR_STARTING)
            return WAIT;
        if (!ctr_is_due(c))
            continue;
        if (c->state == CTR_CREATING || c->effect)
            return WAIT;
        if (c->state == CTR_PENDING || c->state == CTR_ENDED) {
            ctr_run(core, pod, c);
            return WAIT;
        }
    }
    return DONE;
}

static void start_done(struct core *core, struct pod *pod)
{
    pod->started_ns = core->wall_ns;
    pod->failed = false;
    str_set(&pod->reason, NULL);
    pod_move(core, pod, POD_RUNNING);
    POD_FOREACH_CTR(c, pod)
        core_wake(core, &c->object);
    pod_tell(core, pod, "Started", NULL);
}

/* ---- stop ----------------------------------------------------------------------------------- */

/* What was on its way when the stop began has to arrive first, and a frozen guest hears nothing. */
static enum progress step_thaw(struct core *core, struct pod *pod)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (!vm || vm->state != VM_ASSOCIATED)
        return DONE;
    if (vm->effect || pod->effect)
        return WAIT;
    if (!vm->paused)
        return DONE;
    bool stuck = pod->reason && !pod->failed; /* thawed it would go on with what it cannot */
    if (stuck && pod->want == POD_WANT_GONE && !pod->grace_ms) {
        vm_begin_stop(core, vm, 0, NULL);
        return DONE;
    }
    core_ask(core, EFFECT_VM_RESUME, &vm->object, &vm->effect);
    return WAIT;
}

static enum progress step_stop(struct core *core, struct pod *pod)
{
    enum progress progress = DONE;

    POD_FOREACH_CTR(c, pod) {
        bool on_its_way = ctr_is_up(c) || c->effect;

        if (!on_its_way)
            continue;
        core_wake(core, &c->object);
        if (pod_usable_vm(core, pod) || c->effect)
            progress = WAIT;
    }
    return progress;
}

static enum progress step_leave(struct core *core, struct pod *pod)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (!pod->keep_vm || !vm || vm->state != VM_ASSOCIATED)
        return DONE;
    if (!pod->placed) {
        vm_leave(core, vm, pod);
        return DONE;
    }
    if (!pod->effect)
        core_ask(core, EFFECT_POD_LEAVE, &pod->object, &pod->effect);
    return WAIT;
}

/* Of a pod that is removed nothing is left in the VM once all ends are known: it need not wait for
 * QEMU's memory to be freed. */
static bool pod_may_go_ahead(const struct pod *pod)
{
    POD_FOREACH_CTR(c, pod)
        if (ctr_is_up(c))
            return false;
    return pod->want == POD_WANT_GONE && !pod->effect;
}

uint32_t pod_off_grace_ms(const struct pod *pod)
{
    bool layers_go = pod->want == POD_WANT_GONE && !pod->grace_ms;

    return layers_go ? 0 : VM_OFF_GRACE_MS;
}

static enum progress step_off(struct core *core, struct pod *pod)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (!vm)
        return DONE;
    if (vm->state != VM_STOPPING)
        vm_begin_stop(core, vm, pod_off_grace_ms(pod), NULL);
    if (!pod_may_go_ahead(pod))
        return WAIT;
    vm_let_go(core, vm);
    return DONE;
}

/* From now on, that it is finished. */
static void pod_begin_to_age(struct core *core, struct pod *pod, uint32_t least_s)
{
    uint32_t ttl_s = pod->spec.ttl.count > least_s ? pod->spec.ttl.count : least_s;

    pod->expires_ns = core->wall_ns + ttl_s * INT64_C(1000000000);
    pod->timer = 0;
    core_changed(core, &pod->object);
}

/* After a failure: those that their policy lets run again keep their wish. */
static bool restart_wanted(const struct pod *pod)
{
    bool any = pod->container_count == 0 && pod->spec.restart == RESTART_ALWAYS;

    POD_FOREACH_CTR(c, pod) {
        enum restart policy = ctr_restart(c, pod);

        if (c->want != CTR_WANT_RUNNING)
            continue;
        any |= policy == RESTART_ALWAYS ||
               (policy == RESTART_ON_FAILURE && !(c->state == CTR_ENDED && c->succeeded));
    }
    return any;
}

static void pod_settle_failure(struct core *core, struct pod *pod)
{
    bool asked = ops_have(&pod->object, REQ_POD_START) || ops_have(&pod->object, REQ_POD_REPLACE);

    if (asked || !restart_wanted(pod)) {
        pod_stop_asked(core, pod, POD_WANT_CREATED);
        return;
    }
    POD_FOREACH_CTR(c, pod) {
        bool well = c->state == CTR_ENDED && c->succeeded;
        enum restart policy = ctr_restart(c, pod);

        if (c->want == CTR_WANT_RUNNING &&
            (policy == RESTART_NEVER || (policy == RESTART_ON_FAILURE && well)))
            c->want = CTR_WANT_STOPPED;
        c->restart_ns = 0;
        core_changed(core, &c->object);
    }
    if (pod_runs_long(core, pod->started_ns))
        pod->backoff = 0;
    uint64_t delay_ms = core_restart_ms(core, pod->backoff++);

    pod->restart_ns = core->wall_ns + (int64_t)delay_ms * 1000000;
    core_set_timer(core, &pod->object, &pod->timer, delay_ms);
    world_tell(core->world, core->wall_ns, &pod->object, "BackOff", "starts again in %llu ms",
               (unsigned long long)delay_ms);
}

static void stop_done(struct core *core, struct pod *pod)
{
    pod->keep_vm = false;
    str_set(&pod->target_vm, NULL);
    if (pod->want == POD_WANT_RUNNING)
        pod_settle_failure(core, pod);
    if (pod->spec.ttl.given && pod->want == POD_WANT_CREATED && !pod->expires_ns)
        pod_begin_to_age(core, pod, 0);
    pod_move(core, pod, POD_CREATED);
    pod_tell(core, pod, pod->failed ? "Failed" : "Stopped", pod->reason);
}

/* ---- remove --------------------------------------------------------------------------------- */

static enum progress step_files(struct core *core, struct pod *pod)
{
    POD_FOREACH_CTR(c, pod)
        if (c->effect)
            return WAIT;
    if (!pod->effect && !pod->timer)
        core_ask(core, EFFECT_REMOVE_FILES, &pod->object, &pod->effect);
    return WAIT;
}

static void files_removed(struct core *core, struct pod *pod)
{
    while (pod->containers)
        ctr_forget(core, pod->containers);
    pod_tell(core, pod, "Removed", NULL);
    ops_gone(core, &pod->object);
    world_remove(core->world, &pod->object);
}

/* ---- the table ------------------------------------------------------------------------------ */

static const struct recipe recipes[POD_STATE_COUNT] = {
    [POD_CREATING] = {"create", {{"layers", EFFECT_MAKE_LAYER, step_layers}}, create_done},
    [POD_STARTING] = {"start",
                      {{"vm", EFFECT_VM_SPAWN, step_vm},
                       {"place", EFFECT_POD_PLACE, step_place},
                       {"run", EFFECT_CTR_RUN, step_run}},
                      start_done},
    [POD_STOPPING] = {"stop",
                      {{"thaw", EFFECT_VM_RESUME, step_thaw},
                       {"containers", EFFECT_CTR_STOP, step_stop},
                       {"leave", EFFECT_POD_LEAVE, step_leave},
                       {"off", EFFECT_VM_OFF, step_off}},
                      stop_done},
    [POD_REMOVING] = {"remove", {{"files", EFFECT_REMOVE_FILES, step_files}}, NULL},
};

const char *pod_step_name(const struct pod *pod)
{
    const struct recipe *recipe = &recipes[pod->state];

    return recipe->name ? recipe->steps[pod->step].name : NULL;
}

const char *const *core_steps(void)
{
    static char names[POD_STATE_COUNT * STEPS_MAX][32];
    static const char *list[POD_STATE_COUNT * STEPS_MAX + 1];
    size_t n = 0;

    for (int state = 0; state < POD_STATE_COUNT; state++)
        for (const struct step *s = recipes[state].steps; s->name; s++, n++) {
            snprintf(names[n], sizeof(names[n]), "%s:%s", recipes[state].name, s->name);
            list[n] = names[n];
        }
    list[n] = NULL;
    return list;
}

static const struct pod *token_pod(const struct core *core, struct token token)
{
    const struct container *ctr = world_ctr(core->world, token.ref);
    const struct vm *vm = world_vm(core->world, token.ref);

    switch ((enum noun)token.noun) {
    case NOUN_POD:
        return world_pod(core->world, token.ref);
    case NOUN_CTR:
        return ctr ? world_pod(core->world, ctr->pod) : NULL;
    case NOUN_VM:
        return vm ? world_pod(core->world, vm->pod) : NULL;
    default:
        return NULL;
    }
}

const char *core_step_of(const struct core *core, struct token token)
{
    const struct pod *pod = token_pod(core, token);
    const char *const *list = core_steps();

    if (!pod || !pod_step_name(pod))
        return NULL;
    for (int state = 0; state < (int)pod->state; state++)
        for (const struct step *s = recipes[state].steps; s->name; s++)
            list++;
    return list[pod->step];
}

/* ---- the gap -------------------------------------------------------------------------------- */

/* Layers that are on their way must arrive before they can be taken away. */
static void create_abandoned(struct core *core, struct pod *pod)
{
    POD_FOREACH_CTR(c, pod)
        if (c->effect)
            return;
    pod_move(core, pod, POD_REMOVING);
}

static void begin_start(struct core *core, struct pod *pod)
{
    pod->timer = 0;
    pod->restart_ns = 0;
    pod->expires_ns = 0;
    pod->failed = false;
    str_set(&pod->reason, NULL);
    POD_FOREACH_CTR(c, pod) {
        c->restart_ns = 0;
        c->timer = 0;
        core_changed(core, &c->object);
    }
    pod_move(core, pod, POD_STARTING);
}

/* ---- the end of its time -------------------------------------------------------------------- */

/* It has been started again. */
static void pod_stay(struct core *core, struct pod *pod)
{
    if (!pod->expires_ns)
        return;
    pod->expires_ns = 0;
    pod->timer = 0;
    core_changed(core, &pod->object);
}

static void pod_expire(struct core *core, struct pod *pod)
{
    pod_tell(core, pod, "Expired", "it has finished, and its time to live is over");
    pod_stop_asked(core, pod, POD_WANT_GONE);
    if (pod->state == POD_RUNNING)
        pod_begin_stop(core, pod, 0, false);
}

/* Of one with a time to live. Its timer may be shorter than that, and is set again then. */
static void pod_age(struct core *core, struct pod *pod)
{
    bool never_started = pod->state == POD_CREATED && !pod->started_ns && !pod->failed;

    if (!pod_has_finished(pod)) {
        pod_stay(core, pod);
        return;
    }
    if (!pod->expires_ns)
        pod_begin_to_age(core, pod, never_started ? TTL_UNSTARTED_S : 0);
    int64_t left_ns = pod->expires_ns - core->wall_ns;

    if (left_ns <= 0) {
        pod_expire(core, pod);
    } else if (!pod->timer) {
        uint64_t left_ms = (uint64_t)left_ns / 1000000 + 1;

        core_set_timer(core, &pod->object, &pod->timer,
                       left_ms < TTL_LOOK_MS ? left_ms : TTL_LOOK_MS);
    }
}

/* Between recipes: the next one, if have is not want. */
static void pod_close_gap(struct core *core, struct pod *pod)
{
    if (pod->state == POD_CREATED && pod->want == POD_WANT_GONE)
        pod_move(core, pod, POD_REMOVING);
    else if (pod->state == POD_CREATED && pod->want == POD_WANT_RUNNING && !pod->restart_ns &&
             !core->ending)
        begin_start(core, pod);
    else if (pod->state == POD_RUNNING && pod->want != POD_WANT_RUNNING)
        pod_begin_stop(core, pod, pod->grace_ms, pod->keep_vm);
    else if (pod->state == POD_CREATED && pod->restart_ns && !pod->timer)
        core_set_timer(core, &pod->object, &pod->timer, core_delay_until(core, pod->restart_ns));
    else if (pod->spec.ttl.given)
        pod_age(core, pod);
}

void pod_advance(struct core *core, struct pod *pod)
{
    const struct recipe *recipe = &recipes[pod->state];
    enum pod_state state = pod->state;

    if (!recipe->name) {
        pod_close_gap(core, pod);
        return;
    }
    if (state == POD_CREATING && pod->want == POD_WANT_GONE) {
        create_abandoned(core, pod);
        return;
    }
    while (recipe->steps[pod->step].name) {
        if (recipe->steps[pod->step].advance(core, pod) == WAIT || pod->state != state)
            return;
        pod->step++;
        core_changed(core, &pod->object);
    }
    recipe->done(core, pod);
}

/* ---- what happens to it --------------------------------------------------------------------- */

void pod_resume_timer(struct core *core, struct pod *pod)
{
    if (!pod->restart_ns)
        return;
    pod->restart_ns = 0;
    core_changed(core, &pod->object);
}

void pod_stop_asked(struct core *core, struct pod *pod, enum pod_want want)
{
    pod->want = want;
    pod->restart_ns = 0;
    pod->timer = 0;
    pod->backoff = 0;
    POD_FOREACH_CTR(c, pod)
        ctr_stop_asked(core, c);
    core_changed(core, &pod->object);
}

void pod_begin_stop(struct core *core, struct pod *pod, uint32_t grace_ms, bool keep_vm)
{
    pod->grace_ms = grace_ms;
    pod->keep_vm = keep_vm;
    pod_move(core, pod, POD_STOPPING);
    POD_FOREACH_CTR(c, pod) {
        c->timer = 0;
        c->grace_ms = grace_ms;
        core_wake(core, &c->object);
    }
}

void pod_fail(struct core *core, struct pod *pod, const struct error *why)
{
    CLEANUP_ERROR struct error *error = error_copy(why);
    bool borrowed = pod->target_vm && pod->state == POD_STARTING;

    if (pod->state != POD_STARTING && pod->state != POD_RUNNING)
        return;
    str_set(&pod->reason, error->message);
    pod->failed = true;
    if (pod_step_name(pod))
        error_wrap(&error, "step '%s'", pod_step_name(pod));
    error_wrap(&error, "pod '%s'", pod->spec.id);
    ops_fail(&pod->object, REQ_POD_START, error);
    ops_fail(&pod->object, REQ_POD_REPLACE, error);
    pod_begin_stop(core, pod, 0, borrowed);
}

static void place_done(struct core *core, struct pod *pod, const struct error *error)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (!error) {
        pod->placed = vm && vm->state == VM_ASSOCIATED;
        if (pod->placed)
            vm_leaves_pool(core, vm);
        return;
    }
    if (pod->state == POD_STARTING && vm && vm->pooled && vm->state == VM_ASSOCIATED) {
        vm_pool_lost(core, vm);
        vm_begin_stop(core, vm, 0, error->message); /* the pod gets another one */
        return;
    }
    if (pod->state == POD_STARTING)
        pod_fail(core, pod, error);
    pod->keep_vm = false; /* whether it was placed is not known: the VM must end */
}

static void leave_done(struct core *core, struct pod *pod, const struct error *error)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (!vm || vm->state != VM_ASSOCIATED)
        return;
    if (error)
        pod->keep_vm = false;
    else
        vm_leave(core, vm, pod);
}

static void files_failed(struct core *core, struct pod *pod, const struct error *error)
{
    struct error *told = error_copy(error);

    error_wrap(&told, "pod '%s': its files cannot be removed yet", pod->spec.id);
    str_set(&pod->reason, told->message);
    ops_fail(&pod->object, REQ_POD_REMOVE, told);
    ops_fail(&pod->object, REQ_POD_STOP, told);
    for (struct op *op = pod->ops, *next; op; op = next) {
        next = op->next;
        if (op->error)
            op_answer(core, op, take(op->error), 0);
    }
    error_free(told);
    core_set_timer(core, &pod->object, &pod->timer, core_backoff_ms(pod->retries++));
}

void pod_effect_done(struct core *core, struct pod *pod, enum effect_kind kind,
                     const struct error *error)
{
    core_changed(core, &pod->object);
    if (kind == EFFECT_POD_PLACE)
        place_done(core, pod, error);
    else if (kind == EFFECT_POD_LEAVE)
        leave_done(core, pod, error);
    else if (error)
        files_failed(core, pod, error);
    else
        files_removed(core, pod);
}
