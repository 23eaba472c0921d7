/* Workers: a few processes for jobs that block. A job waits until one is free; a worker that takes
 * too long is killed, and another takes its place. Workers start when they are first needed.
 *
 * What nobody waits for is done in the background: files that were removed are only moved away at
 * first, and layers that were taken from the spare ones are made anew.
 * Those for what comes from and goes to registries are another program, beside the others.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/pool_int.h"

static void pool_run(struct pool *pool);

enum { REMOVAL_TRIES = 3 }; /* by other workers, when the one that did it has died */

/* ---- jobs ----------------------------------------------------------------------------------- */

static bool is_transfer(const struct job *job)
{
    return job->type >= WIRE_JOB_PULL && job->type <= WIRE_JOB_LOGOUT;
}

static void job_free(struct job *job)
{
    if (job->fd >= 0)
        close(job->fd);
    free(job->root);
    free(job->image);
    free(job->layer);
    free(job->directory);
    free(job->path);
    strv_free(job->paths);
    transfer_clear(&job->transfer);
    commit_free(job->commit);
    free(job);
}

/* The job is nobody's any more. */
static void job_finish(struct job *job, const struct error *error, uint64_t value)
{
    if (job->ops)
        job->ops->done(error, job->arg);
    else if (job->done)
        job->done(error, value, job->arg);
    else if (error && job->type == WIRE_JOB_SWEEP)
        log_warning("sweep: %s", error_text(error));
    else if (error && job->background)
        log_debug("in the background: %s", error_text(error));
    job_free(job);
}

void job_forget(struct job *job)
{
    job->ops = NULL;
    job->done = NULL;
    job->begun = NULL;
    job->ret_root = NULL;
}

void job_on_begin(struct job *job, void (*begun)(void *arg))
{
    job->begun = begun;
}

static struct job *job_new(unsigned type)
{
    struct job *job = xcalloc(1, sizeof(*job));
    job->type = type;
    job->fd = -1;
    return job;
}

static struct job *pool_add(struct pool *pool, struct job *job)
{
    DL_APPEND(pool->waiting, job);
    pool->waiting_count++;
    timer_set(pool->kick, 0);
    return job;
}

static void pool_refuse_excess(struct pool *pool)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_LIMIT, 0, "%d jobs wait for a worker already", JOBS_MAX);
    while (pool->waiting_count > JOBS_MAX) {
        struct job *last = pool->waiting->prev;
        DL_DELETE(pool->waiting, last);
        pool->waiting_count--;
        job_finish(last, error, 0);
    }
}

static int worker_start(struct worker *w, struct error **ret_error);

static void worker_take(struct worker *w, struct job *job)
{
    CLEANUP_ERROR struct error *error = NULL;
    if ((!w->conn && worker_start(w, &error) < 0) || job_send(w, job, &error) < 0) {
        job_finish(job, error, 0);
        return;
    }
    w->job = job;
    w->late = false;
    if (job->begun)
        job->begun(job->arg);
    timer_set(w->deadline, w->pool->exec->config.job_deadline_ms);
}

/* Of the workers that are not for transfers. */
static unsigned pool_busy_local(const struct pool *pool)
{
    unsigned busy = 0;
    for (unsigned i = 0; i < pool->local; i++)
        busy += pool->workers[i].job != NULL;
    return busy;
}

static unsigned pool_busy(const struct pool *pool, unsigned type)
{
    unsigned busy = 0;
    for (unsigned i = 0; i < pool->count; i++)
        busy += pool->workers[i].job && (!type || pool->workers[i].job->type == type);
    return busy;
}

/* Whether a job gives files their places: some of them other images may have, too. */
static bool pool_places(const struct pool *pool)
{
    for (unsigned i = 0; i < pool->count; i++)
        if (pool->workers[i].places)
            return true;
    return false;
}

/* Jobs may give files their places unless files of images are being removed. */
static void pool_let_place(struct pool *pool)
{
    const struct wire_job_go go = {.seq = 1};
    for (unsigned i = 0; i < pool->count; i++)
        if (pool->workers[i].job && pool->workers[i].job->shared)
            return;
    for (unsigned i = 0; i < pool->count; i++) {
        struct worker *w = &pool->workers[i];
        if (!w->asks)
            continue;
        w->asks = false;
        w->places = true;
        conn_send(w->conn, WIRE_JOB_GO, 0, &go);
    }
}

static const unsigned slow_jobs[] = {WIRE_JOB_LOAD, WIRE_JOB_SAVE, WIRE_JOB_COMMIT, WIRE_JOB_CHECK};

static bool is_slow(const struct job *job)
{
    for (size_t i = 0; i < ARRAY_SIZE(slow_jobs); i++)
        if (slow_jobs[i] == job->type)
            return true;
    return false;
}

/* Archives come and go as slowly as their client does: one worker is kept free of them, and of what
 * nobody waits for. A sweep must be alone. */
static bool job_may_run(const struct pool *pool, const struct job *job)
{
    if (pool_busy(pool, WIRE_JOB_SWEEP))
        return false;
    if (job->type == WIRE_JOB_SWEEP)
        return pool_busy(pool, 0) == 0;
    if (is_transfer(job))
        return true;
    if (job->shared && pool_places(pool))
        return false;
    if (job->background)
        return pool->local == 1 || pool_busy_local(pool) + 1 < pool->local;
    unsigned slow = 0;
    for (size_t i = 0; i < ARRAY_SIZE(slow_jobs); i++)
        slow += pool_busy(pool, slow_jobs[i]);
    return !is_slow(job) || pool->local == 1 || slow < pool->local - 1;
}

/* A worker that runs already before one that would have to be started; one whose process has not
 * been reaped yet is of no use. */
static struct worker *worker_free_one(struct pool *pool, const struct job *job)
{
    struct worker *fresh = NULL;
    for (unsigned i = 0; i < pool->count; i++) {
        struct worker *w = &pool->workers[i];
        if (w->transfers != is_transfer(job))
            continue;
        if (!w->job && w->conn)
            return w;
        if (!w->job && !w->child && !fresh)
            fresh = w;
    }
    return fresh;
}

static void pool_run(struct pool *pool)
{
    struct job *job, *next;
    if (pool->closing)
        return;
    pool_refuse_excess(pool);
    DL_FOREACH_SAFE(pool->waiting, job, next) {
        struct worker *w = worker_free_one(pool, job);
        if (!w || !job_may_run(pool, job))
            continue;
        DL_DELETE(pool->waiting, job);
        pool->waiting_count--;
        worker_take(w, job);
    }
}

/* ---- a worker's process --------------------------------------------------------------------- */

/* One that waits already will do it. */
static void background_add(struct pool *pool, unsigned type, const char *path)
{
    struct job *job;
    DL_FOREACH(pool->waiting, job)
        if (job->background && job->type == type)
            return;
    job = job_new(type);
    job->background = true;
    if (path)
        strv_push(&job->paths, path);
    pool_add(pool, job);
}

/* Before the job is told to be done. */
static void worker_did(struct pool *pool, const struct job *job, const struct error *error)
{
    if (error || job->background)
        return;
    if (job->type == WIRE_JOB_REMOVE && !job->root)
        background_add(pool, WIRE_JOB_REMOVE, "tmp/gone");
    if (job->type == WIRE_JOB_LAYER)
        pool_spares(pool);
}

static void worker_is_free(struct worker *w)
{
    w->job = NULL;
    w->asks = w->places = false;
    pool_let_place(w->pool);
}

static void worker_frame(struct conn *conn, const struct wire_frame *frame, int fd, void *arg)
{
    struct worker *w = arg;
    struct job *job = w->job;
    CLEANUP_ERROR struct error *error = NULL;
    union {
        struct wire_reply reply;
        struct wire_job_progress progress;
        struct wire_job_image image;
        struct wire_job_root root;
        struct wire_job_placing placing;
        struct wire_job_hold hold;
        struct wire_job_problem problem;
        struct wire_job_size size;
    } message = {{0}};
    if (fd >= 0)
        close(fd);
    if (!job || (frame->type != WIRE_REPLY && frame->type != WIRE_JOB_PROGRESS &&
                 frame->type != WIRE_JOB_IMAGE && frame->type != WIRE_JOB_ROOT &&
                 frame->type != WIRE_JOB_PLACING && frame->type != WIRE_JOB_HOLD &&
                 frame->type != WIRE_JOB_PROBLEM && frame->type != WIRE_JOB_SIZE))
        return;
    if (wire_get(frame, &message, &error) < 0) {
        log_error("worker: %s", error_text(error));
        child_kill(w->child, SIGKILL);
    } else if (frame->type == WIRE_JOB_PROGRESS && job->ops) {
        job->ops->progress(&message.progress, job->arg);
        /* What moves is not late, however slow the line. */
        if (w->transfers || job->type == WIRE_JOB_CHECK)
            timer_set(w->deadline, w->pool->exec->config.job_deadline_ms);
    } else if (frame->type == WIRE_JOB_IMAGE && job->ops) {
        job->ops->image(&message.image, job->arg);
    } else if (frame->type == WIRE_JOB_ROOT && job->ret_root) {
        str_set(&job->ret_root->image_path, message.root.image_path);
        str_set(&job->ret_root->layer_path, message.root.layer_path);
        str_set(&job->ret_root->layer_top, message.root.layer_top);
    } else if (frame->type == WIRE_JOB_PROBLEM && job->ops && job->ops->problem) {
        job->ops->problem(&message.problem, job->arg);
    } else if (frame->type == WIRE_JOB_SIZE && job->ops && job->ops->size) {
        job->ops->size(&message.size, job->arg);
    } else if (frame->type == WIRE_JOB_HOLD && job->commit) {
        commit_hold(job->commit, message.hold.on);
    } else if (frame->type == WIRE_JOB_PLACING) {
        w->asks = true;
        pool_let_place(w->pool);
    } else if (frame->type == WIRE_REPLY) {
        wire_reply_check(&message.reply, &error);
        worker_is_free(w);
        timer_unset(w->deadline);
        worker_did(w->pool, job, error);
        job_finish(job, error, message.reply.value);
        pool_run(w->pool);
    }
    wire_clear(frame->type, &message);
}

/* What nobody waits for nobody would ask for again. */
static bool job_is_tried_again(struct worker *w, struct job *job)
{
    bool removal = job->type == WIRE_JOB_REMOVE || job->type == WIRE_JOB_SWEEP;
    if (!removal || job->done || job->ops || w->late || w->pool->closing ||
        job->tries++ == REMOVAL_TRIES)
        return false;
    pool_add(w->pool, job);
    return true;
}

static void worker_closed(struct conn *conn, const struct error *why, void *arg)
{
    struct worker *w = arg;
    struct job *job = w->job;
    CLEANUP_ERROR struct error *error = NULL;
    w->conn = NULL;
    worker_is_free(w);
    timer_unset(w->deadline);
    if (w->child)
        child_kill(w->child, SIGKILL);
    if (!job || job_is_tried_again(w, job))
        return;
    if (job->type != WIRE_JOB_SWEEP)
        pool_sweep(w->pool, false); /* of what it had begun */
    if (w->late)
        error_set(&error, ERROR_TIMEOUT, 0, "the worker took too long");
    else
        error_set(&error, ERROR_INTERNAL, 0, "the worker ended unexpectedly");
    job_finish(job, error, 0);
}

static void worker_ended(int status, void *arg)
{
    struct worker *w = arg;
    if (status && !w->late && !w->pool->closing)
        log_error("a worker ended with status %d", status);
    child_free(take(w->child));
    if (w->conn)
        conn_close(w->conn, false);
    pool_run(w->pool);
}

static void worker_late(void *arg)
{
    struct worker *w = arg;
    w->late = true;
    if (w->child)
        child_kill(w->child, SIGKILL);
}

static const struct conn_ops worker_ops = {worker_frame, worker_closed, NULL};

static int worker_start(struct worker *w, struct error **ret_error)
{
    struct exec *exec = w->pool->exec;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(ret_error, ERROR_IO, errno, "socketpair");
    const char *program = w->transfers ? exec->config.transfer : exec->config.worker;
    const char *const argv[] = {program, NULL};
    const int fds[] = {-1, STDERR_FILENO, STDERR_FILENO, pair[1]};
    struct child_spec spec = {.path = program,
                              .argv = argv,
                              .cwd = exec->config.root,
                              .fds = fds,
                              .fd_count = ARRAY_SIZE(fds),
                              .die_with_parent = true,
                              .no_new_privileges = true};
    w->child = child_spawn(exec->loop, &spec, worker_ended, w, ret_error);
    close(pair[1]);
    if (!w->child) {
        close(pair[0]);
        return -1;
    }
    w->conn = conn_new(exec->loop, pair[0], &worker_ops, w);
    conn_send_hello(w->conn, "huskd");
    const struct wire_storage storage = {.driver = exec->config.storage,
                                         .options = exec->config.storage_options};
    conn_send(w->conn, WIRE_STORAGE, 0, &storage);
    return 0;
}

/* ---- the pool ------------------------------------------------------------------------------- */

static void pool_kicked(void *arg)
{
    pool_run(arg);
}

struct pool *pool_new(struct exec *exec)
{
    struct pool *pool = xcalloc(1, sizeof(*pool));
    pool->exec = exec;
    pool->kick = timer_new(exec->loop, pool_kicked, pool);
    pool->local = exec->config.workers;
    pool->count = pool->local + exec->config.transfers;
    pool->workers = xcalloc(pool->count, sizeof(*pool->workers));
    for (unsigned i = 0; i < pool->count; i++) {
        pool->workers[i].pool = pool;
        pool->workers[i].transfers = i >= pool->local;
        pool->workers[i].deadline = timer_new(exec->loop, worker_late, &pool->workers[i]);
    }
    return pool;
}

void pool_halt(struct pool *pool)
{
    pool->closing = true;
}

/* The process is about to end, and its workers with it: what they were doing is left in tmp, and
 * swept next time. */
void pool_free(struct pool *pool)
{
    struct job *job, *next;
    pool->closing = true;
    timer_free(pool->kick);
    DL_FOREACH_SAFE(pool->waiting, job, next) {
        DL_DELETE(pool->waiting, job);
        job_free(job);
    }
    for (unsigned i = 0; i < pool->count; i++) {
        timer_free(pool->workers[i].deadline);
        if (pool->workers[i].job)
            job_free(pool->workers[i].job);
        if (pool->workers[i].child)
            child_kill(pool->workers[i].child, SIGKILL);
        child_free(pool->workers[i].child);
    }
}

/* A job that is answered. */
static struct job *pool_ask(struct pool *pool, unsigned type, job_done *done, void *arg)
{
    struct job *job = job_new(type);
    job->done = done;
    job->arg = arg;
    return pool_add(pool, job);
}

struct job *pool_layer(struct pool *pool, const char *directory, const struct layer_spec *layer,
                       job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_LAYER, done, arg);
    job->directory = xstrdup(directory);
    job->path = xstrdup(layer->path);
    job->image = xstrdup(layer->image);
    job->layer = xstrdup(layer->like);
    job->size_bytes = layer->size_bytes;
    return job;
}

struct job *pool_attach(struct pool *pool, const char *image, const char *layer,
                        struct job_root *ret_root, job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_ATTACH, done, arg);
    job->image = xstrdup(image);
    job->path = xstrdup(layer);
    job->ret_root = ret_root;
    return job;
}

struct job *pool_detach(struct pool *pool, const char *const *layers, job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_DETACH, done, arg);
    job->paths = strv_copy(layers);
    return job;
}

struct job *pool_remove(struct pool *pool, const char *const *paths, job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_REMOVE, done, arg);
    job->paths = strv_copy(paths);
    return job;
}

void pool_remove_below(struct pool *pool, const char *root, const char *const *paths)
{
    struct job *job = job_new(WIRE_JOB_REMOVE);
    job->root = xstrdup(root);
    job->paths = strv_copy(paths);
    pool_add(pool, job);
}

struct job *pool_rehearsal(struct pool *pool, const char *directory, const char *image,
                           const char *layer, job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_REHEARSAL, done, arg);
    job->directory = xstrdup(directory);
    job->image = xstrdup(image);
    job->path = xstrdup(layer);
    return job;
}

static struct job *template_job(struct job *job, int memory, const char *path,
                                const char *const *inputs)
{
    job->fd = memory;
    job->path = xstrdup(path);
    job->paths = strv_copy(inputs);
    return job;
}

struct job *pool_template_save(struct pool *pool, int memory, const struct template_files *files,
                               job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_TEMPLATE_SAVE, done, arg);
    job->directory = xstrdup(files->dir);
    job->layer = xstrdup(files->layer);
    return template_job(job, memory, files->path, files->inputs);
}

struct job *pool_template_load(struct pool *pool, int memory, const char *path,
                               const char *const *inputs, job_done *done, void *arg)
{
    struct job *job = pool_ask(pool, WIRE_JOB_TEMPLATE_LOAD, done, arg);
    return template_job(job, memory, path, inputs);
}

void pool_spares(struct pool *pool)
{
    background_add(pool, WIRE_JOB_SPARES, NULL);
}

void pool_spare_shared(struct job *job)
{
    job->shared = true;
}

void pool_sweep(struct pool *pool, bool all)
{
    struct job *job = job_new(WIRE_JOB_SWEEP);
    job->all = all;
    pool_add(pool, job);
}

struct job *pool_save(struct pool *pool, int fd, const char *const *items, bool docker,
                      const struct load_ops *ops, void *arg)
{
    struct job *job = job_new(WIRE_JOB_SAVE);
    job->fd = fd;
    job->paths = strv_copy(items);
    job->all = docker;
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

struct job *pool_check(struct pool *pool, const char *const *items, bool repair,
                       const struct load_ops *ops, void *arg)
{
    struct job *job = job_new(WIRE_JOB_CHECK);
    job->paths = strv_copy(items);
    job->all = repair;
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

struct job *pool_usage(struct pool *pool, const char *const *layers, bool all,
                       const struct load_ops *ops, void *arg)
{
    struct job *job = job_new(WIRE_JOB_USAGE);
    job->paths = strv_copy(layers);
    job->all = all;
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

struct job *pool_load(struct pool *pool, int fd, const struct load_ops *ops, void *arg)
{
    struct job *job = job_new(WIRE_JOB_LOAD);
    job->fd = fd;
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

struct job *pool_commit(struct pool *pool, struct commit *commit, const struct load_ops *ops,
                        void *arg)
{
    struct job *job = job_new(WIRE_JOB_COMMIT);
    job->commit = commit;
    job->pool = pool;
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

void job_answer(struct job *job, const struct error *error)
{
    const struct wire_reply reply = wire_reply_from(1, error);
    for (unsigned i = 0; i < job->pool->count; i++) {
        const struct worker *w = &job->pool->workers[i];
        if (w->job == job && w->conn)
            conn_send(w->conn, WIRE_REPLY, 0, &reply);
    }
}

struct job *pool_transfer(struct pool *pool, struct exec_transfer *transfer,
                          const struct load_ops *ops, void *arg)
{
    struct job *job = job_new(transfer_job(transfer));
    job->transfer = *transfer;
    *transfer = (struct exec_transfer){0};
    job->ops = ops;
    job->arg = arg;
    return pool_add(pool, job);
}

/* One that waits ends in a moment; one that runs ends with its worker, and what it had begun is
 * swept. */
void pool_cancel(struct pool *pool, struct job *job)
{
    job_forget(job);
    for (unsigned i = 0; i < pool->count; i++) {
        struct worker *w = &pool->workers[i];
        if (w->job != job)
            continue;
        w->late = true; /* its end is no news */
        if (w->child)
            child_kill(w->child, SIGKILL);
        return;
    }
    DL_DELETE(pool->waiting, job);
    pool->waiting_count--;
    job_free(job);
}
