#include "disk/ext4_writer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ext2fs/ext2fs.h>

#include "base/str.h"
#include "disk/window.h"

enum {
    BLOCK = WINDOW_BLOCK,
    EXTENT_MAX = 32768, /* blocks in one extent */
    FAST_LINK_MAX = 59, /* bytes of a link's target that fit in the inode */
    LINKS_MAX = 65000,
    EXTRA_ISIZE = sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE,
    SECTORS_A_BLOCK = BLOCK / 512,
    UUID_SIZE = 16,
};

/* What is written of one inode, and where its last extent is. */
struct body {
    struct ext2_inode_large inode;
    ext2_ino_t number;
    ext2_extent_handle_t extents;
    struct ext2fs_extent last; /* e_len 0: none */
};

struct ext4_writer {
    ext2_filsys fs;
    uint64_t blocks_max, blocks;
    blk64_t goal;          /* where the next block should be */
    ext2_ino_t near;       /* where the next inode should be */
    struct body body;      /* the file at work */
    struct sink_attr attr; /* of it */
    uint64_t size;         /* of it */
    uint64_t done;         /* bytes of it seen */
    struct window window;
    uint64_t top; /* inode of EXT4_WRITER_TOP */
};

/* ---- errors --------------------------------------------------------------------------------- */

/* libext2fs' numbers are those of the system, or its own. */
static int failed(errcode_t code, const char *what, struct error **ret_error)
{
    if (code == EXT2_ET_BLOCK_ALLOC_FAIL)
        return error_set(ret_error, ERROR_NO_SPACE, 0,
                         "the image does not fit into its file system: make that larger");
    if (code == EXT2_ET_INODE_ALLOC_FAIL)
        return error_set(ret_error, ERROR_NO_SPACE, 0,
                         "the image has more files than its file system has inodes: make that "
                         "larger");
    if (code == EXT2_ET_EA_NO_SPACE)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "its extended attributes are more than ext4 has room for");
    if (code > 0 && code < 4096)
        return error_set(ret_error, ERROR_IO, (int)code, "%s", what);
    return error_set(ret_error, ERROR_IO, 0, "%s: libext2fs' error %ld", what, (long)code);
}

/* ---- the file system ------------------------------------------------------------------------ */

struct ext4_writer *ext4_writer_new(const char *path, uint64_t max_bytes, struct error **ret_error)
{
    struct ext4_writer *w = xcalloc(1, sizeof(*w));
    errcode_t code =
        ext2fs_open(path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &w->fs);

    if (code == 0)
        code = ext2fs_read_bitmaps(w->fs);
    if (code == 0 && w->fs->blocksize != BLOCK)
        code = EXT2_ET_UNEXPECTED_BLOCK_SIZE;
    if (code != 0) {
        failed(code, "open the file system of the image", ret_error);
        ext4_writer_free(w);
        return NULL;
    }
    w->blocks_max = max_bytes ? max_bytes / BLOCK : UINT64_MAX;
    w->near = EXT2_ROOT_INO;
    window_open(&w->window);
    return w;
}

static void body_done(struct body *body)
{
    if (body->extents)
        ext2fs_extent_free(body->extents);
    *body = (struct body){0};
}

void ext4_writer_free(struct ext4_writer *w)
{
    if (!w)
        return;
    body_done(&w->body);
    if (w->fs)
        ext2fs_free(w->fs);
    window_done(&w->window);
    free(w);
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* At most `wanted` blocks in a row. */
static int blocks_take(struct ext4_writer *w, uint64_t wanted, blk64_t *ret_first,
                       uint64_t *ret_count, struct error **ret_error)
{
    blk64_t count = 0;

    if (w->blocks + wanted > w->blocks_max)
        return error_set(ret_error, ERROR_NO_SPACE, 0,
                         "the storage has room for only %llu MiB of the image: remove images or "
                         "containers, or make it larger",
                         (unsigned long long)(w->blocks_max >> 8));
    errcode_t code = ext2fs_new_range(w->fs, 0, w->goal, wanted, NULL, ret_first, &count);
    if (code != 0 && w->goal != 0)
        code = ext2fs_new_range(w->fs, 0, 0, wanted, NULL, ret_first, &count);
    if (code != 0)
        return failed(code, "find room", ret_error);
    *ret_count = count < wanted ? count : wanted;
    ext2fs_block_alloc_stats_range(w->fs, *ret_first, (blk_t)*ret_count, +1);
    w->goal = *ret_first + *ret_count;
    w->blocks += *ret_count;
    return 0;
}

static int extent_store(struct body *body, struct error **ret_error)
{
    errcode_t code = 0;

    if (body->last.e_len > 0)
        code = ext2fs_extent_insert(body->extents, EXT2_EXTENT_INSERT_AFTER, &body->last);
    body->last.e_len = 0;
    return code ? failed(code, "add an extent", ret_error) : 0;
}

/* Blocks of a file come in order; what follows on the last extent makes it longer. */
static int extent_add(struct ext4_writer *w, struct body *body, uint64_t logical, blk64_t first,
                      uint64_t count, struct error **ret_error)
{
    struct ext2fs_extent *last = &body->last;

    ext2fs_iblk_add_blocks(w->fs, (struct ext2_inode *)&body->inode, count);
    if (last->e_len > 0 && last->e_lblk + last->e_len == logical &&
        last->e_pblk + last->e_len == first && last->e_len + count <= EXTENT_MAX) {
        last->e_len += (uint32_t)count;
        return 0;
    }
    if (extent_store(body, ret_error) < 0)
        return -1;
    *last = (struct ext2fs_extent){.e_pblk = first, .e_lblk = logical, .e_len = (uint32_t)count};
    return 0;
}

/* ---- inodes --------------------------------------------------------------------------------- */

static uint32_t time_extra(const struct sink_attr *attr)
{
    /* Two bits more for the seconds, 30 bits of nanoseconds. */
    uint64_t epoch = ((uint64_t)attr->mtime - (uint64_t)(int64_t)(int32_t)attr->mtime) >> 32;
    return (uint32_t)(epoch & 3) | attr->mtime_nsec << 2;
}

static void inode_fill(struct ext2_inode_large *inode, const struct sink_attr *attr)
{
    uint32_t seconds = (uint32_t)attr->mtime, extra = time_extra(attr);

    *inode = (struct ext2_inode_large){
        .i_mode = (uint16_t)attr->mode,
        .i_uid = (uint16_t)attr->uid,
        .i_gid = (uint16_t)attr->gid,
        .i_links_count = 1,
        .i_atime = seconds,
        .i_ctime = seconds,
        .i_mtime = seconds,
        .i_crtime = seconds,
        .i_atime_extra = extra,
        .i_ctime_extra = extra,
        .i_mtime_extra = extra,
        .i_crtime_extra = extra,
        .i_extra_isize = EXTRA_ISIZE,
    };
    inode->osd2.linux2.l_i_uid_high = (uint16_t)(attr->uid >> 16);
    inode->osd2.linux2.l_i_gid_high = (uint16_t)(attr->gid >> 16);
}

static int inode_take(struct ext4_writer *w, uint32_t mode, ext2_ino_t *ret,
                      struct error **ret_error)
{
    errcode_t code = ext2fs_new_inode(w->fs, w->near, (int)mode, NULL, ret);

    if (code != 0)
        return failed(code, "find an inode", ret_error);
    ext2fs_inode_alloc_stats2(w->fs, *ret, +1, S_ISDIR(mode));
    w->near = *ret;
    return 0;
}

static int body_begin(struct ext4_writer *w, struct body *body, const struct sink_attr *attr,
                      ext2_ino_t number, struct error **ret_error)
{
    body_done(body);
    inode_fill(&body->inode, attr);
    body->number = number;
    /* Only what is empty gets the head of an extent tree. */
    errcode_t code =
        ext2fs_extent_open2(w->fs, number, (struct ext2_inode *)&body->inode, &body->extents);
    return code ? failed(code, "begin an extent tree", ret_error) : 0;
}

static int xattrs_write(struct ext4_writer *w, ext2_ino_t number, const struct buf *xattrs,
                        struct error **ret_error)
{
    struct ext2_xattr_handle *handle = NULL;
    size_t position = 0, size;
    const void *value;
    char *name;
    errcode_t code = ext2fs_xattrs_open(w->fs, number, &handle);

    while (code == 0 && sink_xattr_next(xattrs, &position, &name, &value, &size)) {
        code = ext2fs_xattr_set(handle, name, value, size);
        free(name);
    }
    if (handle)
        ext2fs_xattrs_close(&handle);
    return code ? failed(code, "write extended attributes", ret_error) : 0;
}

static int inode_write(struct ext4_writer *w, ext2_ino_t number, struct ext2_inode_large *inode,
                       const struct buf *xattrs, struct error **ret_error)
{
    errcode_t code =
        ext2fs_write_inode_full(w->fs, number, (struct ext2_inode *)inode, sizeof(*inode));
    if (code != 0)
        return failed(code, "write an inode", ret_error);
    return xattrs && xattrs->len > 0 ? xattrs_write(w, number, xattrs, ret_error) : 0;
}

static int body_end(struct ext4_writer *w, struct body *body, uint64_t size,
                    const struct buf *xattrs, struct error **ret_error)
{
    if (extent_store(body, ret_error) < 0)
        return -1;
    errcode_t code = ext2fs_inode_size_set(w->fs, (struct ext2_inode *)&body->inode, size);
    if (code != 0)
        return failed(code, "set a size", ret_error);
    int result = inode_write(w, body->number, &body->inode, xattrs, ret_error);
    body_done(body);
    return result;
}

/* ---- what is no directory ------------------------------------------------------------------- */

static int blocks_write(struct ext4_writer *w, struct body *body, uint64_t logical,
                        const uint8_t *data, uint64_t count, struct error **ret_error)
{
    while (count > 0) {
        blk64_t first;
        uint64_t part;
        if (blocks_take(w, count, &first, &part, ret_error) < 0 ||
            extent_add(w, body, logical, first, part, ret_error) < 0)
            return -1;
        errcode_t code = io_channel_write_blk64(w->fs->io, first, (int)part, data);
        if (code != 0)
            return failed(code, "write the root filesystem", ret_error);
        logical += part;
        data += part * BLOCK;
        count -= part;
    }
    return 0;
}

static void device_number(struct ext2_inode_large *inode, const struct sink_attr *attr)
{
    uint32_t major = attr->dev_major, minor = attr->dev_minor;

    /* old_encode_dev() and new_encode_dev() of the kernel */
    if (major < 256 && minor < 256)
        inode->i_block[0] = major << 8 | minor;
    else
        inode->i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}

/* A target that is too long for the inode gets a block. */
static int link_write(struct ext4_writer *w, const struct sink_attr *attr, ext2_ino_t number,
                      const char *target, size_t length, struct error **ret_error)
{
    uint8_t block[BLOCK] = {0};

    memcpy(block, target, length);
    if (body_begin(w, &w->body, attr, number, ret_error) < 0 ||
        blocks_write(w, &w->body, 0, block, 1, ret_error) < 0)
        return -1;
    return body_end(w, &w->body, length, attr->xattrs, ret_error);
}

static int writer_node(void *writer, const struct sink_attr *attr, const char *target,
                       uint64_t *ret_nid, struct error **ret_error)
{
    struct ext4_writer *w = writer;
    size_t length = target ? strlen(target) : 0;
    struct ext2_inode_large inode;
    ext2_ino_t number;

    assert(length <= SINK_SYMLINK_MAX);
    if (inode_take(w, attr->mode, &number, ret_error) < 0)
        return -1;
    *ret_nid = number;
    if (length > FAST_LINK_MAX)
        return link_write(w, attr, number, target, length, ret_error);
    inode_fill(&inode, attr);
    inode.i_size = (uint32_t)length;
    if (target)
        memcpy(inode.i_block, target, length);
    else if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
        device_number(&inode, attr);
    return inode_write(w, number, &inode, attr->xattrs, ret_error);
}

static int writer_file_begin(void *writer, const struct sink_attr *attr, uint64_t size,
                             struct error **ret_error)
{
    struct ext4_writer *w = writer;
    ext2_ino_t number;

    w->attr = *attr;
    w->size = size;
    w->done = 0;
    window_begin(&w->window);
    return inode_take(w, attr->mode, &number, ret_error) < 0
               ? -1
               : body_begin(w, &w->body, attr, number, ret_error);
}

static int body_put(void *arg, uint64_t block, const uint8_t *bytes, size_t count,
                    struct error **ret_error)
{
    struct ext4_writer *w = arg;

    return blocks_write(w, &w->body, block, bytes, count, ret_error);
}

static int writer_file_data(void *writer, uint64_t offset, const void *data, size_t size,
                            struct error **ret_error)
{
    struct ext4_writer *w = writer;

    if (offset < w->done || offset > w->size || size > w->size - offset)
        return error_set(ret_error, ERROR_CORRUPT, 0, "data outside of the file");
    w->done = offset + size;
    return window_add(&w->window, offset, data, size, body_put, w, ret_error);
}

static int writer_file_end(void *writer, uint64_t *ret_nid, struct error **ret_error)
{
    struct ext4_writer *w = writer;

    *ret_nid = w->body.number;
    if (window_flush(&w->window, body_put, w, ret_error) < 0)
        return -1;
    return body_end(w, &w->body, w->size, w->attr.xattrs, ret_error);
}

static int writer_set_links(void *writer, uint64_t nid, uint32_t links, struct error **ret_error)
{
    struct ext4_writer *w = writer;
    struct ext2_inode inode;

    if (links > LINKS_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "a file of the image has more than %d names", LINKS_MAX);
    errcode_t code = ext2fs_read_inode(w->fs, (ext2_ino_t)nid, &inode);
    inode.i_links_count = (uint16_t)links;
    if (code == 0)
        code = ext2fs_write_inode(w->fs, (ext2_ino_t)nid, &inode);
    return code ? failed(code, "count the names of a file", ret_error) : 0;
}

/* ---- directories ---------------------------------------------------------------------------- */

static int writer_dir_plan(void *writer, const struct sink_attr *attr, bool root,
                           const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                           struct error **ret_error)
{
    struct ext4_writer *w = writer;
    ext2_ino_t number;

    if (inode_take(w, attr->mode, &number, ret_error) < 0)
        return -1;
    if (root)
        w->top = number;
    *ret = (struct sink_dir){.nid = number};
    return 0;
}

/* A directory's blocks while they are filled. */
struct dir_blocks {
    struct buf bytes;
    struct ext2_dir_entry *last; /* of the block at work */
    size_t used;                 /* of the block at work */
    size_t room;                 /* of a block, without its checksum */
};

static void dir_block_begin(struct dir_blocks *d)
{
    memset(buf_reserve(&d->bytes, BLOCK), 0, BLOCK);
    d->used = 0;
    d->last = NULL;
}

/* The last entry reaches to the end of the block. */
static void dir_block_end(struct ext4_writer *w, struct dir_blocks *d)
{
    uint8_t *block = d->bytes.data + d->bytes.len;

    d->last->rec_len = (uint16_t)(d->last->rec_len + d->room - d->used);
    if (d->room < BLOCK)
        ext2fs_initialize_dirent_tail(w->fs, (struct ext2_dir_entry_tail *)(block + d->room));
    d->bytes.len += BLOCK;
}

static void dir_entry_add(struct ext4_writer *w, struct dir_blocks *d, const char *name,
                          uint64_t nid, enum sink_type type)
{
    size_t length = strlen(name), size = (8 + length + 3) & ~(size_t)3;

    if (d->used + size > d->room) {
        dir_block_end(w, d);
        dir_block_begin(d);
    }
    struct ext2_dir_entry *entry = (void *)(d->bytes.data + d->bytes.len + d->used);
    entry->inode = (uint32_t)nid;
    entry->rec_len = (uint16_t)size;
    ext2fs_dirent_set_name_len(entry, (int)length);
    ext2fs_dirent_set_file_type(entry, (int)type);
    memcpy(entry->name, name, length);
    d->last = entry;
    d->used += size;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* "." and ".." must be the first two. */
static void dir_encode(struct ext4_writer *w, const struct sink_dir *dir, uint64_t parent,
                       const struct sink_dirent *entries, size_t count, struct dir_blocks *d)
{
    bool sums = ext2fs_has_feature_metadata_csum(w->fs->super);

    d->room = BLOCK - (sums ? sizeof(struct ext2_dir_entry_tail) : 0);
    dir_block_begin(d);
    dir_entry_add(w, d, ".", dir->nid, SINK_DIR);
    dir_entry_add(w, d, "..", parent, SINK_DIR);
    for (size_t i = 0; i < count; i++)
        if (!is_dots(entries[i].name))
            dir_entry_add(w, d, entries[i].name, entries[i].nid, entries[i].type);
    dir_block_end(w, d);
}

/* The inode first: the checksums of the blocks are made with it. */
static int dir_store(struct ext4_writer *w, const struct sink_attr *attr, ext2_ino_t number,
                     uint32_t links, struct dir_blocks *d, struct error **ret_error)
{
    uint64_t count = d->bytes.len / BLOCK, logical = 0;
    CLEANUP_FREE blk64_t *places = xcalloc(count, sizeof(*places));

    if (body_begin(w, &w->body, attr, number, ret_error) < 0)
        return -1;
    while (logical < count) {
        blk64_t first;
        uint64_t part;
        if (blocks_take(w, count - logical, &first, &part, ret_error) < 0 ||
            extent_add(w, &w->body, logical, first, part, ret_error) < 0)
            return -1;
        for (uint64_t i = 0; i < part; i++)
            places[logical++] = first + i;
    }
    w->body.inode.i_links_count = links < LINKS_MAX ? (uint16_t)links : 1;
    if (body_end(w, &w->body, count * BLOCK, attr->xattrs, ret_error) < 0)
        return -1;
    for (uint64_t i = 0; i < count; i++) {
        errcode_t code =
            ext2fs_write_dir_block4(w->fs, places[i], d->bytes.data + i * BLOCK, 0, number);
        if (code != 0)
            return failed(code, "write a directory", ret_error);
    }
    return 0;
}

static int writer_dir_write(void *writer, const struct sink_dir *dir, const struct sink_attr *attr,
                            uint32_t links, const struct sink_dirent *entries, size_t count,
                            struct error **ret_error)
{
    struct ext4_writer *w = writer;
    struct dir_blocks d = {0};
    uint64_t parent = EXT2_ROOT_INO;

    for (size_t i = 0; i < count && dir->nid != w->top; i++)
        if (strcmp(entries[i].name, "..") == 0)
            parent = entries[i].nid;
    dir_encode(w, dir, parent, entries, count, &d);
    int result = dir_store(w, attr, (ext2_ino_t)dir->nid, links, &d, ret_error);
    buf_release(&d.bytes);
    return result;
}

/* ---- the end -------------------------------------------------------------------------------- */

static int writer_finish(void *writer, const uint8_t uuid[16], uint64_t *ret_size,
                         struct error **ret_error)
{
    struct ext4_writer *w = writer;
    struct ext2_inode root;
    errcode_t code =
        ext2fs_link(w->fs, EXT2_ROOT_INO, EXT4_WRITER_TOP, (ext2_ino_t)w->top, EXT2_FT_DIR);

    if (code == 0)
        code = ext2fs_read_inode(w->fs, EXT2_ROOT_INO, &root);
    root.i_links_count++;
    if (code == 0)
        code = ext2fs_write_inode(w->fs, EXT2_ROOT_INO, &root);
    if (code == 0)
        code = ext2fs_close_free(&w->fs);
    *ret_size = w->blocks * BLOCK;
    return code ? failed(code, "write the root filesystem", ret_error) : 0;
}

const struct sink_ops ext4_sink = {
    .node = writer_node,
    .file_begin = writer_file_begin,
    .file_data = writer_file_data,
    .file_end = writer_file_end,
    .set_links = writer_set_links,
    .dir_plan = writer_dir_plan,
    .dir_write = writer_dir_write,
    .finish = writer_finish,
};
