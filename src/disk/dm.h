/* The driver `devicemapper`: a thin pool, an image is a thin device with ext4, a writable layer is
 * a snapshot of it. Only for the files of this room.
 *
 *      ROOT/devicemapper/data, metadata    the pool, in sparse files (or dm.thinpooldev is one)
 *      ROOT/devicemapper/lock              held by whoever talks to the pool
 *      ROOT/devicemapper/suspended         the thin device that stands still, while it does
 *      ROOT/devicemapper/devices/ID        a thin device: whose it is, and where it was made
 *      ROOT/images/IMAGE.thin              a record: which thin device is the image
 *      ROOT/pods/UID/CTR.thin              a record: which is the writable layer
 *
 * A device is entered in devices/ before the pool is asked to make it, and struck out after the
 * pool has deleted it: the pool never has one that is not there. A device is alive while the
 * record that its entry names says its number, or while a process that works on it holds the lock
 * on its entry; dm_book_collect() deletes the others. So removing an image or a layer is removing
 * its record, and whatever a crash left half made is garbage. What a crash left standing still goes
 * on when the next one locks the pool.
 *
 * Thin devices are active (have a node in /dev) only while an image is written, a VM runs, or what
 * a container has changed is read. A pool of files is active only while one of them is, or
 * something is asked of it.
 */
#ifndef HUSK_DISK_DM_H
#define HUSK_DISK_DM_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"

enum { DM_SECTOR = 512, DM_NAME_MAX = 64, DM_PATH_MAX = 96 };

/* ---- dm_options.c --------------------------------------------------------------------------- */

struct dm_options {
    char thinpooldev[DM_NAME_MAX]; /* name of a pool that is there; "": files */
    uint64_t basesize;             /* bytes of an image's device: the least of a layer */
    uint64_t loopdatasize, loopmetadatasize;
    uint64_t blocksize;      /* bytes that the pool hands out at once */
    uint64_t min_free_space; /* percent; below it nothing new is made */
    bool blkdiscard;         /* deleted devices give their bytes back to the files */
};

int dm_options_read(const char *const *options, struct dm_options *ret, struct error **ret_error);

/* ---- dm_task.c: what libdevmapper does ------------------------------------------------------ */

struct dm_target {
    const char *type;
    uint64_t sectors;
    const char *params;
};

/* A new active device /dev/mapper/NAME. */
int dm_device_create(const char *name, const struct dm_target *target, struct error **ret_error);
/* Another table for it: waits for what is under way, then goes on with the new one. */
int dm_device_reload(const char *name, const struct dm_target *target, struct error **ret_error);
/* Its input and output waits until it is resumed: what is under way is done first. */
int dm_device_suspend(const char *name, struct error **ret_error);
int dm_device_resume(const char *name, struct error **ret_error);
/* Makes the node of one that has none, as udev would. */
void dm_device_node(const char *name);
/* Opens it to read, and from now on it is removed when nobody has it open any more, however its
 * holder ends. dm_device_release() closes it, and has removed it when it returns. */
int dm_device_hold(const char *name, struct error **ret_error);
int dm_device_release(const char *name, int fd, struct error **ret_error);
/* With retries for a second: somebody may look at it just now. Not there is fine. */
int dm_device_remove(const char *name, struct error **ret_error);
int dm_device_message(const char *name, const char *message, struct error **ret_error);
/* The words of the kernel about it; owned. */
char *dm_device_status(const char *name, struct error **ret_error);
/* Returns whether it is active; *ret_open (may be NULL): how many have it open. */
bool dm_device_is_there(const char *name, int *ret_open);
/* Length of its table in sectors; 0: it is not active. */
uint64_t dm_device_sectors(const char *name);

/* ---- dm_loop.c ------------------------------------------------------------------------------ */

/* A loop device on the file, the one that is there already if there is one. */
int dm_loop_attach(const char *path, char ret_device[DM_PATH_MAX], struct error **ret_error);
/* Lets go of all loop devices on the file. */
void dm_loop_detach(const char *path);

/* ---- dm_pool.c ------------------------------------------------------------------------------ */

struct dm_pool {
    const struct disk *disk;
    struct dm_options options;
    char prefix[DM_NAME_MAX]; /* of the names of its thin devices */
    char name[DM_NAME_MAX];
    int lock;
};

struct dm_space {
    uint64_t data_used, data_total; /* bytes */
    uint64_t meta_used, meta_total; /* blocks */
};

/* Locks, and makes the pool active. dm_pool_leave() undoes both, unless its devices are in use. */
int dm_pool_enter(struct dm_pool *pool, const struct disk *disk, struct error **ret_error);
void dm_pool_leave(struct dm_pool *pool);
int dm_pool_space(const struct dm_pool *pool, struct dm_space *ret, struct error **ret_error);
/* ERROR_NO_SPACE if less is free than dm.min_free_space; *ret_bytes: what may be written. */
int dm_pool_admit(const struct dm_pool *pool, uint64_t *ret_bytes, struct error **ret_error);

/* Thin devices of the pool. */
void dm_thin_name(const struct dm_pool *pool, uint64_t thin, char ret[DM_NAME_MAX]);
int dm_thin_activate(const struct dm_pool *pool, uint64_t thin, uint64_t sectors,
                     struct error **ret_error);
int dm_thin_deactivate(const struct dm_pool *pool, uint64_t thin, struct error **ret_error);
/* A new thin device `thin`, a snapshot of `origin`, which stands still meanwhile if it is active.
 */
int dm_thin_snapshot(const struct dm_pool *pool, uint64_t thin, uint64_t origin,
                     struct error **ret_error);
/* Bytes that it takes in the pool, with what it shares; it must be active. */
int dm_thin_mapped(const struct dm_pool *pool, uint64_t thin, uint64_t *ret_bytes,
                   struct error **ret_error);
/* What is not there is fine. */
int dm_thin_delete(const struct dm_pool *pool, uint64_t thin, struct error **ret_error);

/* ---- dm.c ----------------------------------------------------------------------------------- */

struct dm_record;

/* A snapshot with its record at `path`, of `sectors`, which are at least those of its origin. */
int dm_layer_snapshot(const struct dm_pool *pool, const struct dm_record *origin, const char *path,
                      uint64_t sectors, struct error **ret_error);

/* ---- dm_commit.c: layer_copy, layer_diff and image_same of disk.h --------------------------- */

int dm_layer_copy(const struct disk *disk, const char *path, const char *copy,
                  struct error **ret_error);
int dm_layer_diff(const struct disk *disk, const char *image, const char *copy,
                  const struct disk_output *out, struct error **ret_error);
int dm_image_same(const struct disk *disk, const char *path, const char *other, bool *ret_same,
                  struct error **ret_error);

/* ---- dm_book.c ------------------------------------------------------------------------------ */

struct dm_record {
    uint64_t thin;
    uint64_t sectors;
    uint64_t base_bytes; /* what its image takes in the pool */
};

/* Paths are absolute. Written whole and synced, or not at all. */
int dm_record_write(const char *path, const struct dm_record *record, struct error **ret_error);
/* ERROR_NOT_FOUND if there is none, ERROR_CORRUPT if it is not one. */
int dm_record_read(const char *path, struct dm_record *ret, struct error **ret_error);

struct dm_book_spec {
    const struct dm_record *origin; /* a snapshot of this; NULL: an empty device */
    uint64_t sectors;               /* how large it will be */
    const char *owner;              /* where its record will be, absolute */
    const char *scratch;            /* where that may be until then; NULL: nowhere */
};

/* A new thin device, entered, made, and locked until *ret_lock is closed. */
int dm_book_make(const struct dm_pool *pool, const struct dm_book_spec *spec, uint64_t *ret_thin,
                 int *ret_lock, struct error **ret_error);
/* Deletes one that was made, and its entry. */
int dm_book_strike(const struct dm_pool *pool, uint64_t thin, struct error **ret_error);
/* Deletes all that are dead. */
int dm_book_collect(const struct dm_pool *pool, struct error **ret_error);
/* Whether any is entered. */
bool dm_book_is_empty(const struct disk *disk);

#endif
