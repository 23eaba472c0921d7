#include "disk/ext4.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/str.h"
#include "disk/disk.h"
#include "disk/ext4_tree.h"
#include "disk/path.h"
#include "disk/tool.h"

#define SPARE_PREFIX "spare-"

enum {
    LAYER_MODE = 0600,
    BLOCK = 4096,
    NAME_RANDOM = 10,
    LIKE_SIZE = 2048, /* the mark and the superblock: what tells a copy of a template's layer */
};

/* ---- the file system's tools ----------------------------------------------------------------- */

int ext4_format(const char *path, bool grows, struct error **ret_error)
{
    const char *const words[] = {
        "mke2fs",
        "-t",
        "ext4",
        "-F",
        "-q",
        "-m",
        "0",
        "-b",
        "4096",
        "-J",
        "size=4",
        "-O",
        grows ? "resize_inode" : "^resize_inode",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=1,assume_storage_prezeroed=1,nodiscard",
        path,
        NULL};

    return tool_run(words, ret_error);
}

/* Statuses up to 3 tell of what was repaired: e2fsck(8). */
int ext4_repair(const char *path, bool *ret_was_clean, struct error **ret_error)
{
    const char *const words[] = {"e2fsck", "-y", path, NULL};

    if (ext4_tree_check(path, ret_was_clean, ret_error) < 0)
        return -1;
    return *ret_was_clean ? 0 : tool_run_until(words, 3, ret_error);
}

int ext4_grow(const char *path, struct error **ret_error)
{
    const char *const words[] = {"resize2fs", "-f", path, NULL};

    return tool_run(words, ret_error);
}

/* ---- copies --------------------------------------------------------------------------------- */

static int range_copy(int from, int to, off_t start, off_t end)
{
    uint8_t buffer[16 * BLOCK];

    while (start < end) {
        off_t at = start;
        size_t part = (size_t)(end - start);
        ssize_t n = copy_file_range(from, &at, to, &at, part, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            /* Not between these filesystems: by hand. */
            n = pread(from, buffer, part < sizeof(buffer) ? part : sizeof(buffer), start);
            if (n > 0)
                n = pwrite(to, buffer, (size_t)n, start);
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return -1;
        }
        start += n;
    }
    return 0;
}

int disk_copy(int from, int to)
{
    struct stat st;
    off_t data = 0;

    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
        return -1;
    while ((data = lseek(from, data, SEEK_DATA)) >= 0) {
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || range_copy(from, to, data, hole) < 0)
            return -1;
        data = hole;
    }
    return errno == ENXIO ? 0 : -1;
}

/* ---- files that appear whole ---------------------------------------------------------------- */

struct fresh {
    int dir, fd;
    char name[32];
    char *path; /* root/tmp/name */
};

/* A file in root/tmp, locked so that no sweep takes it. */
static int fresh_open(struct fresh *f, const char *root, struct error **ret_error)
{
    const char *name;
    char random[NAME_RANDOM + 1] = "";

    str_random(random, NAME_RANDOM, "abcdefghijklmnopqrstuvwxyz");
    random[NAME_RANDOM] = '\0';
    snprintf(f->name, sizeof(f->name), "layer-%s", random);
    f->path = str_printf("%s/tmp/%s", root, f->name);
    CLEANUP_FREE char *below = str_printf("tmp/%s", f->name);
    f->dir = path_parent(root, below, true, &name, ret_error);
    if (f->dir < 0)
        return -1;
    f->fd = openat(f->dir, f->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, LAYER_MODE);
    if (f->fd < 0 || flock(f->fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", f->path);
    return 0;
}

/* Gives the file its place: synced first, so that it is never there and empty. What is there
 * already is as good, and may be in use. */
static int fresh_place(struct fresh *f, const char *root, const char *path,
                       struct error **ret_error)
{
    const char *name;
    int dir = path_parent(root, path, true, &name, ret_error);

    if (dir < 0)
        return -1;
    int result = 0;
    if (fsync(f->fd) < 0 ||
        (renameat2(f->dir, f->name, dir, name, RENAME_NOREPLACE) < 0 && errno != EEXIST) ||
        fsync(dir) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    close(dir);
    return result;
}

static void fresh_done(struct fresh *f)
{
    if (f->dir >= 0) {
        if (f->fd >= 0)
            unlinkat(f->dir, f->name, 0); /* not there any more if it was placed */
        close(f->dir);
    }
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
}

#define FRESH                                                                                      \
    {                                                                                              \
        .dir = -1, .fd = -1                                                                        \
    }
#define CLEANUP_FRESH __attribute__((cleanup(fresh_done)))

/* ---- the layer ------------------------------------------------------------------------------ */

static int empty_make(const char *root, const char *cache, uint64_t size, struct error **ret_error)
{
    CLEANUP_FRESH struct fresh fresh = FRESH;

    if (fresh_open(&fresh, root, ret_error) < 0)
        return -1;
    if (ftruncate(fresh.fd, (off_t)size) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a file of %llu bytes",
                         (unsigned long long)size);
    if (ext4_format(fresh.path, false, ret_error) < 0)
        return -1;
    return fresh_place(&fresh, root, cache, ret_error);
}

/* The empty filesystem of that size, made if it is not there. */
static int empty_open(const char *root, uint64_t size, struct error **ret_error)
{
    CLEANUP_FREE char *cache = str_printf("cache/ext4-1-%llu.img", (unsigned long long)size);

    for (int attempt = 0;; attempt++) {
        const char *name;
        int dir = path_parent(root, cache, true, &name, ret_error);
        if (dir < 0)
            return -1;
        int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        int err = errno;
        close(dir);
        if (fd >= 0)
            return fd;
        if (err != ENOENT || attempt > 0)
            return error_set(ret_error, ERROR_IO, err, "open '%s'", cache);
        if (empty_make(root, cache, size, ret_error) < 0)
            return -1;
    }
}

static bool is_there(const char *root, const char *path)
{
    const char *name;
    struct stat st;
    int dir = path_parent(root, path, false, &name, NULL);

    if (dir < 0)
        return false;
    bool there = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
    close(dir);
    return there;
}

static int size_check(uint64_t size_bytes, uint64_t *ret, struct error **ret_error)
{
    *ret = size_bytes / BLOCK * BLOCK;
    if (*ret < DISK_LAYER_SIZE_MIN || *ret > INT64_MAX)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "a writable layer of %llu bytes: it must have at least %d",
                         (unsigned long long)size_bytes, DISK_LAYER_SIZE_MIN);
    return 0;
}

/* Of an open one. */
static int layer_copy_of(const char *root, const char *below, int from, struct error **ret_error)
{
    CLEANUP_FRESH struct fresh fresh = FRESH;
    int result = fresh_open(&fresh, root, ret_error);

    if (result == 0 && disk_copy(from, fresh.fd) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "make '%s'", below);
    return result < 0 ? -1 : fresh_place(&fresh, root, below, ret_error);
}

static int layer_copy(const char *root, const char *below, uint64_t size, struct error **ret_error)
{
    int empty = empty_open(root, size, ret_error);

    if (empty < 0)
        return -1;
    int result = layer_copy_of(root, below, empty, ret_error);
    close(empty);
    return result;
}

/* Whether there is one to be copied; the caller closes *ret. */
static bool like_open(const struct disk_layer_spec *layer, uint64_t size, int *ret)
{
    struct stat st;

    if (str_empty(layer->like))
        return false;
    *ret = open(layer->like, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*ret < 0)
        return false;
    if (fstat(*ret, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size)
        return true;
    close(*ret);
    return false;
}

/* ---- spares --------------------------------------------------------------------------------- */

/* Of the empty filesystem of that size, or of the layer `like`, which has a directory of its own.
 */
static char *spare_path(uint64_t size, const char *like, uint32_t number)
{
    const char *end = str_empty(like) ? NULL : strrchr(like, '/');
    const char *from = end;
    while (from && from > like && from[-1] != '/')
        from--;
    if (!end)
        return str_printf("cache/" SPARE_PREFIX "1-%llu-%u.img", (unsigned long long)size, number);
    return str_printf("cache/" SPARE_PREFIX "%.*s-%u.img", (int)(end - from), from, number);
}

/* A layer may have been made anew since it was copied. */
static bool is_like(int dir, const char *name, int like)
{
    uint8_t wanted[LIKE_SIZE], found[LIKE_SIZE];
    int fd = like < 0 ? -1 : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool same = pread(like, wanted, LIKE_SIZE, 0) == LIKE_SIZE &&
                pread(fd, found, LIKE_SIZE, 0) == LIKE_SIZE &&
                memcmp(wanted, found, LIKE_SIZE) == 0;

    if (fd >= 0)
        close(fd);
    return like < 0 || same;
}

/* Gives the layer the place of a spare one: whoever renames it first has it. False if there is
 * none. */
static bool spare_take(const char *root, const char *below, uint64_t size, const char *like,
                       int like_fd)
{
    const char *name, *spare_name;
    int dir = path_parent(root, below, true, &name, NULL);
    bool taken = false;

    for (uint32_t i = 0; dir >= 0 && !taken && i < DISK_SPARES_MAX; i++) {
        CLEANUP_FREE char *spare = spare_path(size, like, i);
        int cache = path_parent(root, spare, false, &spare_name, NULL);
        taken = cache >= 0 && is_like(cache, spare_name, like_fd) &&
                renameat2(cache, spare_name, dir, name, RENAME_NOREPLACE) == 0 && fsync(dir) == 0;
        if (cache >= 0)
            close(cache);
    }
    if (dir >= 0)
        close(dir);
    return taken;
}

/* Whether it is one of those that are asked for. */
static bool spare_is_wanted(const char *name, uint64_t size, uint32_t count,
                            const char *const *likes)
{
    const char *const none[] = {"", NULL};
    bool wanted = false;

    for (const char *const *list = none; list; list = list == none ? likes : NULL)
        STRV_FOREACH(like, list)
            for (uint32_t i = 0; !wanted && i < count; i++) {
                CLEANUP_FREE char *spare = spare_path(size, *like, i);
                wanted = str_eq(strchr(spare, '/') + 1, name);
            }
    return wanted;
}

/* Of sizes and layers that are not asked for any more, and beyond the number. */
static void spares_trim(const char *root, uint64_t size, uint32_t count, const char *const *likes)
{
    const char *name;
    int fd = path_parent(root, "cache/.", false, &name, NULL);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (str_starts(entry->d_name, SPARE_PREFIX) &&
            !spare_is_wanted(entry->d_name, size, count, likes))
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        close(fd);
}

/* One that is not like its layer any more gives way to one that is. */
static int spare_copy(const char *root, const char *spare, int like, struct error **ret_error)
{
    const char *name;
    int dir = path_parent(root, spare, true, &name, ret_error);

    if (dir < 0)
        return -1;
    bool same = is_there(root, spare) && is_like(dir, name, like);
    if (!same)
        unlinkat(dir, name, 0);
    close(dir);
    return same ? 0 : layer_copy_of(root, spare, like, ret_error);
}

static int spares_of(const char *root, uint64_t size, uint32_t count, const char *path,
                     struct error **ret_error)
{
    const struct disk_layer_spec layer = {.like = path};
    int like, result = 0;

    if (!like_open(&layer, size, &like))
        return 0; /* it has gone meanwhile */
    for (uint32_t i = 0; result == 0 && i < count; i++) {
        CLEANUP_FREE char *spare = spare_path(size, path, i);
        result = spare_copy(root, spare, like, ret_error);
    }
    close(like);
    return result;
}

int ext4_spares(const char *root, uint64_t size_bytes, uint32_t count, const char *const *likes,
                struct error **ret_error)
{
    uint64_t size;

    if (size_check(size_bytes, &size, ret_error) < 0)
        return -1;
    if (count > DISK_SPARES_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "more than %d spare layers", DISK_SPARES_MAX);
    spares_trim(root, size, count, likes);
    for (uint32_t i = 0; i < count; i++) {
        CLEANUP_FREE char *spare = spare_path(size, NULL, i);
        if (!is_there(root, spare) && layer_copy(root, spare, size, ret_error) < 0)
            return -1;
    }
    STRV_FOREACH(like, likes)
        if (spares_of(root, size, count, *like, ret_error) < 0)
            return -1;
    return 0;
}

int ext4_make(const char *root, const struct disk_layer_spec *layer, struct error **ret_error)
{
    CLEANUP_FREE char *below = path_below(root, layer->path, ret_error);
    uint64_t size;
    int like;

    if (!below)
        return -1;
    if (is_there(root, below))
        return 0;
    if (size_check(layer->size_bytes, &size, ret_error) < 0)
        return -1;
    if (like_open(layer, size, &like)) {
        bool taken = spare_take(root, below, size, layer->like, like);
        int result = taken ? 0 : layer_copy_of(root, below, like, ret_error);
        close(like);
        return result;
    }
    return spare_take(root, below, size, NULL, -1) ? 0 : layer_copy(root, below, size, ret_error);
}

/* ---- the copy of a layer -------------------------------------------------------------------- */

/* Of a regular file without a link on the way; below root whatever the path says. */
static int layer_open(const char *root, const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *below = path_below(root, path, ret_error);
    const char *name;
    int dir = below ? path_parent(root, below, false, &name, ret_error) : -1;

    if (dir < 0)
        return -1;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        error_set(ret_error, ERROR_IO, errno, "open '%s'", below);
    close(dir);
    return fd;
}

int ext4_copy(const char *root, const char *path, const char *copy, struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(root, copy);
    int from = layer_open(root, path, ret_error);

    if (from < 0)
        return -1;
    int to = open(full, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, LAYER_MODE);
    int result = to < 0 ? -1 : disk_copy(from, to);
    if (result < 0)
        error_set(ret_error, ERROR_IO, errno, "copy '%s'", path);
    if (to >= 0)
        close(to);
    close(from);
    return result;
}
