/* Requests: admitted or refused at once, by table where the state decides. */
#include <signal.h>
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

enum answer { N, Y, J };

enum { FORCE_EITHER = 2 };

struct verb_row {
    enum request_kind kind;
    uint8_t force;
    const char *participle;
    uint8_t answers[CTR_STATE_COUNT]; /* by state; enum answer */
};

struct state_row {
    const char *phrase;
    bool busy;
};

static const struct verb_row pod_verbs[] = {
#define POD_VERB(kind, force, participle, ...) {REQ_##kind, force, participle, {__VA_ARGS__}},
#define CTR_VERB(...)
#define POD_STATE(...)
#define CTR_STATE(...)
#include "core/pod.def"
};
static const struct verb_row ctr_verbs[] = {
#define POD_VERB(...)
#define CTR_VERB(kind, force, participle, ...) {REQ_##kind, force, participle, {__VA_ARGS__}},
#define POD_STATE(...)
#define CTR_STATE(...)
#include "core/pod.def"
};
static const struct state_row pod_states[] = {
#define POD_VERB(...)
#define CTR_VERB(...)
#define POD_STATE(name, phrase, busy, ...) [POD_##name] = {phrase, busy},
#define CTR_STATE(...)
#include "core/pod.def"
};
static const struct state_row ctr_states[] = {
#define POD_VERB(...)
#define CTR_VERB(...)
#define POD_STATE(...)
#define CTR_STATE(name, phrase, busy, ...) [CTR_##name] = {phrase, busy},
#include "core/pod.def"
};
_Static_assert(ARRAY_SIZE(pod_states) == POD_STATE_COUNT, "a row for each state of pods");
_Static_assert(ARRAY_SIZE(ctr_states) == CTR_STATE_COUNT, "a row for each state of containers");

/* ---- the matrices --------------------------------------------------------------------------- */

static int refuse(enum noun noun, const char *name, const struct verb_row *row,
                  const struct state_row *state, bool force_helps, struct error **ret_error)
{
    return error_set(ret_error, state->busy ? ERROR_BUSY : ERROR_STATE, 0,
                     "%s '%s' cannot be %s: it %s%s", noun_name(noun), name, row->participle,
                     state->phrase, force_helps ? " ('rm -f' removes it)" : "");
}

static const struct verb_row *row_of(const struct verb_row *rows, size_t count,
                                     enum request_kind kind, bool force)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].kind == kind && (rows[i].force == FORCE_EITHER || rows[i].force == force))
            return &rows[i];
    return NULL;
}

/* enum answer Y or J; -1: refused. */
int pod_admit(const struct pod *pod, enum request_kind kind, bool force, struct error **ret_error)
{
    const struct verb_row *row = row_of(pod_verbs, ARRAY_SIZE(pod_verbs), kind, force);

    if (row->answers[pod->state] != N)
        return row->answers[pod->state];
    return refuse(NOUN_POD, pod->spec.id, row, &pod_states[pod->state],
                  kind == REQ_POD_REMOVE && !force, ret_error);
}

int ctr_admit(const struct container *ctr, enum request_kind kind, bool force,
              struct error **ret_error)
{
    const struct verb_row *row = row_of(ctr_verbs, ARRAY_SIZE(ctr_verbs), kind, force);

    if (row->answers[ctr->state] != N)
        return row->answers[ctr->state];
    return refuse(NOUN_CTR, ctr->spec.name, row, &ctr_states[ctr->state],
                  kind == REQ_CTR_REMOVE && !force, ret_error);
}

/* ---- making --------------------------------------------------------------------------------- */

/* "pod-ABC-busybox-0": a name that HyperContainer would give. */
static void ctr_choose_name(const struct pod *pod, struct ctr_spec *spec, size_t index)
{
    CLEANUP_FREE char *full = NULL;
    const char *base = spec->image;

    if (spec->name)
        return;
    if (image_name_full(spec->image, &full, NULL) == 0)
        base = strrchr(full, '/') + 1;
    int length = (int)strcspn(base, ":@");

    do {
        free(spec->name);
        spec->name =
            str_printf("%.30s-%.*s-%zu", pod->spec.id, length < 20 ? length : 20, base, index++);
    } while (world_ctr_in_pod(pod, spec->name));
}

/* Admits one container's spec. Does not change the world. */
static int ctr_spec_admit(const struct core *core, const struct ctr_spec *spec,
                          struct error **ret_error)
{
    struct image *image = NULL;

    if (spec->id && world_ctr_by_id(core->world, spec->id))
        return error_set(ret_error, ERROR_EXISTS, 0, "container id '%s' is in use", spec->id);
    if (world_find_image(core->world, spec->image, &image, ret_error) < 0)
        return -1;
    if (image->state != IMAGE_PRESENT)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "no such image: '%s'", spec->image);
    if (!spec->command && !spec->entrypoint && !image->config.command && !image->config.entrypoint)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "neither image '%s' nor the podfile says what to run", spec->image);
    return 0;
}

/* Takes what the spec holds. */
static struct container *ctr_make(struct core *core, struct pod *pod, struct ctr_spec *spec,
                                  size_t index)
{
    struct container *ctr = xcalloc(1, sizeof(*ctr));
    struct image *image = NULL;

    world_find_image(core->world, spec->image, &image, NULL);
    ctr_choose_name(pod, spec, index);
    if (spec->id)
        memcpy(ctr->id, spec->id, CTR_ID_LEN + 1);
    else
        core_random_hex(core, ctr->id, CTR_ID_LEN);
    ctr->image = image->object.ref;
    memcpy(ctr->image_id, image->id, sizeof(ctr->image_id));
    ctr->created_ns = core->wall_ns;
    ctr->spec = *spec;
    *spec = (struct ctr_spec){0};
    str_set(&ctr->spec.id, NULL); /* kept once, in ctr->id */
    world_add_ctr(core->world, pod, ctr);
    core_wake(core, &ctr->object);
    return ctr;
}

static int pod_spec_admit(struct core *core, struct pod_spec *spec, struct error **ret_error)
{
    if (core->world->tables[NOUN_POD].count >= PODS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "there are %d pods already", PODS_MAX);
    if (spec->id && world_pod_by_id(core->world, spec->id))
        return error_set(ret_error, ERROR_EXISTS, 0, "pod name '%s' is in use", spec->id);
    for (size_t i = 0; i < spec->container_count; i++)
        if (ctr_spec_admit(core, &spec->containers[i], ret_error) < 0)
            return -1;
    return 0;
}

static void request_pod_create(struct core *core, struct request *request)
{
    struct pod_spec *spec = request->pod_spec;
    struct error *error = NULL;

    if (pod_spec_admit(core, spec, &error) < 0) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    struct pod *pod = xcalloc(1, sizeof(*pod));
    char id[] = "pod-..........";

    while (!spec->id || world_pod_by_id(core->world, spec->id)) {
        core_random_letters(core, id + strlen("pod-"), 10, 'A');
        str_set(&spec->id, id);
    }
    if (!spec->hostname)
        spec->hostname = xstrdup(spec->id);
    do {
        core_random_hex(core, pod->uid, POD_UID_LEN);
    } while (world_pod_by_uid(core->world, pod->uid));
    pod->spec = *spec;
    pod->spec.containers = NULL;
    pod->spec.container_count = 0;
    pod->created_ns = core->wall_ns;
    world_add_pod(core->world, pod);
    for (size_t i = 0; i < spec->container_count; i++)
        ctr_make(core, pod, &spec->containers[i], i);
    free(spec->containers);
    *spec = (struct pod_spec){0};
    op_add(core, request, &pod->object);
}

static int ctr_create_admit(const struct core *core, const struct pod *pod,
                            const struct ctr_spec *spec, struct error **ret_error)
{
    if (pod_admit(pod, REQ_CTR_CREATE, false, ret_error) < 0)
        return -1;
    if (pod->container_count >= SPEC_CONTAINERS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "pod '%s' has %d containers already",
                         pod->spec.id, SPEC_CONTAINERS_MAX);
    if (pod_restart_check(&pod->spec, spec->restart, ret_error) < 0)
        return -1;
    if (spec->name && world_ctr_in_pod(pod, spec->name))
        return error_set(ret_error, ERROR_EXISTS, 0, "container name '%s' is in use in pod '%s'",
                         spec->name, pod->spec.id);
    return ctr_spec_admit(core, spec, ret_error);
}

static void request_ctr_create(struct core *core, struct request *request)
{
    struct pod *pod = world_pod(core->world, request->pod);
    struct error *error = NULL;

    if (ctr_create_admit(core, pod, request->ctr_spec, &error) < 0) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    struct container *ctr = ctr_make(core, pod, request->ctr_spec, pod->container_count);

    op_add(core, request, &ctr->object);
}

/* ---- pods ----------------------------------------------------------------------------------- */

/* Whether that VM can hold the pod. */
static int vm_fits(const struct vm *vm, const struct pod *pod, struct error **ret_error)
{
    if (vm->memory_mb < pod->spec.memory_mb || vm->cpus < pod->spec.vcpu)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "vm '%s' has %u CPUs and %llu MB, pod '%s' asks for %llu and %llu", vm->id,
                         vm->cpus, (unsigned long long)vm->memory_mb, pod->spec.id,
                         (unsigned long long)pod->spec.vcpu,
                         (unsigned long long)pod->spec.memory_mb);
    return 0;
}

/* From created towards running. */
static void pod_want_running(struct core *core, struct pod *pod, const struct vm *vm)
{
    pod->want = POD_WANT_RUNNING;
    pod->restart_ns = 0;
    pod->timer = 0;
    pod->backoff = 0;
    str_set(&pod->target_vm, vm ? vm->id : NULL);
    POD_FOREACH_CTR(c, pod) {
        if (c->want == CTR_WANT_GONE)
            continue;
        c->want = CTR_WANT_RUNNING;
        c->restart_ns = 0;
        c->restarts = 0;
        c->backoff = 0;
        core_changed(core, &c->object);
    }
    core_changed(core, &pod->object);
}

static int pod_start(struct core *core, struct request *request, struct pod *pod,
                     struct error **ret_error)
{
    struct vm *vm = world_vm(core->world, request->vm);
    int answer = pod_admit(pod, REQ_POD_START, false, ret_error);

    if (answer < 0)
        return -1;
    if (answer == J)
        return 0;
    if (ref_is(request->vm) && !vm)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "that vm is not there any more");
    if (vm && (vm->state != VM_IDLE || vm->effect || vm->paused))
        return error_set(ret_error, ERROR_STATE, 0, "vm '%s' is not idle: it is %s", vm->id,
                         vm_status(vm));
    if (vm && vm_fits(vm, pod, ret_error) < 0)
        return -1;
    pod_want_running(core, pod, vm);
    return 0;
}

static int pod_stop(struct core *core, struct request *request, struct pod *pod,
                    struct error **ret_error)
{
    if (pod_admit(pod, REQ_POD_STOP, false, ret_error) < 0)
        return -1;
    if (pod->state == POD_CREATED && pod->want != POD_WANT_RUNNING)
        return error_set(ret_error, ERROR_STATE, 0, "pod '%s' cannot be stopped: it is not running",
                         pod->spec.id);
    bool was_failing = pod->state == POD_STOPPING;

    if (pod->want == POD_WANT_RUNNING)
        pod_stop_asked(core, pod, POD_WANT_CREATED);
    if (was_failing || pod->state == POD_CREATED)
        return 0;
    pod->failed = false;
    str_set(&pod->reason, NULL);
    pod_begin_stop(core, pod, request->grace_ms, request->keep_vm);
    return 0;
}

static int pod_remove(struct core *core, struct request *request, struct pod *pod,
                      struct error **ret_error)
{
    if (pod_admit(pod, REQ_POD_REMOVE, request->force, ret_error) < 0)
        return -1;
    struct vm *vm = world_vm(core->world, pod->vm);
    bool stopping = pod->state == POD_STOPPING;

    if (pod->want == POD_WANT_GONE)
        return 0;
    pod_stop_asked(core, pod, POD_WANT_GONE);
    if (pod->state == POD_STARTING || pod->state == POD_RUNNING)
        pod_begin_stop(core, pod, 0, false);
    else if (stopping && vm && vm->state != VM_STOPPING) /* no more patience with its processes */
        vm_begin_stop(core, vm, 0, "its pod is removed");
    return 0;
}

/* What must not happen to a frozen pod, or to one that is about to freeze. */
static int pod_is_awake(const struct core *core, const struct pod *pod, const char *participle,
                        struct error **ret_error)
{
    const struct vm *vm = world_vm(core->world, pod->vm);

    if (vm && vm->paused)
        return error_set(ret_error, ERROR_PAUSED, 0, "pod '%s' cannot be %s: it is paused%s%s",
                         pod->spec.id, participle, pod->reason ? ": " : "",
                         str_or(pod->reason, ""));
    if (vm && vm->effect)
        return error_set(ret_error, ERROR_BUSY, 0,
                         "pod '%s' cannot be %s: it is being paused or unpaused", pod->spec.id,
                         participle);
    return 0;
}

static int pod_pause(struct core *core, struct request *request, struct pod *pod,
                     struct error **ret_error)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (pod_admit(pod, REQ_POD_PAUSE, false, ret_error) < 0 ||
        pod_is_awake(core, pod, "paused", ret_error) < 0)
        return -1;
    POD_FOREACH_CTR(c, pod)
        if (c->effect && c->state != CTR_CREATING)
            return error_set(ret_error, ERROR_BUSY, 0,
                             "pod '%s' cannot be paused: its container '%s' is %s", pod->spec.id,
                             c->spec.name, ctr_state_name(c->state));
    core_ask(core, EFFECT_VM_PAUSE, &vm->object, &vm->effect);
    return 0;
}

static int pod_unpause(struct core *core, struct request *request, struct pod *pod,
                       struct error **ret_error)
{
    struct vm *vm = world_vm(core->world, pod->vm);

    if (pod_admit(pod, REQ_POD_UNPAUSE, false, ret_error) < 0)
        return -1;
    if (vm->effect)
        return error_set(ret_error, ERROR_BUSY, 0,
                         "pod '%s' cannot be unpaused: it is being paused or unpaused",
                         pod->spec.id);
    if (!vm->paused)
        return error_set(ret_error, ERROR_STATE, 0, "pod '%s' cannot be unpaused: it is not paused",
                         pod->spec.id);
    core_ask(core, EFFECT_VM_RESUME, &vm->object, &vm->effect);
    return 0;
}

/* One admission and, if it passes, one operation on the pod. */
static void pod_request(struct core *core, struct request *request)
{
    static int (*const verbs[REQ_COUNT])(struct core *, struct request *, struct pod *,
                                         struct error **) = {
        [REQ_POD_START] = pod_start, [REQ_POD_STOP] = pod_stop,       [REQ_POD_REMOVE] = pod_remove,
        [REQ_POD_PAUSE] = pod_pause, [REQ_POD_UNPAUSE] = pod_unpause,
    };
    struct pod *pod = world_pod(core->world, request->pod);
    struct error *error = NULL;

    if (verbs[request->kind](core, request, pod, &error) < 0)
        core_answer(core, request->op, error, NULL);
    else
        op_add(core, request, &pod->object);
}

static int replace_admit(const struct core *core, const struct pod *old, const struct pod *new,
                         struct error **ret_error)
{
    if (!new || old == new)
        return error_set(ret_error, ERROR_INVALID, 0, "pod '%s' has to be replaced by another one",
                         old->spec.id);
    if (pod_admit(old, REQ_POD_REPLACE, false, ret_error) < 0 ||
        pod_is_awake(core, old, "replaced", ret_error) < 0 ||
        pod_admit(new, REQ_POD_START, false, ret_error) < 0)
        return -1;
    if (new->state != POD_CREATED)
        return error_set(ret_error, ERROR_BUSY, 0, "pod '%s' is starting already", new->spec.id);
    return vm_fits(world_vm(core->world, old->vm), new, ret_error);
}

/* The old one leaves, and the new one waits for its VM in the first step of its start. */
static void request_pod_replace(struct core *core, struct request *request)
{
    struct pod *old = world_pod(core->world, request->pod);
    struct pod *new = world_pod(core->world, request->other);
    struct error *error = NULL;

    if (replace_admit(core, old, new, &error) < 0) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    pod_stop_asked(core, old, POD_WANT_CREATED);
    pod_begin_stop(core, old, request->grace_ms, true);
    pod_want_running(core, new, world_vm(core->world, old->vm));
    op_add(core, request, &new->object);
}

/* ---- signals -------------------------------------------------------------------------------- */

static void kill_one(struct core *core, struct op *op, struct container *ctr, unsigned number)
{
    struct effect *effect = core_ask(core, EFFECT_CTR_KILL, &ctr->object, NULL);

    effect->signal = number ? number : SIGTERM;
    if (!op->left++)
        op->serial = effect->token.serial;
    effect->token.serial = op->serial;
}

static void request_pod_kill(struct core *core, struct request *request)
{
    struct pod *pod = world_pod(core->world, request->pod);
    struct error *error = NULL;

    if (pod_admit(pod, REQ_POD_KILL, false, &error) < 0 ||
        pod_is_awake(core, pod, "signalled", &error) < 0) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    struct op *op = op_add(core, request, &pod->object);

    POD_FOREACH_CTR(c, pod)
        if (c->state == CTR_RUNNING || c->state == CTR_STOPPING)
            kill_one(core, op, c, request->signal);
    if (!op->left)
        op_answer(core, op, NULL, 0);
}

static void request_ctr_kill(struct core *core, struct request *request)
{
    struct container *ctr = world_ctr(core->world, request->ctr);
    struct error *error = NULL;

    if (ctr_admit(ctr, REQ_CTR_KILL, false, &error) < 0 ||
        pod_is_awake(core, world_pod(core->world, ctr->pod), "signalled", &error) < 0)
        core_answer(core, request->op, error, NULL);
    else
        kill_one(core, op_add(core, request, &ctr->object), ctr, request->signal);
}

/* ---- containers ----------------------------------------------------------------------------- */

static int ctr_start(struct core *core, struct request *request, struct container *ctr,
                     struct error **ret_error)
{
    struct pod *pod = world_pod(core->world, ctr->pod);

    if (ctr_admit(ctr, REQ_CTR_START, false, ret_error) < 0)
        return -1;
    if (pod->state != POD_RUNNING && pod->state != POD_STARTING)
        return error_set(ret_error, ERROR_STATE, 0,
                         "container '%s' cannot be started: its pod '%s' %s", ctr->spec.name,
                         pod->spec.id, pod_states[pod->state].phrase);
    if (pod_is_awake(core, pod, "given a process", ret_error) < 0)
        return -1;
    if (ctr->state == CTR_STARTING)
        return 0;
    ctr->want = CTR_WANT_RUNNING;
    ctr->restart_ns = 0;
    ctr->timer = 0;
    ctr->restarts = 0;
    ctr->backoff = 0;
    core_changed(core, &ctr->object);
    return 0;
}

static int ctr_stop(struct core *core, struct request *request, struct container *ctr,
                    struct error **ret_error)
{
    struct pod *pod = world_pod(core->world, ctr->pod);
    bool rests = !ctr_is_up(ctr);

    if (ctr_admit(ctr, REQ_CTR_STOP, false, ret_error) < 0)
        return -1;
    if (rests && ctr->want != CTR_WANT_RUNNING)
        return error_set(ret_error, ERROR_STATE, 0,
                         "container '%s' cannot be stopped: it is not "
                         "running",
                         ctr->spec.name);
    if (!rests && pod_is_awake(core, pod, "stopped", ret_error) < 0)
        return -1;
    if (ctr->state != CTR_STOPPING)
        ctr->grace_ms = request->grace_ms;
    ctr_stop_asked(core, ctr);
    core_wake(core, &pod->object);
    return 0;
}

static int ctr_remove(struct core *core, struct request *request, struct container *ctr,
                      struct error **ret_error)
{
    struct pod *pod = world_pod(core->world, ctr->pod);

    if (ctr_admit(ctr, REQ_CTR_REMOVE, request->force, ret_error) < 0 ||
        pod_is_awake(core, pod, "changed", ret_error) < 0)
        return -1;
    if (pod->state == POD_CREATING)
        return error_set(ret_error, ERROR_BUSY, 0,
                         "container '%s' cannot be removed: its pod '%s' "
                         "is being created",
                         ctr->spec.name, pod->spec.id);
    if (ctr->want == CTR_WANT_GONE)
        return 0;
    ctr_stop_asked(core, ctr);
    ctr->grace_ms = 0;
    ctr->want = CTR_WANT_GONE;
    core_wake(core, &pod->object);
    return 0;
}

static int ctr_wait(struct core *core, struct request *request, struct container *ctr,
                    struct error **ret_error)
{
    return ctr_admit(ctr, REQ_CTR_WAIT, false, ret_error) < 0 ? -1 : 0;
}

static void ctr_request(struct core *core, struct request *request)
{
    static int (*const verbs[REQ_COUNT])(struct core *, struct request *, struct container *,
                                         struct error **) = {
        [REQ_CTR_START] = ctr_start,
        [REQ_CTR_STOP] = ctr_stop,
        [REQ_CTR_REMOVE] = ctr_remove,
        [REQ_CTR_WAIT] = ctr_wait,
    };
    struct container *ctr = world_ctr(core->world, request->ctr);
    uint64_t run = ctr->run + (ctr->state == CTR_STARTING ? 0 : 1);
    struct error *error = NULL;

    if (verbs[request->kind](core, request, ctr, &error) < 0)
        core_answer(core, request->op, error, NULL);
    else
        op_add(core, request, &ctr->object)->run = run;
}

/* ---- VMs ------------------------------------------------------------------------------------ */

static void request_vm_create(struct core *core, struct request *request)
{
    struct error *error = NULL;

    if (core->world->tables[NOUN_VM].count >= VMS_MAX) {
        error_set(&error, ERROR_LIMIT, 0, "there are %d VMs already", VMS_MAX);
        core_answer(core, request->op, error, NULL);
        return;
    }
    struct vm *vm = vm_make(core, request->cpus ? request->cpus : 1,
                            request->memory_mb ? request->memory_mb : SPEC_MEMORY_DEFAULT_MB, NULL);

    op_add(core, request, &vm->object);
}

static void request_vm_kill(struct core *core, struct request *request)
{
    struct vm *vm = world_vm(core->world, request->vm);
    struct pod *pod = world_pod(core->world, vm->pod);

    op_add(core, request, &vm->object);
    if (vm->state == VM_STOPPING)
        return;
    if (pod && pod->want == POD_WANT_RUNNING)
        pod_stop_asked(core, pod, POD_WANT_CREATED);
    vm_begin_stop(core, vm, 0, "it was killed on request");
}

/* ---- the entrance --------------------------------------------------------------------------- */

static const struct request_row {
    const char *verb;
    void (*run)(struct core *, struct request *);
    bool grows; /* makes or starts something: needs more space in the store */
} request_rows[] = {
    [REQ_POD_CREATE] = {"create", request_pod_create, true},
    [REQ_POD_START] = {"start", pod_request, true},
    [REQ_POD_STOP] = {"stop", pod_request, false},
    [REQ_POD_REMOVE] = {"remove", pod_request, false},
    [REQ_POD_KILL] = {"kill", request_pod_kill, false},
    [REQ_POD_PAUSE] = {"pause", pod_request, false},
    [REQ_POD_UNPAUSE] = {"unpause", pod_request, false},
    [REQ_POD_REPLACE] = {"replace", request_pod_replace, false},
    [REQ_CTR_CREATE] = {"create", request_ctr_create, true},
    [REQ_CTR_START] = {"start", ctr_request, true},
    [REQ_CTR_STOP] = {"stop", ctr_request, false},
    [REQ_CTR_KILL] = {"kill", request_ctr_kill, false},
    [REQ_CTR_REMOVE] = {"remove", ctr_request, false},
    [REQ_CTR_WAIT] = {"wait", ctr_request, false},
    [REQ_VM_CREATE] = {"create", request_vm_create, true},
    [REQ_VM_KILL] = {"kill", request_vm_kill, false},
    [REQ_IMAGE_ADD] = {"add", request_image_add, true},
    [REQ_IMAGE_TAG] = {"tag", request_image_tag, true},
    [REQ_IMAGE_REMOVE] = {"remove", request_image_remove, false},
};
_Static_assert(ARRAY_SIZE(request_rows) == REQ_COUNT, "a row for each request");

/* Which of the references a request cannot do without. */
static bool request_finds(const struct core *core, const struct request *request)
{
    const struct world *w = core->world;

    if (request->kind >= REQ_POD_START && request->kind <= REQ_CTR_CREATE)
        return world_pod(w, request->pod);
    if (request->kind >= REQ_CTR_START && request->kind <= REQ_CTR_WAIT)
        return world_ctr(w, request->ctr);
    if (request->kind == REQ_VM_KILL)
        return world_vm(w, request->vm);
    if (request->kind == REQ_IMAGE_TAG || request->kind == REQ_IMAGE_REMOVE)
        return world_image(w, request->image);
    return true;
}

static int request_admit(const struct core *core, const struct request *request,
                         struct error **ret_error)
{
    if (core->loading)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "the daemon is still starting");
    if (HASH_COUNT(core->ops) >= OPS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d operations are under way already", OPS_MAX);
    if (core->ending && request_rows[request->kind].grows)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "the daemon is ending: %s refused",
                         request_rows[request->kind].verb);
    if (core->tight && request_rows[request->kind].grows)
        return error_set(ret_error, ERROR_NO_SPACE, 0, "no space is left for the store: %s refused",
                         request_rows[request->kind].verb);
    if (!request_finds(core, request))
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "it does not exist any more");
    return 0;
}

void core_request(struct core *core, struct request *request)
{
    struct error *error = NULL;

    if (request_admit(core, request, &error) < 0)
        core_answer(core, request->op, error, NULL);
    else
        request_rows[request->kind].run(core, request);
    pod_spec_free(take(request->pod_spec));
    ctr_spec_free(take(request->ctr_spec));
    core_settle(core);
}
