#include "disk/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"

enum {
    DATA_FD = 3, /* in the child: what it has written, and … */
    REPORT_FD,   /* … what has become of it */
    FD_COUNT,
    PIPE_BYTES = 1 << 20,
    PIECE = 256 << 10,
    CAPABILITIES_MAX = 64,
};

struct report {
    int32_t kind; /* -1: no error */
    char text[1024];
};

/* ---- in the child: what it gives up --------------------------------------------------------- */

/* Rights that younger kernels know. Headers are of the machine that built this. */
#define RIGHT_REFER    (1ULL << 13)
#define RIGHT_TRUNCATE (1ULL << 14)

#define RIGHTS_TO_READ          (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE)
#define RIGHTS_OF_TREE          (RIGHTS_TO_READ | LANDLOCK_ACCESS_FS_READ_DIR)
#define RIGHTS_OF_FILE          (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE)
#define RIGHTS_OF_FIRST_VERSION (LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1)

/* With what e2fsck is run; a path that is not there is left out. */
static const struct {
    const char *path;
    uint64_t rights;
} programs[] = {
    {"/usr", RIGHTS_OF_TREE},
    {"/bin", RIGHTS_OF_TREE},
    {"/sbin", RIGHTS_OF_TREE},
    {"/lib", RIGHTS_OF_TREE},
    {"/lib64", RIGHTS_OF_TREE},
    {"/etc/ld.so.cache", RIGHTS_TO_READ},
    {"/etc/e2fsck.conf", RIGHTS_TO_READ},
    {"/dev/null", RIGHTS_OF_FILE},
};

static int rule_add(int ruleset, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights};

    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return errno == ENOENT ? 0 : -1;
    int rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    close(rule.parent_fd);
    return rc;
}

/* Where there is no Landlock the rest is given up all the same. */
static int world_seal(const struct sandbox_files *files, uint64_t rights_of_file,
                      bool with_programs)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    uint64_t handled = RIGHTS_OF_FIRST_VERSION | (version >= 2 ? RIGHT_REFER : 0) |
                       (version >= 3 ? RIGHT_TRUNCATE : 0);
    int ruleset, rc;

    if (version <= 0)
        return 0;
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0);
    if (ruleset < 0)
        return -1;
    rc = rule_add(ruleset, files->file, rights_of_file);
    if (rc == 0 && files->beside)
        rc = rule_add(ruleset, files->beside, LANDLOCK_ACCESS_FS_READ_FILE);
    for (size_t i = 0; rc == 0 && with_programs && i < ARRAY_SIZE(programs); i++)
        rc = rule_add(ruleset, programs[i].path, programs[i].rights);
    if (rc == 0)
        rc = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
    close(ruleset);
    return rc;
}

/* The root may lie in a directory of somebody else's. */
static int capabilities_drop(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {0};

    if (geteuid() != 0)
        return 0;
    for (int capability = 0; capability < CAPABILITIES_MAX; capability++)
        if (capability != CAP_DAC_OVERRIDE && prctl(PR_CAPBSET_DROP, capability) < 0 &&
            errno == EINVAL)
            break; /* the kernel knows no more */
    sets[0].permitted = sets[0].effective = 1U << CAP_DAC_OVERRIDE;
    return (int)syscall(SYS_capset, &header, sets);
}

static int sandbox_enter(const struct sandbox_files *files, struct error **ret_error)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || capabilities_drop() < 0 ||
        world_seal(files, RIGHTS_OF_FILE, true) < 0)
        return error_set(ret_error, ERROR_IO, errno, "confine what reads a layer");
    return 0;
}

int sandbox_narrow(const struct sandbox_files *files, struct error **ret_error)
{
    if (world_seal(files, LANDLOCK_ACCESS_FS_READ_FILE, false) < 0)
        return error_set(ret_error, ERROR_IO, errno, "confine what reads a layer");
    return 0;
}

/* ---- in the child: the work ----------------------------------------------------------------- */

static int data_write(void *arg, const void *data, size_t size, struct error **ret_error)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(write(DATA_FD, at, size));
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "pass the layer on");
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

_Noreturn static void child_main(const struct sandbox_files *files, sandbox_work *work,
                                 uint64_t max_bytes, int data, int told)
{
    const struct disk_output out = {data_write, NULL, max_bytes};
    struct report report = {.kind = -1};
    struct error *error = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    data = fcntl(data, F_DUPFD_CLOEXEC, FD_COUNT);
    told = fcntl(told, F_DUPFD_CLOEXEC, FD_COUNT);
    if (dup3(data, DATA_FD, O_CLOEXEC) < 0 || dup3(told, REPORT_FD, O_CLOEXEC) < 0 ||
        syscall(SYS_close_range, FD_COUNT, ~0U, 0) < 0)
        _exit(1);
    if (sandbox_enter(files, &error) < 0 || work(files, &out, &error) < 0) {
        report.kind = error->kind;
        snprintf(report.text, sizeof(report.text), "%s", error->message);
    }
    _exit(write(REPORT_FD, &report, sizeof(report)) == sizeof(report) ? 0 : 1);
}

/* ---- in the parent -------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int data, told;
};

static void fds_close(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int child_start(const struct sandbox_files *files, sandbox_work *work, uint64_t max_bytes,
                       struct child *ret, struct error **ret_error)
{
    struct clone_args args = {
        .flags = geteuid() == 0 ? CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC : 0,
        .exit_signal = SIGCHLD,
    };
    int ends[4] = {-1, -1, -1, -1}; /* two of the data, two of the report */

    ret->pid = -1;
    if (pipe2(ends, O_CLOEXEC) == 0 && pipe2(ends + 2, O_CLOEXEC) == 0) {
        fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
        ret->pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        if (ret->pid == 0)
            child_main(files, work, max_bytes, ends[1], ends[3]);
    }
    if (ret->pid < 0) {
        int err = errno;
        fds_close(ends, ARRAY_SIZE(ends));
        return error_set(ret_error, ERROR_IO, err, "start what reads a layer");
    }
    close(ends[1]);
    close(ends[3]);
    ret->data = ends[0];
    ret->told = ends[2];
    return 0;
}

/* A child that something has gone wrong in may send what it likes. */
static int data_pass(const struct child *child, const struct disk_output *out,
                     struct error **ret_error)
{
    CLEANUP_FREE uint8_t *piece = xmalloc(PIECE);
    uint64_t done = 0;
    ssize_t n;

    while ((n = TEMP_FAILURE_RETRY(read(child->data, piece, PIECE))) > 0) {
        if ((uint64_t)n > out->max_bytes - done)
            return error_set(ret_error, ERROR_TOO_LARGE, 0,
                             "the layer would have more than the %llu bytes that one may have",
                             (unsigned long long)out->max_bytes);
        if (out->write(out->arg, piece, (size_t)n, ret_error) < 0)
            return -1;
        done += (uint64_t)n;
    }
    return n < 0 ? error_set(ret_error, ERROR_IO, errno, "read the layer") : 0;
}

static int report_take(const struct child *child, struct error **ret_error)
{
    struct report report;
    ssize_t n = TEMP_FAILURE_RETRY(read(child->told, &report, sizeof(report)));

    if (n != sizeof(report))
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "the layer is damaged: what read it did not live to its end");
    if (report.kind == -1)
        return 0;
    report.text[sizeof(report.text) - 1] = '\0';
    str_make_plain(report.text);
    bool known = report.kind >= 0 && report.kind < ERROR_KIND_COUNT;
    return error_set(ret_error, known ? (enum error_kind)report.kind : ERROR_CORRUPT, 0, "%s",
                     report.text);
}

int sandbox_run(const struct sandbox_files *files, sandbox_work *work,
                const struct disk_output *out, struct error **ret_error)
{
    struct child child = {-1, -1, -1};

    if (child_start(files, work, out->max_bytes, &child, ret_error) < 0)
        return -1;
    int result = data_pass(&child, out, ret_error);
    if (result == 0)
        result = report_take(&child, ret_error);
    kill(child.pid, SIGKILL); /* it has said all */
    TEMP_FAILURE_RETRY(waitpid(child.pid, NULL, 0));
    close(child.data);
    close(child.told);
    return result;
}
