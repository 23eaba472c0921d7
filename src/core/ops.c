/* Operations: requests that wait for their object to become what they asked for. */
#include <assert.h>
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

struct op **object_ops(struct object *object)
{
    void *noun = object;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        return &((struct pod *)noun)->ops;
    case NOUN_CTR:
        return &((struct container *)noun)->ops;
    case NOUN_VM:
        return &((struct vm *)noun)->ops;
    default:
        return &((struct image *)noun)->ops;
    }
}

/* The name that a user knows it by. */
const char *object_name(const struct object *object)
{
    const void *noun = object;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        return ((const struct pod *)noun)->spec.id;
    case NOUN_CTR:
        return ((const struct container *)noun)->spec.name;
    case NOUN_VM:
        return ((const struct vm *)noun)->id;
    default:
        return ((const struct image *)noun)->names ? ((const struct image *)noun)->names[0]
                                                   : ((const struct image *)noun)->id;
    }
}

static const char *object_id(const struct object *object)
{
    const void *noun = object;

    return object->noun == NOUN_CTR     ? ((const struct container *)noun)->id
           : object->noun == NOUN_IMAGE ? ((const struct image *)noun)->id
                                        : object_name(object);
}

/* ---- answering ------------------------------------------------------------------------------ */

static struct reply *reply_push(struct core *core, uint64_t op, struct error *error, int64_t value,
                                const struct object *object)
{
    if (core->reply_count == core->reply_capacity) {
        core->reply_capacity = core->reply_capacity ? core->reply_capacity * 2 : 64;
        core->replies = xrealloc(core->replies, core->reply_capacity * sizeof(*core->replies));
    }
    struct reply *reply = &core->replies[core->reply_count++];

    *reply = (struct reply){
        .op = op, .error = error, .value = value, .kind = REQ_COUNT, .turn = core->turn};
    if (!object)
        return reply;
    const char *id = object_id(object);

    assert(strlen(id) < sizeof(reply->id));
    memcpy(reply->id, id, strlen(id) + 1);
    reply->ref = object->ref;
    return reply;
}

void core_answer(struct core *core, uint64_t op, struct error *error, const struct object *object)
{
    reply_push(core, op, error, 0, error ? NULL : object);
}

static struct object *op_object(const struct core *core, const struct op *op)
{
    const struct world *w = core->world;

    return op->noun == NOUN_POD   ? (struct object *)(void *)world_pod(w, op->ref)
           : op->noun == NOUN_CTR ? (struct object *)(void *)world_ctr(w, op->ref)
           : op->noun == NOUN_VM  ? (struct object *)(void *)world_vm(w, op->ref)
                                  : (struct object *)(void *)world_image(w, op->ref);
}

static void op_free(struct core *core, struct op *op)
{
    HASH_DEL(core->ops, op);
    error_free(op->error);
    free(op);
}

static void op_unlink(struct op *op, struct object *object)
{
    struct op **at = object_ops(object);

    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
}

struct op *op_add(struct core *core, const struct request *request, struct object *object)
{
    struct op *op = xcalloc(1, sizeof(*op));

    op->id = request->op;
    op->kind = request->kind;
    op->noun = object->noun;
    op->ref = object->ref;
    op->turn = core->turn;
    op->next = *object_ops(object);
    *object_ops(object) = op;
    HASH_ADD(hh, core->ops, id, sizeof(op->id), op);
    core_wake(core, object);
    return op;
}

void op_answer(struct core *core, struct op *op, struct error *error, int64_t value)
{
    struct object *object = op_object(core, op);

    struct reply *reply = reply_push(core, op->id, error, value, object);

    reply->kind = op->kind;
    reply->turn = op->turn;
    op_unlink(op, object);
    op_free(core, op);
}

void core_cancel(struct core *core, uint64_t id)
{
    struct op *op;

    HASH_FIND(hh, core->ops, &id, sizeof(id), op);
    if (!op)
        return;
    op_unlink(op, op_object(core, op));
    op_free(core, op);
}

/* What an operation is told of it that the world is loaded again, from before this turn. */
static struct error *cleared(const struct core *core, enum request_kind kind, uint64_t turn,
                             const struct error *why)
{
    struct error *error = NULL;

    if (kind == REQ_CTR_WAIT) { /* it can be asked again */
        error_set(&error, ERROR_UNAVAILABLE, 0, "the store is being read again: %s", why->message);
        return error;
    }
    error = error_copy(why);
    if (turn != core->turn)
        error_wrap(&error, "it is under way, and goes on when it can be written down");
    return error;
}

void replies_fail(struct core *core, const struct error *why)
{
    for (size_t i = core->reply_at; i < core->reply_count; i++) {
        struct reply *reply = &core->replies[i];

        if (!reply->error)
            *reply = (struct reply){.op = reply->op,
                                    .error = cleared(core, reply->kind, reply->turn, why)};
    }
}

void ops_clear(struct core *core, const struct error *why)
{
    struct op *op, *tmp;

    HASH_ITER(hh, core->ops, op, tmp) {
        struct object *object = op_object(core, op);

        if (object)
            op_unlink(op, object);
        if (why)
            reply_push(core, op->id, cleared(core, op->kind, op->turn, why), 0, NULL);
        op_free(core, op);
    }
}

char *core_waits_for(const struct core *core, uint64_t id)
{
    struct op *op;

    HASH_FIND(hh, core->ops, &id, sizeof(id), op);
    if (!op)
        return NULL;
    const struct object *object = op_object(core, op);
    const void *noun = object;
    const struct pod *pod = op->noun == NOUN_POD ? noun
                            : op->noun == NOUN_CTR
                                ? world_pod(core->world, ((const struct container *)noun)->pod)
                                : NULL;

    if (pod && pod_step_name(pod))
        return str_printf("pod '%s': step '%s'", pod->spec.id, pod_step_name(pod));
    return str_printf("%s '%s'", noun_name(op->noun), object_name(object));
}

/* ---- whether it is so ----------------------------------------------------------------------- */

enum verdict { OPEN, REACHED, MISSED };

static enum verdict pod_verdict(const struct core *core, const struct pod *pod, const struct op *op)
{
    const struct vm *vm = world_vm(core->world, pod->vm);

    switch (op->kind) {
    case REQ_POD_CREATE:
        return pod->state == POD_CREATED ? REACHED : OPEN;
    case REQ_POD_START:
    case REQ_POD_REPLACE:
        if (pod->state == POD_RUNNING)
            return REACHED;
        if (pod->state == POD_STOPPING)
            return op->error && pod->want != POD_WANT_GONE ? OPEN : MISSED;
        return pod->state == POD_STARTING ? OPEN : MISSED;
    case REQ_POD_STOP:
        if (pod->spec.ttl.given && !pod->spec.ttl.count)
            return OPEN; /* until it is gone */
        return pod->state == POD_CREATED || pod->state == POD_REMOVING ? REACHED : OPEN;
    case REQ_POD_PAUSE:
    case REQ_POD_UNPAUSE:
        if (pod->state != POD_RUNNING || op->error)
            return MISSED;
        return vm->paused == (op->kind == REQ_POD_PAUSE) ? REACHED : OPEN;
    default:
        return OPEN;
    }
}

static enum verdict ctr_verdict(const struct container *ctr, const struct op *op)
{
    bool rests = ctr->state == CTR_ENDED || ctr->state == CTR_PENDING;

    switch (op->kind) {
    case REQ_CTR_CREATE:
        return ctr->state == CTR_CREATING || ctr->want == CTR_WANT_GONE ? OPEN : REACHED;
    case REQ_CTR_START:
        if (op->error)
            return rests ? MISSED : OPEN;
        if (ctr->state == CTR_RUNNING || (ctr->state == CTR_ENDED && ctr->run >= op->run))
            return REACHED;
        return ctr->want == CTR_WANT_RUNNING ? OPEN : MISSED;
    case REQ_CTR_STOP:
        return rests || ctr->state == CTR_REMOVING ? REACHED : OPEN;
    case REQ_CTR_WAIT:
        return ctr->state == CTR_ENDED && !ctr_is_due(ctr) ? REACHED : OPEN;
    default:
        return OPEN;
    }
}

static enum verdict verdict_of(const struct core *core, const struct object *object,
                               const struct op *op)
{
    const void *noun = object;

    if (object->noun == NOUN_POD)
        return pod_verdict(core, noun, op);
    if (object->noun == NOUN_CTR)
        return ctr_verdict(noun, op);
    if (object->noun == NOUN_VM && op->kind == REQ_VM_CREATE)
        return ((const struct vm *)noun)->state == VM_IDLE ? REACHED : OPEN;
    return OPEN;
}

/* Why what it asked for will not be: its own error, or what came between. */
static struct error *missed(struct op *op, const struct object *object)
{
    static const char *const wanted[REQ_COUNT] = {
        [REQ_POD_START] = "started",    [REQ_POD_REPLACE] = "started", [REQ_POD_PAUSE] = "paused",
        [REQ_POD_UNPAUSE] = "unpaused", [REQ_CTR_START] = "started",
    };
    struct error *error = take(op->error);

    if (!error)
        error_set(&error, ERROR_CANCELLED, 0, "%s '%s' was stopped while it was to be %s",
                  noun_name(object->noun), object_name(object), wanted[op->kind]);
    return error;
}

void ops_settle(struct core *core, struct object *object)
{
    struct op *next;

    for (struct op *op = *object_ops(object); op; op = next) {
        enum verdict verdict = verdict_of(core, object, op);
        const void *noun = object;

        next = op->next;
        if (verdict == MISSED)
            op_answer(core, op, missed(op, object), 0);
        else if (verdict == REACHED && op->kind == REQ_CTR_WAIT)
            op_answer(core, op, NULL, ((const struct container *)noun)->exit_code);
        else if (verdict == REACHED)
            op_answer(core, op, NULL, 0);
    }
}

void ops_gone(struct core *core, struct object *object)
{
    while (*object_ops(object)) {
        struct op *op = *object_ops(object);
        struct error *error = take(op->error);
        bool meant = op->kind == REQ_POD_REMOVE || op->kind == REQ_CTR_REMOVE ||
                     op->kind == REQ_IMAGE_REMOVE || op->kind == REQ_VM_KILL ||
                     op->kind == REQ_POD_STOP || op->kind == REQ_CTR_STOP;

        if (!error && !meant)
            error_set(&error, ERROR_CANCELLED, 0, "%s '%s' was removed meanwhile",
                      noun_name(object->noun), object_name(object));
        op_answer(core, op, error, 0);
    }
}

bool ops_have(struct object *object, enum request_kind kind)
{
    for (struct op *op = *object_ops(object); op; op = op->next)
        if (op->kind == kind)
            return true;
    return false;
}

void ops_fail(struct object *object, enum request_kind kind, const struct error *error)
{
    for (struct op *op = *object_ops(object); op; op = op->next)
        if (op->kind == kind && !op->error)
            op->error = error_copy(error);
}
