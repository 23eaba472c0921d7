/* What files take of the host's disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"

enum {
    SECTOR = 512,          /* stat's unit */
    USAGE_DEPTH_MAX = 300, /* each level takes a descriptor */
};

/* A file of several names is counted by its share for each. */
static uint64_t usage_of(const struct stat *st)
{
    return (uint64_t)st->st_blocks * SECTOR /
           (S_ISDIR(st->st_mode) || !st->st_nlink ? 1 : st->st_nlink);
}

/* Of what is in the directory, which is closed here. What lies very deep is not seen. */
static uint64_t tree_usage(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    uint64_t bytes = 0;

    if (!dir) {
        close(fd);
        return 0;
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        bytes += usage_of(&st);
        int below =
            S_ISDIR(st.st_mode) && depth < USAGE_DEPTH_MAX
                ? openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                : -1;
        if (below >= 0)
            bytes += tree_usage(below, depth + 1);
    }
    closedir(dir);
    return bytes;
}

int disk_usage(const char *path, uint64_t *ret_bytes, struct error **ret_error)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s'", path);
    *ret_bytes = usage_of(&st);
    int fd = S_ISDIR(st.st_mode) ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd >= 0)
        *ret_bytes += tree_usage(fd, 0);
    return 0;
}
