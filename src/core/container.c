/* The life of a container. Its pod says when it may run; each container stops on its own. */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

/* The one place where a container's state changes. */
void ctr_move(struct core *core, struct container *ctr, enum ctr_state state)
{
#define POD_VERB(...)
#define CTR_VERB(...)
#define POD_STATE(...)
#define CTR_STATE(name, phrase, busy, ...) [CTR_##name] = {__VA_ARGS__},
    static const bool allowed[CTR_STATE_COUNT][CTR_STATE_COUNT] = {
#include "core/pod.def"
    };
    struct pod *pod = world_pod(core->world, ctr->pod);

    assert(allowed[ctr->state][state]);
    ctr->state = state;
    core_changed(core, &ctr->object);
    core_wake(core, &pod->object);
}

static void ctr_tell(struct core *core, const struct container *ctr, const char *reason,
                     const char *message)
{
    world_tell(core->world, core->wall_ns, &ctr->object, reason, "%s", message ? message : "");
}

bool ctr_is_due(const struct container *ctr)
{
    return ctr->want == CTR_WANT_RUNNING && !ctr->restart_ns;
}

/* ---- up and down ---------------------------------------------------------------------------- */

void ctr_run(struct core *core, struct pod *pod, struct container *ctr)
{
    assert(pod->placed);
    ctr->run++;
    ctr->started_ns = 0;
    ctr->stop_asked = false;
    ctr->held = true;
    ctr_move(core, ctr, CTR_STARTING);
    core_ask(core, EFFECT_CTR_RUN, &ctr->object, &ctr->effect);
}

static void ctr_ask_stop(struct core *core, const struct pod *pod, struct container *ctr)
{
    const struct image *image = world_image(core->world, ctr->image);
    struct effect *effect = core_ask(core, EFFECT_CTR_STOP, &ctr->object, &ctr->effect);

    effect->grace_ms = ctr->grace_ms;
    effect->signal = ctr->grace_ms ? ctr_stop_signal(ctr, image) : SIGKILL;
    effect->deadline_ms += ctr->grace_ms;
    /* Of a pod that is removed nothing is kept: its VM, should it hang, is ended soon. */
    if (pod->want == POD_WANT_GONE && effect->deadline_ms > STOP_OF_REMOVED_MS)
        effect->deadline_ms = STOP_OF_REMOVED_MS;
}

void ctr_stop_asked(struct core *core, struct container *ctr)
{
    if (ctr->want == CTR_WANT_RUNNING)
        ctr->want = CTR_WANT_STOPPED;
    ctr->restart_ns = 0;
    ctr->timer = 0;
    ctr->backoff = 0;
    ctr->stop_asked = ctr_is_up(ctr);
    core_changed(core, &ctr->object);
}

/* Up, and may not be: on its own wish, or its pod's. */
static bool ctr_must_stop(const struct container *ctr, const struct pod *pod)
{
    return ctr->state == CTR_STOPPING || ctr->want != CTR_WANT_RUNNING ||
           pod->state == POD_STOPPING;
}

static void advance_up(struct core *core, struct pod *pod, struct container *ctr)
{
    if (!pod_usable_vm(core, pod))
        return; /* its VM is frozen for a moment, or about to be gone */
    if (ctr_must_stop(ctr, pod)) {
        if (ctr->state != CTR_STOPPING)
            ctr_move(core, ctr, CTR_STOPPING);
        ctr_ask_stop(core, pod, ctr);
    } else if (ctr->state == CTR_STARTING) {
        core_ask(core, EFFECT_CTR_RUN, &ctr->object, &ctr->effect); /* again, after a crash */
    }
}

static void advance_down(struct core *core, struct pod *pod, struct container *ctr)
{
    if (ctr->want == CTR_WANT_GONE)
        ctr_move(core, ctr, CTR_REMOVING);
    else if (pod->state != POD_RUNNING)
        return;
    else if (ctr->want == CTR_WANT_RUNNING && ctr->restart_ns && !ctr->timer)
        core_set_timer(core, &ctr->object, &ctr->timer, core_delay_until(core, ctr->restart_ns));
    else if (ctr_is_due(ctr) && pod_usable_vm(core, pod))
        ctr_run(core, pod, ctr);
}

static void advance_removing(struct core *core, struct pod *pod, struct container *ctr)
{
    if (ctr->held && pod->placed) {
        if (pod_usable_vm(core, pod))
            core_ask(core, EFFECT_CTR_DROP, &ctr->object, &ctr->effect);
        return;
    }
    if (!ctr->timer && pod->state != POD_REMOVING)
        core_ask(core, EFFECT_REMOVE_FILES, &ctr->object, &ctr->effect);
}

void ctr_advance(struct core *core, struct container *ctr)
{
    struct pod *pod = world_pod(core->world, ctr->pod);

    if (ctr->effect || pod->state == POD_REMOVING)
        return;
    if (ctr->state == CTR_CREATING && ctr->want == CTR_WANT_GONE)
        ctr_move(core, ctr, CTR_REMOVING);
    else if (ctr->state == CTR_CREATING && pod->want != POD_WANT_GONE)
        core_ask(core, EFFECT_MAKE_LAYER, &ctr->object, &ctr->effect);
    else if (ctr_is_up(ctr))
        advance_up(core, pod, ctr);
    else if (ctr->state == CTR_REMOVING)
        advance_removing(core, pod, ctr);
    else if (ctr->state != CTR_CREATING)
        advance_down(core, pod, ctr);
}

/* ---- ends ----------------------------------------------------------------------------------- */

/* What its policy says after an end that nobody asked for. */
static void ctr_decide_restart(struct core *core, struct container *ctr)
{
    const struct pod *pod = world_pod(core->world, ctr->pod);
    enum restart policy = ctr_restart(ctr, pod);
    bool again = policy == RESTART_ALWAYS || (policy == RESTART_ON_FAILURE && !ctr->succeeded);

    if (ctr->want != CTR_WANT_RUNNING)
        return;
    if (!again) {
        ctr->want = CTR_WANT_STOPPED;
        return;
    }
    if (pod_runs_long(core, ctr->started_ns))
        ctr->backoff = 0;
    uint64_t delay_ms = core_restart_ms(core, ctr->backoff++);

    ctr->restarts++;
    ctr->restart_ns = core->wall_ns + (int64_t)delay_ms * 1000000;
    ctr->timer = 0;
    world_tell(core->world, core->wall_ns, &ctr->object, "BackOff", "starts again in %llu ms",
               (unsigned long long)delay_ms);
}

static void ctr_record_end(struct core *core, struct container *ctr, const struct ctr_end *end)
{
    ctr->exit_code = end->code;
    ctr->exit_signal = end->signal;
    ctr->oom = end->oom;
    str_set(&ctr->reason, str_empty(end->reason) ? NULL : end->reason);
    if (end->started_ns)
        ctr->started_ns = end->started_ns;
    ctr->finished_ns = end->finished_ns > 0 ? end->finished_ns : core->wall_ns;
    if (ctr->finished_ns <= 0)
        ctr->finished_ns = 1; /* a clock before 1970: 0 means "never" */
    ctr->succeeded = end->code == 0 || ctr->stop_asked;
    ctr->stop_asked = false;
    core->ends_recorded = true;
    ctr_move(core, ctr, CTR_ENDED);
    world_tell(core->world, core->wall_ns, &ctr->object, ctr->succeeded ? "Succeeded" : "Failed",
               "exit code %u%s%s", ctr->exit_code, ctr->reason ? ": " : "",
               ctr->reason ? ctr->reason : "");
    ctr_decide_restart(core, ctr);
}

/* The run never began: it is what it was before. */
static void ctr_take_back(struct core *core, struct container *ctr)
{
    ctr->stop_asked = false;
    ctr_move(core, ctr, ctr->finished_ns ? CTR_ENDED : CTR_PENDING);
}

void ctr_lost(struct core *core, struct container *ctr, const char *reason)
{
    if (!ctr->started_ns) {
        ctr_take_back(core, ctr);
        return;
    }
    ctr_record_end(
        core, ctr,
        &(struct ctr_end){.code = CTR_EXIT_LOST, .reason = reason, .finished_ns = core->wall_ns});
}

void ctr_vm_gone(struct core *core, struct container *ctr, const char *reason)
{
    bool of_the_vm = ctr->state != CTR_CREATING && (ctr->state != CTR_REMOVING || ctr->held);

    if (of_the_vm)
        ctr->effect = 0;
    ctr->held = false;
    if (ctr_is_up(ctr))
        ctr_lost(core, ctr, reason);
    core_changed(core, &ctr->object);
}

void core_ctr_started(struct core *core, struct ref ref, uint64_t run, int64_t started_ns)
{
    struct container *ctr = world_ctr(core->world, ref);

    if (!ctr || ctr->run != run || !ctr_is_up(ctr) || ctr->started_ns)
        return;
    ctr->started_ns = started_ns > 0 ? started_ns : 1;
    core_changed(core, &ctr->object);
    core_settle(core);
}

void core_ctr_ended(struct core *core, struct ref ref, const struct ctr_end *end)
{
    struct container *ctr = world_ctr(core->world, ref);

    if (!ctr || ctr->run != end->run || !ctr_is_up(ctr))
        return;
    ctr_record_end(core, ctr, end);
    core_settle(core);
}

/* ---- effects -------------------------------------------------------------------------------- */

static struct error *ctr_error(const struct container *ctr, const struct error *error)
{
    struct error *wrapped = error_copy(error);
    CLEANUP_FREE char *named = str_printf("container '%s'", ctr->spec.name);

    if (wrapped && !str_starts(wrapped->message, named)) /* a keeper names it itself */
        error_wrap(&wrapped, "%s", named);
    return wrapped;
}

static void layer_done(struct core *core, struct pod *pod, struct container *ctr,
                       const struct error *error)
{
    CLEANUP_ERROR struct error *told = ctr_error(ctr, error);

    if (!error) {
        ctr_move(core, ctr, CTR_PENDING);
        return;
    }
    if (pod->state == POD_CREATING) {
        pod->want = POD_WANT_GONE;
        error_wrap(&told, "pod '%s': step 'layers'", pod->spec.id);
        ops_fail(&pod->object, REQ_POD_CREATE, told);
        core_changed(core, &pod->object);
        return;
    }
    ctr->want = CTR_WANT_GONE;
    ops_fail(&ctr->object, REQ_CTR_CREATE, told);
    core_changed(core, &ctr->object);
    core_wake(core, &pod->object);
}

static void run_failed(struct core *core, struct pod *pod, struct container *ctr,
                       const struct error *error)
{
    CLEANUP_ERROR struct error *told = ctr_error(ctr, error);

    if (pod->state == POD_STARTING) {
        pod_fail(core, pod, told);
        return;
    }
    bool asked = ops_have(&ctr->object, REQ_CTR_START);

    ops_fail(&ctr->object, REQ_CTR_START, told);
    str_set(&ctr->reason, error->message);
    ctr->grace_ms = 0;
    ctr_move(core, ctr, CTR_STOPPING);
    if (asked)
        ctr->want = CTR_WANT_STOPPED;
    else
        ctr_decide_restart(core, ctr);
    ctr_tell(core, ctr, "Failed", told->message);
}

static void run_done(struct core *core, struct pod *pod, struct container *ctr,
                     const struct error *error)
{
    if (ctr->state != CTR_STARTING)
        return; /* it has ended already */
    if (error) {
        run_failed(core, pod, ctr, error);
        return;
    }
    if (!ctr->started_ns)
        ctr->started_ns = core->wall_ns > 0 ? core->wall_ns : 1;
    ctr_move(core, ctr, CTR_RUNNING);
    ctr_tell(core, ctr, "Started", NULL);
}

static void stop_effect_done(struct core *core, struct pod *pod, struct container *ctr,
                             const struct error *error)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (ctr->state != CTR_STOPPING)
        return;
    if (!error) {
        ctr_lost(core, ctr, "its end was not seen");
        return;
    }
    CLEANUP_FREE char *reason =
        str_printf("container '%s' could not be stopped: %s", ctr->spec.name, error->message);

    if (vm && vm->state != VM_STOPPING)
        vm_begin_stop(core, vm, vm->paused ? 0 : pod_off_grace_ms(pod), reason);
}

static void drop_done(struct core *core, struct pod *pod, struct container *ctr,
                      const struct error *error)
{
    /* A disk that QEMU will not let go of keeps its blocks until QEMU ends, no longer. */
    ctr->held = false;
    core_wake(core, &pod->object);
}

void ctr_forget(struct core *core, struct container *ctr)
{
    ctr_tell(core, ctr, "Removed", NULL);
    ops_gone(core, &ctr->object);
    world_remove(core->world, &ctr->object);
}

static void remove_done(struct core *core, struct pod *pod, struct container *ctr,
                        const struct error *error)
{
    core_changed(core, &pod->object);
    if (!error) {
        ctr_forget(core, ctr);
        return;
    }
    CLEANUP_ERROR struct error *told = error_copy(error);

    error_wrap(&told, "container '%s': its files cannot be removed yet", ctr->spec.name);
    ops_fail(&ctr->object, REQ_CTR_REMOVE, told);
    for (struct op *op = ctr->ops, *next; op; op = next) {
        next = op->next;
        if (op->error)
            op_answer(core, op, take(op->error), 0);
    }
    core_set_timer(core, &ctr->object, &ctr->timer, core_backoff_ms(ctr->retries++));
}

void ctr_effect_done(struct core *core, struct container *ctr, enum effect_kind kind,
                     const struct error *error)
{
    static void (*const done[EFFECT_COUNT])(struct core *, struct pod *, struct container *,
                                            const struct error *) = {
        [EFFECT_MAKE_LAYER] = layer_done,     [EFFECT_CTR_RUN] = run_done,
        [EFFECT_CTR_STOP] = stop_effect_done, [EFFECT_CTR_DROP] = drop_done,
        [EFFECT_REMOVE_FILES] = remove_done,
    };
    struct pod *pod = world_pod(core->world, ctr->pod);

    core_changed(core, &ctr->object);
    core_wake(core, &pod->object);
    done[kind](core, pod, ctr, error);
}

void ctr_resume_timer(struct core *core, struct container *ctr)
{
    ctr->restart_ns = 0;
    core_changed(core, &ctr->object);
}
