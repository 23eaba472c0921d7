#include "core/core_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

static const struct {
    const char *name;
    uint32_t deadline_ms;
} effect_rows[] = {
#define X(upper, name, noun, deadline) {name, deadline},
    EFFECTS(X)
#undef X
};
_Static_assert(ARRAY_SIZE(effect_rows) == EFFECT_COUNT, "one row for each effect");

const char *effect_name(enum effect_kind kind)
{
    return (unsigned)kind < EFFECT_COUNT ? effect_rows[kind].name : "?";
}

struct error *error_copy(const struct error *error)
{
    struct error *copy = NULL;

    if (error)
        error_set(&copy, error->kind, 0, "%s", error->message);
    if (copy)
        copy->err = error->err;
    return copy;
}

struct core *core_new(struct world *world, uint64_t seed)
{
    struct core *core = xcalloc(1, sizeof(*core));

    core->world = world;
    core->random = seed;
    core->loading = true;
    core->restarts = (struct restart_policy){BACKOFF_FIRST_MS, BACKOFF_MAX_MS, BACKOFF_FORGET_MS};
    return core;
}

void core_set_restarts(struct core *core, const struct restart_policy *policy)
{
    assert(policy->first_ms && policy->first_ms <= policy->max_ms);
    core->restarts = *policy;
}

void core_free(struct core *core)
{
    if (!core)
        return;
    ops_clear(core, NULL);
    for (size_t i = core->reply_at; i < core->reply_count; i++)
        error_free(core->replies[i].error);
    free(core->replies);
    free(core->effects);
    free(core->woken);
    free(core);
}

void core_clock(struct core *core, int64_t wall_ns)
{
    core->wall_ns = wall_ns;
}

void core_end(struct core *core)
{
    core->ending = true;
}

void core_set_tight(struct core *core, bool tight)
{
    core->tight = tight;
}

/* ---- ids ------------------------------------------------------------------------------------ */

/* SplitMix64 (Steele, Lea, Flood 2014): ids need to be unlike, not secret. */
static uint64_t core_random(struct core *core)
{
    uint64_t z = core->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void core_random_hex(struct core *core, char *ret, size_t digits)
{
    for (size_t i = 0; i < digits; i++)
        ret[i] = "0123456789abcdef"[core_random(core) % 16];
    ret[digits] = '\0';
}

void core_random_letters(struct core *core, char *ret, size_t count, char first)
{
    for (size_t i = 0; i < count; i++)
        ret[i] = (char)(first + core_random(core) % 26);
    ret[count] = '\0';
}

/* ---- what is to be looked at ---------------------------------------------------------------- */

static struct object *find(const struct core *core, enum noun noun, struct ref ref)
{
    struct world *w = core->world;

    switch (noun) {
    case NOUN_POD:
        return (struct object *)(void *)world_pod(w, ref);
    case NOUN_CTR:
        return (struct object *)(void *)world_ctr(w, ref);
    case NOUN_VM:
        return (struct object *)(void *)world_vm(w, ref);
    default:
        return (struct object *)(void *)world_image(w, ref);
    }
}

void core_wake(struct core *core, struct object *object)
{
    core->pool.due |= object->noun != NOUN_CTR;
    if (object->woken)
        return;
    if (core->woken_count == core->woken_capacity) {
        core->woken_capacity = core->woken_capacity ? core->woken_capacity * 2 : 64;
        core->woken = xrealloc(core->woken, core->woken_capacity * sizeof(*core->woken));
    }
    object->woken = true;
    core->woken[core->woken_count++] = (struct woken){object->ref, object->noun};
}

void core_changed(struct core *core, struct object *object)
{
    world_touch(core->world, object);
    core_wake(core, object);
}

static void advance(struct core *core, struct object *object)
{
    void *noun = object;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        pod_advance(core, noun);
        break;
    case NOUN_CTR:
        ctr_advance(core, noun);
        break;
    case NOUN_VM:
        vm_advance(core, noun);
        break;
    default:
        image_advance(core, noun);
    }
}

/* Aborts if what was looked at is not as it must be: the store must not learn of it. */
static void verify(struct core *core, const struct woken *woken)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct pod *pod = world_pod(core->world, woken->ref);
    struct vm *vm = world_vm(core->world, woken->ref);

    if (woken->noun == NOUN_POD && pod)
        pod_verify(core->world, pod, &error);
    if (woken->noun == NOUN_VM && vm)
        vm_verify(core->world, vm, &error);
    if (!error)
        return;
    fprintf(stderr, "husk: broken invariant: %s\n", error_text(error));
    abort();
}

static void settle_woken(struct core *core)
{
    while (core->woken_at < core->woken_count) {
        struct woken woken = core->woken[core->woken_at++];
        struct object *object = find(core, woken.noun, woken.ref);

        if (!object)
            continue;
        object->woken = false;
        advance(core, object);
        object = find(core, woken.noun, woken.ref);
        if (object)
            ops_settle(core, object);
    }
}

void core_settle(struct core *core)
{
    if (core->loading)
        return;
    do {
        settle_woken(core);
        vm_pool_settle(core);
    } while (core->woken_at < core->woken_count);
    for (size_t i = 0; i < core->woken_count; i++)
        verify(core, &core->woken[i]);
    core->woken_at = core->woken_count = 0;
}

/* ---- replies and effects -------------------------------------------------------------------- */

bool core_next_reply(struct core *core, struct reply *ret)
{
    if (core->reply_at == core->reply_count) {
        core->reply_at = core->reply_count = 0;
        return false;
    }
    *ret = core->replies[core->reply_at++];
    return true;
}

/* Whether it takes away what the world from before still counts on. */
static bool effect_destroys(enum effect_kind kind)
{
    return kind == EFFECT_REMOVE_FILES || kind == EFFECT_IMAGE_FILES || kind == EFFECT_CTR_DROP ||
           kind == EFFECT_POD_LEAVE || kind == EFFECT_VM_CLEAN;
}

bool core_is_bound(const struct core *core)
{
    if (core->reply_at < core->reply_count || core->ends_recorded)
        return true;
    for (size_t i = core->effect_at; i < core->effect_count; i++)
        if (effect_destroys(core->effects[i].token.kind))
            return true;
    return false;
}

void core_committed(struct core *core)
{
    core->turn++;
}

void core_synced(struct core *core)
{
    core->ends_recorded = false;
}

/* Where the serial of the object's outstanding effect, or of its timer, is. */
static uint32_t *slot_of(struct object *object, enum effect_kind kind)
{
    bool timer = kind == EFFECT_TIMER;
    void *noun = object;

    switch ((enum noun)object->noun) {
    case NOUN_POD:
        return timer ? &((struct pod *)noun)->timer : &((struct pod *)noun)->effect;
    case NOUN_CTR:
        return timer ? &((struct container *)noun)->timer : &((struct container *)noun)->effect;
    case NOUN_VM:
        return timer ? &((struct vm *)noun)->timer : &((struct vm *)noun)->effect;
    default:
        return timer ? &((struct image *)noun)->timer : &((struct image *)noun)->effect;
    }
}

static bool is_wanted(const struct core *core, const struct token *token)
{
    struct object *object = find(core, token->noun, token->ref);

    if (!object)
        return false;
    return token->kind == EFFECT_CTR_KILL || *slot_of(object, token->kind) == token->serial;
}

bool core_next_effect(struct core *core, struct effect *ret)
{
    while (core->effect_at < core->effect_count) {
        *ret = core->effects[core->effect_at++];
        if (!is_wanted(core, &ret->token))
            continue;
        core->asked += ret->token.kind != EFFECT_TIMER;
        return true;
    }
    core->effect_at = core->effect_count = 0;
    return false;
}

struct effect *core_ask(struct core *core, enum effect_kind kind, struct object *object,
                        uint32_t *slot)
{
    if (core->effect_count == core->effect_capacity) {
        core->effect_capacity = core->effect_capacity ? core->effect_capacity * 2 : 64;
        core->effects = xrealloc(core->effects, core->effect_capacity * sizeof(*core->effects));
    }
    struct effect *effect = &core->effects[core->effect_count++];

    if (++core->serial == 0)
        core->serial = 1;
    if (slot) {
        assert(kind == EFFECT_TIMER || *slot == 0);
        *slot = core->serial;
    }
    *effect = (struct effect){
        .token = {object->ref, object->noun, (uint8_t)kind, core->serial},
        .deadline_ms = effect_rows[kind].deadline_ms,
    };
    return effect;
}

void core_set_timer(struct core *core, struct object *object, uint32_t *slot, uint64_t delay_ms)
{
    core_ask(core, EFFECT_TIMER, object, slot)->delay_ms = delay_ms;
}

uint64_t core_delay_until(const struct core *core, int64_t wall_ns)
{
    int64_t delay_ms = (wall_ns - core->wall_ns) / 1000000;

    if (delay_ms < 0)
        return 0;
    return (uint64_t)delay_ms < core->restarts.max_ms ? (uint64_t)delay_ms : core->restarts.max_ms;
}

static uint64_t doubled(uint64_t delay_ms, uint64_t max_ms, uint32_t times)
{
    while (times-- && delay_ms < max_ms)
        delay_ms *= 2;
    return delay_ms < max_ms ? delay_ms : max_ms;
}

uint64_t core_backoff_ms(uint32_t failures)
{
    return doubled(BACKOFF_FIRST_MS, BACKOFF_MAX_MS, failures);
}

uint64_t core_restart_ms(const struct core *core, uint32_t restarts)
{
    return doubled(core->restarts.first_ms, core->restarts.max_ms, restarts);
}

/* A CTR_KILL belongs to an operation, not to the state of its container. */
static void kill_done(struct core *core, struct token token, const struct error *error)
{
    struct op *op = core->ops;

    while (op && !(op->left && op->serial == token.serial))
        op = op->hh.next;
    if (!op)
        return;
    if (error && !op->error)
        op->error = error_copy(error);
    if (--op->left == 0) {
        struct error *failed = op->error;

        op->error = NULL;
        op_answer(core, op, failed, 0);
    }
}

static void timer_done(struct core *core, struct object *object)
{
    void *noun = object;

    if (object->noun == NOUN_POD)
        pod_resume_timer(core, noun);
    else if (object->noun == NOUN_CTR)
        ctr_resume_timer(core, noun);
    core_wake(core, object);
}

void core_done(struct core *core, struct token token, const struct error *error,
               const struct effect_result *result)
{
    struct object *object = find(core, token.noun, token.ref);
    void *noun = object;

    if (token.kind != EFFECT_TIMER && core->asked > 0)
        core->asked--;
    if (token.kind == EFFECT_CTR_KILL) {
        kill_done(core, token, error);
    } else if (object && *slot_of(object, token.kind) == token.serial) {
        *slot_of(object, token.kind) = 0;
        if (token.kind == EFFECT_TIMER)
            timer_done(core, object);
        else if (object->noun == NOUN_POD)
            pod_effect_done(core, noun, token.kind, error);
        else if (object->noun == NOUN_CTR)
            ctr_effect_done(core, noun, token.kind, error);
        else if (object->noun == NOUN_VM)
            vm_effect_done(core, noun, token.kind, error, result);
        else
            image_effect_done(core, noun, token.kind, error);
    }
    core_settle(core);
}

bool core_is_quiet(const struct core *core)
{
    return !core->asked && !core->ops && core->effect_at == core->effect_count &&
           core->reply_at == core->reply_count;
}

void core_reset(struct core *core, const struct error *why)
{
    replies_fail(core, why);
    ops_clear(core, why);
    core->effect_at = core->effect_count = 0;
    core->woken_at = core->woken_count = 0;
    core->asked = 0;
    core->loading = true;
}
