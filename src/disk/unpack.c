#include "disk/unpack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/str.h"
#include "disk/stream.h"

#define WHITEOUT        ".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define WHITEOUT_META   ".wh..wh." /* aufs' own files: nothing of the image */

enum {
    LINK_PASSES_MAX = 8, /* over one layer, for hard links to hard links to covered files */
    QUOTE_MAX = 200,     /* bytes of a path in a sentence */
};

void unpack_open(struct unpack *u, const struct sink_ops *sink, void *writer,
                 uint64_t layer_max_bytes, const struct disk_watch *watch)
{
    *u = (struct unpack){
        .sink = sink, .writer = writer, .layer_max_bytes = layer_max_bytes, .watch = watch};
    tree_open(&u->tree);
}

void unpack_done(struct unpack *u)
{
    tree_done(&u->tree);
    buf_release(&u->xattrs);
    free(u->links);
    u->links = NULL;
}

/* ---- paths ---------------------------------------------------------------------------------- */

static int path_refuse(const char *path, const char *why, struct error **ret_error)
{
    return error_set(ret_error, ERROR_INVALID, 0, "entry '%.*s' %s", QUOTE_MAX, path, why);
}

char *unpack_path(const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *clean = xmalloc(strlen(path) + 1);
    size_t used = 0, depth = 0;

    for (const char *s = path; *s;) {
        size_t length = strcspn(s, "/");
        bool skip = length == 0 || (length == 1 && s[0] == '.');
        if (length == 2 && s[0] == '.' && s[1] == '.')
            return path_refuse(path, "leads out of the image with '..'", ret_error), NULL;
        if (length > SINK_NAME_MAX)
            return path_refuse(path, "has a name of more than 255 bytes", ret_error), NULL;
        if (!skip) {
            if (used > 0)
                clean[used++] = '/';
            memcpy(clean + used, s, length);
            used += length;
            depth++;
        }
        s += length + (s[length] == '/');
    }
    clean[used] = '\0';
    if (used > DISK_PATH_MAX)
        return path_refuse(path, "has a path of more than 4095 bytes", ret_error), NULL;
    if (depth > DISK_PATH_DEPTH_MAX)
        return path_refuse(path, "lies more than 256 directories deep", ret_error), NULL;
    return take(clean);
}

/* ---- places in the tree --------------------------------------------------------------------- */

/* Functions that find a place return 1 if a higher layer covers it. */
enum { COVERED = 1 };

/* One step down: the directory `name` in parent, made if it is not there. */
static int dir_enter(struct unpack *u, struct tree_node *parent, const char *name, size_t length,
                     struct tree_node **ret, struct error **ret_error)
{
    struct tree_node *node = tree_find(&u->tree, parent, name, length);

    if (tree_is_opaque(parent, u->layer))
        return COVERED;
    bool mine = node && node->layer == u->layer;
    if (node && node->kind != TREE_DIR && !mine)
        return COVERED;
    if (mine && node->kind != TREE_DIR && node->kind != TREE_WHITEOUT)
        return error_set(ret_error, ERROR_INVALID, 0, "it lies below '%s', which is no directory",
                         node->name);
    if (!node)
        node = tree_add(&u->tree, parent, name, length, u->layer);
    else if (node->kind == TREE_WHITEOUT)
        tree_make_opaque(node, u->layer);
    tree_set_dir(&u->tree, node);
    *ret = node;
    return 0;
}

/* The directory that a path's last name is in, and that name. */
static int parent_enter(struct unpack *u, const char *path, struct tree_node **ret_parent,
                        const char **ret_name, struct error **ret_error)
{
    struct tree_node *node = u->tree.root;
    const char *slash;

    while ((slash = strchr(path, '/'))) {
        int result = dir_enter(u, node, path, (size_t)(slash - path), &node, ret_error);
        if (result != 0)
            return result;
        path = slash + 1;
    }
    *ret_parent = node;
    *ret_name = path;
    return tree_is_opaque(node, u->layer) ? COVERED : 0;
}

/* An entry meets a directory that is there already. */
static int slot_at_dir(struct unpack *u, struct tree_node *node, bool is_dir,
                       struct error **ret_error)
{
    bool mine = node->layer == u->layer || node == u->tree.root;

    if (is_dir)
        return tree_is_opaque(node, u->layer) || !(mine || node->implied) ? COVERED : 0;
    if (!mine) {
        /* Below this layer the name was something else. */
        tree_make_opaque(node, u->layer);
        return COVERED;
    }
    if (node->child)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "it would replace a directory that is not empty");
    return 0;
}

/* The node that an entry may fill. */
static int slot_take(struct unpack *u, struct tree_node *parent, const char *name, bool is_dir,
                     struct tree_node **ret, struct error **ret_error)
{
    struct tree_node *node = tree_find(&u->tree, parent, name, strlen(name));

    *ret = node;
    if (!node)
        *ret = tree_add(&u->tree, parent, name, strlen(name), u->layer);
    else if (node->kind == TREE_DIR)
        return slot_at_dir(u, node, is_dir, ret_error);
    else if (node->layer != u->layer)
        return COVERED;
    else if (is_dir && node->kind == TREE_WHITEOUT)
        tree_make_opaque(node, u->layer);
    return 0;
}

/* ".wh.NAME": nothing of the lower layers is to be seen at NAME. */
static int whiteout_apply(struct unpack *u, struct tree_node *parent, const char *name,
                          struct error **ret_error)
{
    struct tree_node *node;

    if (strcmp(name, WHITEOUT_OPAQUE) == 0) {
        tree_make_opaque(parent, u->layer);
        return 0;
    }
    if (str_starts(name, WHITEOUT_META))
        return 0;
    name += strlen(WHITEOUT);
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(ret_error, ERROR_INVALID, 0, "it hides nothing that can be there");
    node = tree_find(&u->tree, parent, name, strlen(name));
    if (!node)
        tree_add(&u->tree, parent, name, strlen(name), u->layer);
    else if (node->kind == TREE_DIR)
        tree_make_opaque(node, u->layer);
    return 0;
}

/* ---- attributes ----------------------------------------------------------------------------- */

static int xattrs_read(struct unpack *u, struct archive_entry *entry, struct error **ret_error)
{
    const char *name;
    const void *value;
    size_t size;

    buf_clear(&u->xattrs);
    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
        if (!name || str_starts(name, "trusted.overlay."))
            continue;
        if (sink_xattr_add(&u->xattrs, name, value, size, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int attr_read(struct unpack *u, struct archive_entry *entry, struct sink_attr *ret,
                     struct error **ret_error)
{
    *ret = (struct sink_attr){
        .mode = (uint32_t)archive_entry_mode(entry),
        .uid = (uint32_t)archive_entry_uid(entry),
        .gid = (uint32_t)archive_entry_gid(entry),
        .mtime = archive_entry_mtime(entry),
        .mtime_nsec = (uint32_t)archive_entry_mtime_nsec(entry),
        .dev_major = (uint32_t)archive_entry_rdevmajor(entry),
        .dev_minor = (uint32_t)archive_entry_rdevminor(entry),
    };
    if (xattrs_read(u, entry, ret_error) < 0)
        return -1;
    if (u->xattrs.len > 0)
        ret->xattrs = &u->xattrs;
    return 0;
}

/* ---- entries -------------------------------------------------------------------------------- */

/* Types of tar entries and what they become. A directory and a hard link have ways of their own. */
static const struct {
    mode_t mode;
    enum sink_type type;
} types[] = {
    {S_IFREG, SINK_REG}, {S_IFLNK, SINK_SYMLINK}, {S_IFCHR, SINK_CHR},
    {S_IFBLK, SINK_BLK}, {S_IFIFO, SINK_FIFO},    {S_IFSOCK, SINK_SOCK},
};

static enum sink_type type_of(mode_t mode)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (types[i].mode == (mode & S_IFMT))
            return types[i].type;
    return SINK_NONE;
}

static int archive_failed(struct archive *tar, struct error **ret_error)
{
    const char *why = archive_error_string(tar);

    return error_set(ret_error, ERROR_CORRUPT, 0, "the tar cannot be read (%s)",
                     why ? why : "it is damaged");
}

/* Whether the layer may have so many bytes more. */
static int size_admit(struct unpack *u, uint64_t size, struct error **ret_error)
{
    if (size > u->layer_max_bytes - u->layer_bytes)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "it claims %llu bytes, more than the %llu that a layer may have",
                         (unsigned long long)size, (unsigned long long)u->layer_max_bytes);
    u->layer_bytes += size;
    return 0;
}

static int file_write(struct unpack *u, struct archive *tar, struct archive_entry *entry,
                      const struct sink_attr *attr, uint64_t *ret_nid, struct error **ret_error)
{
    int64_t size = archive_entry_size(entry);
    const void *data;
    size_t count;
    int64_t offset;

    if (size < 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "its size is negative");
    if (size_admit(u, (uint64_t)size, ret_error) < 0)
        return -1;
    if (u->sink->file_begin(u->writer, attr, (uint64_t)size, ret_error) < 0)
        return -1;
    for (;;) {
        int result = archive_read_data_block(tar, &data, &count, &offset);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK || offset < 0)
            return archive_failed(tar, ret_error);
        if (count > 0 &&
            u->sink->file_data(u->writer, (uint64_t)offset, data, count, ret_error) < 0)
            return -1;
    }
    return u->sink->file_end(u->writer, ret_nid, ret_error);
}

static int node_write(struct unpack *u, struct archive_entry *entry, const struct sink_attr *attr,
                      uint64_t *ret_nid, struct error **ret_error)
{
    const char *target = NULL;

    if (S_ISLNK(attr->mode)) {
        target = archive_entry_symlink(entry);
        if (!target)
            target = archive_entry_symlink_utf8(entry);
        if (!target || !*target || strlen(target) > SINK_SYMLINK_MAX)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "its target is empty or longer than %d bytes", SINK_SYMLINK_MAX);
    }
    return u->sink->node(u->writer, attr, target, ret_nid, ret_error);
}

/* Writes anything but a directory. */
static struct tree_leaf *leaf_write(struct unpack *u, struct archive *tar,
                                    struct archive_entry *entry, struct error **ret_error)
{
    struct sink_attr attr;
    uint64_t nid;
    int result;

    if (attr_read(u, entry, &attr, ret_error) < 0)
        return NULL;
    enum sink_type type = type_of(attr.mode);
    if (type == SINK_NONE) {
        error_set(ret_error, ERROR_UNSUPPORTED, 0, "it has an unknown type");
        return NULL;
    }
    if (type == SINK_REG)
        result = file_write(u, tar, entry, &attr, &nid, ret_error);
    else
        result = node_write(u, entry, &attr, &nid, ret_error);
    if (result < 0)
        return NULL;
    return tree_leaf(&u->tree, nid, type);
}

static int dir_fill(struct unpack *u, struct tree_node *node, struct archive_entry *entry,
                    struct error **ret_error)
{
    struct sink_attr attr;

    if (attr_read(u, entry, &attr, ret_error) < 0)
        return -1;
    tree_set_dir(&u->tree, node);
    tree_set_attr(&u->tree, node, &attr);
    return 0;
}

static void link_remember(struct unpack *u, struct tree_node *node)
{
    if (u->link_count == u->link_cap) {
        u->link_cap = u->link_cap ? u->link_cap * 2 : 64;
        u->links = xrealloc(u->links, u->link_cap * sizeof(struct tree_node *));
    }
    u->links[u->link_count++] = node;
}

/* A hard link whose target was in this layer before it is the usual case. */
static int link_fill(struct unpack *u, struct tree_node *node, const char *path,
                     struct error **ret_error)
{
    CLEANUP_FREE char *target = unpack_path(path, ret_error);

    if (!target)
        return error_wrap(ret_error, "target of the hard link");
    struct tree_node *to = tree_lookup(&u->tree, target);
    if (to == node)
        return 0;
    if (to && to->kind == TREE_LEAF && to->layer == u->layer) {
        tree_set_leaf(node, to->leaf);
        return 0;
    }
    if (node->kind != TREE_LINK)
        link_remember(u, node);
    tree_set_link(&u->tree, node, target);
    return 0;
}

static const char *hardlink_of(struct archive_entry *entry)
{
    const char *target = archive_entry_hardlink(entry);

    return target ? target : archive_entry_hardlink_utf8(entry);
}

static int entry_apply(struct unpack *u, struct archive *tar, struct archive_entry *entry,
                       const char *path, struct error **ret_error)
{
    struct tree_node *parent, *node;
    const char *name, *link = hardlink_of(entry);
    bool is_dir = !link && S_ISDIR(archive_entry_mode(entry));

    if (!*path)
        return is_dir && u->tree.root->implied ? dir_fill(u, u->tree.root, entry, ret_error) : 0;
    int result = parent_enter(u, path, &parent, &name, ret_error);
    if (result != 0)
        return result;
    if (str_starts(name, WHITEOUT))
        return whiteout_apply(u, parent, name, ret_error);
    result = slot_take(u, parent, name, is_dir, &node, ret_error);
    if (result != 0)
        return result;
    if (is_dir)
        return dir_fill(u, node, entry, ret_error);
    if (link)
        return link_fill(u, node, link, ret_error);
    struct tree_leaf *leaf = leaf_write(u, tar, entry, ret_error);
    if (!leaf)
        return -1;
    tree_set_leaf(node, leaf);
    return 0;
}

/* ---- one pass over a layer ------------------------------------------------------------------ */

/* What is done with each entry; negative: it failed. */
typedef int entry_function(struct unpack *u, struct archive *tar, struct archive_entry *entry,
                           const char *path, struct error **ret_error);

struct pass {
    struct stream *stream;
    struct error *error; /* of the stream, met inside of libarchive */
};

static la_ssize_t pass_read(struct archive *tar, void *arg, const void **ret_data)
{
    struct pass *pass = arg;
    ssize_t n = stream_read(pass->stream, ret_data, &pass->error);

    return n < 0 ? ARCHIVE_FATAL : n;
}

static int entry_handle(struct unpack *u, struct archive *tar, struct archive_entry *entry,
                        entry_function *function, struct error **ret_error)
{
    const char *raw = archive_entry_pathname(entry);

    if (!raw)
        raw = archive_entry_pathname_utf8(entry);
    if (!raw)
        return error_set(ret_error, ERROR_CORRUPT, 0, "an entry has no readable name");
    if (++u->entries > DISK_ENTRIES_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "the image has more than %d files",
                         DISK_ENTRIES_MAX);
    if (u->tree.bytes > DISK_NAMES_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the names and attributes of the image's files, %llu so far, need more "
                         "than %d MiB of memory",
                         (unsigned long long)u->entries, DISK_NAMES_MAX >> 20);
    CLEANUP_FREE char *path = unpack_path(raw, ret_error);
    if (!path)
        return -1;
    CLEANUP_ERROR struct error *error = NULL;
    if (function(u, tar, entry, path, &error) < 0) {
        error_wrap(&error, "entry '%.*s'", QUOTE_MAX, path);
        return error_move(ret_error, &error);
    }
    return 0;
}

static int entries_read(struct unpack *u, struct archive *tar, entry_function *function,
                        struct error **ret_error)
{
    struct archive_entry *entry;

    for (;;) {
        int result = archive_read_next_header(tar, &entry);
        if (result == ARCHIVE_EOF)
            return 0;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return archive_failed(tar, ret_error);
        if (entry_handle(u, tar, entry, function, ret_error) < 0)
            return -1;
    }
}

static int layer_pass(struct unpack *u, const struct disk_layer *layer, entry_function *function,
                      struct error **ret_error)
{
    struct pass pass = {.stream = stream_new(layer, u->layer_max_bytes, u->watch, ret_error)};

    if (!pass.stream)
        return -1;
    struct archive *tar = archive_read_new();
    CLEANUP_ERROR struct error *error = NULL;
    u->layer_bytes = 0;
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    int result = archive_read_open(tar, &pass, NULL, pass_read, NULL) == ARCHIVE_OK
                     ? entries_read(u, tar, function, &error)
                     : archive_failed(tar, &error);
    archive_read_free(tar);
    if (result == 0)
        result = stream_check(pass.stream, &error);
    stream_free(pass.stream);
    if (pass.error) {
        /* What the stream said is the cause of what libarchive says. */
        error_free(error);
        error = take(pass.error);
    }
    return result < 0 ? error_move(ret_error, &error) : 0;
}

/* ---- hard links whose targets are covered, or in a lower layer ------------------------------ */

/* Gives links the leaves that are in the tree by now. Returns how many are left. */
static size_t links_resolve(struct unpack *u)
{
    size_t before, left = u->link_count;

    do {
        before = left;
        left = 0;
        for (size_t i = 0; i < before; i++) {
            struct tree_node *node = u->links[i];
            struct tree_node *to =
                node->kind == TREE_LINK ? tree_lookup(&u->tree, node->link) : NULL;
            if (to && to->kind == TREE_LEAF && to->layer <= node->layer)
                tree_set_leaf(node, to->leaf);
            if (node->kind == TREE_LINK)
                u->links[left++] = node;
        }
    } while (left > 0 && left < before);
    u->link_count = left;
    return left;
}

static int link_compare(const void *a, const void *b)
{
    const struct tree_node *const *x = a, *const *y = b;

    return strcmp((*x)->link, (*y)->link);
}

static int link_find(const void *key, const void *element)
{
    const struct tree_node *const *node = element;

    return strcmp(key, (*node)->link);
}

/* Second pass: an entry that was covered, but that links of this layer or a higher one want. */
static int entry_link(struct unpack *u, struct archive *tar, struct archive_entry *entry,
                      const char *path, struct error **ret_error)
{
    size_t count = u->link_count;
    struct tree_node **hit = bsearch(path, u->links, count, sizeof(*hit), link_find);
    const char *target = hardlink_of(entry);

    if (!hit || (!target && S_ISDIR(archive_entry_mode(entry))))
        return 0;
    while (hit > u->links && strcmp(hit[-1]->link, path) == 0)
        hit--;
    CLEANUP_FREE char *next = target ? unpack_path(target, ret_error) : NULL;
    struct tree_leaf *leaf = target ? NULL : leaf_write(u, tar, entry, ret_error);
    if (!next && !leaf)
        return -1;
    size_t first = (size_t)(hit - u->links), end = first;
    while (end < count && strcmp(u->links[end]->link, path) == 0) {
        struct tree_node *node = u->links[end++];
        if (leaf)
            tree_set_leaf(node, leaf);
        else
            tree_set_link(&u->tree, node, next);
    }
    /* What was given is taken out, so that the rest stays sorted; what was sent on is sorted in. */
    if (leaf) {
        memmove(u->links + first, u->links + end, (count - end) * sizeof(*hit));
        u->link_count -= end - first;
    } else {
        u->link_moved = true;
        qsort(u->links, count, sizeof(*hit), link_compare);
    }
    return 0;
}

static int links_fetch(struct unpack *u, const struct disk_layer *layer, struct error **ret_error)
{
    for (int pass = 0; pass < LINK_PASSES_MAX; pass++) {
        size_t before = links_resolve(u);
        if (before == 0)
            return 0;
        qsort(u->links, before, sizeof(*u->links), link_compare);
        u->link_moved = false;
        if (layer_pass(u, layer, entry_link, ret_error) < 0)
            return -1;
        if (!u->link_moved)
            return 0;
    }
    return 0;
}

int unpack_layer(struct unpack *u, const struct disk_layer *layer, int number,
                 struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;

    u->layer = number;
    if (layer_pass(u, layer, entry_apply, &error) < 0 || links_fetch(u, layer, &error) < 0) {
        error_wrap(&error, "layer 'sha256:%.12s'", layer->diff_id);
        return error_move(ret_error, &error);
    }
    return 0;
}

int unpack_image(struct unpack *u, const struct disk_image *image, const uint8_t uuid[16],
                 uint64_t *ret_size, struct error **ret_error)
{
    if (image->layer_count > DISK_LAYERS_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "the image has more than %d layers",
                         DISK_LAYERS_MAX);
    for (size_t i = image->layer_count; i-- > 0;)
        if (unpack_layer(u, &image->layers[i], (int)i, ret_error) < 0)
            return -1;
    return unpack_finish(u, uuid, ret_size, ret_error);
}
