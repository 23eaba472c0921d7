/* Of the driver overlay alone: images and layers are directories of the host, next to which there
 * are others.
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

#include "suite.h"

static int homes(const struct rig *rig)
{
    CLEANUP_FREE char *path = str_printf("%s/overlay", rig->root);
    DIR *dir = opendir(path);
    int count = 0;

    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        count += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

static int image_of(const struct rig *rig, struct tar *tar, const char *name, struct image *image,
                    struct error **ret_error)
{
    tar_close(tar);
    int result = image_make(rig, tar, 1, name, image, ret_error);
    tar_free(tar);
    return result;
}

static void removal_leaves_nothing(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "gone"), same = tar_open(rig, "same");
    struct image image, twin;
    int before = homes(rig);

    tar_add(&tar, (struct entry){.path = "dir/file", .text = "x"});
    tar_add(&same, (struct entry){.path = "dir/file", .text = "x"});
    MUST_DO(image_of(rig, &tar, "gone", &image, &error));
    MUST_DO(image_of(rig, &same, "same", &twin, &error));
    CHECK(homes(rig) == before + 2);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(homes(rig) == before + 2);
    MUST_DO(image_remove(rig, &image, &error));
    CHECK(homes(rig) == before + 1);
    MUST_DO(image_remove(rig, &twin, &error));
    CHECK(homes(rig) == before);
    image_done(&image);
    image_done(&twin);
}

/* As a worker leaves it that dies while it writes one; while it lives the directory is locked. */
static void what_a_crash_left_is_collected(const struct rig *rig)
{
    CLEANUP_FREE char *home = str_printf("%s/overlay/halfmade", rig->root);
    CLEANUP_FREE char *stage = str_printf("%s/stage", home);
    int before = homes(rig);

    mkdir(home, 0700);
    mkdir(stage, 0700);
    int lock = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(lock >= 0 && flock(lock, LOCK_EX) == 0);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(homes(rig) == before + 1);
    close(lock);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(homes(rig) == before);
}

static void a_hostile_archive_stays_in_its_directory(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "hostile");
    CLEANUP_FREE char *outside = str_printf("%s/outside", rig->archives);
    CLEANUP_FREE char *aim = str_printf("%s/aim", outside);
    struct image image;
    struct view view;
    struct stat st;

    mkdir(outside, 0755);
    tar_add(&tar, (struct entry){.path = "a", .mode = S_IFLNK | 0777, .link = outside});
    tar_add(&tar, (struct entry){.path = "b", .mode = S_IFLNK | 0777, .link = "../../../../.."});
    tar_add(&tar, (struct entry){.path = "c", .hardlink = "a"});
    tar_add(&tar, (struct entry){.path = "/abs", .text = "in the image"});
    tar_add(&tar, (struct entry){.path = "0", .text = "a name as the stage has"});
    MUST_DO(image_of(rig, &tar, "hostile", &image, &error));
    MUST_DO(layer_make(rig, "hostile", &image, 0, &error));
    MUST_DO(view_open(rig, &image, "hostile", &view, &error));
    CHECK(view_has(&view, "abs") && view_has(&view, "0"));
    CLEANUP_FREE char *link = view_path(&view, "c");
    CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(access(aim, F_OK) < 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "hostile", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);

    static const char *const bad[] = {"../outside/aim", "a/aim", "b/aim"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *refused = NULL;
        tar = tar_open(rig, "bad");
        tar_add(&tar, (struct entry){.path = "a", .mode = S_IFLNK | 0777, .link = outside});
        tar_add(&tar, (struct entry){.path = "b", .mode = S_IFLNK | 0777, .link = "../outside"});
        tar_add(&tar, (struct entry){.path = bad[i], .text = "x"});
        CHECK(image_of(rig, &tar, "bad", &image, &refused) < 0);
        CHECK(refused && refused->kind == ERROR_INVALID);
        error_free(refused);
        image_done(&image);
        CHECK(access(aim, F_OK) < 0);
    }
    CHECK(homes(rig) == 0);
    rmdir(outside);
}

static void a_size_is_refused(const struct rig *rig)
{
    CLEANUP_FREE char *path = layer_path(rig, "sized");
    CLEANUP_FREE char *full = str_printf("%s/%s", rig->root, path);
    struct tar tar = tar_open(rig, "sized");
    struct error *refused = NULL;
    struct image image;

    tar_add(&tar, (struct entry){.path = "file"});
    MUST_DO(image_of(rig, &tar, "sized", &image, &error));
    CHECK(layer_make(rig, "sized", &image, 64 << 20, &refused) < 0);
    CHECK(refused && refused->kind == ERROR_UNSUPPORTED);
    error_free(refused);
    CHECK(access(full, F_OK) < 0 && errno == ENOENT);
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

const struct test tests_overlay[] = {
    {"removal leaves nothing", removal_leaves_nothing},
    {"what a crash left is collected, what is being made is not", what_a_crash_left_is_collected},
    {"a hostile archive stays in its directory", a_hostile_archive_stays_in_its_directory},
    {"a writable layer that is to have a size is refused", a_size_is_refused},
    {NULL, NULL},
};
