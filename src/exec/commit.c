/* An image of what a container has changed. The worker copies its layer; meanwhile the guest, if
 * there is one that has it, holds whoever would write to it. Should anybody die in between, the
 * guest lets go after LAYER_HELD_MAX_MS by itself.
 */
#include <stdlib.h>

#include "exec/commit.h"

enum {
    LAYER_HELD_MAX_MS = 2 * 60 * 1000,
    ANSWER_MAX_MS = 60 * 1000, /* of a keeper, whose guest has less */
};

struct commit {
    struct exec *exec;
    struct job *job;
    struct ref ctr;
    uint64_t run; /* of the container when its layer was copied without a guest */
    char *layer, *image, *name, *author, *message;
    char **files, **changes;
    struct ctr_spec *spec; /* a copy of what it was asked to be */
    char *user, *created_by;
    struct ask *ask; /* that the worker waits for */
    struct timer *timer;
    bool frozen;    /* or perhaps */
    bool unmounted; /* it is not, and need not be: the VM still has its disk, and no use for it */
};

/* ---- the layer is held ---------------------------------------------------------------------- */

static struct link *commit_link(const struct commit *c)
{
    const struct container *ctr = world_ctr(c->exec->world, c->ctr);
    return ctr && exec_has(c->exec, ctr) ? link_of_pod(c->exec, ctr->pod) : NULL;
}

/* The worker goes on, or gives up. */
static void commit_answer(struct commit *c, const struct error *error)
{
    if (c->ask)
        ask_forget(take(c->ask));
    timer_unset(c->timer);
    job_answer(c->job, error);
}

static void commit_late(void *arg)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_TIMEOUT, 0, "its VM does not answer");
    commit_answer(arg, error);
}

static void commit_frozen(const struct error *error, uint64_t value, void *arg)
{
    struct commit *c = arg;
    const struct container *ctr = world_ctr(c->exec->world, c->ctr);
    c->ask = NULL;
    /* It had ended, and the guest has unmounted its layer: nobody writes to it. (Had it ended
     * since, we would not know yet.) */
    c->unmounted = ctr && !ctr_is_up(ctr) && (!error || error->kind == ERROR_NOT_FOUND);
    if (c->unmounted) {
        c->frozen = false;
        c->run = ctr->run;
    }
    commit_answer(c, c->unmounted ? NULL : error);
}

static void commit_thawed(const struct error *error, uint64_t value, void *arg)
{
    struct commit *c = arg;
    c->ask = NULL;
    c->frozen = false;
    commit_answer(c, error);
}

static void hold_begin(struct commit *c)
{
    CLEANUP_ERROR struct error *error = NULL;
    const struct container *ctr = world_ctr(c->exec->world, c->ctr);
    struct link *link = commit_link(c);
    if (link) {
        struct wire_layer_freeze message = {.ctr = ctr->id, .max_ms = LAYER_HELD_MAX_MS};
        c->frozen = true;
        timer_set(c->timer, ANSWER_MAX_MS);
        c->ask = link_ask(link, WIRE_LAYER_FREEZE, &message, -1, commit_frozen, c);
        return;
    }
    if (!ctr || ctr->state == CTR_REMOVING)
        error_set(&error, ERROR_NOT_FOUND, 0, "the container was removed");
    else if (ctr_is_up(ctr))
        error_set(&error, ERROR_BUSY, 0, "the container is about to start or to end: try again");
    else
        c->run = ctr->run;
    commit_answer(c, error);
}

static void hold_end(struct commit *c)
{
    CLEANUP_ERROR struct error *error = NULL;
    const struct container *ctr = world_ctr(c->exec->world, c->ctr);
    struct link *link = commit_link(c);
    if (c->frozen && link) {
        struct wire_layer_thaw message = {.ctr = ctr->id};
        timer_set(c->timer, ANSWER_MAX_MS);
        c->ask = link_ask(link, WIRE_LAYER_THAW, &message, -1, commit_thawed, c);
        return;
    }
    if (!ctr || c->frozen || (link && !c->unmounted) || ctr->run != c->run)
        error_set(&error, ERROR_BUSY, 0,
                  "the container has started or ended while its layer was copied: try again");
    commit_answer(c, error);
}

void commit_hold(struct commit *c, bool on)
{
    if (on)
        hold_begin(c);
    else
        hold_end(c);
}

/* ---- the job -------------------------------------------------------------------------------- */

static struct ctr_spec *spec_copy(const struct ctr_spec *spec)
{
    struct buf text = {0};
    struct ctr_spec *copy = NULL;
    ctr_spec_write(spec, &text);
    ctr_spec_parse((const char *)text.data, text.len, &copy, NULL);
    buf_release(&text);
    return copy;
}

static char *user_of(const struct ctr_spec *spec)
{
    if (!str_empty(spec->group))
        return str_printf("%s:%s", str_or(spec->user, "0"), spec->group);
    return xstrdup(str_or(spec->user, ""));
}

static int commit_check(const struct container *ctr, const struct image *image,
                        struct error **ret_error)
{
    if (!image)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "the image of container '%s' is gone",
                         ctr->spec.name);
    if (ctr->state == CTR_CREATING || ctr->state == CTR_REMOVING)
        return error_set(ret_error, ERROR_BUSY, 0, "container '%s' is being %s", ctr->spec.name,
                         ctr->state == CTR_CREATING ? "created" : "removed");
    return 0;
}

struct job *exec_commit(struct exec *exec, const struct exec_commit *what,
                        const struct load_ops *ops, void *arg, struct error **ret_error)
{
    const struct container *ctr = world_ctr(exec->world, what->ctr);
    const struct pod *pod = world_pod(exec->world, ctr->pod);
    const struct image *image = world_image(exec->world, ctr->image);
    struct process process;
    if (commit_check(ctr, image, ret_error) < 0)
        return NULL;
    struct commit *c = xcalloc(1, sizeof(*c));
    process_of(ctr, pod, image, &process);
    *c = (struct commit){.exec = exec,
                         .ctr = what->ctr,
                         .layer = path_of_layer(exec, pod, ctr),
                         .image = path_of_image(exec, ctr),
                         .name = xstrdup(what->name),
                         .author = xstrdup(what->author),
                         .message = xstrdup(what->message),
                         .files = strv_copy((const char *const *)image->files),
                         .changes = strv_copy(what->changes),
                         .spec = spec_copy(&ctr->spec),
                         .user = user_of(&ctr->spec),
                         .created_by = strv_join((const char *const *)process.argv, " "),
                         .timer = timer_new(exec->loop, commit_late, c)};
    process_clear(&process);
    c->job = pool_commit(exec->pool, c, ops, arg);
    return c->job;
}

void commit_send(struct conn *conn, const struct exec_config *config, const struct commit *c)
{
    const struct ctr_spec *spec = c->spec;
    const struct wire_job_commit message = {
        .seq = 1,
        .root = config->root,
        .layer_max_bytes = config->image_layer_max_bytes,
        .layer = c->layer,
        .image = c->image,
        .files = (const char *const *)c->files,
        .name = c->name,
        .author = c->author,
        .message = c->message,
        .changes = (const char *const *)c->changes,
        .entrypoint = (const char *const *)(spec ? spec->entrypoint : NULL),
        .command = (const char *const *)(spec ? spec->command : NULL),
        .env = (const char *const *)(spec ? spec->envs : NULL),
        .labels = (const char *const *)(spec ? spec->labels : NULL),
        .workdir = spec ? spec->workdir : NULL,
        .user = c->user,
        .stop_signal = spec && spec->stop_signal ? signal_name(spec->stop_signal) : NULL,
        .created_by = c->created_by,
    };
    conn_send(conn, WIRE_JOB_COMMIT, 0, &message);
}

void commit_free(struct commit *c)
{
    struct link *link = c && c->frozen ? commit_link(c) : NULL;
    if (!c)
        return;
    if (c->ask)
        ask_forget(c->ask);
    if (link) { /* its worker is gone: the guest need not wait for the end of its time */
        const struct container *ctr = world_ctr(c->exec->world, c->ctr);
        struct wire_layer_thaw message = {.ctr = ctr->id};
        link_ask(link, WIRE_LAYER_THAW, &message, -1, NULL, NULL);
    }
    timer_free(c->timer);
    free(c->layer);
    free(c->image);
    free(c->name);
    free(c->author);
    free(c->message);
    strv_free(c->files);
    strv_free(c->changes);
    ctr_spec_free(c->spec);
    free(c->user);
    free(c->created_by);
    free(c);
}
