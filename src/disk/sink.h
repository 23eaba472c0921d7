/* Where a flattened image goes: a file system that is written front to back, from things as they
 * come. Only for the files of this room.
 *
 * Order of calls: node() and file_…() for everything that is not a directory, then dir_plan() for
 * all directories, parents first (their numbers are needed in each other), then dir_write() for
 * each in the same order, set_links() for what has more than one name, then finish(). Data of a
 * file comes in order and may leave gaps, which read as zeros; attr must stay until file_end(),
 * and names and attr of a directory until finish().
 */
#ifndef HUSK_DISK_SINK_H
#define HUSK_DISK_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum {
    SINK_NAME_MAX = 255,
    SINK_SYMLINK_MAX = 4095,    /* what the kernel follows */
    SINK_XATTRS_MAX = 64 << 10, /* of one file, names and values together */
};

/* As in directory entries of erofs and ext4. */
enum sink_type {
    SINK_NONE = 0,
    SINK_REG = 1,
    SINK_DIR = 2,
    SINK_CHR = 3,
    SINK_BLK = 4,
    SINK_FIFO = 5,
    SINK_SOCK = 6,
    SINK_SYMLINK = 7,
};

struct sink_attr {
    uint32_t mode; /* as st_mode, with the type */
    uint32_t uid, gid;
    int64_t mtime;
    uint32_t mtime_nsec;
    uint32_t dev_major, dev_minor; /* of a device node */
    const struct buf *xattrs;      /* made with sink_xattr_add(); NULL: none */
};

struct sink_dirent {
    const char *name;
    uint64_t nid;
    enum sink_type type;
    uint32_t links; /* names that it has in all; not of directories */
};

/* Where a directory will be; all but nid is the writer's own. */
struct sink_dir {
    uint64_t nid;
    uint64_t size;
    uint64_t block; /* of its full blocks */
    bool tail_inline;
    uint32_t ino;
};

struct sink_ops {
    /* A symbolic link with its target, or a device, fifo or socket with target NULL. */
    int (*node)(void *writer, const struct sink_attr *attr, const char *target, uint64_t *ret_nid,
                struct error **ret_error);
    int (*file_begin)(void *writer, const struct sink_attr *attr, uint64_t size,
                      struct error **ret_error);
    int (*file_data)(void *writer, uint64_t offset, const void *data, size_t size,
                     struct error **ret_error);
    int (*file_end)(void *writer, uint64_t *ret_nid, struct error **ret_error);
    int (*set_links)(void *writer, uint64_t nid, uint32_t links, struct error **ret_error);
    /* Entries in the order of strcmp(), with "." and ".."; only the names are looked at. */
    int (*dir_plan)(void *writer, const struct sink_attr *attr, bool root,
                    const struct sink_dirent *entries, size_t count, struct sink_dir *ret,
                    struct error **ret_error);
    int (*dir_write)(void *writer, const struct sink_dir *dir, const struct sink_attr *attr,
                     uint32_t links, const struct sink_dirent *entries, size_t count,
                     struct error **ret_error);
    /* All is written, though not synced; *ret_size is what it takes on the disk. */
    int (*finish)(void *writer, const uint8_t uuid[16], uint64_t *ret_size,
                  struct error **ret_error);
};

/* Adds an attribute to xattrs ("user.x", "security.capability" …). Returns 1 if it is of a kind
 * that file systems do not keep (nothing was added), ERROR_TOO_LARGE if there are too many. The
 * bytes are those of an erofs inode. */
int sink_xattr_add(struct buf *xattrs, const char *name, const void *value, size_t size,
                   struct error **ret_error);

/* Goes through what was added: *position begins with 0; false at the end. *ret_name is the
 * caller's, *ret_value points into xattrs. */
bool sink_xattr_next(const struct buf *xattrs, size_t *position, char **ret_name,
                     const void **ret_value, size_t *ret_size);

#endif
