/* The driver `overlay`: an image is a directory of this host, a writable layer is another, and the
 * host's overlayfs puts one over the other.
 *
 *      ROOT/images/IMAGE.tree          a record: the name of the image's directory, and a newline
 *      ROOT/overlay/NAME/root          that directory
 *      ROOT/overlay/NAME/record        another name of the record's file
 *      ROOT/pods/UID/CTR.layer/upper   what a container wrote …
 *      ROOT/pods/UID/CTR.layer/work    … and overlayfs' own
 *
 * A layer that has a size is a project of the host's file system, if that counts by project
 * (disk/quota.h).
 *
 * A directory in overlay/ is alive while its record has a name besides its own one there, or while
 * a process holds the lock on it: who makes it, and husk-share while a container runs on it;
 * overlay_collect() removes the others. So removing an image is removing its record, and what a
 * crash left half made is garbage. An image that is made anew gets another directory.
 *
 * Nothing is mounted here: that is done for a VM, where nobody else sees it (keeper/share.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/dir_writer.h"
#include "disk/disk.h"
#include "disk/output_digest.h"
#include "disk/path.h"
#include "disk/quota.h"
#include "disk/unpack.h"
#include "disk/upper_reader.h"

#define PLACE       "overlay"
#define SIZE_OPTION "overlay.size"

enum {
    DIR_MODE = 0700,
    FILE_MODE = 0600,
    NAME_SIZE = 16, /* of a directory in overlay/ */
    NAME_TRIES = 8,
    COPY_MAX_GIB = 64, /* of the tar of a layer: as large as an image's layer may be at first */
    COPY_PIECE = 256 << 10,
};

/* Of a layer for which none is asked; 0: it has none. */
static int size_read(const char *const *options, uint64_t *ret, struct error **ret_error)
{
    *ret = 0;
    STRV_FOREACH(option, options) {
        if (!str_starts(*option, SIZE_OPTION "="))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "storage_opt '%s': the storage driver 'overlay' has no such option, "
                             "only " SIZE_OPTION,
                             *option);
        if (!str_to_size(strchr(*option, '=') + 1, 1, ret) || *ret < DISK_LAYER_SIZE_MIN)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "storage_opt '%s': it is not a size of at least %d MiB, like '20G'",
                             *option, DISK_LAYER_SIZE_MIN >> 20);
    }
    return 0;
}

static int overlay_check(const char *const *options, struct error **ret_error)
{
    uint64_t size;

    if (size_read(options, &size, ret_error) < 0)
        return -1;
    if (geteuid() != 0)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                         "the storage driver 'overlay' mounts on this host, for which the daemon "
                         "must be root's: set storage=block");
    return 0;
}

/* ---- records -------------------------------------------------------------------------------- */

static int record_write(const char *path, const char *name, struct error **ret_error)
{
    CLEANUP_FREE char *text = str_printf("%s\n", name);
    size_t size = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    bool good = fd >= 0 && write(fd, text, size) == (ssize_t)size && fsync(fd) == 0;
    int err = errno;

    if (fd >= 0)
        close(fd);
    return good ? 0 : error_set(ret_error, ERROR_IO, err, "make '%s'", path);
}

static int record_read(const char *path, char ret_name[NAME_SIZE + 1], struct error **ret_error)
{
    char text[NAME_SIZE + 2] = "";
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    int err = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, err, "open '%s'", path);
    if (n != NAME_SIZE + 1 || text[NAME_SIZE] != '\n' ||
        strspn(text, "abcdefghijklmnopqrstuvwxyz") != NAME_SIZE)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' names no directory of an image", path);
    memcpy(ret_name, text, NAME_SIZE);
    ret_name[NAME_SIZE] = '\0';
    return 0;
}

/* ---- images --------------------------------------------------------------------------------- */

/* A new directory in overlay/, locked until *ret_lock is closed. */
static int home_make(const struct disk *disk, char ret_name[NAME_SIZE + 1], int *ret_lock,
                     struct error **ret_error)
{
    CLEANUP_FREE char *place = str_printf("%s/" PLACE, disk->root);

    if (mkdir(place, DIR_MODE) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", place);
    /* Between its making and its lock somebody may take it for garbage. */
    for (int i = 0; i < NAME_TRIES; i++) {
        struct stat st;
        memset(ret_name, 0, NAME_SIZE + 1);
        str_random(ret_name, NAME_SIZE, "abcdefghijklmnopqrstuvwxyz");
        CLEANUP_FREE char *home = str_printf("%s/%s", place, ret_name);
        int fd = mkdir(home, DIR_MODE) < 0
                     ? -1
                     : open(home, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        *ret_lock = fd;
        if (fd >= 0 && flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        int err = errno;
        if (fd >= 0)
            close(fd);
        if (fd < 0 && err != EEXIST && err != ENOENT)
            return error_set(ret_error, ERROR_IO, err, "make '%s'", home);
    }
    return error_set(ret_error, ERROR_BUSY, 0, "no directory could be made in '%s'", place);
}

static int tree_write(const char *home, const struct disk_image *image,
                      const struct disk_watch *watch, uint64_t *ret_size, struct error **ret_error)
{
    static const uint8_t no_uuid[16] = {0};
    struct dir_writer *writer = dir_writer_new(home, ret_error);
    struct unpack unpack;

    if (!writer)
        return -1;
    unpack_open(&unpack, &dir_sink, writer, image->layer_max_bytes, watch);
    int result = unpack_image(&unpack, image, no_uuid, ret_size, ret_error);
    unpack_done(&unpack);
    dir_writer_free(writer);
    return result;
}

/* The tree is on the disk before there is a record of it. */
static int tree_record(const char *home, const char *name, int fd, const char *path,
                       struct error **ret_error)
{
    CLEANUP_FREE char *twin = str_printf("%s/record", home);

    if (syncfs(fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync the root filesystem");
    if (record_write(path, name, ret_error) < 0)
        return -1;
    if (link(path, twin) == 0 && fsync(fd) == 0)
        return 0;
    error_set(ret_error, ERROR_IO, errno, "make '%s'", twin);
    unlink(path);
    return -1;
}

static int overlay_image_prepare(const struct disk *disk, const struct disk_image *image,
                                 const char *path, const struct disk_watch *watch,
                                 uint64_t *ret_size, struct error **ret_error)
{
    char name[NAME_SIZE + 1];
    int lock = -1;

    if (home_make(disk, name, &lock, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *home = str_printf("%s/" PLACE "/%s", disk->root, name);
    CLEANUP_FREE char *stage = str_printf("%s/" DIR_WRITER_STAGE, home);
    int result = tree_write(home, image, watch, ret_size, ret_error);
    if (result == 0)
        result = disk_remove(disk->root, stage, ret_error);
    if (result == 0)
        result = tree_record(home, name, lock, path, ret_error);
    if (result < 0)
        disk_remove(disk->root, home, NULL);
    close(lock);
    return result;
}

/* "ROOT/overlay/NAME/root"; the caller frees it. */
static char *tree_of(const struct disk *disk, const char *image, struct error **ret_error)
{
    CLEANUP_FREE char *path = path_full(disk->root, image);
    char name[NAME_SIZE + 1];

    if (record_read(path, name, ret_error) < 0)
        return NULL;
    return str_printf("%s/" PLACE "/%s/" DIR_WRITER_ROOT, disk->root, name);
}

static int tree_tell(void *arg, const struct disk_output *out, struct error **ret_error)
{
    return upper_reader_diff(arg, out, ret_error);
}

/* Of the tar of an image's directory: it says all that a file is, but for when it was read. */
static int tree_digest(const struct disk *disk, const char *image, uint8_t ret[OUTPUT_DIGEST_SIZE],
                       struct error **ret_error)
{
    CLEANUP_FREE char *tree = tree_of(disk, image, ret_error);

    return tree ? output_digest(tree_tell, tree, ret, ret_error) : -1;
}

/* A directory that cannot be read is not the same. */
static int overlay_image_same(const struct disk *disk, const char *path, const char *other,
                              bool *ret_same, struct error **ret_error)
{
    uint8_t mine[OUTPUT_DIGEST_SIZE], others[OUTPUT_DIGEST_SIZE];

    *ret_same = false;
    if (tree_digest(disk, other, others, ret_error) < 0)
        return -1;
    *ret_same = tree_digest(disk, path, mine, NULL) == 0 && memcmp(mine, others, sizeof(mine)) == 0;
    return 0;
}

/* ---- writable layers ------------------------------------------------------------------------ */

/* The upper directory starts as the image's root is: its mode and owner are what one sees. */
static int layer_fill(int layer, const char *tree, struct error **ret_error)
{
    struct stat st;

    if (stat(tree, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s'", tree);
    if (mkdirat(layer, "work", DIR_MODE) < 0 || mkdirat(layer, "upper", DIR_MODE) < 0 ||
        fchownat(layer, "upper", st.st_uid, st.st_gid, 0) < 0 ||
        fchmodat(layer, "upper", st.st_mode & 07777, 0) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a writable layer");
    return 0;
}

/* What is made in it later has its project, and counts. */
static int layer_limit(const struct disk *disk, int layer, uint64_t bytes, struct error **ret_error)
{
    CLEANUP_FREE char *place = str_printf("%s/" PLACE, disk->root);
    int lock = open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (lock < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", place);
    int result = quota_give(disk->root, layer, lock, bytes, ret_error);
    close(lock);
    return result;
}

/* Complete or not there: it gets its name last. `bytes` 0: it has no size. */
static int layer_new(const struct disk *disk, int dir, const char *name, const char *tree,
                     uint64_t bytes, struct error **ret_error)
{
    char random[NAME_SIZE + 1] = "";

    str_random(random, NAME_SIZE, "abcdefghijklmnopqrstuvwxyz");
    if (mkdirat(dir, random, DIR_MODE) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a writable layer");
    int fd = openat(dir, random, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? error_set(ret_error, ERROR_IO, errno, "make a writable layer") : 0;
    if (result == 0 && bytes)
        result = layer_limit(disk, fd, bytes, ret_error);
    if (result == 0)
        result = layer_fill(fd, tree, ret_error);
    if (result == 0 && renameat2(dir, random, dir, name, RENAME_NOREPLACE) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "make a writable layer");
    if (result < 0) {
        if (fd >= 0)
            unlinkat(fd, "upper", AT_REMOVEDIR), unlinkat(fd, "work", AT_REMOVEDIR);
        unlinkat(dir, random, AT_REMOVEDIR);
    }
    if (fd >= 0)
        close(fd);
    return result;
}

static int overlay_layer_make(const struct disk *disk, const struct disk_layer_spec *layer,
                              struct error **ret_error)
{
    CLEANUP_FREE char *tree = tree_of(disk, layer->image, ret_error);
    CLEANUP_FREE char *below = tree ? path_below(disk->root, layer->path, ret_error) : NULL;
    uint64_t bytes = layer->size_bytes;
    const char *name;
    struct stat st;

    if (!below || (!bytes && size_read(disk->options, &bytes, ret_error) < 0))
        return -1;
    int dir = path_parent(disk->root, below, true, &name, ret_error);
    if (dir < 0)
        return -1;
    int result = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0
                     ? 0
                     : layer_new(disk, dir, name, tree, bytes, ret_error);
    close(dir);
    return result;
}

/* Two directories are made in no time. */
static int overlay_layer_spares(const struct disk *disk, uint64_t size_bytes, uint32_t count,
                                const char *const *likes, struct error **ret_error)
{
    return 0;
}

static int overlay_layer_usage(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                               struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, path);
    CLEANUP_FREE char *upper = str_printf("%s/upper", full);

    return disk_usage(upper, ret_bytes, ret_error);
}

/* What a VM gets is where they are: it is mounted where only that VM's files are served. */
static int overlay_attach(const struct disk *disk, const char *image, const char *layer,
                          struct disk_root *ret, struct error **ret_error)
{
    CLEANUP_FREE char *tree = tree_of(disk, image, ret_error);
    CLEANUP_FREE char *path = path_full(disk->root, layer);

    if (!tree)
        return -1;
    if (access(tree, F_OK) < 0 || access(path, F_OK) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s' and '%s'", tree, path);
    *ret = (struct disk_root){.image = take(tree), .layer = take(path)};
    return 0;
}

static int overlay_detach(const struct disk *disk, const char *layer, struct error **ret_error)
{
    return 0;
}

/* ---- an image of a layer --------------------------------------------------------------------
 *
 * The copy is the tar of the layer already, with holes for its zeros. */

struct copy {
    int fd;
    uint64_t size;
};

static int copy_write(void *arg, const void *data, size_t size, struct error **ret_error)
{
    struct copy *c = arg;
    const uint8_t *bytes = data;

    if (size > 0 && (bytes[0] != 0 || memcmp(bytes, bytes + 1, size - 1) != 0) &&
        pwrite(c->fd, data, size, (off_t)c->size) != (ssize_t)size)
        return error_set(ret_error, errno == ENOSPC ? ERROR_NO_SPACE : ERROR_IO, errno,
                         "copy the layer");
    c->size += size;
    return 0;
}

static int overlay_layer_copy(const struct disk *disk, const char *path, const char *copy,
                              struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, path);
    CLEANUP_FREE char *upper = str_printf("%s/upper", full);
    CLEANUP_FREE char *used = str_printf("%s/work/work", full); /* overlayfs makes it */
    bool was_used = access(used, F_OK) == 0;
    struct copy c = {
        .fd = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE)};
    const struct disk_output out = {copy_write, &c, (uint64_t)COPY_MAX_GIB << 30};

    if (c.fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", copy);
    int result = upper_reader_diff(was_used ? upper : NULL, &out, ret_error);
    if (result == 0 && ftruncate(c.fd, (off_t)c.size) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "copy the layer");
    close(c.fd);
    return result;
}

static int overlay_layer_diff(const struct disk *disk, const char *image, const char *copy,
                              const struct disk_output *out, struct error **ret_error)
{
    CLEANUP_FREE uint8_t *piece = xmalloc(COPY_PIECE);
    int fd = open(copy, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), result = 0;
    uint64_t written = 0;
    ssize_t n = 0;

    while (result == 0 && fd >= 0 && (n = read(fd, piece, COPY_PIECE)) > 0) {
        if ((uint64_t)n > out->max_bytes - written)
            result = error_set(ret_error, ERROR_TOO_LARGE, 0,
                               "the layer would have more than the %llu bytes that one may have",
                               (unsigned long long)out->max_bytes);
        else
            result = out->write(out->arg, piece, (size_t)n, ret_error);
        written += (uint64_t)n;
    }
    if (fd < 0 || n < 0)
        result = error_set(ret_error, ERROR_IO, errno, "read the copy of the layer");
    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- what nobody wants any more ------------------------------------------------------------- */

/* Two who collect at the same time get in each other's way at the lock at most. */
static int home_collect(const struct disk *disk, int place, const char *name,
                        struct error **ret_error)
{
    CLEANUP_FREE char *home = str_printf(PLACE "/%s", name);
    struct stat st;
    int result = 0;
    int fd = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(ret_error, ERROR_IO, errno, "open '%s'", home);
    bool idle = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (idle && (fstatat(fd, "record", &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_nlink < 2))
        result = disk_remove(disk->root, home, ret_error);
    close(fd);
    return result;
}

/* Each is tried; the first failure is told. */
static int overlay_collect(const struct disk *disk, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/" PLACE, disk->root);
    struct error *first = NULL;
    DIR *dir = opendir(path);

    if (!dir)
        return errno == ENOENT ? 0 : error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        if (entry->d_name[0] != '.')
            home_collect(disk, dirfd(dir), entry->d_name, first ? NULL : &first);
    quota_collect(disk->root, dirfd(dir), first ? NULL : &first);
    closedir(dir);
    return first ? error_move(ret_error, &first) : 0;
}

const struct disk_ops disk_overlay = {
    .name = "overlay",
    .image_suffix = "tree",
    .check = overlay_check,
    .image_prepare = overlay_image_prepare,
    .image_same = overlay_image_same,
    .layer_make = overlay_layer_make,
    .layer_spares = overlay_layer_spares,
    .layer_usage = overlay_layer_usage,
    .attach = overlay_attach,
    .detach = overlay_detach,
    .layer_copy = overlay_layer_copy,
    .layer_diff = overlay_layer_diff,
    .collect = overlay_collect,
};
