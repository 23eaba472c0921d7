#include "disk/upper_reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "disk/walk.h"

#define OVERLAY "trusted.overlay."

enum { PIECE = 256 << 10 };

struct upper {
    struct walk walk;
    uint64_t entries;
    uint8_t *piece;
    char *xattr_list, *xattr_value;
};

/* One thing: `name` in the directory `dir`. */
struct item {
    int dir;
    const char *name;
    const char *path; /* in the image */
    struct stat st;
    struct sink_attr attr;
    struct buf xattrs;
    bool opaque;
};

static int failed(const char *what, struct error **ret_error)
{
    return error_set(ret_error, ERROR_IO, errno, "%s", what);
}

/* ---- attributes ----------------------------------------------------------------------------- */

static int xattr_take(struct item *item, const char *name, const char *value, size_t size,
                      struct error **ret_error)
{
    static const char *const parts[] = {OVERLAY "redirect", OVERLAY "metacopy"};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strcmp(name, parts[i]) == 0)
            return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                             "it is only a part of a file of the image (%s)", parts[i]);
    if (strcmp(name, OVERLAY "opaque") == 0)
        item->opaque = size == 1 && *value == 'y';
    else if (!str_starts(name, OVERLAY))
        return sink_xattr_add(&item->xattrs, name, value, size, ret_error) < 0 ? -1 : 0;
    return 0;
}

/* The last name of the path is not followed, and what is before it is a descriptor of ours. */
static int xattrs_read(struct upper *u, struct item *item, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("/proc/self/fd/%d/%s", item->dir, item->name);
    ssize_t size = llistxattr(path, u->xattr_list, XATTR_LIST_MAX);

    if (size < 0 && errno != ENOTSUP)
        return failed("read its extended attributes", ret_error);
    for (const char *name = u->xattr_list; size > 0 && name < u->xattr_list + size;
         name += strlen(name) + 1) {
        ssize_t n = lgetxattr(path, name, u->xattr_value, XATTR_SIZE_MAX);
        if (n < 0 && errno != ENODATA)
            return failed("read its extended attributes", ret_error);
        if (n >= 0 && xattr_take(item, name, u->xattr_value, (size_t)n, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int item_read(struct upper *u, struct item *item, struct error **ret_error)
{
    if (fstatat(item->dir, item->name, &item->st, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("look at it", ret_error);
    item->attr = (struct sink_attr){
        .mode = item->st.st_mode,
        .uid = item->st.st_uid,
        .gid = item->st.st_gid,
        .mtime = item->st.st_mtim.tv_sec,
        .mtime_nsec = (uint32_t)item->st.st_mtim.tv_nsec,
        .dev_major = major(item->st.st_rdev),
        .dev_minor = minor(item->st.st_rdev),
        .xattrs = &item->xattrs,
    };
    return xattrs_read(u, item, ret_error);
}

/* ---- what is no directory ------------------------------------------------------------------- */

/* Up to `end`; what is not there is zeros: it was made shorter in the meantime. */
static int piece_copy(struct upper *u, int fd, uint64_t at, uint64_t end, struct error **ret_error)
{
    while (at < end) {
        size_t wanted = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t n = TEMP_FAILURE_RETRY(pread(fd, u->piece, wanted, (off_t)at));
        if (n < 0)
            return failed("read it", ret_error);
        if (n == 0)
            return tar_writer_data(&u->walk.tar, NULL, end - at, ret_error);
        if (tar_writer_data(&u->walk.tar, u->piece, (uint64_t)n, ret_error) < 0)
            return -1;
        at += (uint64_t)n;
    }
    return 0;
}

static int data_copy(struct upper *u, int fd, uint64_t size, struct error **ret_error)
{
    uint64_t at = 0;

    while (at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        uint64_t begin = data < 0 || (uint64_t)data > size ? size : (uint64_t)data;
        off_t hole = begin < size ? lseek(fd, (off_t)begin, SEEK_HOLE) : -1;
        uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
        if ((begin > at && tar_writer_data(&u->walk.tar, NULL, begin - at, ret_error) < 0) ||
            piece_copy(u, fd, begin, end, ret_error) < 0)
            return -1;
        at = end;
    }
    return 0;
}

static int file_add(struct upper *u, struct item *item, struct error **ret_error)
{
    int fd = openat(item->dir, item->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    uint64_t size = (uint64_t)item->st.st_size;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        int result = failed("open it", ret_error);
        if (fd >= 0)
            close(fd);
        return result;
    }
    int result = size > u->walk.tar.out->max_bytes - u->walk.tar.written
                     ? error_set(ret_error, ERROR_TOO_LARGE, 0,
                                 "the layer would have more than the %llu bytes that one may have",
                                 (unsigned long long)u->walk.tar.out->max_bytes)
                     : tar_writer_add(&u->walk.tar, item->path, &item->attr, NULL, size, ret_error);
    if (result == 0)
        result = data_copy(u, fd, size, ret_error);
    close(fd);
    return result;
}

static int symlink_add(struct upper *u, struct item *item, struct error **ret_error)
{
    char target[SINK_SYMLINK_MAX + 1];
    ssize_t n = readlinkat(item->dir, item->name, target, sizeof(target));

    if (n <= 0 || n > SINK_SYMLINK_MAX)
        return failed("read its target", ret_error);
    target[n] = '\0';
    return tar_writer_add(&u->walk.tar, item->path, &item->attr, target, 0, ret_error);
}

static int leaf_add(struct upper *u, struct item *item, struct error **ret_error)
{
    mode_t mode = item->st.st_mode;

    if (S_ISCHR(mode) && item->st.st_rdev == 0)
        return tar_writer_whiteout(&u->walk.tar, item->path, ret_error);
    if (S_ISSOCK(mode)) /* a tar has none, and nobody listens any more */
        return 0;
    int linked =
        walk_link(&u->walk, item->path, item->st.st_ino, item->st.st_nlink, &item->attr, ret_error);
    if (linked)
        return linked < 0 ? -1 : 0;
    if (S_ISREG(mode))
        return file_add(u, item, ret_error);
    if (S_ISLNK(mode))
        return symlink_add(u, item, ret_error);
    return tar_writer_add(&u->walk.tar, item->path, &item->attr, NULL, 0, ret_error);
}

/* ---- directories ---------------------------------------------------------------------------- */

struct names {
    char **list;
    size_t count, bytes;
};

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_read(struct upper *u, DIR *dir, struct names *names, struct error **ret_error)
{
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        size_t size = sizeof(char *) + strlen(entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (walk_name(&u->walk, &u->entries, size, ret_error) < 0)
            return -1;
        names->bytes += size;
        if ((names->count & (names->count - 1)) == 0)
            names->list =
                xrealloc(names->list, (names->count ? 2 * names->count : 1) * sizeof(*names->list));
        names->list[names->count++] = xstrdup(entry->d_name);
    }
    if (names->count > 1)
        qsort(names->list, names->count, sizeof(*names->list), name_compare);
    return 0;
}

static void names_done(struct upper *u, struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
    u->walk.bytes -= names->bytes;
}

static int item_add(struct upper *u, int dir, const char *name, const char *path, int depth,
                    struct error **ret_error);

static int children_add(struct upper *u, int dir, const struct names *names, const char *path,
                        int depth, struct error **ret_error)
{
    for (size_t i = 0; i < names->count; i++) {
        CLEANUP_FREE char *child = walk_child(path, names->list[i], ret_error);
        if (!child || item_add(u, dir, names->list[i], child, depth + 1, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int dir_begin(struct upper *u, struct item *item, int depth, struct names *names,
                     DIR **ret_dir, struct error **ret_error)
{
    int fd;

    if (walk_depth(depth, ret_error) < 0)
        return -1;
    fd = openat(item->dir, item->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    *ret_dir = fd < 0 ? NULL : fdopendir(fd);
    if (!*ret_dir)
        return failed("read the directory", ret_error);
    if (names_read(u, *ret_dir, names, ret_error) < 0 ||
        tar_writer_add(&u->walk.tar, item->path, &item->attr, NULL, 0, ret_error) < 0)
        return -1;
    return item->opaque ? tar_writer_opaque(&u->walk.tar, item->path, ret_error) : 0;
}

/* What is in it says where it is by itself. */
static int dir_add(struct upper *u, struct item *item, int depth, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct names names = {0};
    DIR *dir = NULL;
    int result = dir_begin(u, item, depth, &names, &dir, &error);

    if (result < 0) {
        error_wrap(&error, "'/%.200s'", item->path);
        error_move(ret_error, &error);
    } else {
        result = children_add(u, dirfd(dir), &names, item->path, depth, ret_error);
    }
    names_done(u, &names);
    if (dir)
        closedir(dir);
    return result;
}

static int item_add(struct upper *u, int dir, const char *name, const char *path, int depth,
                    struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct item item = {.dir = dir, .name = name, .path = path};
    int result = item_read(u, &item, &error);

    if (result == 0 && S_ISDIR(item.st.st_mode)) {
        result = dir_add(u, &item, depth, ret_error);
        buf_release(&item.xattrs);
        return result;
    }
    if (result == 0)
        result = leaf_add(u, &item, &error);
    buf_release(&item.xattrs);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void upper_done(struct upper *u)
{
    walk_done(&u->walk);
    free(u->piece);
    free(u->xattr_list);
    free(u->xattr_value);
}

int upper_reader_diff(const char *path, const struct disk_output *out, struct error **ret_error)
{
    struct upper u = {.piece = xmalloc(PIECE),
                      .xattr_list = xmalloc(XATTR_LIST_MAX),
                      .xattr_value = xmalloc(XATTR_SIZE_MAX)};
    int dir = path ? open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;

    walk_open(&u.walk, out);
    int result = !path     ? 0
                 : dir < 0 ? error_set(ret_error, ERROR_IO, errno, "look at '%s'", path)
                           : item_add(&u, dir, ".", "", 0, ret_error);
    if (result == 0)
        result = tar_writer_end(&u.walk.tar, ret_error);
    if (dir >= 0)
        close(dir);
    upper_done(&u);
    return result;
}
