#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/str.h"
#include "disk/dm.h"
#include "disk/path.h"

enum {
    DIR_MODE = 0700,
    FILE_MODE = 0600,
    DELETE_TRIES = 20,
    DELETE_RETRY_NS = 50000000,
};

/* ---- files ---------------------------------------------------------------------------------- */

/* A sparse file of that size at least: it may grow, and never shrinks. */
static int file_ensure(const char *path, uint64_t size, uint64_t *ret_size,
                       struct error **ret_error)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    int result = fd < 0 ? -1 : fstat(fd, &st);

    if (result == 0 && (uint64_t)st.st_size < size) {
        result = ftruncate(fd, (off_t)size);
        st.st_size = (off_t)size;
    }
    if (result < 0)
        error_set(ret_error, ERROR_IO, errno, "make the pool's file '%s'", path);
    else
        *ret_size = (uint64_t)st.st_size;
    if (fd >= 0)
        close(fd);
    return result;
}

static char *file_of(const struct dm_pool *pool, const char *name)
{
    return str_printf("%s/devicemapper/%s", pool->disk->root, name);
}

/* Zeros where metadata should be would be taken for a new pool, in the place of one with data. */
static int files_check(const char *data, const char *metadata, struct error **ret_error)
{
    struct stat st;

    if (stat(data, &st) < 0 || st.st_blocks == 0 || access(metadata, F_OK) == 0)
        return 0;
    return error_set(
        ret_error, ERROR_CORRUPT, 0,
        "the thin pool's metadata '%s' is missing: restore it, or remove '%s' with all "
        "images and containers",
        metadata, data);
}

/* ---- the pool ------------------------------------------------------------------------------- */

static int pool_activate(struct dm_pool *pool, const char *data, const char *metadata,
                         uint64_t size, struct error **ret_error)
{
    char data_device[DM_PATH_MAX], meta_device[DM_PATH_MAX];

    if (dm_loop_attach(data, data_device, ret_error) < 0 ||
        dm_loop_attach(metadata, meta_device, ret_error) < 0)
        return -1;
    /* A full pool fails writes at once: what waits for room would hang with its lock held. Blocks
     * are zeroed before they are handed out: a container never sees what another one deleted. */
    CLEANUP_FREE char *params =
        str_printf("%s %s %llu 0 1 error_if_no_space", meta_device, data_device,
                   (unsigned long long)(pool->options.blocksize / DM_SECTOR));
    struct dm_target target = {"thin-pool", size / DM_SECTOR, params};
    return dm_device_is_there(pool->name, NULL) ? dm_device_reload(pool->name, &target, ret_error)
                                                : dm_device_create(pool->name, &target, ret_error);
}

static int pool_ensure(struct dm_pool *pool, struct error **ret_error)
{
    CLEANUP_FREE char *data = file_of(pool, "data");
    CLEANUP_FREE char *metadata = file_of(pool, "metadata");
    uint64_t data_size, meta_size;

    if (files_check(data, metadata, ret_error) < 0 ||
        file_ensure(metadata, pool->options.loopmetadatasize, &meta_size, ret_error) < 0 ||
        file_ensure(data, pool->options.loopdatasize, &data_size, ret_error) < 0)
        return -1;
    if (dm_device_sectors(pool->name) == data_size / DM_SECTOR)
        return 0;
    if (pool_activate(pool, data, metadata, data_size, ret_error) == 0)
        return 0;
    if (!dm_device_is_there(pool->name, NULL)) {
        dm_loop_detach(data);
        dm_loop_detach(metadata);
    }
    return -1;
}

static int lock_take(struct dm_pool *pool, struct error **ret_error)
{
    CLEANUP_FREE char *home = str_printf("%s/devicemapper", pool->disk->root);
    CLEANUP_FREE char *devices = str_printf("%s/devices", home);
    CLEANUP_FREE char *path = str_printf("%s/lock", home);

    if ((mkdir(home, DIR_MODE) < 0 && errno != EEXIST) ||
        (mkdir(devices, DIR_MODE) < 0 && errno != EEXIST))
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", devices);
    pool->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (pool->lock < 0 || TEMP_FAILURE_RETRY(flock(pool->lock, LOCK_EX)) < 0)
        return error_set(ret_error, ERROR_IO, errno, "lock '%s'", path);
    return 0;
}

/* ---- a thin device that stands still -------------------------------------------------------- */

/* Whoever suspends one holds the lock: if there is a note of it, he has died since. After a boot
 * the device is not there either. */
static int suspended_resume(const struct dm_pool *pool, struct error **ret_error)
{
    CLEANUP_FREE char *note = file_of(pool, "suspended");
    char name[DM_NAME_MAX] = "";
    int fd = open(note, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(ret_error, ERROR_IO, errno, "open '%s'", note);
    ssize_t n = read(fd, name, sizeof(name) - 1);
    close(fd);
    if (n > 0 && dm_device_is_there(name, NULL) && dm_device_resume(name, ret_error) < 0)
        return -1;
    if (unlink(note) < 0)
        return error_set(ret_error, ERROR_IO, errno, "remove '%s'", note);
    return 0;
}

static int note_write(const struct dm_pool *pool, const char *name, struct error **ret_error)
{
    CLEANUP_FREE char *note = file_of(pool, "suspended");
    ssize_t size = (ssize_t)strlen(name);
    int fd = open(note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    int result = fd >= 0 && write(fd, name, (size_t)size) == size
                     ? 0
                     : error_set(ret_error, ERROR_IO, errno, "write '%s'", note);

    if (fd >= 0)
        close(fd);
    return result;
}

int dm_thin_snapshot(const struct dm_pool *pool, uint64_t thin, uint64_t origin,
                     struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *message =
        str_printf("create_snap %llu %llu", (unsigned long long)thin, (unsigned long long)origin);
    char name[DM_NAME_MAX];

    dm_thin_name(pool, origin, name);
    if (!dm_device_is_there(name, NULL))
        return dm_device_message(pool->name, message, ret_error);
    if (note_write(pool, name, ret_error) < 0)
        return -1;
    int result = dm_device_suspend(name, &error);
    if (result == 0)
        result = dm_device_message(pool->name, message, &error);
    bool made = result == 0;
    if (suspended_resume(pool, made ? &error : NULL) < 0)
        result = -1;
    if (made && result < 0)
        dm_thin_delete(pool, thin, NULL);
    return result < 0 ? error_move(ret_error, &error) : 0;
}

/* ---- the lock ------------------------------------------------------------------------------- */

static int kernel_check(struct error **ret_error)
{
    if (access("/sys/class/misc/device-mapper", F_OK) == 0)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                     "this kernel has no device-mapper: load its modules 'dm_mod' and "
                     "'dm_thin_pool', or set storage=block");
}

/* A pool that somebody else has made. Where no udev runs it may have no node, by which its thin
 * devices name it. */
static int given_ensure(const struct dm_pool *pool, struct error **ret_error)
{
    CLEANUP_FREE char *node = str_printf("/dev/mapper/%s", pool->name);

    if (!dm_device_is_there(pool->name, NULL))
        return error_set(ret_error, ERROR_NOT_FOUND, 0,
                         "dm.thinpooldev: there is no device '%s': activate the pool first", node);
    if (access(node, F_OK) < 0)
        dm_device_node(pool->name);
    if (access(node, F_OK) == 0)
        return 0;
    return error_set(ret_error, ERROR_NOT_FOUND, 0,
                     "dm.thinpooldev: the pool '%s' is active, but has no node '%s': make it with "
                     "'dmsetup mknodes %s'",
                     pool->name, node, pool->name);
}

int dm_pool_enter(struct dm_pool *pool, const struct disk *disk, struct error **ret_error)
{
    struct stat st;

    *pool = (struct dm_pool){.disk = disk, .lock = -1};
    if (dm_options_read(disk->options, &pool->options, ret_error) < 0 ||
        kernel_check(ret_error) < 0)
        return -1;
    if (stat(disk->root, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "the root '%s'", disk->root);
    /* Another daemon on this host has another root. */
    snprintf(pool->prefix, sizeof(pool->prefix), "husk-%llx-%llx", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    bool given = pool->options.thinpooldev[0] != '\0';
    if (given)
        memcpy(pool->name, pool->options.thinpooldev, sizeof(pool->name));
    else
        snprintf(pool->name, sizeof(pool->name), "%.58s-pool", pool->prefix);
    if (lock_take(pool, ret_error) < 0)
        return -1;
    if (suspended_resume(pool, ret_error) < 0)
        return error_wrap(ret_error, "what a worker has left suspended");
    if (!given)
        return pool_ensure(pool, ret_error) < 0 ? error_wrap(ret_error, "the thin pool") : 0;
    return given_ensure(pool, ret_error);
}

void dm_pool_leave(struct dm_pool *pool)
{
    CLEANUP_FREE char *data = file_of(pool, "data");
    CLEANUP_FREE char *metadata = file_of(pool, "metadata");
    int open = 0;

    if (pool->lock < 0)
        return;
    bool ours = pool->options.thinpooldev[0] == '\0';
    if (ours && dm_device_is_there(pool->name, &open) && open == 0 &&
        dm_device_remove(pool->name, NULL) == 0) {
        dm_loop_detach(data);
        dm_loop_detach(metadata);
    }
    close(pool->lock);
    pool->lock = -1;
}

/* ---- space ---------------------------------------------------------------------------------- */

/* Sectors in one of the pool's blocks, by its table: a given pool has its own. */
static int space_parse(const struct dm_pool *pool, const char *status, struct dm_space *ret,
                       struct error **ret_error)
{
    uint64_t transaction;
    char mode[32] = "";

    if (str_starts(status, "Fail"))
        return error_set(ret_error, ERROR_IO, 0,
                         "the thin pool '%s' has failed: the kernel's log says why", pool->name);
    int n = sscanf(status, "%" SCNu64 " %" SCNu64 "/%" SCNu64 " %" SCNu64 "/%" SCNu64 " %*s %31s",
                   &transaction, &ret->meta_used, &ret->meta_total, &ret->data_used,
                   &ret->data_total, mode);
    if (n != 6 || ret->data_total == 0 || ret->meta_total == 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not a thin pool: its status is '%s'",
                         pool->name, status);
    if (strcmp(mode, "ro") == 0)
        return error_set(ret_error, ERROR_IO, 0,
                         "the thin pool '%s' can only be read: repair its metadata with "
                         "thin_check and thin_repair",
                         pool->name);
    return 0;
}

int dm_pool_space(const struct dm_pool *pool, struct dm_space *ret, struct error **ret_error)
{
    CLEANUP_FREE char *status = dm_device_status(pool->name, ret_error);

    if (!status || space_parse(pool, status, ret, ret_error) < 0)
        return -1;
    uint64_t block = dm_device_sectors(pool->name) / ret->data_total * DM_SECTOR;
    ret->data_used *= block;
    ret->data_total *= block;
    return 0;
}

static int full(const struct dm_pool *pool, const char *what, uint64_t left, uint64_t total,
                struct error **ret_error)
{
    bool given = pool->options.thinpooldev[0] != '\0';

    return error_set(ret_error, ERROR_NO_SPACE, 0,
                     "the thin pool '%s' has only %llu of %llu %s free, less than "
                     "dm.min_free_space=%llu%%: remove containers or images, or %s",
                     pool->name, (unsigned long long)left, (unsigned long long)total, what,
                     (unsigned long long)pool->options.min_free_space,
                     given ? "extend the pool" : "raise dm.loopdatasize");
}

int dm_pool_admit(const struct dm_pool *pool, uint64_t *ret_bytes, struct error **ret_error)
{
    struct dm_space space;

    if (dm_pool_space(pool, &space, ret_error) < 0)
        return -1;
    uint64_t keep = space.data_total / 100 * pool->options.min_free_space;
    uint64_t meta_keep = space.meta_total * pool->options.min_free_space / 100;
    uint64_t left = space.data_total - space.data_used;
    uint64_t meta_left = space.meta_total - space.meta_used;
    if (left <= keep)
        return full(pool, "MiB", left >> 20, space.data_total >> 20, ret_error);
    if (meta_left <= meta_keep)
        return full(pool, "blocks of metadata", meta_left, space.meta_total, ret_error);
    *ret_bytes = left - keep;
    return 0;
}

/* ---- thin devices --------------------------------------------------------------------------- */

void dm_thin_name(const struct dm_pool *pool, uint64_t thin, char ret[DM_NAME_MAX])
{
    snprintf(ret, DM_NAME_MAX, "%.48s-%llu", pool->prefix, (unsigned long long)thin);
}

int dm_thin_activate(const struct dm_pool *pool, uint64_t thin, uint64_t sectors,
                     struct error **ret_error)
{
    char name[DM_NAME_MAX];
    CLEANUP_FREE char *params =
        str_printf("/dev/mapper/%s %llu", pool->name, (unsigned long long)thin);
    struct dm_target target = {"thin", sectors, params};

    dm_thin_name(pool, thin, name);
    if (dm_device_sectors(name) == sectors)
        return 0;
    return dm_device_create(name, &target, ret_error);
}

int dm_thin_deactivate(const struct dm_pool *pool, uint64_t thin, struct error **ret_error)
{
    char name[DM_NAME_MAX];

    dm_thin_name(pool, thin, name);
    return dm_device_remove(name, ret_error);
}

int dm_thin_mapped(const struct dm_pool *pool, uint64_t thin, uint64_t *ret_bytes,
                   struct error **ret_error)
{
    char name[DM_NAME_MAX];

    dm_thin_name(pool, thin, name);
    CLEANUP_FREE char *status = dm_device_status(name, ret_error);
    uint64_t sectors;
    if (!status)
        return -1;
    if (sscanf(status, "%" SCNu64, &sectors) != 1)
        return error_set(ret_error, ERROR_CORRUPT, 0, "thin device '%s' has the status '%s'", name,
                         status);
    *ret_bytes = sectors * DM_SECTOR;
    return 0;
}

int dm_thin_delete(const struct dm_pool *pool, uint64_t thin, struct error **ret_error)
{
    CLEANUP_FREE char *message = str_printf("delete %llu", (unsigned long long)thin);
    struct timespec moment = {0, DELETE_RETRY_NS};

    if (dm_thin_deactivate(pool, thin, ret_error) < 0)
        return -1;
    /* The kernel lets go of what a dead process has held a moment after its name is gone. */
    for (int left = DELETE_TRIES;; left--) {
        CLEANUP_ERROR struct error *error = NULL;
        if (dm_device_message(pool->name, message, &error) == 0 || error->err == ENODATA)
            return 0;
        if (error->err != EBUSY || left == 0)
            return error_move(ret_error, &error);
        nanosleep(&moment, NULL); /* waits: there is no event of it */
    }
}
