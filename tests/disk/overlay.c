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
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "suite.h"

enum { TIME = 1000000000 };

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

/* One difference each, in the directory of an image; times are put back. */
static int change_content(int root)
{
    int fd = openat(root, "dir/file", O_WRONLY | O_CLOEXEC);
    int result = fd >= 0 && pwrite(fd, "y", 1, 0) == 1 ? 0 : -1;

    close(fd);
    return result;
}

static int change_mode(int root)
{
    return fchmodat(root, "dir/file", 0600, 0);
}

static int change_owner(int root)
{
    return fchownat(root, "dir", 1, 0, 0);
}

static int change_xattr(int root)
{
    int fd = openat(root, "dir/file", O_RDONLY | O_CLOEXEC);
    int result = fsetxattr(fd, "user.a", "c", 1, 0);

    close(fd);
    return result;
}

static int change_link(int root)
{
    return unlinkat(root, "link", 0) < 0 ? -1 : symlinkat("rid", root, "link");
}

static int change_device(int root)
{
    return unlinkat(root, "device", 0) < 0 ? -1
                                           : mknodat(root, "device", S_IFCHR | 0600, makedev(1, 5));
}

static int change_name(int root)
{
    return renameat(root, "dir/file", root, "dir/elif");
}

static int change_twin(int root)
{
    return unlinkat(root, "twin", 0) < 0 ? -1 : linkat(root, "other", root, "twin", 0);
}

static int change_time(int root)
{
    const struct timespec times[2] = {{1, 0}, {1, 0}};

    return utimensat(root, "other", times, 0);
}

static int change_nothing(int root)
{
    return 0;
}

static const struct {
    const char *name;
    int (*make)(int root);
    bool same;
} changes[] = {
    {"nothing", change_nothing, true}, {"content", change_content, false},
    {"mode", change_mode, false},      {"owner", change_owner, false},
    {"xattr", change_xattr, false},    {"link", change_link, false},
    {"device", change_device, false},  {"name", change_name, false},
    {"twin", change_twin, false},      {"time", change_time, false},
};

static void times_reset(int root)
{
    static const char *const names[] = {"dir/file", "dir/elif", "dir", "link", "device", "."};
    const struct timespec times[2] = {{TIME, 0}, {TIME, 0}};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        utimensat(root, names[i], times, AT_SYMLINK_NOFOLLOW);
}

static int tree_make(const struct rig *rig, const char *name, struct image *image,
                     struct error **ret_error)
{
    const struct entry entries[] = {
        {.path = "./", .mode = S_IFDIR | 0755, .mtime = TIME},
        {.path = "dir", .mode = S_IFDIR | 0755, .mtime = TIME},
        {.path = "dir/file", .text = "x", .xattr = "user.a", .value = "b", .mtime = TIME},
        {.path = "other", .text = "x", .mtime = TIME},
        {.path = "twin", .hardlink = "dir/file"},
        {.path = "link", .mode = S_IFLNK | 0777, .link = "dir", .mtime = TIME},
        {.path = "device", .mode = S_IFCHR | 0600, .major = 1, .minor = 3, .mtime = TIME},
    };
    struct tar tar = tar_open(rig, name);

    for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
        tar_add(&tar, entries[i]);
    return image_of(rig, &tar, name, image, ret_error);
}

/* The root of the only image that there is; a descriptor. */
static int only_root(const struct rig *rig)
{
    CLEANUP_FREE char *path = str_printf("%s/overlay", rig->root);
    DIR *dir = opendir(path);
    int fd = -1;

    for (struct dirent *e = dir ? readdir(dir) : NULL; e && fd < 0; e = readdir(dir)) {
        CLEANUP_FREE char *root = str_printf("%s/%s/root", path, e->d_name);
        fd = e->d_name[0] == '.' ? -1 : open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (dir)
        closedir(dir);
    return fd;
}

static void what_is_another_in_anything_is_not_the_same(const struct rig *rig)
{
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        struct image image, twin;
        bool same = !changes[i].same;
        MUST_DO(tree_make(rig, "tree", &image, &error));
        int root = only_root(rig);
        MUST(root >= 0);
        CHECK(changes[i].make(root) == 0);
        times_reset(root);
        close(root);
        MUST_DO(tree_make(rig, "as-it-was", &twin, &error));
        MUST_DO(rig->disk.ops->image_same(&rig->disk, image.file, twin.file, &same, &error));
        if (!CHECK(same == changes[i].same))
            printf("# %s\n", changes[i].name);
        MUST_DO(image_remove(rig, &image, &error));
        MUST_DO(image_remove(rig, &twin, &error));
        image_done(&image);
        image_done(&twin);
    }
}

const struct test tests_overlay[] = {
    {"an image that is another in anything is not the same",
     what_is_another_in_anything_is_not_the_same},
    {"removal leaves nothing", removal_leaves_nothing},
    {"what a crash left is collected, what is being made is not", what_a_crash_left_is_collected},
    {"a hostile archive stays in its directory", a_hostile_archive_stays_in_its_directory},
    {"a writable layer that is to have a size is refused", a_size_is_refused},
    {NULL, NULL},
};
