/* Templates and clones: the state of the devices goes to a file and comes from there, the memory
 * (by the capability "x-ignore-shared") stays where it is.
 *
 * The template is not stopped before: QEMU stops it when all is ready, and remembers that it ran.
 * So the clone runs as soon as its state is loaded, and nobody has to tell it to.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>

#include "base/str.h"
#include "hyper/qemu_int.h"

enum {
    FREEZE_DEADLINE_MS = 60 * 1000,
    CLONE_DEADLINE_MS = 120 * 1000, /* the keeper has a shorter one of its own */
};

#define STATE_NAME "state" /* of the descriptor, in QEMU */

/* Migration is slowed down by default, for the sake of a network that is not there. */
#define BANDWIDTH ((json_int_t)1 << 40)

static json_t *capability(const char *name)
{
    return json_pack("{s:s, s:b}", "capability", name, "state", 1);
}

static json_t *capabilities_arguments(const struct op *op)
{
    return json_pack("{s:[o, o]}", "capabilities", capability("x-ignore-shared"),
                     capability("events"));
}

static json_t *parameters_arguments(const struct op *op)
{
    return json_pack("{s:I}", "max-bandwidth", BANDWIDTH);
}

static json_t *getfd_arguments(const struct op *op)
{
    return json_pack("{s:s}", "fdname", STATE_NAME);
}

static json_t *uri_arguments(const struct op *op)
{
    return json_pack("{s:s}", "uri", "fd:" STATE_NAME);
}

/* ---- freeze --------------------------------------------------------------------------------- */

static enum verdict migration_judge(const struct op *op, const json_t *data,
                                    struct error **ret_error)
{
    const char *status = json_string_value(json_object_get(data, "status"));
    if (str_eq(str_or(status, ""), "completed"))
        return ARRIVED;
    if (!str_eq(str_or(status, ""), "failed"))
        return NOT_OURS;
    error_set(ret_error, ERROR_IO, 0, "QEMU cannot write its state");
    return FAILED;
}

static void migration_late(const struct op *op, struct error **ret_error)
{
    error_set(ret_error, ERROR_TIMEOUT, 0, "QEMU does not finish writing its state");
}

static const struct awaited migrated = {"MIGRATION", migration_judge, FREEZE_DEADLINE_MS,
                                        migration_late};

static const struct step freeze_steps[] = {
    {.command = "migrate-set-capabilities", .arguments = capabilities_arguments},
    {.command = "migrate-set-parameters", .arguments = parameters_arguments},
    {.command = "getfd", .arguments = getfd_arguments, .takes_fd = true},
    {.command = "migrate", .arguments = uri_arguments},
    {.until = &migrated},
};

void qemu_freeze(struct hyper *h, int fd, hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = freeze_steps,
                            .step_count = ARRAY_SIZE(freeze_steps),
                            .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
                            .done = done,
                            .arg = arg});
}

/* ---- clone ---------------------------------------------------------------------------------- */

/* A connection that ends is QEMU's end, and what that says of itself is better. */
static void clone_failed(struct hyper *h, const struct error *error)
{
    if (error->kind == ERROR_UNAVAILABLE)
        return;
    if (!h->failed)
        h->failed = xstrdup(error->message);
    child_kill(h->child, SIGKILL);
}

static void clone_answered(const json_t *value, const struct error *error, void *arg)
{
    struct hyper *h = arg;
    if (error && h->child)
        clone_failed(h, error);
}

static enum verdict resume_judge(const struct op *op, const json_t *data, struct error **ret_error)
{
    return ARRIVED;
}

static void resume_late(const struct op *op, struct error **ret_error)
{
    error_set(ret_error, ERROR_TIMEOUT, 0, "the clone's state is not loaded");
}

static const struct awaited resumed = {"RESUME", resume_judge, CLONE_DEADLINE_MS, resume_late};
static const struct step clone_steps[] = {{.until = &resumed}};

void qemu_clone_done(const struct error *error, void *arg)
{
    struct hyper *h = arg;
    if (error && h->child)
        clone_failed(h, error);
}

/* QEMU reads all of this as soon as it can; a state that it cannot load is its end. Operations wait
 * until it is loaded. */
void qemu_clone(struct hyper *h, int state_fd)
{
    qmp_send(h->qmp, "migrate-set-capabilities", capabilities_arguments(NULL), -1, clone_answered,
             h);
    qmp_send(h->qmp, "getfd", getfd_arguments(NULL), state_fd, clone_answered, h);
    qmp_send(h->qmp, "migrate-incoming", uri_arguments(NULL), -1, clone_answered, h);
    op_start(h, (struct op){.steps = clone_steps,
                            .step_count = ARRAY_SIZE(clone_steps),
                            .fd = -1,
                            .done = qemu_clone_done,
                            .arg = h});
}

/* ---- growth --------------------------------------------------------------------------------- */

static json_t *memory_arguments(const struct op *op)
{
    return json_pack("{s:s, s:s, s:I}", "path", "/machine/peripheral/more", "property",
                     "requested-size", "value", (json_int_t)op->bytes);
}

static json_t *cpu_arguments(const struct op *op)
{
    CLEANUP_FREE char *id = str_printf("cpu%u", op->number);
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i}", "driver", op->h->cpu_type, "id", id,
                     "socket-id", 0, "die-id", 0, "core-id", (int)op->number, "thread-id", 0);
}

static const struct step memory_steps[] = {{.command = "qom-set", .arguments = memory_arguments}};
static const struct step cpu_steps[] = {{.command = "device_add", .arguments = cpu_arguments}};

static int growth_check(const struct hyper *h, uint64_t memory_bytes, unsigned cpus,
                        struct error **ret_error)
{
    const struct hyper_layout *l = &h->layout;
    if (memory_bytes != l->base_bytes &&
        (memory_bytes < l->base_bytes || memory_bytes > l->memory_max_bytes))
        return error_set(ret_error, ERROR_LIMIT, 0,
                         "%llu MiB of memory are not what its template can grow to",
                         (unsigned long long)(memory_bytes >> 20));
    if (cpus < h->cpus || (cpus > h->cpus && cpus > l->cpus_max))
        return error_set(ret_error, ERROR_LIMIT, 0,
                         "%u virtual CPUs are not what its template can grow to", cpus);
    return 0;
}

void qemu_grow(struct hyper *h, uint64_t memory_bytes, unsigned cpus, hyper_done *done, void *arg)
{
    CLEANUP_ERROR struct error *error = NULL;
    bool more_memory = memory_bytes > h->layout.base_bytes;
    unsigned first = h->cpus;
    if (growth_check(h, memory_bytes, cpus, &error) < 0 || (!more_memory && cpus == first)) {
        done(error, arg);
        return;
    }
    struct batch *batch = batch_new(cpus - first + more_memory, done, arg);
    h->cpus = cpus;
    struct op op = {.fd = -1, .done = batch_done, .arg = batch, .step_count = 1};
    op.steps = cpu_steps;
    for (op.number = first; op.number < cpus; op.number++)
        op_start(h, op);
    op.steps = memory_steps;
    op.bytes = memory_bytes - h->layout.base_bytes;
    if (more_memory)
        op_start(h, op);
}
