/* What becomes of a container's data. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "suite.h"

enum { MIB = 1 << 20 };

static int small_image(const struct rig *rig, const char *name, struct image *image,
                       struct error **ret_error)
{
    struct tar tar = tar_open(rig, name);

    tar_add(&tar, (struct entry){.path = "file", .text = "of the image"});
    tar_close(&tar);
    int result = image_make(rig, &tar, 1, name, image, ret_error);
    tar_free(&tar);
    return result;
}

static bool reads(const struct view *view, const char *path, const char *wanted)
{
    CLEANUP_FREE char *text = view_read(view, path);

    return strcmp(text, wanted) == 0;
}

static void data_outlives_a_stop(const struct rig *rig)
{
    struct image image;
    struct view view;

    MUST_DO(small_image(rig, "life", &image, &error));
    MUST_DO(layer_make(rig, "one", &image, rig->layer_bytes, &error));
    MUST_DO(layer_make(rig, "two", &image, rig->layer_bytes, &error));
    MUST_DO(view_open(rig, &image, "one", &view, &error));
    CHECK(view_write(&view, "file", "changed") == 0);
    CHECK(view_write(&view, "new", "mine") == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(view_open(rig, &image, "one", &view, &error));
    CHECK(reads(&view, "file", "changed"));
    CHECK(reads(&view, "new", "mine"));
    CLEANUP_FREE char *path = view_path(&view, "file");
    CHECK(unlink(path) == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(view_open(rig, &image, "one", &view, &error));
    CHECK(!view_has(&view, "file"));
    MUST_DO(view_close(&view, &error));
    /* Its sister sees the image as it is. */
    MUST_DO(view_open(rig, &image, "two", &view, &error));
    CHECK(reads(&view, "file", "of the image"));
    CHECK(!view_has(&view, "new"));
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "one", &error));
    MUST_DO(layer_remove(rig, "two", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

static void things_may_be_asked_for_again(const struct rig *rig)
{
    CLEANUP_FREE char *layer = layer_path(rig, "again");
    struct image image;
    struct view view;
    struct disk_root root = {0};

    MUST_DO(small_image(rig, "again", &image, &error));
    MUST_DO(layer_make(rig, "again", &image, rig->layer_bytes, &error));
    MUST_DO(view_open(rig, &image, "again", &view, &error));
    CHECK(view_write(&view, "file", "kept") == 0);
    MUST_DO(rig->disk.ops->attach(&rig->disk, image.file, layer, &root, &error));
    disk_root_done(&root);
    MUST_DO(view_close(&view, &error));
    MUST_DO(rig->disk.ops->detach(&rig->disk, layer, &error));
    MUST_DO(layer_make(rig, "again", &image, rig->layer_bytes, &error));
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    MUST_DO(view_open(rig, &image, "again", &view, &error));
    CHECK(reads(&view, "file", "kept"));
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "again", &error));
    MUST_DO(layer_remove(rig, "again", &error));
    MUST_DO(rig->disk.ops->detach(&rig->disk, layer, &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

static void write_mib(const struct view *view, const char *name, int count, int *ret_written,
                      int *ret_errno)
{
    CLEANUP_FREE char *path = view_path(view, name);
    CLEANUP_FREE char *data = xmalloc(MIB);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    memset(data, 'x', MIB);
    *ret_written = 0;
    *ret_errno = fd < 0 ? errno : 0;
    for (ssize_t n = fd < 0 ? -1 : 0, done = 0; n >= 0 && *ret_written < count; done += n) {
        n = write(fd, data, MIB);
        if (n < 0)
            *ret_errno = errno;
        else
            *ret_written = (int)((done + n) / MIB);
    }
    if (fd >= 0 && fsync(fd) < 0 && !*ret_errno)
        *ret_errno = errno;
    if (fd >= 0)
        close(fd);
}

static void usage_grows_with_what_is_written(const struct rig *rig)
{
    CLEANUP_FREE char *layer = layer_path(rig, "usage");
    struct image image;
    struct view view;
    uint64_t before = 0, after = 0;
    int written, failed;

    MUST_DO(small_image(rig, "usage", &image, &error));
    MUST_DO(layer_make(rig, "usage", &image, rig->layer_bytes, &error));
    MUST_DO(rig->disk.ops->layer_usage(&rig->disk, layer, &before, &error));
    CHECK(before < 8 * MIB);
    MUST_DO(view_open(rig, &image, "usage", &view, &error));
    write_mib(&view, "data", 10, &written, &failed);
    CHECK(written == 10 && failed == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(rig->disk.ops->layer_usage(&rig->disk, layer, &after, &error));
    CHECK(after >= before + 10 * MIB && after < before + 20 * MIB);
    MUST_DO(layer_remove(rig, "usage", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

static void the_asked_size_is_what_a_container_has(const struct rig *rig)
{
    struct image image;
    struct view view;
    struct statvfs fs;
    uint64_t wanted = 2 * rig->layer_bytes;

    MUST_DO(small_image(rig, "size", &image, &error));
    MUST_DO(layer_make(rig, "size", &image, wanted, &error));
    MUST_DO(view_open(rig, &image, "size", &view, &error));
    CHECK(statvfs(view.top, &fs) == 0);
    uint64_t size = (uint64_t)fs.f_blocks * fs.f_frsize;
    CHECK(size > wanted / 10 * 9 && size <= wanted);
    CHECK(reads(&view, "file", "of the image"));
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "size", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

const struct test tests_life[] = {
    {"what a container wrote is there after it was stopped, and only there", data_outlives_a_stop},
    {"everything may be asked for again", things_may_be_asked_for_again},
    {"the usage of a layer is what was written into it", usage_grows_with_what_is_written},
    {NULL, NULL},
};

const struct test tests_sized[] = {
    {"a container has the size that it was asked to have", the_asked_size_is_what_a_container_has},
    {NULL, NULL},
};

/* ---- where there is little room ------------------------------------------------------------- */

static void a_full_layer_is_its_containers_trouble_only(const struct rig *rig)
{
    struct image image;
    struct view view, sister;
    int written, failed;

    MUST_DO(small_image(rig, "full", &image, &error));
    MUST_DO(layer_make(rig, "full", &image, rig->layer_bytes, &error));
    MUST_DO(layer_make(rig, "sister", &image, rig->layer_bytes, &error));
    MUST_DO(view_open(rig, &image, "full", &view, &error));
    MUST_DO(view_open(rig, &image, "sister", &sister, &error));
    write_mib(&view, "data", 4096, &written, &failed);
    CHECK(full_says(failed) && written > 1);
    CHECK(view_write(&sister, "file", "there is room") == 0);
    CLEANUP_FREE char *path = view_path(&view, "data");
    CHECK(unlink(path) == 0);
    CHECK(view_write(&view, "file", "again") == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(view_close(&sister, &error));
    MUST_DO(view_open(rig, &image, "full", &view, &error));
    CHECK(reads(&view, "file", "again"));
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "full", &error));
    MUST_DO(layer_remove(rig, "sister", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

const struct test tests_small[] = {
    {"a full layer is its container's trouble and nobody else's",
     a_full_layer_is_its_containers_trouble_only},
    {NULL, NULL},
};
