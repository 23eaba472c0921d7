#include "exec/template.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"

enum {
    PAUSE_FIRST_MS = 30 * 1000, /* before a bad template is built again; doubled each time */
    PAUSE_MAX_MS = 60 * 60 * 1000,
    PAUSE_DOUBLINGS = 7,
    USED_STEP_S = 60,        /* files are told of a use so often */
    EVICT_AFTER_S = 10 * 60, /* a template that was used since gives way to no other */
    /* With three or more possible CPUs an emulated guest stood still for 14 to 17 seconds when one
     * was plugged in, its virtual CPUs spinning (QEMU 7.2). */
    CPUS_EMULATED_MAX = 2,
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void template_changed(const struct template *t)
{
    const struct exec_hooks *hooks = &t->exec->hooks;
    if (hooks->templates_changed)
        hooks->templates_changed(hooks->arg);
}

static int memory_take(struct template *t)
{
    int memory = t->memory;
    t->memory = -1;
    return memory;
}

static void memory_drop(struct template *t)
{
    int memory = memory_take(t);
    if (memory >= 0)
        close(memory);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A clone that is about to start may still have to open the state. */
static void files_check_doom(struct template *t)
{
    if (!t->files_doomed || t->starting > 0)
        return;
    t->files_doomed = false;
    template_files_remove(t->exec, t->id);
}

/* ---- the table ------------------------------------------------------------------------------ */

struct template *template_find(const struct exec *exec, const char *id)
{
    struct template *t;
    DL_FOREACH(exec->templates->list, t)
        if (str_eq(t->id, id))
            return t;
    return NULL;
}

struct template *template_find_base(const struct exec *exec, uint64_t base_bytes)
{
    struct template *t;
    DL_FOREACH(exec->templates->list, t)
        if (!t->image && t->base_bytes == base_bytes)
            return t;
    return NULL;
}

/* Generic ones first. */
static int base_order(const struct template *a, const struct template *b)
{
    if (!a->image != !b->image)
        return a->image ? 1 : -1;
    return a->base_bytes < b->base_bytes ? -1 : a->base_bytes > b->base_bytes;
}

static void pause_over(void *arg)
{
    struct template *t = arg;
    if (t->state != TEMPLATE_BAD)
        return;
    t->state = TEMPLATE_ABSENT;
    t->wanted = true;
    template_changed(t);
    templates_look(t->exec->templates);
}

struct template *template_of_base(struct exec *exec, uint64_t base_bytes)
{
    const char *reason;
    struct template *t = template_find_base(exec, base_bytes);
    return t ? t
             : template_new(exec, base_bytes, NULL,
                            template_inputs(&exec->config, exec_accel(exec, &reason), base_bytes));
}

struct template *template_new(struct exec *exec, uint64_t base_bytes, const struct image *image,
                              char **inputs)
{
    struct template *t = xcalloc(1, sizeof(*t));
    t->exec = exec;
    t->base_bytes = base_bytes;
    t->inputs = inputs;
    t->image = image ? xstrdup(image->id) : NULL;
    if (image)
        template_image_id_make((const char *const *)inputs, image, t->id);
    else
        template_id_make((const char *const *)inputs, base_bytes, t->id);
    t->memory = -1;
    t->turn = UINT_MAX;
    t->pause = timer_new(exec->loop, pause_over, t);
    t->zygote = zygote_new(t);
    DL_INSERT_INORDER(exec->templates->list, t, base_order);
    return t;
}

/* Nothing of it is under way any more. */
static void template_stop(struct template *t)
{
    struct templates *ts = t->exec->templates;
    if (t->make)
        template_make_cancel(t);
    if (ts->making == t)
        ts->making = NULL;
    if (t->job)
        job_forget(take(t->job));
    zygote_end(t->zygote);
    timer_unset(t->pause);
}

void template_free(struct template *t)
{
    memory_drop(t);
    timer_free(t->pause);
    zygote_free(t->zygote);
    strv_free(t->inputs);
    free(t->image);
    free(t->reason);
    free(t);
}

void template_drop(struct template *t)
{
    template_stop(t);
    memory_drop(t);
    t->state = TEMPLATE_ABSENT;
    t->wanted = false;
    t->disk_bytes = 0;
    t->failures = 0;
    str_set(&t->reason, NULL);
    t->files_doomed = true;
    files_check_doom(t);
    if (t->image)
        zygotes_tell_of(t->exec, t->image);
    template_changed(t);
}

/* ---- what became of it ---------------------------------------------------------------------- */

static void template_turn_bad(struct template *t, const char *why)
{
    uint64_t pause = PAUSE_FIRST_MS;
    for (uint32_t i = 0; i < t->failures && i < PAUSE_DOUBLINGS; i++)
        pause *= 2;
    t->failures++;
    t->state = TEMPLATE_BAD;
    zygote_end(t->zygote);
    str_set(&t->reason, why);
    timer_set(t->pause, pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
    log_warning("template '%s' is not used: %s", t->id, why);
    template_changed(t);
}

static void template_turn_ready(struct template *t, int memory, uint64_t disk_bytes)
{
    memory_drop(t);
    t->memory = memory;
    t->disk_bytes = disk_bytes;
    t->state = TEMPLATE_READY;
    str_set(&t->reason, NULL);
    if (t->image) {
        pool_spares(t->exec->pool); /* copies of its layer are to be at hand */
        zygotes_tell_of(t->exec, t->image);
    }
    if (!t->image && t->turn <= 1)
        zygote_want(t->zygote); /* the others when they are used */
    template_changed(t);
}

void template_blame(struct template *t, const char *why)
{
    CLEANUP_FREE char *reason = str_printf("a clone of it failed: %s", why);
    if (t->state == TEMPLATE_READY)
        template_turn_bad(t, reason);
}

void template_absolve(struct template *t)
{
    if (t->state != TEMPLATE_BAD || t->memory < 0)
        return;
    log_info("template '%s' is used again: what failed without it is not its fault", t->id);
    timer_unset(t->pause);
    t->failures--;
    template_turn_ready(t, memory_take(t), t->disk_bytes);
}

void template_convict(struct template *t)
{
    if (t->state != TEMPLATE_BAD)
        return;
    memory_drop(t);
    t->disk_bytes = 0;
    t->files_doomed = true;
    files_check_doom(t);
}

/* ---- bounds --------------------------------------------------------------------------------- */

/* The one that was not used for the longest time, of those that are not in use and not `keep`. A
 * generic one, which serves all, gives way to none of an image. */
static struct template *oldest(const struct exec *exec, const struct template *keep, bool image,
                               int64_t since)
{
    struct template *t, *found = NULL;
    DL_FOREACH(exec->templates->list, t)
        if (t != keep && t->disk_bytes && !t->starting && t->used_ns < since &&
            (t->image || !image) && (!found || t->used_ns < found->used_ns))
            found = t;
    return found;
}

static bool over_bounds(const struct exec *exec)
{
    const struct template *t;
    uint64_t bytes = 0;
    unsigned count = 0;
    DL_FOREACH(exec->templates->list, t) {
        bytes += t->disk_bytes;
        count += t->disk_bytes > 0;
    }
    return count > exec->config.templates_max || bytes > exec->config.templates_max_bytes;
}

int64_t templates_evictable(void)
{
    return now_ns() - (int64_t)EVICT_AFTER_S * 1000000000;
}

bool template_has_room(const struct exec *exec)
{
    const struct template *t;
    unsigned count = 0;
    DL_FOREACH(exec->templates->list, t)
        count += t->state != TEMPLATE_ABSENT || t->wanted;
    return count < exec->config.templates_max || oldest(exec, NULL, true, templates_evictable());
}

/* Makes room for the newest by removing what nobody used; false if there is not enough of that. */
static bool bounds_keep(struct template *newest)
{
    struct exec *exec = newest->exec;
    int64_t since = newest->built_by_request ? INT64_MAX : templates_evictable();
    while (over_bounds(exec)) {
        struct template *t = oldest(exec, newest, newest->image, since);
        if (!t)
            return false;
        log_info("template '%s' is removed to make room for '%s'", t->id, newest->id);
        template_drop(t);
    }
    return true;
}

void template_made(struct template *t, int memory, uint64_t disk_bytes, const struct error *error)
{
    struct templates *ts = t->exec->templates;
    CLEANUP_ERROR struct error *reading = NULL;
    ts->making = NULL;
    if (!error && template_head_read(t, &reading) < 0) {
        close(memory);
        error = reading;
    }
    if (error) {
        template_turn_bad(t, error_text(error));
    } else {
        template_files_look(t);
        template_turn_ready(t, memory, disk_bytes);
        log_info("template '%s' is ready: %" PRIu64 " MiB of files", t->id, disk_bytes >> 20);
        if (!bounds_keep(t)) {
            CLEANUP_FREE char *why = str_printf(
                "there is no room for it within templates_max=%u and "
                "templates_max_size=%" PRIu64 " MiB",
                t->exec->config.templates_max, t->exec->config.templates_max_bytes >> 20);
            template_drop(t);
            template_turn_bad(t, why);
        }
    }
    t->built_by_request = false;
    templates_look(ts);
    boot_line_look(t->exec);
}

/* ---- loading -------------------------------------------------------------------------------- */

/* The files are at fault, and not that there is no memory, or no worker. */
static bool is_broken(const struct error *error)
{
    return error->kind == ERROR_CORRUPT || error->kind == ERROR_NOT_FOUND ||
           error->kind == ERROR_IO;
}

static void template_loaded(const struct error *error, uint64_t value, void *arg)
{
    CLEANUP_ERROR struct error *sealing = NULL;
    struct template *t = arg;
    struct exec *exec = t->exec;
    t->job = NULL;
    if (!error &&
        (template_memory_seal(t->memory, &sealing) < 0 || template_head_read(t, &sealing) < 0))
        error = sealing;
    if (!error) {
        template_turn_ready(t, memory_take(t), value);
        log_info("template '%s' was loaded", t->id);
        bounds_keep(t);
    } else if (!is_broken(error)) {
        memory_drop(t);
        template_turn_bad(t, error_text(error));
    } else {
        log_warning("template '%s' is removed and made again: it cannot be loaded: %s", t->id,
                    error_text(error));
        template_drop(t);
        t->wanted = true;
        str_set(&t->reason, error_text(error));
    }
    templates_look(exec->templates);
    boot_line_look(exec);
}

static void template_load(struct template *t)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *path = template_path(t);
    t->wanted = false;
    memory_drop(t);
    if (template_memory_make(t, &t->memory, &error) < 0) {
        template_turn_bad(t, error_text(error));
        return;
    }
    t->state = TEMPLATE_LOADING;
    t->job = pool_template_load(t->exec->pool, fcntl(t->memory, F_DUPFD_CLOEXEC, 0), path,
                                (const char *const *)t->inputs, template_loaded, t);
    template_changed(t);
}

/* ---- looking for something to do ------------------------------------------------------------ */

void templates_check(struct templates *ts)
{
    struct exec *exec = ts->exec;
    const char *reason;
    struct template *t, *next;
    CLEANUP_STRV char **inputs = template_inputs(&exec->config, exec_accel(exec, &reason), 0);
    CLEANUP_FREE char *now = strv_join((const char *const *)inputs, "\n");
    if (str_eq(now, ts->circumstances))
        return;
    if (ts->circumstances)
        log_info("templates are made anew: what they depend on has changed");
    str_set(&ts->circumstances, now);
    struct template *old = ts->list;
    ts->list = NULL;
    DL_FOREACH_SAFE(old, t, next) {
        bool wanted = t->disk_bytes > 0 && !t->image;
        template_stop(t);
        template_files_remove(exec, t->id);
        if (wanted)
            template_of_base(exec, t->base_bytes)->wanted = true;
        template_free(t);
    }
    for (size_t i = 0; i < exec->config.template_size_count; i++) {
        t = template_of_base(exec, exec->config.template_sizes[i]);
        t->wanted = true;
        t->turn = (unsigned)i + 1;
    }
    if (exec->hooks.templates_changed)
        exec->hooks.templates_changed(exec->hooks.arg);
}

static bool may_be_made(const struct template *t)
{
    const struct template *of = t->image ? template_find_base(t->exec, t->base_bytes) : NULL;
    return t->state == TEMPLATE_ABSENT && t->wanted && !t->files_doomed &&
           (!t->image || (of && of->state == TEMPLATE_READY));
}

/* The next one to build. */
static struct template *next_wanted(const struct templates *ts)
{
    struct template *t, *found = NULL;
    DL_FOREACH(ts->list, t)
        if (may_be_made(t) && (!found || t->turn < found->turn))
            found = t;
    return found;
}

static void templates_work(void *arg)
{
    struct templates *ts = arg;
    struct exec *exec = ts->exec;
    struct template *t;
    if (!ts->begun)
        return;
    templates_check(ts);
    template_images_trim(ts);
    DL_FOREACH(ts->list, t)
        if (t->state == TEMPLATE_ABSENT && t->wanted && template_files_look(t))
            template_load(t);
    if (ts->making || ts->warming || boot_line_busy(exec) || zygotes_work(ts))
        return; /* when that is over we are called again */
    t = next_wanted(ts);
    if (!t)
        return;
    t->state = TEMPLATE_BUILDING;
    t->wanted = false;
    ts->making = t;
    template_make(t);
    template_changed(t);
}

void templates_look(struct templates *ts)
{
    if (ts->begun)
        timer_set(ts->look, 0);
}

/* ---- choosing ------------------------------------------------------------------------------- */

bool template_may_grow(const struct exec_config *config)
{
    return str_eq(config->machine, "q35");
}

uint32_t template_cpus_max(const struct exec_config *config, const char *accel)
{
    bool few = str_eq(accel, "tcg") && config->cpus_max > CPUS_EMULATED_MAX;
    return few ? CPUS_EMULATED_MAX : config->cpus_max;
}

uint64_t template_memory_of(const struct template *t, uint64_t memory_bytes)
{
    const uint64_t step = TEMPLATE_MEMORY_STEP;
    uint64_t more = memory_bytes > t->base_bytes ? memory_bytes - t->base_bytes : 0;
    return t->base_bytes + (more + step - 1) / step * step;
}

/* Of a microvm only what is as large as its template is cloned of it, and that is made when it is
 * first asked for. */
bool template_serves(const struct template *t, uint64_t memory_bytes)
{
    return template_may_grow(&t->exec->config) ? t->base_bytes <= memory_bytes
                                               : t->base_bytes == memory_bytes;
}

/* The sentence that says why the best of them is not used. */
static char *why_cold(const struct template *t, const struct exec *exec)
{
    if (!t)
        return xstrdup(template_may_grow(&exec->config)
                           ? "it has less memory than any template: see template_sizes"
                           : "there is no template of its memory");
    if (t->state == TEMPLATE_BAD)
        return str_printf("template '%s' is not used: %s", t->id, t->reason);
    if (t->state == TEMPLATE_BUILDING)
        return str_printf("template '%s' is being made", t->id);
    return str_printf("template '%s' is not made yet", t->id);
}

/* Loading takes less time than a boot. Making one does not, but for a VM that is to be idle. */
static bool is_coming(const struct template *t, bool idle)
{
    return t->state == TEMPLATE_LOADING ||
           (idle && (t->state == TEMPLATE_BUILDING || t->state == TEMPLATE_ABSENT));
}

struct template *template_choose(struct exec *exec, const struct vm *vm, char **ret_why,
                                 bool *ret_wait)
{
    const struct exec_config *config = &exec->config;
    const uint64_t memory_bytes = vm->memory_mb << 20;
    const char *reason;
    struct template *t, *best = NULL, *ready = NULL;
    *ret_why = NULL;
    *ret_wait = false;
    if (exec->templates->unusable)
        *ret_why = xstrdup(exec->templates->unusable);
    if (!exec->templates->begun)
        return NULL;
    templates_check(exec->templates);
    if (vm->cpus > template_cpus_max(config, exec_accel(exec, &reason)) ||
        memory_bytes > config->memory_max_bytes ||
        (vm->cpus != 1 && !template_may_grow(&exec->config))) {
        *ret_why = xstrdup("it asks for more than a clone can grow to");
        return NULL;
    }
    if (!template_may_grow(&exec->config))
        template_of_base(exec, memory_bytes);
    DL_FOREACH(exec->templates->list, t) { /* in the order of their memory */
        if (t->image || !template_serves(t, memory_bytes))
            continue;
        best = t;
        if (t->state == TEMPLATE_READY)
            ready = t;
    }
    if (best && best->state == TEMPLATE_ABSENT) {
        best->wanted = true;
        best->turn = 0;
        templates_look(exec->templates);
    }
    if (best && best->state == TEMPLATE_ABSENT && template_files_look(best))
        template_load(best);
    if (best && is_coming(best, vm->pooled && !ref_is(vm->pod)))
        *ret_wait = true;
    else if (!ready)
        *ret_why = why_cold(best, exec);
    return *ret_wait ? NULL : ready;
}

void template_clone_begins(struct template *t)
{
    int64_t now = now_ns();
    t->starting++;
    if (now - t->used_ns > (int64_t)USED_STEP_S * 1000000000)
        template_files_touch(t);
    t->used_ns = now;
    zygote_want(t->zygote);
}

void template_clone_ends(struct template *t, bool hello)
{
    assert(t->starting > 0);
    t->starting--;
    t->clones += hello;
    if (hello)
        t->failures = 0;
    files_check_doom(t);
}

/* ---- start and end -------------------------------------------------------------------------- */

void exec_templates_begin(struct exec *exec)
{
    struct templates *ts = exec->templates;
    if (!exec->config.templates || ts->begun || ts->unusable)
        return;
    if (storage_shares(&exec->config)) {
        ts->unusable = xstrdup("with the storage driver 'overlay' all virtual machines boot cold: "
                               "what serves a guest its files cannot be put into a template");
        log_info("there are no templates: %s", ts->unusable);
        return;
    }
    if (template_directory_take(ts) < 0)
        return;
    ts->begun = true;
    templates_check(ts);
    template_files_scan(ts);
    templates_work(ts);
}

struct templates *templates_new(struct exec *exec)
{
    struct templates *ts = xcalloc(1, sizeof(*ts));
    ts->exec = exec;
    ts->lock = -1;
    ts->look = timer_new(exec->loop, templates_work, ts);
    return ts;
}

/* What is being made dies with its keeper, at the next start. */
void templates_end(struct templates *ts)
{
    struct template *t;
    ts->begun = false;
    timer_unset(ts->look);
    DL_FOREACH(ts->list, t)
        template_stop(t);
}

void templates_free(struct templates *ts)
{
    struct template *t, *next;
    DL_FOREACH_SAFE(ts->list, t, next)
        template_free(t);
    timer_free(ts->look);
    if (ts->lock >= 0)
        close(ts->lock);
    free(ts->unusable);
    free(ts->circumstances);
    free(ts);
}
