/* What a container has changed is a layer: over its image it makes the same root again. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/buf.h"
#include "suite.h"

enum { MANY = 300, PIECE = 64 << 10, XATTRS = 4096 };

/* ---- a root as lines of text ---------------------------------------------------------------- */

static struct buf listing;
static size_t listing_top;

static void content_list(const char *path)
{
    uint8_t digest[DISK_DIGEST_HEX / 2], piece[PIECE];
    char hex[DISK_DIGEST_HEX + 1];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0 || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        abort();
    while ((n = read(fd, piece, sizeof(piece))) > 0)
        EVP_DigestUpdate(hash, piece, (size_t)n);
    close(fd);
    EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    str_hex(hex, digest, sizeof(digest));
    buf_printf(&listing, " %s", hex);
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of their names; those of overlayfs are not seen through it. */
static void xattrs_list(const char *path)
{
    char names[XATTRS], value[XATTRS];
    ssize_t size = llistxattr(path, names, sizeof(names));
    CLEANUP_STRV char **sorted = NULL;

    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1)
        strv_push(&sorted, names + at);
    size_t count = strv_count((const char *const *)sorted);
    if (count)
        qsort(sorted, count, sizeof(*sorted), name_compare);
    STRV_FOREACH(name, sorted) {
        ssize_t n = lgetxattr(path, *name, value, sizeof(value));
        buf_printf(&listing, " %s=", *name);
        for (ssize_t i = 0; i < n; i++)
            buf_printf(&listing, "%02x", (uint8_t)value[i]);
    }
}

static int entry_list(const char *path, const struct stat *st, int flag, struct FTW *where)
{
    char target[4096] = "";

    if (where->level == 0) /* that of each view is new */
        return 0;
    buf_printf(&listing, "%s %o %u:%u %lld.%09ld", path + listing_top, st->st_mode, st->st_uid,
               st->st_gid, (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    if (!S_ISDIR(st->st_mode))
        buf_printf(&listing, " links %u size %lld", (unsigned)st->st_nlink, (long long)st->st_size);
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
        buf_printf(&listing, " %u:%u", major(st->st_rdev), minor(st->st_rdev));
    if (S_ISLNK(st->st_mode) && readlink(path, target, sizeof(target) - 1) >= 0)
        buf_printf(&listing, " -> %s", target);
    if (S_ISREG(st->st_mode))
        content_list(path);
    xattrs_list(path);
    buf_append_str(&listing, "\n");
    return 0;
}

/* All of a root that can be seen, a line a file, in no order. */
static char *view_list(const struct view *view)
{
    listing_top = strlen(view->top);
    nftw(view->top, entry_list, 32, FTW_PHYS | FTW_MOUNT);
    return buf_take_str(&listing);
}

/* Says what is in one and not in the other. */
static bool list_has_all(const char *list, const char *other, const char *what)
{
    CLEANUP_STRV char **lines = str_split(list, '\n');
    CLEANUP_STRV char **others = str_split(other, '\n');
    size_t count = strv_count((const char *const *)others);
    bool all = true;

    qsort(others, count, sizeof(*others), name_compare);
    STRV_FOREACH(line, lines) {
        if (bsearch(line, others, count, sizeof(*others), name_compare))
            continue;
        printf("# %s: %.300s\n", what, *line);
        all = false;
    }
    return all;
}

/* ---- changes -------------------------------------------------------------------------------- */

static int file_append(void *arg, const void *data, size_t size, struct error **ret_error)
{
    const int *fd = arg;

    return write(*fd, data, size) == (ssize_t)size
               ? 0
               : error_set(ret_error, ERROR_IO, errno, "write the layer");
}

/* The tar of a layer's changes. */
static int changes_tar(const struct rig *rig, const struct image *image, const char *layer,
                       uint64_t max_bytes, struct tar *ret, struct error **ret_error)
{
    const struct disk_ops *ops = rig->disk.ops;
    CLEANUP_FREE char *scratch = NULL;
    int lock;

    *ret = (struct tar){.path = str_printf("%s/changes.tar", rig->archives)};
    int fd = open(ret->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const struct disk_output out = {file_append, &fd, max_bytes};
    if (disk_scratch(rig->root, &scratch, &lock, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *copy = str_printf("%s/copy", scratch);
    int result = ops->layer_copy(&rig->disk, layer, copy, ret_error);
    if (result == 0)
        result = ops->layer_diff(&rig->disk, image->file, copy, &out, ret_error);
    disk_remove(rig->root, scratch, NULL);
    if (ops->collect(&rig->disk, result == 0 ? ret_error : NULL) < 0)
        result = -1;
    close(lock);
    close(fd);
    tar_digest(ret);
    return result;
}

static void path_make(const struct view *view, const char *path, unsigned mode, dev_t device)
{
    CLEANUP_FREE char *full = view_path(view, path);

    if (S_ISDIR(mode) ? mkdir(full, mode & 07777) : mknod(full, mode, device))
        printf("# make '%s': %s\n", path, strerror(errno));
    chmod(full, mode & 07777);
}

static void path_remove(const struct view *view, const char *path)
{
    CLEANUP_FREE char *full = view_path(view, path);

    if (remove(full) < 0)
        printf("# remove '%s': %s\n", path, strerror(errno));
}

static void path_link(const struct view *view, const char *path, const char *target, bool hard)
{
    CLEANUP_FREE char *full = view_path(view, path);
    CLEANUP_FREE char *other = view_path(view, target);

    if (hard ? link(other, full) : symlink(target, full))
        printf("# link '%s': %s\n", path, strerror(errno));
}

static void path_xattr(const struct view *view, const char *path, const char *name,
                       const void *value, size_t size)
{
    CLEANUP_FREE char *full = view_path(view, path);

    if (lsetxattr(full, name, value, size, 0) < 0)
        printf("# attribute of '%s': %s\n", path, strerror(errno));
}

static void sparse_make(const struct view *view, const char *path, off_t size)
{
    CLEANUP_FREE char *full = view_path(view, path);
    int fd = open(full, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0 || pwrite(fd, "middle", 6, size / 2) != 6 || ftruncate(fd, size) < 0)
        printf("# make '%s': %s\n", path, strerror(errno));
    close(fd);
}

static void many_make(const struct view *view)
{
    for (int i = 0; i < MANY; i++) {
        CLEANUP_FREE char *path = str_printf("many/file-%d", i);
        view_write(view, path, path);
    }
}

/* Of each kind of change one. */
static void everything_change(const struct view *view)
{
    static const uint8_t capability[20] = {1, 0, 0, 2, 0, 32};
    const struct timespec times[2] = {{1, 2}, {5000000000, 123456789}};
    char name[256], target[300];

    memset(name, 'n', 250);
    strcpy(name + 250, "-name");
    memset(target, 't', sizeof(target));
    target[sizeof(target) - 1] = '\0';
    view_write(view, "etc/changed", "by the container");
    path_remove(view, "etc/gone");
    path_remove(view, "whole/file");
    path_remove(view, "whole");
    path_make(view, "whole", S_IFDIR | 0700, 0);
    view_write(view, "whole/new", "in a new directory of the old name");
    path_remove(view, "becomes");
    path_make(view, "becomes", S_IFDIR | 01777, 0);
    path_link(view, "becomes/link", "../etc/changed", false);
    path_link(view, "becomes/far", target, false);
    path_link(view, "hard", "etc/changed", true);
    path_make(view, "null", S_IFCHR | 0666, makedev(1, 3));
    path_make(view, "block", S_IFBLK | 0600, makedev(259, 300));
    path_make(view, "fifo", S_IFIFO | 0644, 0);
    view_write(view, name, "a long name");
    view_write(view, "\xc3\xbcnicode", "utf-8");
    view_write(view, "user", "x");
    CLEANUP_FREE char *user = view_path(view, "user");
    chown(user, 3000000, 4000000000U);
    chmod(user, 04711);
    path_xattr(view, "user", "user.colour", "blue", 4);
    path_xattr(view, "user", "security.capability", capability, sizeof(capability));
    utimensat(AT_FDCWD, user, times, AT_SYMLINK_NOFOLLOW);
    sparse_make(view, "sparse", 10 << 20);
    path_make(view, "many", S_IFDIR | 0755, 0);
    many_make(view);
}

/* All of it is on the disk, though some of that only in the journal. */
static void view_sync(const struct view *view)
{
    int fd = open(view->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || syncfs(fd) < 0)
        printf("# sync: %s\n", strerror(errno));
    close(fd);
}

#define DIR(name)         ((struct entry){.path = name, .mode = S_IFDIR | 0755})
#define FILE_(name, said) ((struct entry){.path = name, .text = said})

static struct tar base_tar(const struct rig *rig)
{
    struct tar tar = tar_open(rig, "base");

    tar_add(&tar, DIR("etc"));
    tar_add(&tar, FILE_("etc/kept", "base"));
    tar_add(&tar, FILE_("etc/changed", "base"));
    tar_add(&tar, FILE_("etc/gone", "base"));
    tar_add(&tar, DIR("whole"));
    tar_add(&tar, FILE_("whole/file", "base"));
    tar_add(&tar, FILE_("becomes", "base"));
    tar_close(&tar);
    return tar;
}

/* The root of an image with these layers. */
static char *root_of(const struct rig *rig, const struct tar *tars, const char *name,
                     struct error **ret_error)
{
    struct image image;
    struct view view;

    if (image_make(rig, tars, 2, name, &image, ret_error) < 0 ||
        layer_make(rig, name, &image, rig->layer_bytes, ret_error) < 0 ||
        view_open(rig, &image, name, &view, ret_error) < 0)
        return NULL;
    char *list = view_list(&view);
    if (view_close(&view, ret_error) < 0 || layer_remove(rig, name, ret_error) < 0 ||
        image_remove(rig, &image, ret_error) < 0)
        free(take(list));
    image_done(&image);
    return list;
}

static void changes_make_the_same_root(const struct rig *rig)
{
    struct tar tars[2] = {base_tar(rig)};
    struct image image;
    struct view view;
    struct error *failed = NULL;

    MUST_DO(image_make(rig, tars, 1, "base", &image, &error));
    MUST_DO(layer_make(rig, "changed", &image, rig->layer_bytes, &error));
    MUST_DO(view_open(rig, &image, "changed", &view, &error));
    everything_change(&view);
    CLEANUP_FREE char *before = view_list(&view);
    CLEANUP_FREE char *layer = layer_path(rig, "changed");
    /* As a VM that was killed leaves it: the journal is not written to its place. */
    view_sync(&view);
    MUST_DO(changes_tar(rig, &image, layer, 1 << 30, &tars[1], &error));
    CLEANUP_FREE char *killed = root_of(rig, tars, "killed", &failed);
    MUST_DO(killed ? 0 : error_move(&error, &failed));
    tar_free(&tars[1]);
    MUST_DO(view_close(&view, &error));
    MUST_DO(changes_tar(rig, &image, layer, 1 << 30, &tars[1], &error));
    CLEANUP_FREE char *ended = root_of(rig, tars, "ended", &failed);
    MUST_DO(ended ? 0 : error_move(&error, &failed));
    CHECK(list_has_all(before, killed, "lost by a VM that was killed"));
    CHECK(list_has_all(killed, before, "not there before"));
    CHECK(list_has_all(before, ended, "lost"));
    CHECK(list_has_all(ended, before, "not there before"));
    MUST_DO(layer_remove(rig, "changed", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tars[0]);
    tar_free(&tars[1]);
}

static void what_no_layer_can_say_is_refused(const struct rig *rig)
{
    struct tar tar = base_tar(rig), changes;
    struct error *refused = NULL;
    struct image image;
    struct view view;

    MUST_DO(image_make(rig, &tar, 1, "base", &image, &error));
    MUST_DO(layer_make(rig, "odd", &image, rig->layer_bytes, &error));
    CLEANUP_FREE char *layer = layer_path(rig, "odd");
    /* Never in a VM: empty, and no more than the end of an archive. */
    MUST_DO(changes_tar(rig, &image, layer, 1024, &changes, &error));
    tar_free(&changes);
    MUST_DO(view_open(rig, &image, "odd", &view, &error));
    view_write(&view, "etc/.wh.kept", "not removed");
    MUST_DO(view_close(&view, &error));
    CHECK(changes_tar(rig, &image, layer, 1 << 20, &changes, &refused) < 0);
    CHECK(refused && strstr(refused->message, "'/etc/.wh.kept': a name that begins with"));
    error_freep(&refused);
    refused = NULL;
    tar_free(&changes);
    MUST_DO(view_open(rig, &image, "odd", &view, &error));
    path_remove(&view, "etc/.wh.kept");
    sparse_make(&view, "huge", 1LL << 40);
    MUST_DO(view_close(&view, &error));
    CHECK(changes_tar(rig, &image, layer, 1 << 20, &changes, &refused) < 0);
    CHECK(refused && refused->kind == ERROR_TOO_LARGE);
    error_freep(&refused);
    tar_free(&changes);
    MUST_DO(layer_remove(rig, "odd", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tar);
}

const struct test tests_changes[] = {
    {"what a container has changed makes the same root again", changes_make_the_same_root},
    {"what no layer can say is refused", what_no_layer_can_say_is_refused},
    {0},
};
