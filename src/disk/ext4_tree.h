/* An ext4 file system that a guest has written, read by libext2fs without mounting it.
 *
 * It may be made to do harm: sizes and numbers are looked at before they are believed, a directory
 * is entered once, names are those of files. Only for the files of this room.
 */
#ifndef HUSK_DISK_EXT4_TREE_H
#define HUSK_DISK_EXT4_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include <ext2fs/ext2fs.h>

#include "base/buf.h"
#include "disk/walk.h"

struct ext4_tree {
    ext2_filsys fs;
    struct walk *walk; /* whose limits hold for it */
    uint64_t entries;
    uint8_t *entered; /* a bit an inode: directories */
};

struct ext4_inode {
    ext2_ino_t ino;
    struct ext2_inode_large raw;
    struct sink_attr attr; /* its xattrs are those here */
    struct buf xattrs;     /* without overlayfs' own */
    bool opaque;           /* by one of those */
    const char *part;      /* the one of those that says that this is not the whole file; or NULL */
};

/* The names of a directory but "." and "..", in the order of strcmp(). */
struct ext4_names {
    struct ext4_name {
        ext2_ino_t ino;
        char *name;
    } * list;
    size_t count;
};

/* Whether the file or device is an ext4 file system that fits into it, and *ret_clean, whether its
 * journal holds nothing that is to be written. ERROR_CORRUPT if it is none. */
int ext4_tree_check(const char *path, bool *ret_clean, struct error **ret_error);

/* Opens one that is clean. ext4_tree_close() after either outcome. */
int ext4_tree_open(struct ext4_tree *t, const char *path, struct walk *walk,
                   struct error **ret_error);
void ext4_tree_close(struct ext4_tree *t);
/* It is gone through once more. */
void ext4_tree_rewind(struct ext4_tree *t);

/* *ret: the inode of that name in the file system's topmost directory; 0: there is none. */
int ext4_tree_lookup(struct ext4_tree *t, const char *name, ext2_ino_t *ret,
                     struct error **ret_error);

/* All of it but its extended attributes. ext4_inode_done() after either outcome. */
int ext4_inode_read(struct ext4_tree *t, ext2_ino_t ino, struct ext4_inode *ret,
                    struct error **ret_error);
int ext4_inode_xattrs(struct ext4_tree *t, struct ext4_inode *inode, struct error **ret_error);
void ext4_inode_done(struct ext4_inode *inode);
uint64_t ext4_inode_size(const struct ext4_inode *inode);

/* ERROR_CORRUPT if the directory was entered before: a path through it would have no end. */
int ext4_tree_enter(struct ext4_tree *t, const struct ext4_inode *inode, struct error **ret_error);
/* ext4_names_done() after either outcome. */
int ext4_names_read(struct ext4_tree *t, ext2_ino_t ino, struct ext4_names *ret,
                    struct error **ret_error);
void ext4_names_done(struct ext4_tree *t, struct ext4_names *names);

/* Adds what is no directory to the walk's tar, with its data, or as one more name. Its extended
 * attributes were read. */
int ext4_leaf_write(struct ext4_tree *t, const char *path, const struct ext4_inode *inode,
                    struct error **ret_error);

/* Whether two files of the same size, each in its tree, have the same bytes. */
int ext4_data_same(struct ext4_tree *t, const struct ext4_inode *inode, struct ext4_tree *other_t,
                   const struct ext4_inode *other, bool *ret_same, struct error **ret_error);

#endif
