#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/loop.h>

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>

#include "suite.h"

enum { PAGE = 4096, LAYER_MAX_GIB = 64 };

/* ---- rigs ----------------------------------------------------------------------------------- */

struct rig *rig_new(const char *home, const char *name, const struct disk_ops *ops,
                    const char *const *options, uint64_t layer_bytes)
{
    static const char *const parts[] = {"", "/images", "/pods", "/tmp"};
    struct rig *rig = xcalloc(1, sizeof(*rig));

    rig->root = str_printf("%s/%s", home, name);
    rig->archives = str_printf("%s/%s-archives", home, name);
    rig->disk = (struct disk){ops, rig->root, options};
    rig->layer_bytes = layer_bytes;
    mkdir(rig->archives, 0700);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        CLEANUP_FREE char *path = str_printf("%s%s", rig->root, parts[i]);
        mkdir(path, 0700);
    }
    return rig;
}

void rig_free(struct rig *rig)
{
    disk_remove("/", rig->root, NULL);
    disk_remove("/", rig->archives, NULL);
    free(rig->root);
    free(rig->archives);
    free(rig);
}

/* ---- archives ------------------------------------------------------------------------------- */

struct tar tar_open(const struct rig *rig, const char *name)
{
    struct tar tar = {.archive = archive_write_new(),
                      .path = str_printf("%s/%s.tar", rig->archives, name)};

    archive_write_set_format_pax_restricted(tar.archive);
    archive_write_set_options(tar.archive, "hdrcharset=UTF-8");
    archive_write_set_bytes_per_block(tar.archive, 0);
    if (archive_write_open_filename(tar.archive, tar.path) != ARCHIVE_OK)
        abort();
    return tar;
}

static struct archive_entry *entry_new(const struct entry *e, uint64_t size)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, e->path);
    archive_entry_set_mode(entry, e->mode ? e->mode : S_IFREG | 0644);
    archive_entry_set_uid(entry, e->uid);
    archive_entry_set_gid(entry, e->gid);
    archive_entry_set_mtime(entry, e->mtime ? e->mtime : 1000000000, 0);
    archive_entry_set_size(entry, (int64_t)size);
    if (e->link)
        archive_entry_set_symlink(entry, e->link);
    if (e->hardlink)
        archive_entry_set_hardlink(entry, e->hardlink);
    archive_entry_set_rdevmajor(entry, e->major);
    archive_entry_set_rdevminor(entry, e->minor);
    if (e->xattr)
        archive_entry_xattr_add_entry(entry, e->xattr, e->value, strlen(e->value));
    return entry;
}

void tar_add(struct tar *tar, struct entry e)
{
    size_t size = e.text ? strlen(e.text) : 0;
    struct archive_entry *entry = entry_new(&e, size);

    if (archive_write_header(tar->archive, entry) != ARCHIVE_OK)
        abort();
    if (size > 0 && archive_write_data(tar->archive, e.text, size) != (la_ssize_t)size)
        abort();
    archive_entry_free(entry);
}

void noise_at(uint64_t offset, uint8_t page[PAGE])
{
    uint64_t x = offset * 0x9e3779b97f4a7c15ULL + 1;

    for (size_t i = 0; i < PAGE; i += sizeof(x)) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        memcpy(page + i, &x, sizeof(x));
    }
}

void tar_add_noise(struct tar *tar, const char *path, uint64_t size, uint64_t step)
{
    static uint8_t zeros[64 * PAGE];
    uint8_t page[PAGE];
    struct archive_entry *entry = entry_new(&(struct entry){.path = path}, size);

    /* Zeros are not in the archive if there are more of them than noise. */
    for (uint64_t at = 0; step > PAGE && at < size; at += step)
        archive_entry_sparse_add_entry(entry, (int64_t)at, PAGE);
    if (archive_write_header(tar->archive, entry) != ARCHIVE_OK)
        abort();
    for (uint64_t at = 0; at < size;) {
        bool noise = at % step == 0;
        uint64_t part = noise ? PAGE : step - at % step;
        const uint8_t *data = noise ? page : zeros;
        if (noise)
            noise_at(at, page);
        else if (part > sizeof(zeros))
            part = sizeof(zeros);
        if (part > size - at)
            part = size - at;
        if (archive_write_data(tar->archive, data, part) < 0)
            abort();
        at += part;
    }
    archive_entry_free(entry);
}

static void digest_file(const char *path, char ret[DISK_DIGEST_HEX + 1])
{
    uint8_t digest[DISK_DIGEST_HEX / 2];
    CLEANUP_FREE uint8_t *buffer = xmalloc(256 * PAGE);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    FILE *file = fopen(path, "re");
    size_t n;

    if (!file || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        abort();
    while ((n = fread(buffer, 1, 256 * PAGE, file)) > 0)
        EVP_DigestUpdate(hash, buffer, n);
    fclose(file);
    EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    str_hex(ret, digest, sizeof(digest));
}

void tar_close(struct tar *tar)
{
    if (archive_write_close(tar->archive) != ARCHIVE_OK)
        abort();
    archive_write_free(tar->archive);
    tar->archive = NULL;
    tar_digest(tar);
}

void tar_digest(struct tar *tar)
{
    digest_file(tar->path, tar->digest);
}

void tar_free(struct tar *tar)
{
    unlink(tar->path);
    free(tar->path);
}

/* ---- images and layers ---------------------------------------------------------------------- */

static int no_progress(void *arg, const char *id, const char *status, uint64_t done, uint64_t total,
                       struct error **ret_error)
{
    return 0;
}

/* Any name gives an id that is a digest's hexadecimal. */
static void id_of(const char *name, char ret[DISK_DIGEST_HEX + 1])
{
    uint8_t bytes[DISK_DIGEST_HEX / 2] = {0};

    memcpy(bytes, name, strnlen(name, sizeof(bytes)));
    str_hex(ret, bytes, sizeof(bytes));
}

int image_make(const struct rig *rig, const struct tar *tars, size_t count, const char *name,
               struct image *ret, struct error **ret_error)
{
    CLEANUP_FREE struct disk_layer *layers = xcalloc(count, sizeof(*layers));
    struct disk_watch watch = {.progress = no_progress};
    int lock;

    *ret = (struct image){{0}, NULL, 0};
    id_of(name, ret->id);
    ret->file = disk_image_file(&rig->disk, ret->id);
    for (size_t i = 0; i < count; i++)
        layers[i] = (struct disk_layer){tars[i].path, tars[i].digest};
    struct disk_image image = {ret->id, layers, count, (uint64_t)LAYER_MAX_GIB << 30};
    CLEANUP_FREE char *scratch = NULL;
    if (disk_scratch(rig->root, &scratch, &lock, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *fresh = str_printf("%s/root-0", scratch);
    CLEANUP_FREE char *place = str_printf("%s/%s", rig->root, ret->file);
    int result =
        rig->disk.ops->image_prepare(&rig->disk, &image, fresh, &watch, &ret->size, ret_error);
    if (result == 0 && link(fresh, place) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "place '%s'", place);
    disk_remove(rig->root, scratch, NULL);
    close(lock);
    return result;
}

void image_done(struct image *image)
{
    free(image->file);
    image->file = NULL;
}

static int file_remove(const struct rig *rig, const char *path, struct error **ret_error)
{
    if (disk_remove(rig->root, path, ret_error) < 0)
        return -1;
    return rig->disk.ops->collect(&rig->disk, ret_error);
}

int image_remove(const struct rig *rig, const struct image *image, struct error **ret_error)
{
    return file_remove(rig, image->file, ret_error);
}

char *layer_path(const struct rig *rig, const char *name)
{
    return str_printf("pods/%s/layer", name);
}

int layer_make(const struct rig *rig, const char *name, const struct image *image,
               uint64_t size_bytes, struct error **ret_error)
{
    CLEANUP_FREE char *path = layer_path(rig, name);
    struct disk_layer_spec spec = {path, image->file, size_bytes, NULL};

    return rig->disk.ops->layer_make(&rig->disk, &spec, ret_error);
}

int layer_remove(const struct rig *rig, const char *name, struct error **ret_error)
{
    CLEANUP_FREE char *pod = str_printf("pods/%s", name);

    return file_remove(rig, pod, ret_error);
}

/* ---- views: what a guest does ---------------------------------------------------------------- */

/* Files of the driver block; it goes away with the mount. */
static int loop_on(const char *path, bool read_only, char ret[32])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int file = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)file};

    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
    for (int attempt = 0; attempt < 20; attempt++) {
        snprintf(ret, 32, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
        int loop = open(ret, O_RDWR | O_CLOEXEC);
        if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            close(file);
            return loop; /* to be closed once it is mounted */
        }
        if (loop >= 0)
            close(loop);
    }
    close(control);
    close(file);
    return -1;
}

static int mount_device(const char *path, const char *place, const char *type, bool read_only)
{
    struct stat st;
    char loop[32];
    int fd = -1;

    if (mkdir(place, 0755) < 0 && errno != EEXIST)
        return -1;
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
        fd = loop_on(path, read_only, loop);
        if (fd < 0)
            return -1;
        path = loop;
    }
    int result = mount(path, place, type, read_only ? MS_RDONLY : 0, NULL);
    if (fd >= 0)
        close(fd);
    return result;
}

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Of the driver overlay: the host does what else a guest does. */
static int mount_directories(const struct view *v, const struct disk_root *root)
{
    CLEANUP_FREE char *options = str_printf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work",
                                            root->image, root->layer, root->layer);

    mkdir(v->top, 0755);
    return mount("overlay", v->top, "overlay", 0, options);
}

static int mount_layered(const struct view *v, const struct disk_root *root)
{
    static const char *const parts[] = {"upper", "work"};
    CLEANUP_FREE char *image = str_printf("%s/image", v->home);
    CLEANUP_FREE char *layer = str_printf("%s/layer", v->home);
    CLEANUP_FREE char *options =
        str_printf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", image, layer, layer);

    if (is_directory(root->image))
        return mount_directories(v, root);
    if (mount_device(root->image, image, "erofs", true) < 0 ||
        mount_device(root->layer, layer, "ext4", false) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        CLEANUP_FREE char *path = str_printf("%s/%s", layer, parts[i]);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -1;
    }
    mkdir(v->top, 0755);
    return mount("overlay", v->top, "overlay", 0, options);
}

static int view_mount(struct view *v, const struct disk_root *root, struct error **ret_error)
{
    CLEANUP_FREE char *layer = str_printf("%s/layer", v->home);

    mkdir(v->home, 0755);
    v->layered = root->image != NULL;
    v->top = v->layered ? str_printf("%s/top", v->home) : str_printf("%s/%s", layer, root->top);
    int result =
        v->layered ? mount_layered(v, root) : mount_device(root->layer, layer, "ext4", false);
    return result < 0 ? error_set(ret_error, ERROR_IO, errno, "mount '%s'", root->layer) : 0;
}

int view_open(const struct rig *rig, const struct image *image, const char *name, struct view *ret,
              struct error **ret_error)
{
    struct disk_root root = {0};

    *ret = (struct view){.rig = rig, .layer = layer_path(rig, name)};
    ret->home = str_printf("%s/view-%s", rig->archives, name);
    if (rig->disk.ops->attach(&rig->disk, image->file, ret->layer, &root, ret_error) < 0)
        return -1;
    int result = view_mount(ret, &root, ret_error);
    disk_root_done(&root);
    return result;
}

int view_close(struct view *v, struct error **ret_error)
{
    static const char *const places[] = {"top", "layer", "image"};
    int result = 0;

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *place = str_printf("%s/%s", v->home, places[i]);
        if (umount(place) < 0 && errno != EINVAL && errno != ENOENT)
            result =
                error_set(result < 0 ? NULL : ret_error, ERROR_IO, errno, "umount '%s'", place);
    }
    if (v->rig->disk.ops->detach(&v->rig->disk, v->layer, result < 0 ? NULL : ret_error) < 0)
        result = -1;
    free(v->layer);
    free(v->home);
    free(v->top);
    *v = (struct view){0};
    return result;
}

char *view_path(const struct view *v, const char *path)
{
    return str_printf("%s/%s", v->top, path);
}

bool view_has(const struct view *v, const char *path)
{
    CLEANUP_FREE char *full = view_path(v, path);
    struct stat st;

    return lstat(full, &st) == 0;
}

char *view_read(const struct view *v, const char *path)
{
    CLEANUP_FREE char *full = view_path(v, path);
    char text[PAGE] = "";
    ssize_t n = readlink(full, text, sizeof(text) - 1);

    if (n >= 0) {
        text[n] = '\0';
        return str_printf("-> %s", text);
    }
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return xstrdup(text);
}

int view_write(const struct view *v, const char *path, const char *text)
{
    CLEANUP_FREE char *full = view_path(v, path);
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t size = strlen(text);
    int result = fd >= 0 && write(fd, text, size) == (ssize_t)size && fsync(fd) == 0 ? 0 : -1;

    if (fd >= 0)
        close(fd);
    return result;
}

bool full_says(int err)
{
    return err == ENOSPC || err == EDQUOT;
}
