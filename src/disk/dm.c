/* The driver `devicemapper`. dm.h says how it keeps what it has. */
#include "disk/dm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/ext4.h"
#include "disk/ext4_writer.h"
#include "disk/path.h"
#include "disk/unpack.h"

static int dm_check(const char *const *options, struct error **ret_error)
{
    struct dm_options read;

    if (geteuid() != 0)
        return error_set(ret_error, ERROR_DENIED, 0,
                         "the storage driver 'devicemapper' needs root: set storage=block");
    return dm_options_read(options, &read, ret_error);
}

static char *node_of(const struct dm_pool *pool, uint64_t thin)
{
    char name[DM_NAME_MAX];

    dm_thin_name(pool, thin, name);
    return str_printf("/dev/mapper/%s", name);
}

/* ---- images --------------------------------------------------------------------------------- */

/* A thin device while an image is written into it. */
struct making {
    const struct disk *disk;
    const struct disk_image *image;
    const struct disk_watch *watch;
    const char *path; /* of the record */
    struct dm_record record;
    uint64_t max_bytes; /* that the pool has room for */
    int lock;           /* on its entry */
    char *node;
};

static int making_begin(struct making *m, struct error **ret_error)
{
    CLEANUP_FREE char *file = disk_image_file(m->disk, m->image->id);
    CLEANUP_FREE char *owner = path_full(m->disk->root, file);
    struct dm_pool pool;
    int result = dm_pool_enter(&pool, m->disk, ret_error);

    m->record.sectors = pool.options.basesize / DM_SECTOR;
    struct dm_book_spec spec = {.sectors = m->record.sectors, .owner = owner, .scratch = m->path};
    if (result == 0)
        result = dm_pool_admit(&pool, &m->max_bytes, ret_error);
    if (result == 0)
        result = dm_book_make(&pool, &spec, &m->record.thin, &m->lock, ret_error);
    if (result == 0) {
        m->node = node_of(&pool, m->record.thin);
        result = dm_thin_activate(&pool, m->record.thin, m->record.sectors, ret_error);
        if (result < 0)
            dm_book_strike(&pool, m->record.thin, NULL);
    }
    dm_pool_leave(&pool);
    return result;
}

static int making_write(struct making *m, uint64_t *ret_size, struct error **ret_error)
{
    static const uint8_t no_uuid[16] = {0}; /* mke2fs has given one */
    struct unpack unpack;

    if (ext4_format(m->node, true, ret_error) < 0)
        return -1;
    struct ext4_writer *writer = ext4_writer_new(m->node, m->max_bytes, ret_error);
    if (!writer)
        return -1;
    unpack_open(&unpack, &ext4_sink, writer, m->image->layer_max_bytes, m->watch);
    int result = unpack_image(&unpack, m->image, no_uuid, ret_size, ret_error);
    unpack_done(&unpack);
    ext4_writer_free(writer);
    return result;
}

/* Deactivates it; it gets its record, or is deleted. */
static int making_end(struct making *m, bool good, struct error **ret_error)
{
    struct dm_pool pool;
    int result = dm_pool_enter(&pool, m->disk, ret_error);

    if (result == 0 && good)
        result = dm_thin_mapped(&pool, m->record.thin, &m->record.base_bytes, ret_error);
    if (result == 0 && good)
        result = dm_thin_deactivate(&pool, m->record.thin, ret_error);
    if (result == 0 && good)
        result = dm_record_write(m->path, &m->record, ret_error);
    if (result < 0 || !good)
        dm_book_strike(&pool, m->record.thin, NULL);
    dm_pool_leave(&pool);
    return result;
}

static int dm_image_prepare(const struct disk *disk, const struct disk_image *image,
                            const char *path, const struct disk_watch *watch, uint64_t *ret_size,
                            struct error **ret_error)
{
    struct making m = {.disk = disk, .image = image, .watch = watch, .path = path, .lock = -1};

    int result = making_begin(&m, ret_error);
    if (result == 0) {
        result = making_write(&m, ret_size, ret_error);
        if (making_end(&m, result == 0, result == 0 ? ret_error : NULL) < 0)
            result = -1;
    }
    if (m.lock >= 0)
        close(m.lock);
    free(m.node);
    return result;
}

/* ---- writable layers ------------------------------------------------------------------------ */

/* The filesystem of a snapshot is as large as that of its image. */
static int layer_grow(const struct dm_pool *pool, const struct dm_record *record,
                      struct error **ret_error)
{
    CLEANUP_FREE char *node = node_of(pool, record->thin);

    if (dm_thin_activate(pool, record->thin, record->sectors, ret_error) < 0)
        return -1;
    if (ext4_grow(node, ret_error) < 0)
        return -1;
    return dm_thin_deactivate(pool, record->thin, ret_error);
}

int dm_layer_snapshot(const struct dm_pool *pool, const struct dm_record *origin, const char *path,
                      uint64_t sectors, struct error **ret_error)
{
    struct dm_book_spec spec = {.origin = origin, .sectors = sectors, .owner = path};
    struct dm_record record = {.sectors = sectors, .base_bytes = origin->base_bytes};
    uint64_t room;
    int lock;

    if (dm_pool_admit(pool, &room, ret_error) < 0 ||
        dm_book_make(pool, &spec, &record.thin, &lock, ret_error) < 0)
        return -1;
    int result = sectors > origin->sectors ? layer_grow(pool, &record, ret_error) : 0;
    if (result == 0)
        result = dm_record_write(path, &record, ret_error);
    if (result < 0)
        dm_book_strike(pool, record.thin, NULL);
    close(lock);
    return result;
}

static int directory_make(const char *root, const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *below = path_below(root, path, ret_error);
    const char *name;
    int fd = below ? path_parent(root, below, true, &name, ret_error) : -1;

    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int dm_layer_make(const struct disk *disk, const struct disk_layer_spec *layer,
                         struct error **ret_error)
{
    CLEANUP_FREE char *path = path_full(disk->root, layer->path);
    CLEANUP_FREE char *image_path = path_full(disk->root, layer->image);
    uint64_t sectors = layer->size_bytes / DM_SECTOR;
    struct dm_record image;
    struct dm_pool pool;

    if (dm_record_read(path, &image, NULL) == 0)
        return 0;
    if (dm_record_read(image_path, &image, ret_error) < 0 ||
        directory_make(disk->root, layer->path, ret_error) < 0)
        return -1;
    if (sectors < image.sectors)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "a writable layer of %llu MiB is smaller than its image's device of %llu "
                         "MiB (dm.basesize): ask for as much, or load the image with a smaller "
                         "dm.basesize",
                         (unsigned long long)(sectors >> 11),
                         (unsigned long long)(image.sectors >> 11));
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_layer_snapshot(&pool, &image, path, sectors, ret_error);
    dm_pool_leave(&pool);
    return result;
}

/* A snapshot is one message to the pool. */
static int dm_layer_spares(const struct disk *disk, uint64_t size_bytes, uint32_t count,
                           const char *const *likes, struct error **ret_error)
{
    return 0;
}

static int dm_layer_usage(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                          struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, path);
    char name[DM_NAME_MAX];
    struct dm_record record;
    struct dm_pool pool;
    uint64_t mapped = 0;

    if (dm_record_read(full, &record, ret_error) < 0)
        return -1;
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0) {
        dm_thin_name(&pool, record.thin, name);
        bool active = dm_device_is_there(name, NULL);
        if (!active)
            result = dm_thin_activate(&pool, record.thin, record.sectors, ret_error);
        if (result == 0)
            result = dm_thin_mapped(&pool, record.thin, &mapped, ret_error);
        if (!active)
            dm_thin_deactivate(&pool, record.thin, NULL);
    }
    dm_pool_leave(&pool);
    *ret_bytes = mapped > record.base_bytes ? mapped - record.base_bytes : 0;
    return result;
}

static int dm_attach(const struct disk *disk, const char *image, const char *layer,
                     struct disk_root *ret, struct error **ret_error)
{
    CLEANUP_FREE char *path = path_full(disk->root, layer);
    struct dm_record record;
    struct dm_pool pool;

    if (dm_record_read(path, &record, ret_error) < 0)
        return -1;
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_thin_activate(&pool, record.thin, record.sectors, ret_error);
    if (result == 0)
        *ret = (struct disk_root){.layer = node_of(&pool, record.thin),
                                  .top = xstrdup(EXT4_WRITER_TOP)};
    dm_pool_leave(&pool);
    return result;
}

static int dm_detach(const struct disk *disk, const char *layer, struct error **ret_error)
{
    CLEANUP_FREE char *path = path_full(disk->root, layer);
    CLEANUP_ERROR struct error *error = NULL;
    struct dm_record record;
    struct dm_pool pool;

    if (dm_record_read(path, &record, &error) < 0)
        return error->err == ENOENT ? 0 : error_move(ret_error, &error);
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_thin_deactivate(&pool, record.thin, ret_error);
    dm_pool_leave(&pool);
    return result;
}

static int dm_collect(const struct disk *disk, struct error **ret_error)
{
    struct dm_pool pool;

    if (dm_book_is_empty(disk))
        return 0;
    int result = dm_pool_enter(&pool, disk, ret_error);
    if (result == 0)
        result = dm_book_collect(&pool, ret_error);
    dm_pool_leave(&pool);
    return result;
}

const struct disk_ops disk_devicemapper = {
    .name = "devicemapper",
    .image_suffix = "thin",
    .check = dm_check,
    .image_prepare = dm_image_prepare,
    .image_same = dm_image_same,
    .layer_make = dm_layer_make,
    .layer_spares = dm_layer_spares,
    .layer_usage = dm_layer_usage,
    .attach = dm_attach,
    .detach = dm_detach,
    .layer_copy = dm_layer_copy,
    .layer_diff = dm_layer_diff,
    .collect = dm_collect,
};
