#include "disk/ext4_changes.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "disk/ext4_tree.h"
#include "disk/ext4_writer.h"

/* Both are gone through side by side, path by path, twice: a file that has several names goes into
 * the layer by all of them or by none, since a link there can only name what is there; and where it
 * moved with its directory, only some of its names tell. */
struct changes {
    struct walk walk;
    struct ext4_tree before, now;
    bool related; /* one began as a copy of the other */
    bool careful;
    bool marking;   /* it is the first time: nothing is written */
    uint8_t *whole; /* a bit an inode of `now`: all of its names are to be written */
};

/* ---- what is the same ----------------------------------------------------------------------- */

static bool inode_same(const struct ext4_inode *a, const struct ext4_inode *b)
{
    return a->ino == b->ino && a->raw.i_generation == b->raw.i_generation &&
           a->raw.i_ctime == b->raw.i_ctime && a->raw.i_ctime_extra == b->raw.i_ctime_extra &&
           a->raw.i_mode == b->raw.i_mode && ext4_inode_size(a) == ext4_inode_size(b);
}

/* `before`: what was at its path; NULL: nothing. */
static int is_same(struct changes *c, const struct ext4_inode *now, const struct ext4_inode *before,
                   bool *ret, struct error **ret_error)
{
    *ret = c->related && before && inode_same(now, before);
    if (!*ret || !c->careful || !LINUX_S_ISREG(now->raw.i_mode))
        return 0;
    return ext4_data_same(&c->now, now, &c->before, before, ret, ret_error);
}

/* ---- entries -------------------------------------------------------------------------------- */

/* What a layer has no way to say, and what would hide a file if it did. */
static bool is_nothing(const struct ext4_inode *inode)
{
    return LINUX_S_ISSOCK(inode->raw.i_mode) ||
           (LINUX_S_ISCHR(inode->raw.i_mode) && !inode->attr.dev_major && !inode->attr.dev_minor);
}

static int removed(struct changes *c, const char *path, struct error **ret_error)
{
    return c->marking ? 0 : tar_writer_whiteout(&c->walk.tar, path, ret_error);
}

static int leaf_add(struct changes *c, const char *path, struct ext4_inode *now,
                    const struct ext4_inode *before, struct error **ret_error)
{
    uint8_t *byte = &c->whole[now->ino / 8], bit = (uint8_t)(1 << now->ino % 8);
    bool same = false;

    if (is_nothing(now))
        return before ? removed(c, path, ret_error) : 0;
    if (c->marking && now->raw.i_links_count < 2)
        return 0;
    if (!(*byte & bit) && is_same(c, now, before, &same, ret_error) < 0)
        return -1;
    if (c->marking && !same)
        *byte |= bit;
    if (c->marking || same)
        return 0;
    if (ext4_inode_xattrs(&c->now, now, ret_error) < 0)
        return -1;
    return ext4_leaf_write(&c->now, path, now, ret_error);
}

/* ---- directories ---------------------------------------------------------------------------- */

static int entry_add(struct changes *c, const char *path, int depth, ext2_ino_t now,
                     ext2_ino_t before, struct error **ret_error);

struct pair {
    struct ext4_names now, before;
};

/* What has a name in both has the same place in both rows. */
static int children_add(struct changes *c, const char *path, int depth, const struct pair *names,
                        struct error **ret_error)
{
    size_t n = 0, b = 0;

    while (n < names->now.count || b < names->before.count) {
        const struct ext4_name *now = n < names->now.count ? &names->now.list[n] : NULL;
        const struct ext4_name *before = b < names->before.count ? &names->before.list[b] : NULL;
        int order = !before ? -1 : !now ? 1 : strcmp(now->name, before->name);
        CLEANUP_FREE char *child =
            walk_child(path, order <= 0 ? now->name : before->name, ret_error);
        if (!child)
            return -1;
        int result = order > 0 ? removed(c, child, ret_error)
                               : entry_add(c, child, depth + 1, now->ino,
                                           order == 0 ? before->ino : 0, ret_error);
        if (result < 0)
            return -1;
        n += order <= 0;
        b += order >= 0;
    }
    return 0;
}

static int dir_write(struct changes *c, const char *path, struct ext4_inode *now,
                     const struct ext4_inode *before, struct error **ret_error)
{
    bool same;

    if (c->marking)
        return 0;
    if (is_same(c, now, before, &same, ret_error) < 0)
        return -1;
    if (same)
        return 0;
    if (ext4_inode_xattrs(&c->now, now, ret_error) < 0)
        return -1;
    return tar_writer_add(&c->walk.tar, path, &now->attr, NULL, 0, ret_error);
}

static int dir_begin(struct changes *c, const char *path, int depth, struct ext4_inode *now,
                     const struct ext4_inode *before, struct pair *names, struct error **ret_error)
{
    if (walk_depth(depth, ret_error) < 0 || ext4_tree_enter(&c->now, now, ret_error) < 0 ||
        ext4_names_read(&c->now, now->ino, &names->now, ret_error) < 0)
        return -1;
    if (before && ext4_names_read(&c->before, before->ino, &names->before, ret_error) < 0)
        return error_wrap(ret_error, "in the image");
    return dir_write(c, path, now, before, ret_error);
}

/* `before` is a directory, too, or NULL. */
static int dir_add(struct changes *c, const char *path, int depth, struct ext4_inode *now,
                   const struct ext4_inode *before, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct pair names = {0};
    int result = dir_begin(c, path, depth, now, before, &names, &error);

    if (result < 0) {
        error_wrap(&error, "'/%.200s'", path);
        error_move(ret_error, &error);
    } else {
        result = children_add(c, path, depth, &names, ret_error);
    }
    ext4_names_done(&c->now, &names.now);
    ext4_names_done(&c->before, &names.before);
    return result;
}

static int entry_add(struct changes *c, const char *path, int depth, ext2_ino_t now,
                     ext2_ino_t before, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct ext4_inode is = {0}, was = {0};

    int result = ext4_inode_read(&c->now, now, &is, &error);
    if (result == 0 && before && ext4_inode_read(&c->before, before, &was, &error) < 0)
        result = error_wrap(&error, "in the image");
    bool is_dir = LINUX_S_ISDIR(is.raw.i_mode), was_dir = LINUX_S_ISDIR(was.raw.i_mode);
    if (result == 0 && is_dir) {
        result = dir_add(c, path, depth, &is, before && was_dir ? &was : NULL, ret_error);
        ext4_inode_done(&is);
        return result; /* it has said where */
    }
    if (result == 0)
        result = leaf_add(c, path, &is, before ? &was : NULL, &error);
    ext4_inode_done(&is);
    if (result == 0)
        return 0;
    error_wrap(&error, "'/%.200s'", path);
    return error_move(ret_error, &error);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int changes_write(struct changes *c, struct error **ret_error)
{
    ext2_ino_t now, before;

    if (ext4_tree_lookup(&c->now, EXT4_WRITER_TOP, &now, ret_error) < 0 ||
        ext4_tree_lookup(&c->before, EXT4_WRITER_TOP, &before, ret_error) < 0)
        return -1;
    if (!now || !before)
        return error_set(ret_error, ERROR_CORRUPT, 0, "%s has no directory '" EXT4_WRITER_TOP "'",
                         now ? "the image" : "the layer");
    c->marking = true;
    if (entry_add(c, "", 0, now, before, ret_error) < 0)
        return -1;
    c->marking = false;
    ext4_tree_rewind(&c->now);
    ext4_tree_rewind(&c->before);
    if (entry_add(c, "", 0, now, before, ret_error) < 0)
        return -1;
    return tar_writer_end(&c->walk.tar, ret_error);
}

static int changes_open(struct changes *c, const struct ext4_changes_spec *spec,
                        struct error **ret_error)
{
    if (ext4_tree_open(&c->now, spec->now, &c->walk, ret_error) < 0)
        return -1;
    if (ext4_tree_open(&c->before, spec->before, &c->walk, ret_error) < 0)
        return error_wrap(ret_error, "in the image");
    const struct ext2_super_block *now = c->now.fs->super, *before = c->before.fs->super;
    c->related = memcmp(now->s_uuid, before->s_uuid, sizeof(now->s_uuid)) == 0;
    c->whole = xcalloc(now->s_inodes_count / 8 + 1, 1);
    return 0;
}

int ext4_changes(const struct ext4_changes_spec *spec, const struct disk_output *out,
                 struct error **ret_error)
{
    struct changes c = {.careful = spec->careful};

    walk_open(&c.walk, out);
    int result = changes_open(&c, spec, ret_error);
    if (result == 0)
        result = changes_write(&c, ret_error);
    free(c.whole);
    ext4_tree_close(&c.now);
    ext4_tree_close(&c.before);
    walk_done(&c.walk);
    return result;
}
