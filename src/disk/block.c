/* The driver `block`: an image is one erofs file, a writable layer is one sparse ext4 file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "disk/erofs.h"
#include "disk/ext4.h"
#include "disk/ext4_reader.h"
#include "disk/path.h"
#include "disk/sandbox.h"
#include "disk/unpack.h"

enum { UUID_SIZE = 16, FILE_MODE = 0600, COMPARE_PIECE = 256 << 10 };

/* The first half of the config's digest: the same image gives the same file. */
static void uuid_of(const char *id, uint8_t ret[UUID_SIZE])
{
    memset(ret, 0, UUID_SIZE);
    for (size_t i = 0; i < 2 * UUID_SIZE && id[i]; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, id[i]);
        ret[i / 2] = (uint8_t)(ret[i / 2] << 4 | (at ? at - digits : 0));
    }
}

static int image_write(const struct disk_image *image, int fd, const struct disk_watch *watch,
                       uint64_t *ret_size, struct error **ret_error)
{
    struct erofs_writer writer;
    struct unpack unpack;
    uint8_t uuid[UUID_SIZE];

    uuid_of(image->id, uuid);
    erofs_open(&writer, fd);
    unpack_open(&unpack, &erofs_sink, &writer, image->layer_max_bytes, watch);
    int result = unpack_image(&unpack, image, uuid, ret_size, ret_error);
    unpack_done(&unpack);
    erofs_done(&writer);
    if (result == 0 && fsync(fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync the root filesystem");
    return result;
}

static int block_check(const char *const *options, struct error **ret_error)
{
    if (options && *options)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "storage_opt '%s': the storage driver 'block' has no options; the setting "
                         "layer_size is the size of its layers",
                         *options);
    return 0;
}

static int block_image_prepare(const struct disk *disk, const struct disk_image *image,
                               const char *path, const struct disk_watch *watch, uint64_t *ret_size,
                               struct error **ret_error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    int result = image_write(image, fd, watch, ret_size, ret_error);
    close(fd);
    if (result < 0)
        unlink(path);
    return result;
}

/* The same layers give the same bytes. A file that cannot be read is not the same. */
static int block_image_same(const struct disk *disk, const char *path, const char *other,
                            bool *ret_same, struct error **ret_error)
{
    CLEANUP_FREE uint8_t *pieces = xmalloc(2 * COMPARE_PIECE);
    int a = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int b = open(other, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int err = errno;
    ssize_t n = a < 0 || b < 0 ? 0 : 1, m;

    *ret_same = n > 0;
    while (*ret_same && n > 0) {
        n = TEMP_FAILURE_RETRY(read(a, pieces, COMPARE_PIECE));
        m = TEMP_FAILURE_RETRY(read(b, pieces + COMPARE_PIECE, COMPARE_PIECE));
        *ret_same = n >= 0 && n == m && memcmp(pieces, pieces + COMPARE_PIECE, (size_t)n) == 0;
    }
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    return b < 0 ? error_set(ret_error, ERROR_IO, err, "read '%s'", other) : 0;
}

static int block_layer_make(const struct disk *disk, const struct disk_layer_spec *layer,
                            struct error **ret_error)
{
    return ext4_make(disk->root, layer, ret_error);
}

static int block_layer_spares(const struct disk *disk, uint64_t size_bytes, uint32_t count,
                              const char *const *likes, struct error **ret_error)
{
    return ext4_spares(disk->root, size_bytes, count, likes, ret_error);
}

static int block_layer_usage(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                             struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, path);
    struct stat st;

    if (lstat(full, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s'", full);
    *ret_bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}

static int block_attach(const struct disk *disk, const char *image, const char *layer,
                        struct disk_root *ret, struct error **ret_error)
{
    *ret = (struct disk_root){
        .image = path_full(disk->root, image),
        .layer = path_full(disk->root, layer),
    };
    return 0;
}

/* A file is open in a VM or it is not; nothing is left of either. */
static int block_detach(const struct disk *disk, const char *layer, struct error **ret_error)
{
    return 0;
}

static int block_layer_copy(const struct disk *disk, const char *path, const char *copy,
                            struct error **ret_error)
{
    return ext4_copy(disk->root, path, copy, ret_error);
}

/* In the sandbox. Only e2fsck is a program, and it writes. */
static int copy_read(const struct sandbox_files *files, const struct disk_output *out,
                     struct error **ret_error)
{
    bool was_clean;

    if (ext4_repair(files->file, &was_clean, ret_error) < 0 || sandbox_narrow(files, ret_error) < 0)
        return -1;
    return ext4_reader_diff(files->file, out, ret_error);
}

static int block_layer_diff(const struct disk *disk, const char *image, const char *copy,
                            const struct disk_output *out, struct error **ret_error)
{
    CLEANUP_FREE char *full = path_full(disk->root, copy);
    const struct sandbox_files files = {.file = full};

    return sandbox_run(&files, copy_read, out, ret_error);
}

static int block_collect(const struct disk *disk, struct error **ret_error)
{
    return 0;
}

const struct disk_ops disk_block = {
    .name = "block",
    .image_suffix = "erofs",
    .check = block_check,
    .image_prepare = block_image_prepare,
    .image_same = block_image_same,
    .layer_make = block_layer_make,
    .layer_spares = block_layer_spares,
    .layer_usage = block_layer_usage,
    .attach = block_attach,
    .detach = block_detach,
    .layer_copy = block_layer_copy,
    .layer_diff = block_layer_diff,
    .collect = block_collect,
};
