/* What an image says is what its containers see. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "suite.h"

enum {
    DIRS = 100,
    FILES_IN_DIR = 1000, /* 100 000 in all */
    PAGE = 4096,
};

static const uint64_t BIG_BYTES = (2ULL << 30) + 12345, BIG_STEP = 64 << 20;

/* An image of these layers, and a container of it. */
static int image_and_view(const struct rig *rig, struct tar *tars, size_t count, const char *name,
                          struct image *image, struct view *view, struct error **ret_error)
{
    for (size_t i = 0; i < count; i++)
        tar_close(&tars[i]);
    int result = image_make(rig, tars, count, name, image, ret_error);
    for (size_t i = 0; i < count; i++)
        tar_free(&tars[i]);
    if (result < 0 || layer_make(rig, name, image, rig->layer_bytes, ret_error) < 0)
        return -1;
    return view_open(rig, image, name, view, ret_error);
}

static int all_removed(const struct rig *rig, const char *name, struct image *image,
                       struct view *view, struct error **ret_error)
{
    if (view_close(view, ret_error) < 0 || layer_remove(rig, name, ret_error) < 0 ||
        image_remove(rig, image, ret_error) < 0)
        return -1;
    image_done(image);
    return 0;
}

static bool reads(const struct view *view, const char *path, const char *wanted)
{
    CLEANUP_FREE char *text = view_read(view, path);

    if (strcmp(text, wanted) == 0)
        return true;
    printf("# '%s' has '%s' instead of '%s'\n", path, text, wanted);
    return false;
}

#define DIR(name)         ((struct entry){.path = name, .mode = S_IFDIR | 0755})
#define FILE_(name, said) ((struct entry){.path = name, .text = said})
#define LINK(name, to)    ((struct entry){.path = name, .mode = S_IFLNK | 0777, .link = to})

static void layers_cover_each_other(const struct rig *rig)
{
    struct tar tars[3] = {tar_open(rig, "low"), tar_open(rig, "middle"), tar_open(rig, "high")};
    struct image image;
    struct view view;

    tar_add(&tars[0], DIR("etc"));
    tar_add(&tars[0], FILE_("etc/kept", "low"));
    tar_add(&tars[0], FILE_("etc/changed", "low"));
    tar_add(&tars[0], FILE_("etc/gone", "low"));
    tar_add(&tars[0], DIR("whole"));
    tar_add(&tars[0], FILE_("whole/file", "low"));
    tar_add(&tars[0], DIR("opaque"));
    tar_add(&tars[0], FILE_("opaque/hidden", "low"));
    tar_add(&tars[0], FILE_("becomes", "a file"));
    tar_add(&tars[0], FILE_("again", "low"));
    tar_add(&tars[1], FILE_("etc/changed", "middle"));
    tar_add(&tars[1], FILE_("etc/.wh.gone", ""));
    tar_add(&tars[1], FILE_(".wh.whole", ""));
    tar_add(&tars[1], DIR("opaque"));
    tar_add(&tars[1], FILE_("opaque/.wh..wh..opq", ""));
    tar_add(&tars[1], FILE_("opaque/new", "middle"));
    tar_add(&tars[1], FILE_(".wh.again", ""));
    tar_add(&tars[2], FILE_("becomes/a/directory", "high"));
    tar_add(&tars[2], FILE_("again", "high"));
    MUST_DO(image_and_view(rig, tars, 3, "layers", &image, &view, &error));
    CHECK(reads(&view, "etc/kept", "low"));
    CHECK(reads(&view, "etc/changed", "middle"));
    CHECK(!view_has(&view, "etc/gone"));
    CHECK(!view_has(&view, "etc/.wh.gone"));
    CHECK(!view_has(&view, "whole"));
    CHECK(!view_has(&view, "opaque/hidden"));
    CHECK(reads(&view, "opaque/new", "middle"));
    CHECK(reads(&view, "becomes/a/directory", "high"));
    CHECK(reads(&view, "again", "high"));
    CHECK(!view_has(&view, "lost+found"));
    MUST_DO(all_removed(rig, "layers", &image, &view, &error));
}

static bool stat_is(const struct view *view, const char *path, struct stat *ret)
{
    CLEANUP_FREE char *full = view_path(view, path);

    return lstat(full, ret) == 0;
}

static bool xattr_is(const struct view *view, const char *path, const char *name,
                     const char *wanted)
{
    CLEANUP_FREE char *full = view_path(view, path);
    char value[256] = "";
    ssize_t n = lgetxattr(full, name, value, sizeof(value) - 1);

    return n == (ssize_t)strlen(wanted) && memcmp(value, wanted, (size_t)n) == 0;
}

static void owners_modes_times_and_attributes(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "attributes");
    struct image image;
    struct view view;
    struct stat st;

    tar_add(&tar, (struct entry){.path = "home",
                                 .mode = S_IFDIR | 01777,
                                 .uid = 1000,
                                 .gid = 1001,
                                 .mtime = 1234567890});
    tar_add(&tar, (struct entry){.path = "home/su",
                                 .mode = S_IFREG | 04711,
                                 .uid = 70000,
                                 .gid = 4000000000U,
                                 .mtime = 5000000000,
                                 .text = "x"});
    tar_add(&tar, (struct entry){.path = "home/user", .xattr = "user.colour", .value = "blue"});
    tar_add(&tar, (struct entry){.path = "home/trusted", .xattr = "trusted.husk", .value = "yes"});
    tar_add(&tar, (struct entry){
                      .path = "home/ignored", .xattr = "trusted.overlay.opaque", .value = "y"});
    MUST_DO(image_and_view(rig, &tar, 1, "attributes", &image, &view, &error));
    CHECK(stat_is(&view, "home", &st) && st.st_mode == (S_IFDIR | 01777) && st.st_uid == 1000 &&
          st.st_gid == 1001 && st.st_mtime == 1234567890);
    CHECK(stat_is(&view, "home/su", &st) && st.st_mode == (S_IFREG | 04711) && st.st_uid == 70000 &&
          st.st_gid == 4000000000U && st.st_mtime == 5000000000);
    CHECK(xattr_is(&view, "home/user", "user.colour", "blue"));
    CHECK(xattr_is(&view, "home/trusted", "trusted.husk", "yes"));
    CHECK(!xattr_is(&view, "home/ignored", "trusted.overlay.opaque", "y"));
    MUST_DO(all_removed(rig, "attributes", &image, &view, &error));
}

static void links_devices_and_names(const struct rig *rig)
{
    struct tar tars[2] = {tar_open(rig, "things"), tar_open(rig, "more things")};
    char target[1001] = "", name[256] = "";
    struct image image;
    struct view view;
    struct stat one, other;

    memset(target, 't', sizeof(target) - 1);
    memset(name, 'n', sizeof(name) - 1);
    tar_add(&tars[0], DIR("d"));
    tar_add(&tars[0], FILE_("d/one", "the same"));
    tar_add(&tars[0], (struct entry){.path = "d/two", .hardlink = "d/one"});
    tar_add(&tars[0], LINK("d/short", "one"));
    tar_add(&tars[0], LINK("d/long", target));
    tar_add(&tars[0], LINK("d/out", "/etc"));
    tar_add(&tars[0], FILE_(name, "long name"));
    tar_add(&tars[0], FILE_("d/Ünïcode ☃", "snow"));
    tar_add(&tars[0],
            (struct entry){.path = "d/null", .mode = S_IFCHR | 0666, .major = 1, .minor = 3});
    tar_add(&tars[0],
            (struct entry){.path = "d/disk", .mode = S_IFBLK | 0660, .major = 259, .minor = 70000});
    tar_add(&tars[0], (struct entry){.path = "d/pipe", .mode = S_IFIFO | 0600});
    tar_add(&tars[1], (struct entry){.path = "d/three", .hardlink = "d/one"});
    tar_add(&tars[1], FILE_("d/out/below", "in the image"));
    MUST_DO(image_and_view(rig, tars, 2, "things", &image, &view, &error));
    CHECK(stat_is(&view, "d/one", &one) && stat_is(&view, "d/two", &other) &&
          one.st_ino == other.st_ino && one.st_nlink >= 2);
    CHECK(reads(&view, "d/three", "the same"));
    CHECK(reads(&view, "d/short", "-> one"));
    CLEANUP_FREE char *shown = view_read(&view, "d/long");
    CHECK(strcmp(shown + 3, target) == 0);
    CHECK(reads(&view, name, "long name"));
    CHECK(reads(&view, "d/Ünïcode ☃", "snow"));
    CHECK(stat_is(&view, "d/null", &one) && S_ISCHR(one.st_mode) && one.st_rdev == makedev(1, 3));
    CHECK(stat_is(&view, "d/disk", &one) && S_ISBLK(one.st_mode) &&
          one.st_rdev == makedev(259, 70000));
    CHECK(stat_is(&view, "d/pipe", &one) && S_ISFIFO(one.st_mode));
    /* Through the link it would have been the host's /etc. */
    CHECK(stat_is(&view, "d/out", &one) && S_ISDIR(one.st_mode));
    CHECK(reads(&view, "d/out/below", "in the image"));
    MUST_DO(all_removed(rig, "things", &image, &view, &error));
}

static bool noise_is(const struct view *view, const char *path, uint64_t at)
{
    CLEANUP_FREE char *full = view_path(view, path);
    uint8_t wanted[PAGE], got[PAGE], zero[PAGE];
    int fd = open(full, O_RDONLY | O_CLOEXEC);

    noise_at(at, wanted);
    bool good = fd >= 0 && pread(fd, got, PAGE, (off_t)at) == PAGE &&
                memcmp(wanted, got, PAGE) == 0 && pread(fd, zero, PAGE, (off_t)at + PAGE) == PAGE &&
                zero[0] == 0 && memcmp(zero, zero + 1, PAGE - 1) == 0;
    if (fd >= 0)
        close(fd);
    return good;
}

static void a_file_of_two_gib_stays_sparse(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "big");
    struct image image;
    struct view view;
    struct stat st;

    tar_add_noise(&tar, "big", BIG_BYTES, BIG_STEP);
    MUST_DO(image_and_view(rig, &tar, 1, "big", &image, &view, &error));
    CHECK(stat_is(&view, "big", &st) && (uint64_t)st.st_size == BIG_BYTES);
    CHECK(noise_is(&view, "big", 0));
    CHECK(noise_is(&view, "big", BIG_STEP));
    CHECK(noise_is(&view, "big", 31 * BIG_STEP));
    MUST_DO(view_close(&view, &error));
    /* What the layer takes is what was written into it: nothing. */
    uint64_t bytes = 0;
    CLEANUP_FREE char *layer = layer_path(rig, "big");
    MUST_DO(rig->disk.ops->layer_usage(&rig->disk, layer, &bytes, &error));
    CHECK(bytes < 16 << 20);
    MUST_DO(layer_remove(rig, "big", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

static void hundred_thousand_files(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "many");
    struct image image;
    struct view view;
    char path[64];
    unsigned long seen = 0;

    for (int d = 0; d < DIRS; d++) {
        snprintf(path, sizeof(path), "many/%d", d);
        tar_add(&tar, DIR(path));
        for (int f = 0; f < FILES_IN_DIR; f++) {
            snprintf(path, sizeof(path), "many/%d/file-%d", d, f);
            tar_add(&tar, FILE_(path, path));
        }
    }
    MUST_DO(image_and_view(rig, &tar, 1, "many", &image, &view, &error));
    for (int d = 0; d < DIRS; d++) {
        snprintf(path, sizeof(path), "many/%d", d);
        CLEANUP_FREE char *full = view_path(&view, path);
        DIR *dir = opendir(full);
        struct dirent *entry;
        MUST(dir);
        while ((entry = readdir(dir)))
            seen += str_starts(entry->d_name, "file-");
        closedir(dir);
        snprintf(path, sizeof(path), "many/%d/file-%d", d, (d * 7) % FILES_IN_DIR);
        CHECK(reads(&view, path, path));
    }
    CHECK(seen == (unsigned long)DIRS * FILES_IN_DIR);
    MUST_DO(all_removed(rig, "many", &image, &view, &error));
}

static void a_damaged_layer_leaves_nothing(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "damaged");
    struct image image;
    struct error *failed = NULL;

    tar_add(&tar, FILE_("file", "x"));
    tar_close(&tar);
    memset(tar.digest, '0', DISK_DIGEST_HEX);
    CHECK(image_make(rig, &tar, 1, "damaged", &image, &failed) < 0);
    CHECK(failed && failed->kind == ERROR_CORRUPT);
    error_free(failed);
    CLEANUP_FREE char *place = str_printf("%s/%s", rig->root, image.file);
    CHECK(access(place, F_OK) < 0 && errno == ENOENT);
    image_done(&image);
    tar_free(&tar);
}

const struct test tests_content[] = {
    {"layers cover each other, with whiteouts and opaque directories", layers_cover_each_other},
    {"owners, modes, times and extended attributes are kept", owners_modes_times_and_attributes},
    {"links, devices, pipes and names are kept", links_devices_and_names},
    {"a file of 2 GiB is whole and stays sparse", a_file_of_two_gib_stays_sparse},
    {"100 000 small files are all there", hundred_thousand_files},
    {"a layer that is not what its digest says leaves nothing", a_damaged_layer_leaves_nothing},
    {NULL, NULL},
};
