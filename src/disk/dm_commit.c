/* What a container has changed: the driver devicemapper compares a snapshot of its layer with its
 * image; and whether two images are the same.
 *
 * The layer's snapshot has its record where the copy is to be, and is deleted when that is gone.
 * The image itself is left alone: others make snapshots of it, and it may be removed meanwhile. So
 * it is read from a snapshot, too, which has no record and is deleted with the process that works
 * on it. Both have nodes only as long as that has them open.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/dm.h"
#include "disk/ext4.h"
#include "disk/ext4_changes.h"
#include "disk/output_digest.h"
#include "disk/path.h"
#include "disk/sandbox.h"

int dm_layer_copy(const struct disk *disk, const char *path, const char *copy,
                  struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, path);
    CLEANUP_FREE char *copy_full = path_full(disk->root, copy);
    struct dm_record layer;
    struct dm_pool pool;

    if (dm_record_read(full, &layer, ret_error) < 0)
        return -1;
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_layer_snapshot(&pool, &layer, copy_full, layer.sectors, ret_error);
    dm_pool_leave(&pool);
    return result;
}

/* ---- snapshots that are read ---------------------------------------------------------------- */

struct reading {
    struct dm_record record;
    int fd; /* of its node */
    char *path;
};

/* By the kernel's name for it: the other goes with it where no udev runs. */
static char *device_path(int fd, struct error **ret_error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_set(ret_error, ERROR_IO, errno, "look at a thin device");
        return NULL;
    }
    char *path = str_printf("/dev/dm-%u", minor(st.st_rdev));
    if (access(path, F_OK) == 0)
        return path;
    error_set(ret_error, ERROR_IO, errno, "look for '%s': is devtmpfs mounted at /dev?", path);
    free(path);
    return NULL;
}

static int reading_open(struct reading *r, const struct dm_pool *pool, struct error **ret_error)
{
    char name[DM_NAME_MAX];

    dm_thin_name(pool, r->record.thin, name);
    if (dm_thin_activate(pool, r->record.thin, r->record.sectors, ret_error) < 0)
        return -1;
    r->fd = dm_device_hold(name, ret_error);
    if (r->fd < 0) {
        dm_thin_deactivate(pool, r->record.thin, NULL);
        return -1;
    }
    r->path = device_path(r->fd, ret_error);
    return r->path ? 0 : -1;
}

/* Without the pool it goes by itself. */
static int reading_close(struct reading *r, const struct dm_pool *pool, struct error **ret_error)
{
    char name[DM_NAME_MAX];

    free(r->path);
    if (r->fd >= 0 && !pool)
        close(r->fd);
    if (r->fd < 0 || !pool)
        return 0;
    dm_thin_name(pool, r->record.thin, name);
    return dm_device_release(name, r->fd, ret_error);
}

struct comparison {
    struct reading layer, image;
    int lock; /* on the entry of the image's snapshot; -1: there is none */
};

static int comparison_begin(struct comparison *c, const struct disk *disk, const char *image,
                            const char *copy, struct error **ret_error)
{
    struct dm_record origin;
    struct dm_book_spec spec = {.origin = &origin, .owner = copy};
    struct dm_pool pool;
    int result = dm_record_read(copy, &c->layer.record, ret_error);

    if (result == 0)
        result = dm_record_read(image, &origin, ret_error);
    if (result < 0)
        return -1;
    spec.sectors = origin.sectors;
    c->image.record = origin;
    result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_book_make(&pool, &spec, &c->image.record.thin, &c->lock, ret_error);
    if (result == 0)
        result = reading_open(&c->image, &pool, ret_error);
    if (result == 0)
        result = reading_open(&c->layer, &pool, ret_error);
    dm_pool_leave(&pool);
    return result;
}

static int comparison_end(struct comparison *c, const struct disk *disk, struct error **ret_error)
{
    struct error *first = NULL;
    struct dm_pool pool;

    if (c->lock < 0)
        return 0;
    bool entered = dm_pool_enter(&pool, disk, &first) == 0;
    reading_close(&c->layer, entered ? &pool : NULL, first ? NULL : &first);
    reading_close(&c->image, entered ? &pool : NULL, first ? NULL : &first);
    if (entered)
        dm_book_strike(&pool, c->image.record.thin, first ? NULL : &first);
    dm_pool_leave(&pool);
    close(c->lock);
    return first ? error_move(ret_error, &first) : 0;
}

/* In the sandbox. Only e2fsck is a program, and it writes. */
static int compare(const struct sandbox_files *files, const struct disk_output *out,
                   struct error **ret_error)
{
    struct ext4_changes_spec spec = {.before = files->beside, .now = files->file};
    bool was_clean;

    if (ext4_repair(files->file, &was_clean, ret_error) < 0 || sandbox_narrow(files, ret_error) < 0)
        return -1;
    spec.careful = !was_clean;
    return ext4_changes(&spec, out, ret_error);
}

int dm_layer_diff(const struct disk *disk, const char *image, const char *copy,
                  const struct disk_output *out, struct error **ret_error)
{
    CLEANUP_FREE char *image_full = path_full(disk->root, image);
    CLEANUP_FREE char *copy_full = path_full(disk->root, copy);
    struct comparison c = {.layer = {.fd = -1}, .image = {.fd = -1}, .lock = -1};
    int result = comparison_begin(&c, disk, image_full, copy_full, ret_error);

    const struct sandbox_files files = {.file = c.layer.path, .beside = c.image.path};

    if (result == 0)
        result = sandbox_run(&files, compare, out, ret_error);
    if (comparison_end(&c, disk, result == 0 ? ret_error : NULL) < 0)
        result = -1;
    return result;
}

/* ---- images that are compared --------------------------------------------------------------- */

struct contents {
    const struct disk *disk;
    const char *beside; /* the other image */
    const char *copy;
};

static int contents_write(void *arg, const struct disk_output *out, struct error **ret_error)
{
    const struct contents *c = arg;

    return dm_layer_diff(c->disk, c->beside, c->copy, out, ret_error);
}

/* Of all that an image has, and the names that the other one has and this one has not: two that
 * were made apart share no inode for ext4_changes(). */
static int contents_digest(struct contents *c, const char *path, uint8_t ret[OUTPUT_DIGEST_SIZE],
                           struct error **ret_error)
{
    if (dm_layer_copy(c->disk, path, c->copy, ret_error) < 0)
        return -1;
    int result = output_digest(contents_write, c, ret, ret_error);
    disk_remove(c->disk->root, c->copy, NULL);
    return result;
}

/* `other` was made just now: what is broken is the first. */
int dm_image_same(const struct disk *disk, const char *path, const char *other, bool *ret_same,
                  struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *copy = str_printf("%s.copy", other);
    struct contents first = {disk, other, copy}, second = {disk, path, copy};
    uint8_t mine[OUTPUT_DIGEST_SIZE], others[OUTPUT_DIGEST_SIZE];

    *ret_same = false;
    if (contents_digest(&first, path, mine, &error) < 0 ||
        contents_digest(&second, other, others, &error) < 0)
        return error->kind == ERROR_CORRUPT ? 0 : error_move(ret_error, &error);
    *ret_same = memcmp(mine, others, sizeof(mine)) == 0;
    return 0;
}
