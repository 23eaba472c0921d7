#include "disk/ext4_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "disk/ext4_tree.h"

#define UPPER "upper"

struct upper {
    struct walk walk;
    struct ext4_tree tree;
};

static bool is_whiteout(const struct ext4_inode *inode)
{
    return LINUX_S_ISCHR(inode->raw.i_mode) && !inode->attr.dev_major && !inode->attr.dev_minor;
}

static int leaf_add(struct upper *u, const char *path, const struct ext4_inode *inode,
                    struct error **ret_error)
{
    if (is_whiteout(inode))
        return tar_writer_whiteout(&u->walk.tar, path, ret_error);
    if (LINUX_S_ISSOCK(inode->raw.i_mode)) /* a tar has none, and nobody listens any more */
        return 0;
    return ext4_leaf_write(&u->tree, path, inode, ret_error);
}

static int dir_walk(struct upper *u, const char *path, int depth, struct ext4_inode *inode,
                    struct error **ret_error);

static int inode_read(struct upper *u, ext2_ino_t ino, struct ext4_inode *ret,
                      struct error **ret_error)
{
    if (ext4_inode_read(&u->tree, ino, ret, ret_error) < 0 ||
        ext4_inode_xattrs(&u->tree, ret, ret_error) < 0)
        return -1;
    if (!ret->part)
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                     "it is only a part of a file of the image (%s)", ret->part);
}

static int entry_add(struct upper *u, const char *path, int depth, ext2_ino_t ino,
                     struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct ext4_inode inode;

    int result = inode_read(u, ino, &inode, &error);
    if (result == 0 && LINUX_S_ISDIR(inode.raw.i_mode)) {
        result = dir_walk(u, path, depth, &inode, ret_error);
        ext4_inode_done(&inode);
        return result; /* it has said where */
    }
    if (result == 0)
        result = leaf_add(u, path, &inode, &error);
    ext4_inode_done(&inode);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

static int children_add(struct upper *u, const char *path, int depth,
                        const struct ext4_names *names, struct error **ret_error)
{
    for (size_t i = 0; i < names->count; i++) {
        CLEANUP_FREE char *child = walk_child(path, names->list[i].name, ret_error);
        if (!child || entry_add(u, child, depth + 1, names->list[i].ino, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int dir_begin(struct upper *u, const char *path, int depth, const struct ext4_inode *inode,
                     struct ext4_names *names, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    int result = walk_depth(depth, &error);

    if (result == 0)
        result = ext4_tree_enter(&u->tree, inode, &error);
    if (result == 0)
        result = ext4_names_read(&u->tree, inode->ino, names, &error);
    if (result == 0)
        result = tar_writer_add(&u->walk.tar, path, &inode->attr, NULL, 0, &error);
    if (result == 0 && inode->opaque)
        result = tar_writer_opaque(&u->walk.tar, path, &error);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

static int dir_walk(struct upper *u, const char *path, int depth, struct ext4_inode *inode,
                    struct error **ret_error)
{
    struct ext4_names names = {0};
    int result = dir_begin(u, path, depth, inode, &names, ret_error);

    if (result == 0)
        result = children_add(u, path, depth, &names, ret_error);
    ext4_names_done(&u->tree, &names);
    return result;
}

static int upper_write(struct upper *u, const char *path, struct error **ret_error)
{
    ext2_ino_t ino;

    if (ext4_tree_open(&u->tree, path, &u->walk, ret_error) < 0 ||
        ext4_tree_lookup(&u->tree, UPPER, &ino, ret_error) < 0 ||
        (ino != 0 && entry_add(u, "", 0, ino, ret_error) < 0))
        return -1;
    return tar_writer_end(&u->walk.tar, ret_error);
}

int ext4_reader_diff(const char *path, const struct disk_output *out, struct error **ret_error)
{
    struct upper u = {0};

    walk_open(&u.walk, out);
    int result = upper_write(&u, path, ret_error);
    ext4_tree_close(&u.tree);
    walk_done(&u.walk);
    return result;
}
