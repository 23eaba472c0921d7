/* Zygotes: QEMUs that wait to be copied.
 *
 *          ┌──────────── its template goes, another needs the room ────────────┐
 *          ▼                                                                   │
 *       absent ── wanted, and nothing else starts ──► making ── it rests ──► ready
 *          ▲                                             │                     │
 *          └───────── after a pause that doubles ──── bad ◄── a copy failed ───┘
 *
 * The zygote of a template is a clone of it that has rehearsed, was frozen again, and never runs
 * any more. A VM that is a copy of it has nothing to load, and nothing to translate that ran in the
 * rehearsal. It is made in these steps:
 *
 *     disks      a worker makes what the rehearsal needs, and of an image a copy of its layer
 *     boot       a keeper clones the template
 *     rehearse   a container is run in it
 *     settle     of an image its shell is run ahead; the guest is frozen, the virtual CPUs stop
 *
 * It is a process and no more: whatever ends it, the next one is made of the template. Copies do
 * not need it any more once they are there.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/making.h"
#include "exec/template.h"
#include "exec/usage.h"

enum {
    PAUSE_FIRST_MS = 30 * 1000, /* before it is made again; doubled each time */
    PAUSE_DOUBLINGS = 7,
};

struct zygote {
    struct making making; /* making, ready */
    struct template *t;
    enum zygote_state state;
    bool wanted;                   /* absent: it will be made … */
    bool asked_for;                /* … though another one goes that was used just now */
    char *root_image, *root_layer; /* of an image, relative to the root */
    char *reason;                  /* bad: why, a sentence; else of the last time or NULL */
    uint32_t failures;             /* in a row */
    struct timer *pause;           /* bad: until it is tried again */
};

/* ---- from state to state -------------------------------------------------------------------- */

/* A pod gets the largest template that serves it: from one that has a zygote up to the next one
 * that has none. Where there are several such ranges the uppermost is told. */
void zygotes_tell_of(const struct exec *exec, const char *image_id)
{
    const struct exec_config *config = &exec->config;
    const bool grows = template_may_grow(config);
    struct image_quick quick = {.cpus_max = grows ? template_cpus_max(config, "tcg") : 1};
    const struct template *t;
    DL_FOREACH(exec->templates->list, t) { /* in the order of their memory */
        const bool has = t->zygote->state == ZYGOTE_READY;
        if (!str_eq(t->image, image_id) || t->state != TEMPLATE_READY)
            continue;
        if (has && (!quick.layer_mb || quick.memory_max_mb < t->base_bytes >> 20))
            quick.memory_min_mb = t->base_bytes >> 20;
        if (has) {
            quick.layer_mb = config->layer_size >> 20;
            quick.memory_max_mb = (grows ? config->memory_max_bytes : t->base_bytes) >> 20;
        } else if (quick.memory_max_mb >= t->base_bytes >> 20) {
            quick.memory_max_mb = (t->base_bytes >> 20) - 1;
        }
    }
    core_image_quick(exec->core, image_id, &quick);
}

void zygotes_tell(const struct templates *ts)
{
    const struct template *t;
    DL_FOREACH(ts->list, t)
        if (t->image)
            zygotes_tell_of(ts->exec, t->image);
}

static void zygote_tell(const struct zygote *z)
{
    if (z->t->image)
        zygotes_tell_of(z->t->exec, z->t->image);
}

static void pause_over(void *arg)
{
    struct zygote *z = arg;
    z->state = ZYGOTE_ABSENT;
    zygote_want(z);
}

struct zygote *zygote_new(struct template *t)
{
    struct zygote *z = xcalloc(1, sizeof(*z));
    z->t = t;
    z->pause = timer_new(t->exec->loop, pause_over, z);
    return z;
}

/* Its process, if there is one, ends. */
static void zygote_clear(struct zygote *z)
{
    struct templates *ts = z->t->exec->templates;
    const bool was_ready = z->state == ZYGOTE_READY;
    if (z->state == ZYGOTE_MAKING || was_ready)
        making_done(&z->making);
    if (ts->warming == z)
        ts->warming = NULL;
    timer_unset(z->pause);
    free(take(z->root_image));
    free(take(z->root_layer));
    z->asked_for = false;
    z->state = ZYGOTE_ABSENT;
    if (was_ready)
        zygote_tell(z);
}

void zygote_end(struct zygote *z)
{
    zygote_clear(z);
    z->wanted = false;
    z->failures = 0;
    str_set(&z->reason, NULL);
}

void zygote_free(struct zygote *z)
{
    zygote_end(z);
    timer_free(z->pause);
    free(z->reason);
    free(z);
}

static void zygote_turn_bad(struct zygote *z, const char *why)
{
    uint64_t pause = PAUSE_FIRST_MS;
    for (uint32_t i = 0; i < z->failures && i < PAUSE_DOUBLINGS; i++)
        pause *= 2;
    log_warning("the zygote of template '%s' is not used: %s", z->t->id, why);
    zygote_clear(z);
    z->state = ZYGOTE_BAD;
    z->failures++;
    str_set(&z->reason, why);
    timer_set(z->pause, pause);
    template_changed(z->t);
    templates_look(z->t->exec->templates);
}

static void zygote_over(struct making *making, const struct error *why)
{
    struct zygote *z = (struct zygote *)making;
    CLEANUP_FREE char *reason =
        str_printf("%s %s", z->state == ZYGOTE_READY ? "it has ended at" : "making it failed at",
                   why->message);
    zygote_turn_bad(z, reason);
}

static void zygote_changed(struct making *making)
{
    template_changed(((struct zygote *)making)->t);
}

/* Nobody asks anything of one that is ready. */
static void zygote_gone(struct making *making)
{
    struct zygote *z = (struct zygote *)making;
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_UNAVAILABLE, 0, "%s",
              str_or(z->making.link ? z->making.link->reason : NULL, "its keeper has ended"));
    if (z->state == ZYGOTE_READY)
        making_fail(&z->making, error);
}

static const struct making_ops zygote_ops = {
    .over = zygote_over, .changed = zygote_changed, .gone = zygote_gone};

void zygote_blame(struct zygote *z, const char *why)
{
    if (z->state == ZYGOTE_READY)
        zygote_turn_bad(z, why);
}

void zygote_praise(struct zygote *z)
{
    z->failures = 0;
}

/* ---- making --------------------------------------------------------------------------------- */

static void settled(const struct error *error, uint64_t value, void *arg)
{
    struct zygote *z = arg;
    z->making.ask = NULL;
    if (error) {
        making_fail(&z->making, error);
        return;
    }
    z->state = ZYGOTE_READY;
    zygote_tell(z);
    z->t->exec->templates->warming = NULL;
    str_set(&z->reason, NULL);
    making_step(&z->making, "ready");
    log_info("template '%s' has a zygote", z->t->id);
    templates_look(z->t->exec->templates);
}

static void settle(struct zygote *z)
{
    struct wire_vm_freeze message = {.state = ""};
    making_step(&z->making, "settle");
    timer_set(z->making.deadline, MAKING_DEADLINE_MS);
    z->making.ask = link_ask(z->making.link, WIRE_VM_FREEZE, &message, -1, settled, z);
}

static void go_on(struct zygote *z);

static void rehearsed(const struct error *error, uint64_t value, void *arg)
{
    struct zygote *z = arg;
    z->making.ask = NULL;
    z->making.rehearsals--;
    if (error)
        making_fail(&z->making, error);
    else
        go_on(z);
}

static void go_on(struct zygote *z)
{
    if (z->making.rehearsals)
        making_rehearse(&z->making, rehearsed, z);
    else
        settle(z);
}

static void booted(const struct error *error, uint64_t value, void *arg)
{
    struct zygote *z = arg;
    z->making.ask = NULL;
    if (error)
        making_fail(&z->making, error);
    else
        go_on(z);
}

static int boot(struct zygote *z, struct error **ret_error)
{
    const struct template *t = z->t;
    struct exec *exec = t->exec;
    struct wire_vm_boot message = {0};
    const char *reason;
    CLEANUP_FREE char *path = template_path(t);
    CLEANUP_FREE char *state = str_printf("%s/state", path);
    CLEANUP_FREE char *image = str_printf("ro:%s/%s", exec->config.root, str_or(z->root_image, ""));
    CLEANUP_FREE char *layer = str_printf("rw:%s/%s", exec->config.root, str_or(z->root_layer, ""));
    const char *const disks[] = {image, layer, NULL};
    if (boot_check(&exec->config, ret_error) < 0 || making_spawn(&z->making, ret_error) < 0)
        return -1;
    boot_message(exec, exec_accel(exec, &reason), &message);
    message.vm = z->making.vm;
    message.mode = WIRE_BOOT_ZYGOTE;
    message.cpus = 1;
    message.memory_bytes = message.base_bytes = t->base_bytes;
    message.state = state;
    message.boot_deadline_ms = exec->config.clone_deadline_ms;
    if (z->root_layer) {
        message.disks = disks;
        message.rooted = true;
    }
    z->making.ask = link_ask(z->making.link, WIRE_VM_BOOT, &message,
                             fcntl(t->memory, F_DUPFD_CLOEXEC, 0), booted, z);
    return 0;
}

static void disks_made(const struct error *error, uint64_t value, void *arg)
{
    struct zygote *z = arg;
    CLEANUP_ERROR struct error *failed = NULL;
    z->making.job = NULL;
    if (!error && z->root_layer && !template_layer_fits(z->t, z->root_layer)) {
        error_set(&failed, ERROR_CORRUPT, 0, "the layer is not the template's");
        error = failed;
    }
    if (!error) {
        making_step(&z->making, "boot");
        boot(z, &failed);
        error = failed;
    }
    if (error)
        making_fail(&z->making, error);
}

static void rehearsal_made(const struct error *error, uint64_t value, void *arg)
{
    struct zygote *z = arg;
    struct exec *exec = z->t->exec;
    z->making.job = NULL;
    if (error || !z->t->image) {
        disks_made(error, 0, z);
        return;
    }
    CLEANUP_FREE char *directory = path_of_vm(z->making.vm);
    CLEANUP_FREE char *path = template_path(z->t);
    CLEANUP_FREE char *like = str_printf("%s/layer", path);
    z->root_image = template_image_file(z->t);
    z->root_layer = str_printf("%s/layer.ext4", directory);
    const struct layer_spec layer = {z->root_layer, z->root_image, exec->config.layer_size, like};
    z->making.job = pool_layer(exec->pool, directory, &layer, disks_made, z);
}

/* ---- which ---------------------------------------------------------------------------------- */

bool zygotes_are_made(const struct exec *exec)
{
    const char *reason;
    /* A VM under KVM belongs to the process that made it; a private mapping of huge pages needs as
     * many again in each copy. */
    return exec->config.zygotes && !exec->config.template_huge &&
           str_eq(exec_accel(exec, &reason), "tcg");
}

static bool zygote_lives(const struct zygote *z)
{
    return z->state == ZYGOTE_MAKING || z->state == ZYGOTE_READY;
}

/* The one that was used before the others, and not since. A generic one, which serves all, gives
 * way to none of an image. */
static struct zygote *oldest(const struct templates *ts, bool image, int64_t since)
{
    struct template *t, *found = NULL;
    DL_FOREACH(ts->list, t)
        if (t->zygote->state == ZYGOTE_READY && t->used_ns < since && (t->image || !image) &&
            (!found || t->used_ns < found->used_ns))
            found = t;
    return found ? found->zygote : NULL;
}

static bool has_room(const struct templates *ts)
{
    const struct template *t;
    unsigned count = 0;
    DL_FOREACH(ts->list, t)
        count += zygote_lives(t->zygote);
    return count < ts->exec->config.zygotes;
}

static bool may_be_made(const struct zygote *z)
{
    return z->state == ZYGOTE_ABSENT && z->wanted && z->t->state == TEMPLATE_READY &&
           zygotes_are_made(z->t->exec);
}

/* The one that gives way to it; NULL if none needs to, or none does. */
static struct zygote *gives_way(const struct templates *ts, const struct zygote *z)
{
    int64_t since = z->asked_for ? INT64_MAX : templates_evictable();
    return has_room(ts) ? NULL : oldest(ts, z->t->image, since);
}

static bool is_next(const struct zygote *z, const struct zygote *than)
{
    return !than || z->asked_for > than->asked_for ||
           (z->asked_for == than->asked_for && z->t->turn < than->t->turn);
}

/* Whoever waits for one for which there is no room waits no longer. */
static struct zygote *choose(struct templates *ts)
{
    struct template *t, *given_up = NULL;
    struct zygote *next = NULL;
    DL_FOREACH(ts->list, t) {
        struct zygote *z = t->zygote;
        if (!may_be_made(z))
            continue;
        if (!has_room(ts) && !gives_way(ts, z)) {
            given_up = z->asked_for ? t : given_up;
            z->asked_for = false;
        } else if (is_next(z, next)) {
            next = z;
        }
    }
    if (given_up)
        template_changed(given_up);
    return next;
}

static void zygote_make(struct zygote *z)
{
    struct templates *ts = z->t->exec->templates;
    making_init(&z->making, ts->exec, template_vm_name(z->t, ZYGOTE_VM), &zygote_ops);
    CLEANUP_FREE char *directory = path_of_vm(z->making.vm);
    z->state = ZYGOTE_MAKING;
    ts->warming = z;
    making_rehearsal_disks(&z->making, directory, rehearsal_made, z);
    template_changed(z->t);
}

bool zygotes_work(struct templates *ts)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct zygote *z = choose(ts);
    if (!z)
        return false;
    struct zygote *old = gives_way(ts, z);
    z->wanted = z->asked_for = false;
    if (template_has_memory(z->t, &error) < 0) {
        zygote_turn_bad(z, error_text(error));
        return true;
    }
    if (old)
        zygote_end(old);
    zygote_make(z);
    return true;
}

void zygote_want(struct zygote *z)
{
    if (z->state != ZYGOTE_ABSENT || z->wanted || !zygotes_are_made(z->t->exec))
        return;
    z->wanted = true;
    templates_look(z->t->exec->templates);
}

void zygote_ask_for(struct zygote *z)
{
    zygote_want(z);
    z->asked_for = z->wanted;
}

/* ---- use ------------------------------------------------------------------------------------ */

bool zygote_is_ready(const struct zygote *z)
{
    return z->state == ZYGOTE_READY;
}

char *zygote_directory(const struct zygote *z)
{
    CLEANUP_FREE char *path = path_of_vm(z->making.vm);
    return path_full(z->t->exec, path);
}

void zygote_info(const struct zygote *z, struct template_info *ret)
{
    static const char *const names[] = {"absent", "making", "ready", "bad"};
    _Static_assert(ARRAY_SIZE(names) == ZYGOTE_STATE_COUNT, "a name for each state");
    ret->zygote = names[z->state];
    ret->zygote_step = z->state == ZYGOTE_MAKING ? z->making.step : "";
    ret->zygote_coming = z->asked_for || z->state == ZYGOTE_MAKING;
    ret->zygote_reason = str_or(z->reason, "");
    ret->zygote_pid = zygote_lives(z) && z->making.link ? z->making.link->qemu_pid : 0;
}
