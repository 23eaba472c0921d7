/* The driver for QEMU 7.2 and later: `hyper_qemu` at the end. Its process from start to end. */
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
#include "hyper/qemu_args.h"
#include "hyper/qemu_int.h"
#include "hyper/zygote.h"

enum {
    TSC_TRIES = 5,
    TSC_MEASURE_NS = 5 * 1000 * 1000,
    STDERR_TAIL = 400, /* bytes of QEMU's last words in a message */
};

#define QEMU_LOG   "qemu.log"
#define KVM_DEVICE "/dev/kvm"
#define PRELOAD    "LD_PRELOAD" /* ld.so(8) */

/* ---- events --------------------------------------------------------------------------------- */

static void qmp_event_came(const char *name, const json_t *data, void *arg)
{
    struct hyper *h = arg;
    op_event(h, name, data);
    if (str_eq(name, "SHUTDOWN"))
        h->events->shut_down(h->arg);
    else if (str_eq(name, "BLOCK_IO_ERROR") &&
             str_eq(json_string_value(json_object_get(data, "action")), "stop"))
        h->events->disk_failed(h->arg);
    else if (h->events->mark && (str_eq(name, "RESUME") || str_eq(name, QMP_EVENT_GREETING)))
        h->events->mark(str_eq(name, "RESUME") ? "running" : "monitor", h->arg);
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

void qemu_ended(int status, void *arg)
{
    struct hyper *h = arg;
    CLEANUP_FREE char *tail = stderr_tail();
    CLEANUP_FREE char *how = status == CHILD_STATUS_UNKNOWN ? xstrdup("has ended")
                             : status > 128 ? str_printf("was killed by signal %d", status - 128)
                                            : str_printf("exited with status %d", status);
    CLEANUP_FREE char *why =
        h->failed ? xstrdup(h->failed) : str_printf("QEMU %s%s%s", how, *tail ? ": " : "", tail);

    child_free(take(h->child));
    op_abandon(h);
    qmp_free(h->qmp); /* fails the operation that runs, and by that all others */
    h->qmp = NULL;
    h->events->gone(why, h->arg);
}

static const struct step pause_steps[] = {{.command = "stop"}};
static const struct step resume_steps[] = {{.command = "cont"}};

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
    timer_free(h->awaits);
    free(h->failed);
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

/* Only a clone's memory is a file in which no holes are. */
static bool needs_module(const struct hyper_spec *spec)
{
    return spec->origin == HYPER_CLONE && (spec->memory_return || spec->zygote);
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
        if (spec->disks[i].fd >= 0)
            theirs[QEMU_FD_DISK + i] = fcntl(spec->disks[i].fd, F_DUPFD_CLOEXEC, 0);
    if (spec->share_fd >= 0)
        theirs[QEMU_FD_SHARE] = fcntl(spec->share_fd, F_DUPFD_CLOEXEC, 0);
    if (spec->origin != HYPER_COLD)
        theirs[QEMU_FD_MEMORY] = fcntl(spec->memory_fd, F_DUPFD_CLOEXEC, 0);
    if (needs_module(spec) &&
        file_open(spec->module, "module", &theirs[QEMU_FD_MODULE], ret_error) < 0)
        return -1;
    if (spec->zygote && zygote_listen(&theirs[QEMU_FD_ZYGOTE], ret_error) < 0)
        return -1;
    if (qemu_resumes(spec))
        return 0; /* its kernel is in its memory */
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

/* Ours, with husk-qemu.so loaded before all others; the vector is the caller's. */
static char **environment_make(const struct hyper_spec *spec)
{
    char **variables = NULL;
    for (char **v = environ; *v; v++)
        if (!str_starts(*v, PRELOAD "="))
            strv_push(&variables, *v);
    strv_push_take(&variables, str_printf(PRELOAD "=/proc/self/fd/%d", QEMU_FD_MODULE));
    if (spec->zygote)
        strv_push_take(&variables, str_printf(ZYGOTE_VARIABLE "=%d", QEMU_FD_ZYGOTE));
    return variables;
}

static int qemu_spawn(struct hyper *h, const struct hyper_spec *spec, const int *fds,
                      struct error **ret_error)
{
    CLEANUP_STRV char **args = NULL, **env = needs_module(spec) ? environment_make(spec) : NULL;
    unsigned khz = qemu_resumes(spec) ? 0 : tsc_khz(); /* the clone's kernel knows it */
    if (qemu_args_build(spec, khz, &args, ret_error) < 0)
        return -1;
    struct child_spec child = {.path = spec->program,
                               .argv = (const char *const *)args,
                               .env = (const char *const *)env,
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
    if (spec->origin != HYPER_COLD && spec->share_fd >= 0)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                         "a template or a clone of one cannot have files served to it");
    if (spec->origin != HYPER_COLD && spec->memory_fd < 0)
        return error_set(ret_error, ERROR_INVALID, 0, "no file for the memory came");
    return 0;
}

static struct hyper *hyper_new(struct loop *loop, const struct hyper_spec *spec,
                               const struct hyper_events *events, void *arg)
{
    struct hyper *h = xcalloc(1, sizeof(*h));
    h->loop = loop;
    h->events = events;
    h->arg = arg;
    h->layout = spec->layout;
    h->cpus = qemu_cpus_at_start(spec);
    h->cpu_type = str_eq(spec->accel, "kvm") ? "host-x86_64-cpu" : "max-x86_64-cpu";
    for (unsigned i = 0; i < spec->disk_count; i++) {
        h->read_only |= (uint32_t)spec->disks[i].read_only << i;
        h->filled |= (uint32_t)(spec->disks[i].fd >= 0) << i;
    }
    return h;
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
    struct hyper *h = hyper_new(loop, spec, events, arg);
    int r = fds_open(spec, theirs, ours, ret_error);
    bool copied = r == 0 && zygote_copy(h, spec, theirs);
    if (r == 0 && !copied)
        r = qemu_spawn(h, spec, theirs, ret_error);
    fds_close(theirs, QEMU_FD_MAX);
    if (r < 0) {
        fds_close(ours, 3);
        free(h);
        return -1;
    }
    h->awaits = timer_new(loop, op_late, h);
    h->qmp = qmp_new(loop, ours[0], copied, &monitor_events, h);
    if (copied)
        zygote_begin_copy(h, spec);
    else if (qemu_resumes(spec))
        qemu_clone(h, spec->state_fd);
    *ret_ends = (struct hyper_ends){.agent = ours[1], .console = ours[2]};
    *ret = h;
    return 0;
}

const struct hyper_ops hyper_qemu = {
    .name = "qemu",
    .start = qemu_start,
    .disk_add = qemu_disk_add,
    .disk_del = qemu_disk_del,
    .disk_put = qemu_disk_put,
    .disk_forget = qemu_disk_forget,
    .grow = qemu_grow,
    .freeze = qemu_freeze,
    .settle = qemu_settle,
    .pause = qemu_pause,
    .resume = qemu_resume,
    .quit = qemu_quit,
    .kill = qemu_kill,
    .pid = qemu_pid,
    .free = qemu_free,
};
