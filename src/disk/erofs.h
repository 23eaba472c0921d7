/* Writes an EROFS file system, front to back, from things as they come.
 *
 * Nothing is unpacked on the host and nothing needs a privilege: ownership, device nodes and
 * trusted attributes are only numbers in a file. Uncompressed, blocks of 4 KiB:
 *
 *      block 0        super block at 1024, the root's inode behind it (its number has 16 bits)
 *      then, mixed    chunks of inodes, with extended attributes and short tails of files in them,
 *                     and the blocks of files and directories
 *
 * An inode's number is its position / 32, so an inode can be written as soon as its file is
 * known, and needs no memory afterwards. Blocks of zeros are not written: they are holes.
 *
 * Order of calls: erofs_open, then erofs_node and erofs_file_… for everything that is not a
 * directory, then erofs_dir_plan for all directories (their numbers are needed in each other),
 * then erofs_dir_write for each, then erofs_finish. The same calls give the same bytes.
 *
 * Format: linux/fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.
 */
#ifndef HUSK_DISK_EROFS_H
#define HUSK_DISK_EROFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "disk/sink.h"
#include "disk/window.h"

enum {
    EROFS_BLOCK = WINDOW_BLOCK,
    EROFS_NAME_MAX = SINK_NAME_MAX,
    EROFS_INLINE_MAX = 2048, /* longer tails get a block of their own */
    EROFS_META_CHUNK = 8,    /* blocks of inodes that are allotted together */
};

struct erofs_writer {
    int fd;
    uint64_t blocks;   /* the first block that nobody has */
    uint64_t meta_pos; /* the next inode goes here, if before meta_end */
    uint64_t meta_end;
    uint32_t inodes;
    /* The file between erofs_file_begin() and _end(). */
    struct sink_attr attr;
    uint64_t size;
    uint64_t body;       /* bytes of it that are in blocks; the rest is the tail */
    uint64_t body_block; /* its first block */
    uint64_t done;       /* bytes seen */
    struct window window;
    uint8_t tail[EROFS_BLOCK];
};

/* Begins in the empty file fd, which stays the caller's. */
void erofs_open(struct erofs_writer *w, int fd);
/* Frees what the writer holds; also in the middle. */
void erofs_done(struct erofs_writer *w);

/* A symbolic link with its target, or a device, fifo or socket with target NULL. */
int erofs_node(struct erofs_writer *w, const struct sink_attr *attr, const char *target,
               uint64_t *ret_nid, struct error **ret_error);

/* A regular file. Data comes in order and may leave gaps, which read as zeros. attr must stay
 * until erofs_file_end(). */
void erofs_file_begin(struct erofs_writer *w, const struct sink_attr *attr, uint64_t size);
int erofs_file_data(struct erofs_writer *w, uint64_t offset, const void *data, size_t size,
                    struct error **ret_error);
int erofs_file_end(struct erofs_writer *w, uint64_t *ret_nid, struct error **ret_error);

/* More names for what was written. */
int erofs_set_links(struct erofs_writer *w, uint64_t nid, uint32_t links, struct error **ret_error);

/* Entries in the order of strcmp(), with "." and ".."; only the names are looked at. The root
 * directory must fit behind the super block: ERROR_TOO_LARGE if its attributes do not. */
int erofs_dir_plan(struct erofs_writer *w, const struct sink_attr *attr, bool root,
                   const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                   struct error **ret_error);
int erofs_dir_write(struct erofs_writer *w, const struct sink_dir *dir,
                    const struct sink_attr *attr, uint32_t links, const struct sink_dirent *entries,
                    size_t count, struct error **ret_error);

/* The super block and the length of the file. Not synced. */
int erofs_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *ret_size,
                 struct error **ret_error);

/* The same as a sink, whose writer is a struct erofs_writer. */
extern const struct sink_ops erofs_sink;

#endif
