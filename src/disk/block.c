/* The driver `block`: an image is one erofs file, a writable layer is one sparse ext4 file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "disk/ext4.h"
#include "disk/unpack.h"

enum { UUID_SIZE = 16, FILE_MODE = 0600 };

static char *block_image_file(const char *id)
{
    return str_printf("images/%s.erofs", id);
}

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
    struct unpack unpack;
    uint8_t uuid[UUID_SIZE];
    int result = 0;

    uuid_of(image->id, uuid);
    unpack_open(&unpack, fd, image->layer_max_bytes, watch);
    for (size_t i = image->layer_count; result == 0 && i-- > 0;)
        result = unpack_layer(&unpack, &image->layers[i], (int)i, ret_error);
    if (result == 0)
        result = unpack_finish(&unpack, uuid, ret_size, ret_error);
    unpack_done(&unpack);
    if (result == 0 && fsync(fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync the root filesystem");
    return result;
}

static int block_image_prepare(const struct disk_image *image, const char *path,
                               const struct disk_watch *watch, uint64_t *ret_size,
                               struct error **ret_error)
{
    if (image->layer_count > DISK_LAYERS_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "the image has more than %d layers",
                         DISK_LAYERS_MAX);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    int result = image_write(image, fd, watch, ret_size, ret_error);
    close(fd);
    if (result < 0)
        unlink(path);
    return result;
}

const struct disk_ops disk_block = {
    .name = "block",
    .image_file = block_image_file,
    .image_prepare = block_image_prepare,
    .layer_make = ext4_make,
    .layer_spares = ext4_spares,
};
