/* Any bytes as an archive, all the way to a prepared root, in a store that lives for one input. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "image/load.h"

enum { LAYER_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int never_wait(void *arg, int fd, struct error **ret_error)
{
    return 0;
}

static int no_progress(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                       struct error **ret_error)
{
    return 0;
}

static char *prepared(void *arg, const char *id)
{
    const struct disk disk = {&disk_block, NULL, NULL};

    return disk_image_file(&disk, id);
}

static int prepare(void *arg, const char *id, const struct image_layer *layers, size_t count,
                   const char *path, uint64_t *ret_size, struct error **ret_error)
{
    CLEANUP_FREE struct disk_layer *copies = xcalloc(count + 1, sizeof(*copies));
    struct disk_image image = {
        .id = id, .layers = copies, .layer_count = count, .layer_max_bytes = LAYER_MAX};

    for (size_t i = 0; i < count; i++)
        copies[i] = (struct disk_layer){layers[i].path, layers[i].diff_id};
    const struct disk disk = {&disk_block, NULL, NULL};
    return disk_block.image_prepare(&disk, &image, path, NULL, ret_size, ret_error);
}

static int found(void *arg, const struct image_found *image, struct error **ret_error)
{
    return 0;
}

/* One layer as it is, without the archive round it: its digest would stop the fuzzer. */
static void layer_try(const char *scratch, const char *layer)
{
    struct image_layer one = {layer, "00"};
    CLEANUP_FREE char *path = str_printf("%s/alone", scratch);
    uint64_t bytes;

    prepare(NULL, "00", &one, 1, path, &bytes, NULL);
}

static void archive_try(const char *root, const char *scratch, int fd)
{
    struct image_load load = {
        .root = root,
        .scratch = scratch,
        .fd = fd,
        .layer_max_bytes = LAYER_MAX,
        .wait = never_wait,
        .progress = no_progress,
        .prepared = prepared,
        .prepare = prepare,
        .found = found,
    };

    image_load(&load, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char root[] = "/dev/shm/husk-load-fuzz.XXXXXX";
    CLEANUP_FREE char *scratch = NULL;
    int lock, fd = memfd_create("archive", MFD_CLOEXEC);

    if (fd < 0 || !mkdtemp(root) || write(fd, data, size) != (ssize_t)size ||
        lseek(fd, 0, SEEK_SET) != 0 || disk_scratch(root, &scratch, &lock, NULL) < 0)
        abort();
    CLEANUP_FREE char *layer = str_printf("%s/layer", scratch);
    FILE *copy = fopen(layer, "we");
    if (!copy || fwrite(data, 1, size, copy) != size || fclose(copy) != 0)
        abort();
    layer_try(scratch, layer);
    archive_try(root, scratch, fd);
    close(fd);
    close(lock);
    disk_sweep(root, NULL, 0, NULL);
    for (size_t i = 0; i < 6; i++) {
        static const char *const names[] = {"blobs/sha256", "blobs/partial", "blobs",
                                            "images",       "tmp",           ""};
        CLEANUP_FREE char *path = str_printf("%s/%s", root, names[i]);
        rmdir(path);
    }
    return 0;
}
