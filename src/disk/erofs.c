#include "disk/erofs.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

enum {
    SUPER_OFFSET = 1024,
    SUPER_SIZE = 128,
    SUPER_MAGIC = 0xE0F5E1E2,
    COMPAT_CHECKSUM = 1,
    BLOCK_BITS = 12,
    SLOT = 32, /* positions of inodes are counted in these */
    ROOT_OFFSET = SUPER_OFFSET + SUPER_SIZE,
    INODE_SIZE = 64, /* the extended form: times and 32-bit owners are kept */
    INODE_LINKS = 44,
    FORMAT_EXTENDED = 1,
    LAYOUT_PLAIN = 0 << 1,
    LAYOUT_INLINE = 2 << 1,
    XATTR_HEADER = 12,
    XATTR_ENTRY = 4,
    DIRENT_SIZE = 12,
};

static void put16(uint8_t *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static uint64_t blocks_of(uint64_t size)
{
    return size / EROFS_BLOCK + (size % EROFS_BLOCK != 0);
}

static int write_at(struct erofs_writer *w, const uint8_t *data, size_t size, uint64_t offset,
                    struct error **ret_error)
{
    while (size > 0) {
        ssize_t n = pwrite(w->fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(ret_error, ERROR_IO, n < 0 ? errno : ENOSPC,
                             "write the root filesystem");
        data += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* ---- space ---------------------------------------------------------------------------------- */

static uint64_t blocks_take(struct erofs_writer *w, uint64_t count)
{
    uint64_t first = w->blocks;

    w->blocks += count;
    return first;
}

/* A place for an inode and what follows it, which is never cut by the end of a block unless it is
 * longer than one: the kernel wants an inline tail in the block where it begins. */
static uint64_t meta_take(struct erofs_writer *w, size_t size)
{
    uint64_t pos = (w->meta_pos + SLOT - 1) / SLOT * SLOT;

    if (size > EROFS_BLOCK - pos % EROFS_BLOCK)
        pos = blocks_of(pos) * EROFS_BLOCK;
    if (pos + size > w->meta_end) {
        uint64_t need = blocks_of(size);
        if (need < EROFS_META_CHUNK)
            need = EROFS_META_CHUNK;
        pos = blocks_take(w, need) * EROFS_BLOCK;
        w->meta_end = pos + need * EROFS_BLOCK;
    }
    w->meta_pos = pos + size;
    return pos;
}

void erofs_open(struct erofs_writer *w, int fd)
{
    *w = (struct erofs_writer){.fd = fd, .blocks = 1};
    window_open(&w->window);
}

void erofs_done(struct erofs_writer *w)
{
    window_done(&w->window);
}

/* ---- inodes --------------------------------------------------------------------------------- */

static size_t xattrs_size(const struct sink_attr *attr)
{
    return attr->xattrs ? attr->xattrs->len : 0;
}

/* Whether a tail goes behind the inode; then the whole must fit in one block. */
static bool tail_fits(const struct sink_attr *attr, size_t tail)
{
    return tail > 0 && tail <= EROFS_INLINE_MAX &&
           INODE_SIZE + xattrs_size(attr) + tail <= EROFS_BLOCK;
}

static uint32_t device_number(const struct sink_attr *attr)
{
    /* new_encode_dev() of the kernel */
    return (attr->dev_minor & 0xff) | (attr->dev_major << 8) | ((attr->dev_minor & ~0xffU) << 12);
}

struct inode {
    const struct sink_attr *attr;
    uint64_t size;
    uint32_t where; /* first block, or device number */
    uint32_t ino;
    uint32_t links;
    const uint8_t *tail; /* NULL: not inline */
    size_t tail_size;
};

static int inode_write(struct erofs_writer *w, const struct inode *inode, uint64_t position,
                       struct error **ret_error)
{
    CLEANUP_BUF struct buf out = {0};
    const struct sink_attr *attr = inode->attr;
    size_t xattrs = xattrs_size(attr);
    uint8_t *p = buf_reserve(&out, INODE_SIZE);

    memset(p, 0, INODE_SIZE);
    put16(p, (uint16_t)(FORMAT_EXTENDED | (inode->tail ? LAYOUT_INLINE : LAYOUT_PLAIN)));
    put16(p + 2, xattrs ? (uint16_t)((xattrs - XATTR_HEADER) / XATTR_ENTRY + 1) : 0);
    put16(p + 4, (uint16_t)attr->mode);
    put64(p + 8, inode->size);
    put32(p + 16, inode->where);
    put32(p + 20, inode->ino);
    put32(p + 24, attr->uid);
    put32(p + 28, attr->gid);
    put64(p + 32, (uint64_t)attr->mtime);
    put32(p + 40, attr->mtime_nsec);
    put32(p + INODE_LINKS, inode->links);
    out.len += INODE_SIZE;
    if (xattrs)
        buf_append(&out, attr->xattrs->data, xattrs);
    if (inode->tail)
        buf_append(&out, inode->tail, inode->tail_size);
    return write_at(w, out.data, out.len, position, ret_error);
}

int erofs_set_links(struct erofs_writer *w, uint64_t nid, uint32_t links, struct error **ret_error)
{
    uint8_t field[4];

    put32(field, links);
    return write_at(w, field, sizeof(field), nid * SLOT + INODE_LINKS, ret_error);
}

int erofs_node(struct erofs_writer *w, const struct sink_attr *attr, const char *target,
               uint64_t *ret_nid, struct error **ret_error)
{
    size_t length = target ? strlen(target) : 0;
    struct inode inode = {.attr = attr, .ino = ++w->inodes, .links = 1, .size = length};

    assert(length <= SINK_SYMLINK_MAX);
    if (!target) {
        inode.where = device_number(attr);
    } else if (tail_fits(attr, length)) {
        inode.tail = (const uint8_t *)target;
        inode.tail_size = length;
    } else {
        uint64_t block = blocks_take(w, 1);
        inode.where = (uint32_t)block;
        if (write_at(w, (const uint8_t *)target, length, block * EROFS_BLOCK, ret_error) < 0)
            return -1;
    }
    uint64_t position = meta_take(w, INODE_SIZE + xattrs_size(attr) + inode.tail_size);
    *ret_nid = position / SLOT;
    return inode_write(w, &inode, position, ret_error);
}

/* ---- regular files -------------------------------------------------------------------------- */

void erofs_file_begin(struct erofs_writer *w, const struct sink_attr *attr, uint64_t size)
{
    size_t tail = size % EROFS_BLOCK;
    bool fits = tail_fits(attr, tail);

    w->attr = *attr;
    w->size = size;
    w->body = fits ? size - tail : size;
    w->body_block = blocks_take(w, blocks_of(w->body));
    w->done = 0;
    window_begin(&w->window);
    memset(w->tail, 0, sizeof(w->tail));
}

static int body_put(void *arg, uint64_t block, const uint8_t *bytes, size_t count,
                    struct error **ret_error)
{
    struct erofs_writer *w = arg;

    return write_at(w, bytes, count * EROFS_BLOCK, (w->body_block + block) * EROFS_BLOCK,
                    ret_error);
}

int erofs_file_data(struct erofs_writer *w, uint64_t offset, const void *data, size_t size,
                    struct error **ret_error)
{
    const uint8_t *bytes = data;

    if (offset < w->done || offset > w->size || size > w->size - offset)
        return error_set(ret_error, ERROR_CORRUPT, 0, "data outside of the file");
    w->done = offset + size;
    if (offset < w->body) {
        size_t part = w->body - offset < size ? (size_t)(w->body - offset) : size;
        if (window_add(&w->window, offset, bytes, part, body_put, w, ret_error) < 0)
            return -1;
        bytes += part;
        offset += part;
        size -= part;
    }
    if (size > 0)
        memcpy(w->tail + (offset - w->body), bytes, size);
    return 0;
}

int erofs_file_end(struct erofs_writer *w, uint64_t *ret_nid, struct error **ret_error)
{
    size_t tail = (size_t)(w->size - w->body);
    struct inode inode = {
        .attr = &w->attr,
        .size = w->size,
        .where = (uint32_t)w->body_block,
        .ino = ++w->inodes,
        .links = 1,
        .tail = tail ? w->tail : NULL,
        .tail_size = tail,
    };

    if (window_flush(&w->window, body_put, w, ret_error) < 0)
        return -1;
    if (w->blocks > UINT32_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "root filesystem of more than 16 TiB");
    uint64_t position = meta_take(w, INODE_SIZE + xattrs_size(&w->attr) + tail);
    *ret_nid = position / SLOT;
    return inode_write(w, &inode, position, ret_error);
}

/* ---- directories ---------------------------------------------------------------------------- */

/* How many entries go into the next block, and how many bytes they take. */
static size_t dir_block_fill(const struct sink_dirent *entries, size_t count, size_t *ret_size)
{
    size_t used = 0, n = 0;

    while (n < count) {
        size_t more = DIRENT_SIZE + strlen(entries[n].name);
        if (used + more > EROFS_BLOCK)
            break;
        used += more;
        n++;
    }
    *ret_size = used;
    return n;
}

int erofs_dir_plan(struct erofs_writer *w, const struct sink_attr *attr, bool root,
                   const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                   struct error **ret_error)
{
    size_t blocks = 0, last = 0;
    size_t head = INODE_SIZE + xattrs_size(attr);

    for (size_t i = 0; i < count; blocks++)
        i += dir_block_fill(entries + i, count - i, &last);
    ret->size = (uint64_t)(blocks - 1) * EROFS_BLOCK + last;
    /* A last block that is full is no tail. */
    ret->tail_inline = last < EROFS_BLOCK && tail_fits(attr, last) &&
                       (!root || ROOT_OFFSET + head + last <= EROFS_BLOCK);
    ret->block = blocks_take(w, ret->tail_inline ? blocks - 1 : blocks);
    ret->ino = ++w->inodes;
    if (!root) {
        ret->nid = meta_take(w, head + (ret->tail_inline ? last : 0)) / SLOT;
        return 0;
    }
    if (ROOT_OFFSET + head > EROFS_BLOCK)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the root directory has too many extended attributes");
    ret->nid = ROOT_OFFSET / SLOT;
    return 0;
}

static void dir_block_encode(uint8_t *block, const struct sink_dirent *entries, size_t count)
{
    size_t at = count * DIRENT_SIZE;

    memset(block, 0, EROFS_BLOCK);
    for (size_t i = 0; i < count; i++) {
        uint8_t *p = block + i * DIRENT_SIZE;
        size_t length = strlen(entries[i].name);
        put64(p, entries[i].nid);
        put16(p + 8, (uint16_t)at);
        p[10] = (uint8_t)entries[i].type;
        memcpy(block + at, entries[i].name, length);
        at += length;
    }
}

int erofs_dir_write(struct erofs_writer *w, const struct sink_dir *dir,
                    const struct sink_attr *attr, uint32_t links, const struct sink_dirent *entries,
                    size_t count, struct error **ret_error)
{
    uint8_t block[EROFS_BLOCK];
    struct inode inode = {.attr = attr,
                          .size = dir->size,
                          .where = (uint32_t)dir->block,
                          .ino = dir->ino,
                          .links = links};
    uint64_t at = dir->block;

    for (size_t i = 0, size; i < count; at++) {
        size_t n = dir_block_fill(entries + i, count - i, &size);
        dir_block_encode(block, entries + i, n);
        i += n;
        if (i == count && dir->tail_inline) {
            inode.tail = block;
            inode.tail_size = size;
            break;
        }
        if (write_at(w, block, sizeof(block), at * EROFS_BLOCK, ret_error) < 0)
            return -1;
    }
    return inode_write(w, &inode, dir->nid * SLOT, ret_error);
}

/* ---- the end -------------------------------------------------------------------------------- */

static uint32_t crc32c(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1));
    }
    return crc;
}

int erofs_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *ret_size,
                 struct error **ret_error)
{
    uint8_t block[EROFS_BLOCK] = {0};
    uint8_t *p = block + SUPER_OFFSET;

    *ret_size = w->blocks * EROFS_BLOCK;
    if (w->blocks > UINT32_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "root filesystem of more than 16 TiB");
    if (ftruncate(w->fd, (off_t)*ret_size) < 0 ||
        pread(w->fd, block, sizeof(block), 0) != (ssize_t)sizeof(block))
        return error_set(ret_error, ERROR_IO, errno, "write the root filesystem");
    put32(p, SUPER_MAGIC);
    put32(p + 8, COMPAT_CHECKSUM);
    p[12] = BLOCK_BITS;
    put16(p + 14, ROOT_OFFSET / SLOT);
    put64(p + 16, w->inodes);
    put32(p + 36, (uint32_t)w->blocks);
    memcpy(p + 48, uuid, 16);
    put32(p + 4, crc32c(p, EROFS_BLOCK - SUPER_OFFSET));
    return write_at(w, block, sizeof(block), 0, ret_error);
}

/* ---- as a sink ------------------------------------------------------------------------------ */

static int sink_node(void *writer, const struct sink_attr *attr, const char *target,
                     uint64_t *ret_nid, struct error **ret_error)
{
    return erofs_node(writer, attr, target, ret_nid, ret_error);
}

static int sink_file_begin(void *writer, const struct sink_attr *attr, uint64_t size,
                           struct error **ret_error)
{
    erofs_file_begin(writer, attr, size);
    return 0;
}

static int sink_file_data(void *writer, uint64_t offset, const void *data, size_t size,
                          struct error **ret_error)
{
    return erofs_file_data(writer, offset, data, size, ret_error);
}

static int sink_file_end(void *writer, uint64_t *ret_nid, struct error **ret_error)
{
    return erofs_file_end(writer, ret_nid, ret_error);
}

static int sink_set_links(void *writer, uint64_t nid, uint32_t links, struct error **ret_error)
{
    return erofs_set_links(writer, nid, links, ret_error);
}

static int sink_dir_plan(void *writer, const struct sink_attr *attr, bool root,
                         const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                         struct error **ret_error)
{
    return erofs_dir_plan(writer, attr, root, entries, count, ret, ret_error);
}

static int sink_dir_write(void *writer, const struct sink_dir *dir, const struct sink_attr *attr,
                          uint32_t links, const struct sink_dirent *entries, size_t count,
                          struct error **ret_error)
{
    return erofs_dir_write(writer, dir, attr, links, entries, count, ret_error);
}

static int sink_finish(void *writer, const uint8_t uuid[16], uint64_t *ret_size,
                       struct error **ret_error)
{
    return erofs_finish(writer, uuid, ret_size, ret_error);
}

const struct sink_ops erofs_sink = {
    .node = sink_node,
    .file_begin = sink_file_begin,
    .file_data = sink_file_data,
    .file_end = sink_file_end,
    .set_links = sink_set_links,
    .dir_plan = sink_dir_plan,
    .dir_write = sink_dir_write,
    .finish = sink_finish,
};
