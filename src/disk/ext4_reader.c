#include "disk/ext4_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ext2fs/ext2fs.h>
#include <uthash.h>

#include "base/buf.h"
#include "base/str.h"
#include "disk/tar_writer.h"

#define UPPER   "upper"
#define OVERLAY "trusted.overlay."

enum {
    PIECE = 256 << 10,
    BLOCK_LOG_MAX = 6, /* 64 KiB blocks, the most that there are */
};

/* A file with several names, by its first one. */
struct known {
    ext2_ino_t ino;
    char *path;
    UT_hash_handle hh;
};

/* An entry of the directory at work. */
struct entry {
    ext2_ino_t ino;
    char *name;
};

struct names {
    struct walk *walk;
    struct entry *entries;
    size_t count;
    struct error *error;
};

struct inode {
    ext2_ino_t ino;
    struct ext2_inode_large raw;
    struct sink_attr attr;
    struct buf xattrs;
    bool opaque;
};

struct walk {
    ext2_filsys fs;
    struct tar_writer tar;
    struct known *known;
    uint8_t *entered; /* a bit an inode: directories */
    size_t bytes;     /* of memory for names */
    uint64_t entries;
    uint8_t *piece;
};

/* ---- errors --------------------------------------------------------------------------------- */

static int failed(errcode_t code, const char *what, struct error **ret_error)
{
    if (code > 0 && code < 4096)
        return error_set(ret_error, ERROR_IO, (int)code, "%s", what);
    return error_set(ret_error, ERROR_CORRUPT, 0, "%s: the file system is damaged (%ld)", what,
                     (long)code);
}

static int memory_admit(struct walk *w, size_t size, struct error **ret_error)
{
    if (size > DISK_NAMES_MAX - w->bytes)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "its names need more than %d MiB of memory",
                         DISK_NAMES_MAX >> 20);
    w->bytes += size;
    return 0;
}

/* ---- inodes --------------------------------------------------------------------------------- */

struct xattrs_sought {
    struct inode *inode;
    struct error *error;
};

static int xattr_found(char *name, char *value, size_t size, void *arg)
{
    struct xattrs_sought *sought = arg;

    if (strcmp(name, OVERLAY "opaque") == 0)
        sought->inode->opaque = size == 1 && *value == 'y';
    else if (strcmp(name, OVERLAY "redirect") == 0 || strcmp(name, OVERLAY "metacopy") == 0)
        error_set(&sought->error, ERROR_UNSUPPORTED, 0,
                  "it is only a part of a file of the image (%s)", name);
    else if (!str_starts(name, OVERLAY))
        sink_xattr_add(&sought->inode->xattrs, name, value, size, &sought->error);
    return sought->error ? XATTR_ABORT : 0;
}

static int xattrs_read(struct walk *w, struct inode *inode, struct error **ret_error)
{
    struct ext2_xattr_handle *handle;
    struct xattrs_sought sought = {.inode = inode};
    errcode_t code = ext2fs_xattrs_open(w->fs, inode->ino, &handle);

    if (code != 0)
        return failed(code, "read its extended attributes", ret_error);
    code = ext2fs_xattrs_read(handle);
    if (code == 0)
        code = ext2fs_xattrs_iterate(handle, xattr_found, &sought);
    ext2fs_xattrs_close(&handle);
    if (sought.error)
        return error_move(ret_error, &sought.error);
    return code ? failed(code, "read its extended attributes", ret_error) : 0;
}

/* The fields beyond those of ext2, of as many of them as this inode has. */
static void times_read(struct inode *inode, size_t inode_size)
{
    size_t needed = offsetof(struct ext2_inode_large, i_mtime_extra) + sizeof(uint32_t);
    uint32_t extra = 0;

    if (inode_size >= needed &&
        inode->raw.i_extra_isize + (size_t)EXT2_GOOD_OLD_INODE_SIZE >= needed)
        extra = inode->raw.i_mtime_extra;
    inode->attr.mtime = (int64_t)(int32_t)inode->raw.i_mtime + ((int64_t)(extra & 3) << 32);
    inode->attr.mtime_nsec = extra >> 2;
    if (inode->attr.mtime_nsec >= 1000000000)
        inode->attr.mtime_nsec = 0;
}

/* As the kernel's old_decode_dev() and new_decode_dev(). */
static void device_read(struct inode *inode)
{
    uint32_t old = inode->raw.i_block[0], new = inode->raw.i_block[1];

    inode->attr.dev_major = old ? old >> 8 & 0xff : new >> 8 & 0xfff;
    inode->attr.dev_minor = old ? old & 0xff : (new & 0xff) | (new >> 12 & 0xfff00);
}

static int inode_read(struct walk *w, ext2_ino_t ino, struct inode *ret, struct error **ret_error)
{
    *ret = (struct inode){.ino = ino};
    if (ino == 0 || ino > w->fs->super->s_inodes_count)
        return error_set(ret_error, ERROR_CORRUPT, 0, "there is no inode %u", ino);
    errcode_t code =
        ext2fs_read_inode_full(w->fs, ino, (struct ext2_inode *)&ret->raw, sizeof(ret->raw));
    if (code != 0)
        return failed(code, "read its inode", ret_error);
    if (ret->raw.i_flags & EXT4_ENCRYPT_FL)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0, "it is encrypted");
    ret->attr.mode = ret->raw.i_mode;
    ret->attr.uid = inode_uid(ret->raw);
    ret->attr.gid = inode_gid(ret->raw);
    times_read(ret, EXT2_INODE_SIZE(w->fs->super));
    if (LINUX_S_ISCHR(ret->raw.i_mode) || LINUX_S_ISBLK(ret->raw.i_mode))
        device_read(ret);
    if (xattrs_read(w, ret, ret_error) < 0)
        return -1;
    ret->attr.xattrs = &ret->xattrs;
    return 0;
}

static bool is_whiteout(const struct inode *inode)
{
    return LINUX_S_ISCHR(inode->raw.i_mode) && !inode->attr.dev_major && !inode->attr.dev_minor;
}

/* ---- data ----------------------------------------------------------------------------------- */

static int data_read(struct walk *w, const struct inode *inode, uint64_t size,
                     struct error **ret_error)
{
    struct ext2_inode_large copy = inode->raw;
    ext2_file_t file;
    errcode_t code = ext2fs_file_open2(w->fs, inode->ino, (struct ext2_inode *)&copy, 0, &file);
    int result = 0;

    if (code != 0)
        return failed(code, "open it", ret_error);
    while (result == 0 && size > 0) {
        unsigned got = 0;
        code = ext2fs_file_read(file, w->piece, size < PIECE ? (unsigned)size : PIECE, &got);
        if (code != 0)
            result = failed(code, "read it", ret_error);
        else if (got == 0)
            result = error_set(ret_error, ERROR_CORRUPT, 0, "it is shorter than it claims");
        else
            result = tar_writer_data(&w->tar, w->piece, got, ret_error);
        size -= got;
    }
    ext2fs_file_close(file);
    return result;
}

static int symlink_add(struct walk *w, const char *path, struct inode *inode,
                       struct error **ret_error)
{
    struct ext2_inode *small = (struct ext2_inode *)&inode->raw;
    uint64_t size = EXT2_I_SIZE(small);
    char target[SINK_SYMLINK_MAX + 1] = "";
    unsigned got = 0;
    ext2_file_t file;

    if (size == 0 || size > SINK_SYMLINK_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0, "a symbolic link has a target of %llu bytes",
                         (unsigned long long)size);
    if (ext2fs_is_fast_symlink(small) && size < sizeof(small->i_block)) {
        memcpy(target, small->i_block, size);
    } else {
        errcode_t code = ext2fs_file_open2(w->fs, inode->ino, small, 0, &file);
        if (code == 0) {
            code = ext2fs_file_read(file, target, (unsigned)size, &got);
            ext2fs_file_close(file);
        }
        if (code != 0)
            return failed(code, "read its target", ret_error);
    }
    if (strlen(target) != size)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the target of a symbolic link is damaged");
    return tar_writer_add(&w->tar, path, &inode->attr, target, 0, ret_error);
}

/* 1: it was added before, and now has one more name. */
static int known_link(struct walk *w, const char *path, const struct inode *inode,
                      struct error **ret_error)
{
    struct known *known;

    if (inode->raw.i_links_count < 2)
        return 0;
    HASH_FIND_INT(w->known, &inode->ino, known);
    if (known)
        return tar_writer_link(&w->tar, path, &inode->attr, known->path, ret_error) < 0 ? -1 : 1;
    if (memory_admit(w, sizeof(*known) + strlen(path), ret_error) < 0)
        return -1;
    known = xcalloc(1, sizeof(*known));
    known->ino = inode->ino;
    known->path = xstrdup(path);
    HASH_ADD_INT(w->known, ino, known);
    return 0;
}

static int leaf_add(struct walk *w, const char *path, struct inode *inode, struct error **ret_error)
{
    uint64_t size = EXT2_I_SIZE((struct ext2_inode *)&inode->raw);

    if (is_whiteout(inode))
        return tar_writer_whiteout(&w->tar, path, ret_error);
    if (LINUX_S_ISSOCK(inode->raw.i_mode)) /* a tar has none, and nobody listens any more */
        return 0;
    int linked = known_link(w, path, inode, ret_error);
    if (linked)
        return linked < 0 ? -1 : 0;
    if (LINUX_S_ISLNK(inode->raw.i_mode))
        return symlink_add(w, path, inode, ret_error);
    if (LINUX_S_ISCHR(inode->raw.i_mode) || LINUX_S_ISBLK(inode->raw.i_mode) ||
        LINUX_S_ISFIFO(inode->raw.i_mode))
        return tar_writer_add(&w->tar, path, &inode->attr, NULL, 0, ret_error);
    if (!LINUX_S_ISREG(inode->raw.i_mode))
        return error_set(ret_error, ERROR_CORRUPT, 0, "it has the mode %o", inode->raw.i_mode);
    if (tar_writer_add(&w->tar, path, &inode->attr, NULL, size, ret_error) < 0)
        return -1;
    return data_read(w, inode, size, ret_error);
}

/* ---- directories ---------------------------------------------------------------------------- */

static int name_found(ext2_ino_t dir, int number, struct ext2_dir_entry *found, int offset,
                      int blocksize, char *buffer, void *arg)
{
    struct names *names = arg;
    size_t length = (size_t)ext2fs_dirent_name_len(found);
    char name[EXT2_NAME_LEN + 1];

    memcpy(name, found->name, length);
    name[length] = '\0';
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    if (length == 0 || strlen(name) != length || strchr(name, '/'))
        error_set(&names->error, ERROR_CORRUPT, 0, "a name in it is damaged");
    else if (++names->walk->entries > DISK_ENTRIES_MAX)
        error_set(&names->error, ERROR_TOO_LARGE, 0, "there are more than %d files",
                  DISK_ENTRIES_MAX);
    else
        memory_admit(names->walk, sizeof(struct entry) + length, &names->error);
    if (names->error)
        return DIRENT_ABORT;
    if ((names->count & (names->count - 1)) == 0)
        names->entries =
            xrealloc(names->entries, (names->count ? 2 * names->count : 1) * sizeof(struct entry));
    names->entries[names->count++] = (struct entry){found->inode, xstrdup(name)};
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static void names_done(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        names->walk->bytes -= sizeof(struct entry) + strlen(names->entries[i].name);
        free(names->entries[i].name);
    }
    free(names->entries);
    error_free(names->error);
}

static int names_read(struct walk *w, ext2_ino_t ino, struct names *names, struct error **ret_error)
{
    errcode_t code = ext2fs_dir_iterate2(w->fs, ino, 0, NULL, name_found, names);

    if (names->error)
        return error_move(ret_error, &names->error);
    if (code != 0)
        return failed(code, "read the directory", ret_error);
    if (names->count > 1)
        qsort(names->entries, names->count, sizeof(*names->entries), name_compare);
    for (size_t i = 1; i < names->count; i++)
        if (strcmp(names->entries[i - 1].name, names->entries[i].name) == 0)
            return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is in it twice",
                             names->entries[i].name);
    return 0;
}

/* A directory has one place: one that is met again would be without end. */
static int enter(struct walk *w, ext2_ino_t ino, struct error **ret_error)
{
    if (w->entered[ino / 8] & 1 << ino % 8)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the directory is there twice");
    w->entered[ino / 8] |= (uint8_t)(1 << ino % 8);
    return 0;
}

static int dir_walk(struct walk *w, const char *path, int depth, struct inode *inode,
                    struct error **ret_error);

static int entry_add(struct walk *w, const char *path, int depth, ext2_ino_t ino,
                     struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct inode inode;

    int result = inode_read(w, ino, &inode, &error);
    if (result == 0 && LINUX_S_ISDIR(inode.raw.i_mode)) {
        result = dir_walk(w, path, depth, &inode, ret_error);
        buf_release(&inode.xattrs);
        return result; /* it has said where */
    }
    if (result == 0)
        result = leaf_add(w, path, &inode, &error);
    buf_release(&inode.xattrs);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

static int children_add(struct walk *w, const char *path, int depth, const struct names *names,
                        struct error **ret_error)
{
    for (size_t i = 0; i < names->count; i++) {
        CLEANUP_FREE char *child =
            str_printf("%s%s%s", path, *path ? "/" : "", names->entries[i].name);
        if (strlen(child) > DISK_PATH_MAX)
            return error_set(ret_error, ERROR_TOO_LARGE, 0, "a path has more than %d bytes",
                             DISK_PATH_MAX);
        if (entry_add(w, child, depth + 1, names->entries[i].ino, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int dir_begin(struct walk *w, const char *path, int depth, const struct inode *inode,
                     struct names *names, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    int result = 0;

    if (depth > DISK_PATH_DEPTH_MAX)
        result = error_set(&error, ERROR_TOO_LARGE, 0, "directories lie more than %d deep",
                           DISK_PATH_DEPTH_MAX);
    if (result == 0)
        result = enter(w, inode->ino, &error);
    if (result == 0)
        result = names_read(w, inode->ino, names, &error);
    if (result == 0)
        result = tar_writer_add(&w->tar, path, &inode->attr, NULL, 0, &error);
    if (result == 0 && inode->opaque)
        result = tar_writer_opaque(&w->tar, path, &error);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

static int dir_walk(struct walk *w, const char *path, int depth, struct inode *inode,
                    struct error **ret_error)
{
    struct names names = {.walk = w};
    int result = dir_begin(w, path, depth, inode, &names, ret_error);

    if (result == 0)
        result = children_add(w, path, depth, &names, ret_error);
    names_done(&names);
    return result;
}

/* ---- the file system ------------------------------------------------------------------------ */

/* What libext2fs would believe of it, looked at before. */
static const char *super_refusal(const struct ext2_super_block *s, uint64_t file_bytes)
{
    if (s->s_magic != EXT2_SUPER_MAGIC)
        return "it has no ext4 file system";
    if (s->s_log_block_size > BLOCK_LOG_MAX)
        return "its blocks are too large";
    uint64_t blocks = s->s_blocks_count;
    if (s->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT)
        blocks |= (uint64_t)s->s_blocks_count_hi << 32;
    if (blocks == 0 || blocks > file_bytes >> (10 + s->s_log_block_size))
        return "its file system is larger than its file";
    if (s->s_inodes_count == 0 || s->s_inodes_count > file_bytes / EXT2_GOOD_OLD_INODE_SIZE)
        return "it has more inodes than its file has room for";
    if (s->s_feature_incompat & EXT3_FEATURE_INCOMPAT_JOURNAL_DEV)
        return "it is a journal";
    return NULL;
}

int ext4_reader_check(const char *path, bool *ret_clean, struct error **ret_error)
{
    struct ext2_super_block super;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return error_set(ret_error, ERROR_IO, err, "open the layer");
    }
    ssize_t n = pread(fd, &super, sizeof(super), SUPERBLOCK_OFFSET);
    close(fd);
    const char *refusal =
        n == sizeof(super) ? super_refusal(&super, (uint64_t)st.st_size) : "it has no file system";
    if (refusal)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the layer is damaged: %s", refusal);
    *ret_clean = !(super.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) &&
                 super.s_state & EXT2_VALID_FS && !(super.s_state & EXT2_ERROR_FS);
    return 0;
}

static int upper_walk(struct walk *w, struct error **ret_error)
{
    ext2_ino_t ino = 0;
    errcode_t code = ext2fs_lookup(w->fs, EXT2_ROOT_INO, UPPER, sizeof(UPPER) - 1, NULL, &ino);

    if (code != 0 && code != EXT2_ET_FILE_NOT_FOUND)
        return failed(code, "look for '" UPPER "'", ret_error);
    if (code == 0 && entry_add(w, "", 0, ino, ret_error) < 0)
        return -1;
    return tar_writer_end(&w->tar, ret_error);
}

static void known_free(struct walk *w)
{
    struct known *known, *next;

    HASH_ITER(hh, w->known, known, next) {
        HASH_DEL(w->known, known);
        free(known->path);
        free(known);
    }
}

int ext4_reader_diff(const char *path, const struct disk_output *out, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct walk w = {0};
    bool clean;

    if (ext4_reader_check(path, &clean, ret_error) < 0)
        return -1;
    if (!clean)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the layer was not closed");
    errcode_t code = ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &w.fs);
    if (code != 0)
        return failed(code, "open the layer", ret_error);
    w.entered = xcalloc(w.fs->super->s_inodes_count / 8 + 1, 1);
    w.piece = xmalloc(PIECE);
    tar_writer_open(&w.tar, out);
    int result = upper_walk(&w, &error);
    tar_writer_done(&w.tar);
    known_free(&w);
    free(w.piece);
    free(w.entered);
    ext2fs_free(w.fs);
    return result < 0 ? error_move(ret_error, &error) : 0;
}
