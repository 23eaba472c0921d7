#include "disk/ext4_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

#define OVERLAY "trusted.overlay."

enum {
    PIECE = 256 << 10,
    BLOCK_LOG_MAX = 6, /* 64 KiB blocks, the most that there are */
};

static int failed(errcode_t code, const char *what, struct error **ret_error)
{
    if (code > 0 && code < 4096)
        return error_set(ret_error, ERROR_IO, (int)code, "%s", what);
    return error_set(ret_error, ERROR_CORRUPT, 0, "%s: the file system is damaged (%ld)", what,
                     (long)code);
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

int ext4_tree_check(const char *path, bool *ret_clean, struct error **ret_error)
{
    struct ext2_super_block super;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END); /* of a device, too */

    if (size < 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return error_set(ret_error, ERROR_IO, err, "open the layer");
    }
    ssize_t n = pread(fd, &super, sizeof(super), SUPERBLOCK_OFFSET);
    close(fd);
    const char *refusal =
        n == sizeof(super) ? super_refusal(&super, (uint64_t)size) : "it has no file system";
    if (refusal)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the layer is damaged: %s", refusal);
    *ret_clean = !(super.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) &&
                 super.s_state & EXT2_VALID_FS && !(super.s_state & EXT2_ERROR_FS);
    return 0;
}

static size_t entered_bytes(const struct ext4_tree *t)
{
    return t->fs->super->s_inodes_count / 8 + 1;
}

int ext4_tree_open(struct ext4_tree *t, const char *path, struct walk *walk,
                   struct error **ret_error)
{
    bool clean;

    *t = (struct ext4_tree){.walk = walk};
    if (ext4_tree_check(path, &clean, ret_error) < 0)
        return -1;
    if (!clean)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the layer was not closed");
    errcode_t code = ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &t->fs);
    if (code != 0)
        return failed(code, "open the layer", ret_error);
    t->entered = xcalloc(entered_bytes(t), 1);
    return 0;
}

void ext4_tree_close(struct ext4_tree *t)
{
    free(t->entered);
    if (t->fs)
        ext2fs_free(t->fs);
    *t = (struct ext4_tree){0};
}

void ext4_tree_rewind(struct ext4_tree *t)
{
    memset(t->entered, 0, entered_bytes(t));
    t->entries = 0;
}

int ext4_tree_lookup(struct ext4_tree *t, const char *name, ext2_ino_t *ret,
                     struct error **ret_error)
{
    errcode_t code = ext2fs_lookup(t->fs, EXT2_ROOT_INO, name, (int)strlen(name), NULL, ret);

    if (code == EXT2_ET_FILE_NOT_FOUND) {
        *ret = 0;
        return 0;
    }
    return code ? failed(code, "read its topmost directory", ret_error) : 0;
}

/* ---- inodes --------------------------------------------------------------------------------- */

struct xattrs_sought {
    struct ext4_inode *inode;
    struct error *error;
};

static int xattr_found(char *name, char *value, size_t size, void *arg)
{
    static const char *const parts[] = {OVERLAY "redirect", OVERLAY "metacopy"};
    struct xattrs_sought *sought = arg;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strcmp(name, parts[i]) == 0)
            sought->inode->part = parts[i];
    if (strcmp(name, OVERLAY "opaque") == 0)
        sought->inode->opaque = size == 1 && *value == 'y';
    else if (!str_starts(name, OVERLAY))
        sink_xattr_add(&sought->inode->xattrs, name, value, size, &sought->error);
    return sought->error ? XATTR_ABORT : 0;
}

int ext4_inode_xattrs(struct ext4_tree *t, struct ext4_inode *inode, struct error **ret_error)
{
    struct ext2_xattr_handle *handle;
    struct xattrs_sought sought = {.inode = inode};
    errcode_t code = ext2fs_xattrs_open(t->fs, inode->ino, &handle);

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
static void times_read(struct ext4_inode *inode, size_t inode_size)
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
static void device_read(struct ext4_inode *inode)
{
    uint32_t old = inode->raw.i_block[0], new = inode->raw.i_block[1];

    inode->attr.dev_major = old ? old >> 8 & 0xff : new >> 8 & 0xfff;
    inode->attr.dev_minor = old ? old & 0xff : (new & 0xff) | (new >> 12 & 0xfff00);
}

int ext4_inode_read(struct ext4_tree *t, ext2_ino_t ino, struct ext4_inode *ret,
                    struct error **ret_error)
{
    *ret = (struct ext4_inode){.ino = ino};
    if (ino == 0 || ino > t->fs->super->s_inodes_count)
        return error_set(ret_error, ERROR_CORRUPT, 0, "there is no inode %u", ino);
    errcode_t code =
        ext2fs_read_inode_full(t->fs, ino, (struct ext2_inode *)&ret->raw, sizeof(ret->raw));
    if (code != 0)
        return failed(code, "read its inode", ret_error);
    if (ret->raw.i_flags & EXT4_ENCRYPT_FL)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0, "it is encrypted");
    ret->attr.mode = ret->raw.i_mode;
    ret->attr.uid = inode_uid(ret->raw);
    ret->attr.gid = inode_gid(ret->raw);
    ret->attr.xattrs = &ret->xattrs;
    times_read(ret, EXT2_INODE_SIZE(t->fs->super));
    if (LINUX_S_ISCHR(ret->raw.i_mode) || LINUX_S_ISBLK(ret->raw.i_mode))
        device_read(ret);
    return 0;
}

void ext4_inode_done(struct ext4_inode *inode)
{
    buf_release(&inode->xattrs);
}

uint64_t ext4_inode_size(const struct ext4_inode *inode)
{
    return EXT2_I_SIZE((const struct ext2_inode *)&inode->raw);
}

/* ---- data ----------------------------------------------------------------------------------- */

/* A file that is read from its beginning, piece by piece. */
struct reading {
    ext2_file_t file;
    struct ext2_inode_large inode;
    uint8_t *piece;
    uint64_t left;
};

static int reading_open(struct reading *r, struct ext4_tree *t, const struct ext4_inode *inode,
                        struct error **ret_error)
{
    *r = (struct reading){.inode = inode->raw, .left = ext4_inode_size(inode)};
    errcode_t code =
        ext2fs_file_open2(t->fs, inode->ino, (struct ext2_inode *)&r->inode, 0, &r->file);
    if (code != 0)
        return failed(code, "open it", ret_error);
    r->piece = xmalloc(PIECE);
    return 0;
}

static void reading_close(struct reading *r)
{
    if (r->file)
        ext2fs_file_close(r->file);
    free(r->piece);
}

/* The next bytes, at most a piece; *ret_size 0 at the end. */
static int reading_next(struct reading *r, size_t *ret_size, struct error **ret_error)
{
    unsigned wanted = r->left < PIECE ? (unsigned)r->left : PIECE, got = 0;

    *ret_size = 0;
    if (wanted == 0)
        return 0;
    errcode_t code = ext2fs_file_read(r->file, r->piece, wanted, &got);
    if (code != 0)
        return failed(code, "read it", ret_error);
    if (got == 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it is shorter than it claims");
    r->left -= got;
    *ret_size = got;
    return 0;
}

static int data_write(struct ext4_tree *t, const struct ext4_inode *inode, struct error **ret_error)
{
    struct reading r;
    size_t size = 0;
    int result = reading_open(&r, t, inode, ret_error);

    while (result == 0 && (result = reading_next(&r, &size, ret_error)) == 0 && size > 0)
        result = tar_writer_data(&t->walk->tar, r.piece, size, ret_error);
    reading_close(&r);
    return result;
}

int ext4_data_same(struct ext4_tree *t, const struct ext4_inode *inode, struct ext4_tree *other_t,
                   const struct ext4_inode *other, bool *ret_same, struct error **ret_error)
{
    struct reading a = {0}, b = {0};
    size_t size = 0, other_size = 0;
    int result = reading_open(&a, t, inode, ret_error);

    *ret_same = true;
    if (result == 0)
        result = reading_open(&b, other_t, other, ret_error);
    while (result == 0 && *ret_same) {
        result = reading_next(&a, &size, ret_error);
        if (result == 0)
            result = reading_next(&b, &other_size, ret_error);
        if (result < 0 || (size == 0 && other_size == 0))
            break;
        *ret_same = size == other_size && memcmp(a.piece, b.piece, size) == 0;
    }
    reading_close(&a);
    reading_close(&b);
    return result;
}

static int symlink_write(struct ext4_tree *t, const char *path, const struct ext4_inode *inode,
                         struct error **ret_error)
{
    struct ext2_inode_large copy = inode->raw;
    struct ext2_inode *small = (struct ext2_inode *)&copy;
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
        errcode_t code = ext2fs_file_open2(t->fs, inode->ino, small, 0, &file);
        if (code == 0) {
            code = ext2fs_file_read(file, target, (unsigned)size, &got);
            ext2fs_file_close(file);
        }
        if (code != 0)
            return failed(code, "read its target", ret_error);
    }
    if (strlen(target) != size)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the target of a symbolic link is damaged");
    return tar_writer_add(&t->walk->tar, path, &inode->attr, target, 0, ret_error);
}

int ext4_leaf_write(struct ext4_tree *t, const char *path, const struct ext4_inode *inode,
                    struct error **ret_error)
{
    unsigned mode = inode->raw.i_mode;
    int linked =
        walk_link(t->walk, path, inode->ino, inode->raw.i_links_count, &inode->attr, ret_error);

    if (linked)
        return linked < 0 ? -1 : 0;
    if (LINUX_S_ISLNK(mode))
        return symlink_write(t, path, inode, ret_error);
    if (LINUX_S_ISCHR(mode) || LINUX_S_ISBLK(mode) || LINUX_S_ISFIFO(mode))
        return tar_writer_add(&t->walk->tar, path, &inode->attr, NULL, 0, ret_error);
    if (!LINUX_S_ISREG(mode))
        return error_set(ret_error, ERROR_CORRUPT, 0, "it has the mode %o", mode);
    if (tar_writer_add(&t->walk->tar, path, &inode->attr, NULL, ext4_inode_size(inode), ret_error) <
        0)
        return -1;
    return data_write(t, inode, ret_error);
}

/* ---- directories ---------------------------------------------------------------------------- */

int ext4_tree_enter(struct ext4_tree *t, const struct ext4_inode *inode, struct error **ret_error)
{
    ext2_ino_t ino = inode->ino;

    if (t->entered[ino / 8] & 1 << ino % 8)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the directory is there twice");
    t->entered[ino / 8] |= (uint8_t)(1 << ino % 8);
    return 0;
}

struct names_sought {
    struct ext4_tree *tree;
    struct ext4_names *names;
    struct error *error;
};

static size_t name_memory(size_t length)
{
    return sizeof(struct ext4_name) + length;
}

static int name_found(ext2_ino_t dir, int number, struct ext2_dir_entry *found, int offset,
                      int blocksize, char *buffer, void *arg)
{
    struct names_sought *sought = arg;
    struct ext4_names *names = sought->names;
    size_t length = (size_t)ext2fs_dirent_name_len(found);
    char name[EXT2_NAME_LEN + 1];

    memcpy(name, found->name, length);
    name[length] = '\0';
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    if (length == 0 || strlen(name) != length || strchr(name, '/'))
        error_set(&sought->error, ERROR_CORRUPT, 0, "a name in it is damaged");
    else
        walk_name(sought->tree->walk, &sought->tree->entries, name_memory(length), &sought->error);
    if (sought->error)
        return DIRENT_ABORT;
    if ((names->count & (names->count - 1)) == 0)
        names->list =
            xrealloc(names->list, (names->count ? 2 * names->count : 1) * sizeof(*names->list));
    names->list[names->count++] = (struct ext4_name){found->inode, xstrdup(name)};
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    const struct ext4_name *x = a, *y = b;

    return strcmp(x->name, y->name);
}

void ext4_names_done(struct ext4_tree *t, struct ext4_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        t->walk->bytes -= name_memory(strlen(names->list[i].name));
        free(names->list[i].name);
    }
    free(names->list);
}

int ext4_names_read(struct ext4_tree *t, ext2_ino_t ino, struct ext4_names *ret,
                    struct error **ret_error)
{
    struct names_sought sought = {.tree = t, .names = ret};

    *ret = (struct ext4_names){0};
    errcode_t code = ext2fs_dir_iterate2(t->fs, ino, 0, NULL, name_found, &sought);
    if (sought.error)
        return error_move(ret_error, &sought.error);
    if (code != 0)
        return failed(code, "read the directory", ret_error);
    if (ret->count > 1)
        qsort(ret->list, ret->count, sizeof(*ret->list), name_compare);
    for (size_t i = 1; i < ret->count; i++)
        if (strcmp(ret->list[i - 1].name, ret->list[i].name) == 0)
            return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is in it twice", ret->list[i].name);
    return 0;
}
