#include "disk/dir_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/window.h"

enum {
    STAGE_MODE = 0700,
    NUMBER_MAX = 24,  /* bytes of a number's text */
    DIR_BYTES = 4096, /* that a directory counts for */
    SECTOR = 512,     /* stat's unit */
    MODE_BITS = 07777,
    NSEC_PER_SEC = 1000000000,
};

struct number {
    char text[NUMBER_MAX];
};

/* A directory, and where it belongs. */
struct place {
    uint64_t parent;
    const char *name; /* NULL: the root */
    const struct sink_attr *attr;
};

struct dir_writer {
    int home, stage;
    uint64_t next; /* number */
    uint64_t bytes;
    /* The file at work. */
    int file;
    struct sink_attr attr;
    uint64_t size, done;
    struct window window;
    /* Directories have numbers in a row, from `first` on. */
    struct place *places;
    size_t count, cap;
    uint64_t first;
};

static struct number number_of(uint64_t nid)
{
    struct number n;

    snprintf(n.text, sizeof(n.text), "%" PRIu64, nid);
    return n;
}

static int failed(struct error **ret_error)
{
    return error_set(ret_error, errno == ENOSPC || errno == EDQUOT ? ERROR_NO_SPACE : ERROR_IO,
                     errno, "write the root filesystem");
}

struct dir_writer *dir_writer_new(const char *home, struct error **ret_error)
{
    struct dir_writer *w = xcalloc(1, sizeof(*w));

    window_open(&w->window);
    w->file = w->stage = -1;
    w->home = open(home, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->home >= 0 && mkdirat(w->home, DIR_WRITER_STAGE, STAGE_MODE) == 0)
        w->stage =
            openat(w->home, DIR_WRITER_STAGE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->stage >= 0)
        return w;
    error_set(ret_error, ERROR_IO, errno, "make '%s/" DIR_WRITER_STAGE "'", home);
    dir_writer_free(w);
    return NULL;
}

void dir_writer_free(struct dir_writer *w)
{
    const int fds[] = {w ? w->home : -1, w ? w->stage : -1, w ? w->file : -1};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (!w)
        return;
    window_done(&w->window);
    free(w->places);
    free(w);
}

/* ---- attributes ----------------------------------------------------------------------------- */

/* What this host has no use for is left out: labels of a security module that it does not run, and
 * users' attributes of what cannot have any. */
static bool xattr_may_lack(const char *name, int err)
{
    if (err == EPERM)
        return str_starts(name, "user.");
    return err == EOPNOTSUPP && str_starts(name, "security.") &&
           strcmp(name, "security.capability") != 0;
}

static int xattrs_write(const char *path, const struct buf *xattrs, struct error **ret_error)
{
    size_t position = 0, size;
    const void *value;
    char *name;
    int result = 0;

    while (result == 0 && sink_xattr_next(xattrs, &position, &name, &value, &size)) {
        if (lsetxattr(path, name, value, size, 0) < 0 && !xattr_may_lack(name, errno))
            result = error_set(ret_error, ERROR_IO, errno, "extended attribute '%.64s'", name);
        free(name);
    }
    return result;
}

/* Of stage/NUMBER. In this order: a change of owner takes capabilities and set-id bits away, and
 * everything but the time changes the time. */
static int attr_write(const struct dir_writer *w, uint64_t nid, const struct sink_attr *attr,
                      struct error **ret_error)
{
    struct number n = number_of(nid);
    const struct timespec time = {
        .tv_sec = attr->mtime, .tv_nsec = attr->mtime_nsec < NSEC_PER_SEC ? attr->mtime_nsec : 0};
    const struct timespec times[] = {time, time};

    if (fchownat(w->stage, n.text, attr->uid, attr->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        (!S_ISLNK(attr->mode) && fchmodat(w->stage, n.text, attr->mode & MODE_BITS, 0) < 0))
        return failed(ret_error);
    if (attr->xattrs) {
        CLEANUP_FREE char *path = str_printf("/proc/self/fd/%d/%s", w->stage, n.text);
        if (xattrs_write(path, attr->xattrs, ret_error) < 0)
            return -1;
    }
    return utimensat(w->stage, n.text, times, AT_SYMLINK_NOFOLLOW) < 0 ? failed(ret_error) : 0;
}

/* ---- what is no directory ------------------------------------------------------------------- */

static int writer_node(void *writer, const struct sink_attr *attr, const char *target,
                       uint64_t *ret_nid, struct error **ret_error)
{
    struct dir_writer *w = writer;
    struct number n = number_of(w->next);

    if (target ? symlinkat(target, w->stage, n.text) < 0
               : mknodat(w->stage, n.text, attr->mode & S_IFMT,
                         makedev(attr->dev_major, attr->dev_minor)) < 0)
        return failed(ret_error);
    *ret_nid = w->next++;
    return attr_write(w, *ret_nid, attr, ret_error);
}

static int writer_file_begin(void *writer, const struct sink_attr *attr, uint64_t size,
                             struct error **ret_error)
{
    struct dir_writer *w = writer;
    struct number n = number_of(w->next);

    assert(w->file < 0);
    w->attr = *attr;
    w->size = size;
    w->done = 0;
    window_begin(&w->window);
    w->file =
        openat(w->stage, n.text, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, STAGE_MODE);
    return w->file < 0 || ftruncate(w->file, (off_t)size) < 0 ? failed(ret_error) : 0;
}

/* The last block of a file reaches beyond its end. */
static int file_put(void *arg, uint64_t block, const uint8_t *bytes, size_t count,
                    struct error **ret_error)
{
    struct dir_writer *w = arg;
    uint64_t at = block * WINDOW_BLOCK, left = count * WINDOW_BLOCK;

    left = left < w->size - at ? left : w->size - at;
    while (left > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(pwrite(w->file, bytes, left, (off_t)at));
        if (n < 0)
            return failed(ret_error);
        bytes += n;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return 0;
}

static int writer_file_data(void *writer, uint64_t offset, const void *data, size_t size,
                            struct error **ret_error)
{
    struct dir_writer *w = writer;

    if (offset < w->done || offset > w->size || size > w->size - offset)
        return error_set(ret_error, ERROR_CORRUPT, 0, "data outside of the file");
    w->done = offset + size;
    return window_add(&w->window, offset, data, size, file_put, w, ret_error);
}

static int writer_file_end(void *writer, uint64_t *ret_nid, struct error **ret_error)
{
    struct dir_writer *w = writer;
    struct stat st;

    if (window_flush(&w->window, file_put, w, ret_error) < 0)
        return -1;
    if (fstat(w->file, &st) < 0)
        return failed(ret_error);
    w->bytes += (uint64_t)st.st_blocks * SECTOR;
    close(w->file);
    w->file = -1;
    *ret_nid = w->next++;
    return attr_write(w, *ret_nid, &w->attr, ret_error);
}

/* The links are there already: each name is one. */
static int writer_set_links(void *writer, uint64_t nid, uint32_t links, struct error **ret_error)
{
    return 0;
}

/* ---- directories ---------------------------------------------------------------------------- */

static int writer_dir_plan(void *writer, const struct sink_attr *attr, bool root,
                           const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                           struct error **ret_error)
{
    struct dir_writer *w = writer;
    struct number n = number_of(w->next);

    if (w->count == 0)
        w->first = w->next;
    if (w->count == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 256;
        w->places = xrealloc(w->places, w->cap * sizeof(*w->places));
    }
    assert(w->next == w->first + w->count);
    if (mkdirat(w->stage, n.text, STAGE_MODE) < 0)
        return failed(ret_error);
    w->places[w->count++] = (struct place){0};
    w->bytes += DIR_BYTES;
    *ret = (struct sink_dir){.nid = w->next++};
    return 0;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int dir_open(const struct dir_writer *w, uint64_t nid)
{
    struct number n = number_of(nid);

    return openat(w->stage, n.text, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* What has several names stays in the stage, too. */
static int name_give(const struct dir_writer *w, const struct sink_dirent *entry, int dir,
                     struct error **ret_error)
{
    struct number n = number_of(entry->nid);
    int result = entry->links == 1 ? renameat(w->stage, n.text, dir, entry->name)
                                   : linkat(w->stage, n.text, dir, entry->name, 0);

    if (result == 0)
        return 0;
    return error_set(ret_error, ERROR_IO, errno, "give a file its name '%.64s'", entry->name);
}

/* Gives names to what is no directory; notes where directories belong. */
static int writer_dir_write(void *writer, const struct sink_dir *dir, const struct sink_attr *attr,
                            uint32_t links, const struct sink_dirent *entries, size_t count,
                            struct error **ret_error)
{
    struct dir_writer *w = writer;
    int fd = dir_open(w, dir->nid), result = fd < 0 ? failed(ret_error) : 0;

    w->places[dir->nid - w->first].attr = attr;
    for (size_t i = 0; i < count && result == 0; i++) {
        const struct sink_dirent *entry = &entries[i];
        if (is_dots(entry->name))
            continue;
        assert(*entry->name && !strchr(entry->name, '/'));
        if (entry->type == SINK_DIR)
            w->places[entry->nid - w->first] =
                (struct place){.parent = dir->nid, .name = entry->name};
        else
            result = name_give(w, entry, fd, ret_error);
    }
    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- the end -------------------------------------------------------------------------------- */

static int place_take(const struct dir_writer *w, const struct place *place, uint64_t nid,
                      struct error **ret_error)
{
    struct number n = number_of(nid);
    int parent = place->name ? dir_open(w, place->parent) : w->home;
    int result = attr_write(w, nid, place->attr, ret_error);

    if (result == 0 && (parent < 0 || renameat(w->stage, n.text, parent,
                                               str_or(place->name, DIR_WRITER_ROOT)) < 0))
        result = failed(ret_error);
    if (parent >= 0 && parent != w->home)
        close(parent);
    return result;
}

/* Children first: a directory is complete, and its time is set, before it moves, and the one it
 * moves into is still in the stage. */
static int writer_finish(void *writer, const uint8_t uuid[16], uint64_t *ret_size,
                         struct error **ret_error)
{
    struct dir_writer *w = writer;

    for (size_t i = w->count; i-- > 0;)
        if (place_take(w, &w->places[i], w->first + i, ret_error) < 0)
            return -1;
    *ret_size = w->bytes;
    return 0;
}

const struct sink_ops dir_sink = {
    .node = writer_node,
    .file_begin = writer_file_begin,
    .file_data = writer_file_data,
    .file_end = writer_file_end,
    .set_links = writer_set_links,
    .dir_plan = writer_dir_plan,
    .dir_write = writer_dir_write,
    .finish = writer_finish,
};
