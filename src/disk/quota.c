#include "disk/quota.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

enum {
    PROJECT_OURS = 1 << 30, /* others count from small numbers */
    PROJECT_ROOTS = 1 << 14,
    PROJECT_COUNT = 1 << 16, /* of one root */
    QUOTA_BLOCK = 1 << 10,   /* the unit of limits */
    FILE_EACH = 16 << 10,    /* bytes: what mke2fs takes for an inode's share */
};

/* quotactl_fd(2), of Linux 5.14: no path of a device is needed. */
static int quota_call(int fd, int command, uint32_t project, void *argument)
{
    return (int)syscall(SYS_quotactl_fd, fd, QCMD((unsigned)command, PRJQUOTA), project, argument);
}

/* By the root's inode, which no other directory of its file system has. */
static uint32_t project_first(const struct stat *root)
{
    return PROJECT_OURS + (uint32_t)(root->st_ino % PROJECT_ROOTS) * PROJECT_COUNT;
}

static bool quota_holds(int fd)
{
    struct fs_quota_statv state = {.qs_version = FS_QSTATV_VERSION1};

    return quota_call(fd, Q_XGETQSTATV, 0, &state) == 0 && state.qs_flags & FS_QUOTA_PDQ_ENFD;
}

/* What the file system knows of a project that it never heard of is nothing. */
static int project_look(int fd, uint32_t project, struct if_dqblk *ret, struct error **ret_error)
{
    *ret = (struct if_dqblk){0};
    if (quota_call(fd, Q_GETQUOTA, project, ret) == 0 || errno == ENOENT)
        return 0;
    return error_set(ret_error, ERROR_IO, errno, "look at project %u", project);
}

static int project_limit(int fd, uint32_t project, uint64_t bytes, struct error **ret_error)
{
    struct if_dqblk limits = {
        .dqb_bhardlimit = bytes / QUOTA_BLOCK,
        .dqb_ihardlimit = bytes / FILE_EACH,
        .dqb_valid = QIF_LIMITS,
    };

    if (quota_call(fd, Q_SETQUOTA, project, &limits) == 0)
        return 0;
    return error_set(ret_error, ERROR_IO, errno, "limit project %u", project);
}

static int project_set(int dir, uint32_t project, struct error **ret_error)
{
    struct fsxattr attributes;

    if (ioctl(dir, FS_IOC_FSGETXATTR, &attributes) == 0) {
        attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
        attributes.fsx_projid = project;
        if (ioctl(dir, FS_IOC_FSSETXATTR, &attributes) == 0)
            return 0;
    }
    return error_set(ret_error, ERROR_IO, errno, "give a directory to project %u", project);
}

/* The first that is free; that of a daemon whose root has our number is seen by its files. */
static int project_take(int dir, uint32_t first, uint32_t *ret, struct error **ret_error)
{
    struct if_dqblk use;

    for (uint32_t project = first; project < first + PROJECT_COUNT; project++) {
        if (project_look(dir, project, &use, ret_error) < 0)
            return -1;
        if (use.dqb_curinodes || use.dqb_curspace)
            continue;
        if (project_set(dir, project, ret_error) < 0 ||
            project_look(dir, project, &use, ret_error) < 0)
            return -1;
        *ret = project;
        if (use.dqb_curinodes == 1)
            return 0;
    }
    return error_set(ret_error, ERROR_LIMIT, 0,
                     "all of the %d projects that writable layers with a size have are in use",
                     PROJECT_COUNT);
}

static int quota_unsupported(const char *root, struct error **ret_error)
{
    return error_set(
        ret_error, ERROR_UNSUPPORTED, 0,
        "the storage driver 'overlay' cannot hold a container to a size, since the "
        "file system of '%s' has no project quotas: mount an xfs or ext4 that has them "
        "with the option prjquota, leave the size out, or set storage=block",
        root);
}

int quota_give(const char *root, int dir, int lock, uint64_t bytes, struct error **ret_error)
{
    uint32_t project = 0;
    struct stat st;

    if (!quota_holds(dir))
        return quota_unsupported(root, ret_error);
    if (stat(root, &st) < 0 || flock(lock, LOCK_EX) < 0)
        return error_set(ret_error, ERROR_IO, errno, "lock the projects of '%s'", root);
    int result = project_take(dir, project_first(&st), &project, ret_error);
    if (result == 0)
        result = project_limit(dir, project, bytes, ret_error);
    flock(lock, LOCK_UN);
    return result;
}

int quota_collect(const char *root, int lock, struct error **ret_error)
{
    struct if_nextdqblk use;
    struct stat st;
    int result = 0;

    if (!quota_holds(lock))
        return 0;
    if (stat(root, &st) < 0 || flock(lock, LOCK_EX) < 0)
        return error_set(ret_error, ERROR_IO, errno, "lock the projects of '%s'", root);
    const uint32_t first = project_first(&st), last = first + PROJECT_COUNT - 1;
    for (uint32_t project = first; result == 0 && project <= last; project = use.dqb_id + 1) {
        if (quota_call(lock, Q_GETNEXTQUOTA, project, &use) < 0 || use.dqb_id > last)
            break; /* there is no other */
        if (!use.dqb_curinodes && !use.dqb_curspace && (use.dqb_bhardlimit || use.dqb_ihardlimit))
            result = project_limit(lock, use.dqb_id, 0, ret_error);
    }
    flock(lock, LOCK_UN);
    return result;
}
