/* The driver for QEMU 7.2 and later: `hyper_qemu` at the end.
 *
 * What changes a running VM is an operation: a table of QMP commands, run one after the other, and
 * one operation after the other. When a command fails, what the commands before it did is undone
 * in reverse. One at a time because QEMU keeps only the last descriptor that it was sent.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "hyper/hyper.h"
#include "hyper/qemu_args.h"
#include "hyper/qmp.h"

enum {
    EMPTY_DISK_SIZE = 1 << 20,
    UNPLUG_DEADLINE_MS = 20 * 1000, /* until the guest has let go of a disk */
    TSC_TRIES = 5,
    TSC_MEASURE_NS = 5 * 1000 * 1000,
    STDERR_TAIL = 400, /* bytes of QEMU's last words in a message */
};

#define QEMU_LOG   "qemu.log"
#define KVM_DEVICE "/dev/kvm"

struct op;

struct step {
    const char *command;                       /* NULL: waits for the device's DEVICE_DELETED */
    json_t *(*arguments)(const struct op *op); /* NULL: none */
    const char *undo;                          /* with undo_arguments */
    json_t *(*undo_arguments)(const struct op *op);
    bool takes_fd;
};

struct op {
    struct op *next;
    struct hyper *h;
    const struct step *steps;
    size_t step_count;
    size_t at; /* the step that runs; while undoing: the one to undo next + 1 */
    unsigned lun;
    bool read_only;
    int fd;
    json_int_t fdset;
    struct error *error; /* of the step that failed: the rest is undone */
    hyper_done *done;
    void *arg;
};

struct hyper {
    struct loop *loop;
    const struct hyper_events *events;
    void *arg;
    struct child *child;
    struct qmp *qmp;
    struct op *ops; /* the first one runs */
    struct timer *unplug;
    bool unplugging; /* the first operation waits for DEVICE_DELETED */
};

/* ---- operations ----------------------------------------------------------------------------- */

static void op_advance(struct op *op);

static void op_finish(struct op *op)
{
    struct hyper *h = op->h;
    assert(h->ops == op);
    op->done(op->error, op->arg); /* operations that this starts stand in line behind */
    h->ops = op->next;
    error_free(op->error);
    if (op->fd >= 0)
        close(op->fd);
    free(op);
    if (h->ops)
        op_advance(h->ops);
}

static void undone(const json_t *value, const struct error *error, void *arg)
{
    op_advance(arg); /* what cannot be undone goes with the VM */
}

static void op_undo(struct op *op)
{
    while (op->at > 0) {
        const struct step *s = &op->steps[--op->at];
        if (!s->undo)
            continue;
        qmp_send(op->h->qmp, s->undo, s->undo_arguments(op), -1, undone, op);
        return;
    }
    op_finish(op);
}

static void step_done(const json_t *value, const struct error *error, void *arg)
{
    struct op *op = arg;
    if (error)
        error_set(&op->error, error->kind, 0, "%s", error->message);
    else if (op->steps[op->at].takes_fd)
        op->fdset = json_integer_value(json_object_get(value, "fdset-id"));
    if (!error)
        op->at++;
    op_advance(op);
}

static void op_advance(struct op *op)
{
    if (op->error) {
        op_undo(op);
        return;
    }
    if (op->at == op->step_count) {
        op_finish(op);
        return;
    }
    const struct step *s = &op->steps[op->at];
    if (s->command) {
        qmp_send(op->h->qmp, s->command, s->arguments ? s->arguments(op) : NULL,
                 s->takes_fd ? op->fd : -1, step_done, op);
        return;
    }
    op->h->unplugging = true;
    timer_set(op->h->unplug, UNPLUG_DEADLINE_MS);
}

static void op_start(struct hyper *h, struct op op)
{
    struct op *o = xmemdup(&op, sizeof(op));
    struct op **end = &h->ops;
    o->h = h;
    while (*end)
        end = &(*end)->next;
    *end = o;
    if (h->ops == o)
        op_advance(o);
}

static void unplug_late(void *arg)
{
    struct hyper *h = arg;
    struct op *op = h->ops;
    h->unplugging = false;
    timer_unset(h->unplug);
    error_set(&op->error, ERROR_TIMEOUT, 0, "the guest does not let go of disk %u", op->lun);
    op_advance(op);
}

/* ---- what the operations say ---------------------------------------------------------------- */

static json_t *fdset_arguments(const struct op *op)
{
    return json_pack("{s:I}", "fdset-id", op->fdset);
}

static json_t *blockdev_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("s%u", op->lun);
    CLEANUP_FREE char *file = str_printf("/dev/fdset/%lld", (long long)op->fdset);
    return json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s, s:b, s:s}}", "driver", "raw", "node-name",
                     node, "read-only", (int)op->read_only, "discard", "unmap", "file", "driver",
                     "file", "filename", file, "read-only", (int)op->read_only, "discard", "unmap");
}

static json_t *node_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("s%u", op->lun);
    return json_pack("{s:s}", "node-name", node);
}

static json_t *device_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("s%u", op->lun);
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i}", "driver", "scsi-hd", "id", node,
                     "drive", node, "bus", "scsi.0", "channel", 0, "scsi-id", 0, "lun",
                     (int)op->lun);
}

static json_t *id_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("s%u", op->lun);
    return json_pack("{s:s}", "id", node);
}

/* The set is removed once the disk has its own copy: it would keep the file open for ever. */
static const struct step disk_add_steps[] = {
    {.command = "add-fd", .takes_fd = true, .undo = "remove-fd", .undo_arguments = fdset_arguments},
    {.command = "blockdev-add",
     .arguments = blockdev_arguments,
     .undo = "blockdev-del",
     .undo_arguments = node_arguments},
    {.command = "device_add",
     .arguments = device_arguments,
     .undo = "device_del",
     .undo_arguments = id_arguments},
    {.command = "remove-fd", .arguments = fdset_arguments},
};

static const struct step disk_del_steps[] = {
    {.command = "device_del", .arguments = id_arguments},
    {.command = NULL},
    {.command = "blockdev-del", .arguments = node_arguments},
};

/* A disk that QEMU booted with cannot be pulled out (no bus of the machine's root lets go of a
 * device): its file is exchanged for one that is empty, and with that unlocked and closed. */
static json_t *empty_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("e%u", op->lun);
    return json_pack("{s:s, s:s, s:i, s:b}", "driver", "null-co", "node-name", node, "size",
                     EMPTY_DISK_SIZE, "read-zeroes", 1);
}

static json_t *empty_node_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = str_printf("e%u", op->lun);
    return json_pack("{s:s}", "node-name", node);
}

static json_t *reopen_arguments(const struct op *op)
{
    CLEANUP_FREE char *disk = str_printf("d%u", op->lun);
    CLEANUP_FREE char *node = str_printf("e%u", op->lun);
    return json_pack("{s:[{s:s, s:s, s:b, s:s, s:s}]}", "options", "driver", "raw", "node-name",
                     disk, "read-only", 0, "discard", "unmap", "file", node);
}

static const struct step disk_forget_steps[] = {
    {.command = "blockdev-add",
     .arguments = empty_arguments,
     .undo = "blockdev-del",
     .undo_arguments = empty_node_arguments},
    {.command = "blockdev-reopen", .arguments = reopen_arguments},
    {.command = "remove-fd", .arguments = fdset_arguments},
};

static const struct step pause_steps[] = {{.command = "stop"}};
static const struct step resume_steps[] = {{.command = "cont"}};

static void qemu_disk_add(struct hyper *h, unsigned lun, const struct hyper_disk *disk,
                          hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = disk_add_steps,
                            .step_count = ARRAY_SIZE(disk_add_steps),
                            .lun = lun,
                            .read_only = disk->read_only,
                            .fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 0),
                            .done = done,
                            .arg = arg});
}

static void qemu_disk_del(struct hyper *h, unsigned lun, hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = disk_del_steps,
                            .step_count = ARRAY_SIZE(disk_del_steps),
                            .lun = lun,
                            .fd = -1,
                            .done = done,
                            .arg = arg});
}

static void qemu_disk_forget(struct hyper *h, unsigned number, hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = disk_forget_steps,
                            .step_count = ARRAY_SIZE(disk_forget_steps),
                            .lun = number,
                            .fdset = QEMU_FD_DISK + (json_int_t)number,
                            .fd = -1,
                            .done = done,
                            .arg = arg});
}

static void qemu_pause(struct hyper *h, hyper_done *done, void *arg)
{
    op_start(
        h, (struct op){.steps = pause_steps, .step_count = 1, .fd = -1, .done = done, .arg = arg});
}

static void qemu_resume(struct hyper *h, hyper_done *done, void *arg)
{
    op_start(
        h, (struct op){.steps = resume_steps, .step_count = 1, .fd = -1, .done = done, .arg = arg});
}

/* ---- events --------------------------------------------------------------------------------- */

static void device_deleted(struct hyper *h, const json_t *data)
{
    const char *device = json_string_value(json_object_get(data, "device"));
    struct op *op = h->ops;
    if (!h->unplugging || !device)
        return;
    CLEANUP_FREE char *node = str_printf("s%u", op->lun);
    if (!str_eq(device, node))
        return;
    h->unplugging = false;
    timer_unset(h->unplug);
    op->at++;
    op_advance(op);
}

static void qmp_event_came(const char *name, const json_t *data, void *arg)
{
    struct hyper *h = arg;
    if (str_eq(name, "DEVICE_DELETED"))
        device_deleted(h, data);
    else if (str_eq(name, "SHUTDOWN"))
        h->events->shut_down(h->arg);
}

static void qmp_ended(const struct error *why, void *arg)
{
    struct hyper *h = arg;
    if (why) /* without its monitor the VM cannot be ruled */
        child_kill(h->child, SIGKILL);
}

static const struct qmp_events monitor_events = {qmp_event_came, qmp_ended};

/* ---- the end -------------------------------------------------------------------------------- */

/* The last lines that QEMU wrote, on one line; "" if there are none. */
static char *stderr_tail(void)
{
    char text[STDERR_TAIL + 1];
    int fd = open(QEMU_LOG, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n =
        size <= 0 ? 0 : pread(fd, text, STDERR_TAIL, size > STDERR_TAIL ? size - STDERR_TAIL : 0);
    if (fd >= 0)
        close(fd);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n > 0 ? n : 0] = 0;
    for (char *p = strchr(text, '\n'); p; p = strchr(p, '\n'))
        *p = ';';
    str_make_plain(text);
    return xstrdup(text);
}

static void qemu_ended(int status, void *arg)
{
    struct hyper *h = arg;
    CLEANUP_FREE char *tail = stderr_tail();
    CLEANUP_FREE char *how = status > 128 ? str_printf("was killed by signal %d", status - 128)
                                          : str_printf("exited with status %d", status);
    CLEANUP_FREE char *why = str_printf("QEMU %s%s%s", how, *tail ? ": " : "", tail);

    child_free(take(h->child));
    if (h->unplugging)
        unplug_late(h);
    qmp_free(h->qmp); /* fails the operation that runs, and by that all others */
    h->qmp = NULL;
    h->events->gone(why, h->arg);
}

static void quit_answered(const json_t *value, const struct error *error, void *arg)
{
}

static void qemu_quit(struct hyper *h)
{
    if (h->qmp)
        qmp_send(h->qmp, "quit", NULL, -1, quit_answered, NULL);
}

static void qemu_kill(struct hyper *h)
{
    if (h->child)
        child_kill(h->child, SIGKILL);
}

static pid_t qemu_pid(const struct hyper *h)
{
    return h->child ? child_pid(h->child) : 0;
}

static void qemu_free(struct hyper *h)
{
    if (!h)
        return;
    assert(!h->child && !h->ops);
    timer_free(h->unplug);
    free(h);
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the start ------------------------------------------------------------------------------ */

static int file_open(const char *path, const char *what, int *ret, struct error **ret_error)
{
    *ret = open(path, O_RDONLY | O_CLOEXEC);
    return *ret >= 0 ? 0 : error_set(ret_error, ERROR_IO, errno, "%s '%s'", what, path);
}

static int socket_pair(int *ret_ours, int *ret_theirs, struct error **ret_error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(ret_error, ERROR_IO, errno, "socketpair");
    *ret_ours = pair[0];
    *ret_theirs = pair[1];
    return 0;
}

static void fds_close(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* QEMU's descriptors in theirs[], in the order of QEMU_FD_…; our ends in ours[]. */
static int fds_open(const struct hyper_spec *spec, int theirs[QEMU_FD_MAX], int ours[3],
                    struct error **ret_error)
{
    theirs[1] = open(QEMU_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (theirs[1] < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '" QEMU_LOG "'");
    theirs[2] = fcntl(theirs[1], F_DUPFD_CLOEXEC, 0);
    for (int i = 0; i < 3; i++)
        if (socket_pair(&ours[i], &theirs[QEMU_FD_MONITOR + i], ret_error) < 0)
            return -1;
    for (unsigned i = 0; i < spec->disk_count; i++)
        theirs[QEMU_FD_DISK + i] = fcntl(spec->disks[i].fd, F_DUPFD_CLOEXEC, 0);
    if (file_open(spec->kernel, "kernel", &theirs[QEMU_FD_KERNEL], ret_error) < 0)
        return -1;
    return file_open(spec->initrd, "initrd", &theirs[QEMU_FD_INITRD], ret_error);
}

/* The clock and the CPU's counter at one moment: of several tries, the one that took least. */
static uint64_t tsc_read(uint64_t *ret_ns)
{
    uint64_t best = UINT64_MAX, tsc = 0;
    for (int i = 0; i < TSC_TRIES; i++) {
        uint64_t before = monotonic_ns(), now = __builtin_ia32_rdtsc(), after = monotonic_ns();
        if (after - before >= best)
            continue;
        best = after - before;
        *ret_ns = before + best / 2;
        tsc = now;
    }
    return tsc;
}

/* Of the host's time stamp counter. An emulated CPU shows the guest the same counter; a microvm has
 * no other clock to measure it by than the PIT, which is too slow to be read on a busy host: then
 * the guest would wait for its first tick for ever. */
static unsigned tsc_khz(void)
{
    uint64_t begin_ns, end_ns, begin = tsc_read(&begin_ns), end;
    do {
        end = tsc_read(&end_ns);
    } while (end_ns - begin_ns < TSC_MEASURE_NS);
    return (unsigned)((end - begin) * 1000000 / (end_ns - begin_ns));
}

static int qemu_spawn(struct hyper *h, const struct hyper_spec *spec, const int *fds,
                      struct error **ret_error)
{
    CLEANUP_STRV char **args = NULL;
    if (qemu_args_build(spec, tsc_khz(), &args, ret_error) < 0)
        return -1;
    struct child_spec child = {.path = spec->program,
                               .argv = (const char *const *)args,
                               .fds = fds,
                               .fd_count = QEMU_FD_DISK + spec->disk_count,
                               .die_with_parent = true,
                               .no_new_privileges = true,
                               .user = str_empty(spec->user) ? NULL : spec->user,
                               .device = str_eq(spec->accel, "kvm") ? KVM_DEVICE : NULL};
    h->child = child_spawn(h->loop, &child, qemu_ended, h, ret_error);
    return h->child ? 0 : -1;
}

static int spec_check(const struct hyper_spec *spec, struct error **ret_error)
{
    if (spec->disk_count > HYPER_BOOT_DISKS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%u disks, more than %d", spec->disk_count,
                         HYPER_BOOT_DISKS_MAX);
    if (spec->cpus < 1 || spec->cpus > HYPER_CPUS_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "%u virtual CPUs, not 1 to %d", spec->cpus,
                         HYPER_CPUS_MAX);
    return 0;
}

static int qemu_start(struct loop *loop, const struct hyper_spec *spec,
                      const struct hyper_events *events, void *arg, struct hyper_ends *ret_ends,
                      struct hyper **ret, struct error **ret_error)
{
    int theirs[QEMU_FD_MAX], ours[3] = {-1, -1, -1};
    for (size_t i = 0; i < QEMU_FD_MAX; i++)
        theirs[i] = -1;
    if (spec_check(spec, ret_error) < 0)
        return -1;
    struct hyper *h = xcalloc(1, sizeof(*h));
    h->loop = loop;
    h->events = events;
    h->arg = arg;
    int r = fds_open(spec, theirs, ours, ret_error);
    if (r == 0)
        r = qemu_spawn(h, spec, theirs, ret_error);
    fds_close(theirs, QEMU_FD_MAX);
    if (r < 0) {
        fds_close(ours, 3);
        free(h);
        return -1;
    }
    h->unplug = timer_new(loop, unplug_late, h);
    h->qmp = qmp_new(loop, ours[0], &monitor_events, h);
    *ret_ends = (struct hyper_ends){.agent = ours[1], .console = ours[2]};
    *ret = h;
    return 0;
}

const struct hyper_ops hyper_qemu = {
    .name = "qemu",
    .start = qemu_start,
    .disk_add = qemu_disk_add,
    .disk_del = qemu_disk_del,
    .disk_forget = qemu_disk_forget,
    .pause = qemu_pause,
    .resume = qemu_resume,
    .quit = qemu_quit,
    .kill = qemu_kill,
    .pid = qemu_pid,
    .free = qemu_free,
};
