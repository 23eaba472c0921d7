/* The end of a flattened image: the directories, once every name is known. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "disk/unpack.h"

/* All directories, parents before their children. */
struct dirs {
    struct tree_node **nodes;
    size_t count, cap;
};

static void dirs_push(struct dirs *dirs, struct tree_node *node)
{
    if (dirs->count == dirs->cap) {
        dirs->cap = dirs->cap ? dirs->cap * 2 : 256;
        dirs->nodes = xrealloc(dirs->nodes, dirs->cap * sizeof(struct tree_node *));
    }
    dirs->nodes[dirs->count++] = node;
}

static int node_compare(const void *a, const void *b)
{
    const struct tree_node *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Takes the whiteouts out of a directory, and puts the rest in order. */
static void children_sort(struct tree_node *dir)
{
    CLEANUP_FREE struct tree_node **list =
        xcalloc(dir->dir->children + 1, sizeof(struct tree_node *));
    size_t count = 0;

    for (struct tree_node *node = dir->child; node; node = node->next)
        if (node->kind != TREE_WHITEOUT)
            list[count++] = node;
    qsort(list, count, sizeof(*list), node_compare);
    dir->child = NULL;
    dir->dir->children = (uint32_t)count;
    dir->dir->subdirs = 0;
    while (count > 0) {
        struct tree_node *node = list[--count];
        node->next = dir->child;
        dir->child = node;
        dir->dir->subdirs += node->kind == TREE_DIR;
    }
}

static struct sink_dirent entry_of(const struct tree_node *node)
{
    if (node->kind == TREE_DIR)
        return (struct sink_dirent){node->name, node->dir->place.nid, SINK_DIR, 0};
    return (struct sink_dirent){node->name, node->leaf->nid, (enum sink_type)node->leaf->type,
                                node->leaf->links};
}

/* The entries of a directory with "." and "..", sorted; the caller frees them. */
static struct sink_dirent *entries_of(const struct tree_node *dir, size_t *ret_count)
{
    const struct tree_node *parent = dir->parent ? dir->parent : dir;
    const struct sink_dirent dots[] = {
        {".", dir->dir->place.nid, SINK_DIR, 0},
        {"..", parent->dir->place.nid, SINK_DIR, 0},
    };
    size_t count = 0, dot = 0;
    struct sink_dirent *entries =
        xcalloc((size_t)dir->dir->children + ARRAY_SIZE(dots), sizeof(*entries));

    for (const struct tree_node *node = dir->child; node; node = node->next) {
        while (dot < ARRAY_SIZE(dots) && strcmp(dots[dot].name, node->name) < 0)
            entries[count++] = dots[dot++];
        entries[count++] = entry_of(node);
    }
    while (dot < ARRAY_SIZE(dots))
        entries[count++] = dots[dot++];
    *ret_count = count;
    return entries;
}

static int dir_plan(struct unpack *u, struct tree_node *node, struct error **ret_error)
{
    size_t count;
    CLEANUP_FREE struct sink_dirent *entries = entries_of(node, &count);
    struct tree_dir *dir = node->dir;

    return u->sink->dir_plan(u->writer, &dir->attr, node == u->tree.root, entries, count,
                             &dir->place, ret_error);
}

/* Files were written with one link each. */
static int links_write(struct unpack *u, struct tree_node *dir, struct error **ret_error)
{
    for (struct tree_node *node = dir->child; node; node = node->next) {
        struct tree_leaf *leaf = node->kind == TREE_LEAF ? node->leaf : NULL;
        if (!leaf || leaf->links == 1 || leaf->links_done)
            continue;
        leaf->links_done = true;
        if (u->sink->set_links(u->writer, leaf->nid, leaf->links, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int dir_write(struct unpack *u, struct tree_node *node, struct error **ret_error)
{
    size_t count;
    CLEANUP_FREE struct sink_dirent *entries = entries_of(node, &count);
    struct tree_dir *dir = node->dir;

    if (u->sink->dir_write(u->writer, &dir->place, &dir->attr, 2 + dir->subdirs, entries, count,
                           ret_error) < 0)
        return -1;
    return links_write(u, node, ret_error);
}

static int dirs_write(struct unpack *u, struct dirs *dirs, struct error **ret_error)
{
    dirs_push(dirs, u->tree.root);
    for (size_t i = 0; i < dirs->count; i++) {
        struct tree_node *dir = dirs->nodes[i];
        children_sort(dir);
        for (struct tree_node *node = dir->child; node; node = node->next)
            if (node->kind == TREE_DIR)
                dirs_push(dirs, node);
    }
    for (size_t i = 0; i < dirs->count; i++)
        if (dir_plan(u, dirs->nodes[i], ret_error) < 0)
            return -1;
    for (size_t i = 0; i < dirs->count; i++)
        if (dir_write(u, dirs->nodes[i], ret_error) < 0)
            return -1;
    return 0;
}

int unpack_finish(struct unpack *u, const uint8_t uuid[16], uint64_t *ret_size,
                  struct error **ret_error)
{
    struct dirs dirs = {0};

    if (u->link_count > 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "hard link '%s' points to '%.200s', which is not in the image",
                         u->links[0]->name, u->links[0]->link);
    int result = dirs_write(u, &dirs, ret_error);
    free(dirs.nodes);
    return result < 0 ? -1 : u->sink->finish(u->writer, uuid, ret_size, ret_error);
}
