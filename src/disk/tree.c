#include "disk/tree.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"

enum {
    BUCKETS_FIRST = 1024,
    BUCKET_LOAD = 2, /* nodes a bucket, when there are to be more buckets */
    DIR_MODE_IMPLIED = 0755,
    CHUNK_SIZE = 256 << 10,
};

/* ---- memory --------------------------------------------------------------------------------- */

struct tree_chunk {
    struct tree_chunk *next;
    size_t used, size;
    uint8_t data[];
};

/* Zeros, until the tree is done with; aligned for every struct of this room. */
static void *arena_take(struct tree *tree, size_t size)
{
    size_t whole = (size + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
    struct tree_chunk *chunk = tree->chunks;

    if (!chunk || chunk->size - chunk->used < whole) {
        size_t room = whole > CHUNK_SIZE ? whole : CHUNK_SIZE;
        chunk = xcalloc(1, sizeof(*chunk) + room);
        chunk->size = room;
        chunk->next = tree->chunks;
        tree->chunks = chunk;
        tree->bytes += sizeof(*chunk) + room;
    }
    void *taken = chunk->data + chunk->used;
    chunk->used += whole;
    return taken;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* FNV-1a over the name, begun with the parent's address. Hostile names can only make it slow, and
 * the number of entries has a limit. */
static size_t hash_of(const struct tree_node *parent, const char *name, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325ULL ^ ((uintptr_t)parent >> 4);

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)name[i]) * 0x100000001b3ULL;
    return (size_t)(hash ^ hash >> 32);
}

static void buckets_grow(struct tree *tree)
{
    size_t count = tree->bucket_count * 2;
    struct tree_node **buckets = xcalloc(count, sizeof(struct tree_node *));

    for (size_t i = 0; i < tree->bucket_count; i++) {
        struct tree_node *node = tree->buckets[i];
        while (node) {
            struct tree_node *next = node->hash_next;
            size_t at = hash_of(node->parent, node->name, strlen(node->name)) & (count - 1);
            node->hash_next = buckets[at];
            buckets[at] = node;
            node = next;
        }
    }
    free(tree->buckets);
    tree->bytes += (count - tree->bucket_count) * sizeof(struct tree_node *);
    tree->buckets = buckets;
    tree->bucket_count = count;
}

struct tree_node *tree_find(const struct tree *tree, const struct tree_node *parent,
                            const char *name, size_t length)
{
    struct tree_node *node =
        tree->buckets[hash_of(parent, name, length) & (tree->bucket_count - 1)];

    while (node && (node->parent != parent || strncmp(node->name, name, length) != 0 ||
                    node->name[length] != '\0'))
        node = node->hash_next;
    return node;
}

struct tree_node *tree_lookup(const struct tree *tree, const char *path)
{
    struct tree_node *node = tree->root;

    while (node && *path) {
        size_t length = strcspn(path, "/");
        node = node->kind == TREE_DIR ? tree_find(tree, node, path, length) : NULL;
        path += length;
        path += *path == '/';
    }
    return node;
}

struct tree_node *tree_add(struct tree *tree, struct tree_node *parent, const char *name,
                           size_t length, int layer)
{
    struct tree_node *node = arena_take(tree, offsetof(struct tree_node, name) + length + 1);

    memcpy(node->name, name, length);
    node->kind = TREE_WHITEOUT;
    node->layer = (int16_t)layer;
    node->opaque = TREE_NOT_OPAQUE;
    node->parent = parent;
    if (parent) {
        node->next = parent->child;
        parent->child = node;
        parent->dir->children++;
    }
    if (tree->count >= tree->bucket_count * BUCKET_LOAD)
        buckets_grow(tree);
    size_t at = hash_of(parent, name, length) & (tree->bucket_count - 1);
    node->hash_next = tree->buckets[at];
    tree->buckets[at] = node;
    tree->count++;
    return node;
}

/* ---- what a node is ------------------------------------------------------------------------- */

static void content_forget(struct tree_node *node)
{
    if (node->kind == TREE_LEAF)
        node->leaf->links--;
    node->leaf = NULL;
    node->kind = TREE_WHITEOUT;
}

void tree_set_whiteout(struct tree_node *node)
{
    assert(!node->child);
    content_forget(node);
}

struct tree_leaf *tree_leaf(struct tree *tree, uint64_t nid, enum sink_type type)
{
    struct tree_leaf *leaf = arena_take(tree, sizeof(*leaf));

    leaf->nid = nid;
    leaf->type = (uint8_t)type;
    return leaf;
}

void tree_set_leaf(struct tree_node *node, struct tree_leaf *leaf)
{
    assert(!node->child);
    content_forget(node);
    leaf->links++;
    node->kind = TREE_LEAF;
    node->leaf = leaf;
}

void tree_set_link(struct tree *tree, struct tree_node *node, const char *target)
{
    size_t size = strlen(target) + 1;

    assert(!node->child);
    content_forget(node);
    node->kind = TREE_LINK;
    node->link = memcpy(arena_take(tree, size), target, size);
}

void tree_set_dir(struct tree *tree, struct tree_node *node)
{
    if (node->kind == TREE_DIR)
        return;
    content_forget(node);
    node->kind = TREE_DIR;
    node->dir = arena_take(tree, sizeof(*node->dir));
    node->dir->attr.mode = S_IFDIR | DIR_MODE_IMPLIED;
    node->implied = true;
}

void tree_set_attr(struct tree *tree, struct tree_node *dir, const struct sink_attr *attr)
{
    size_t size = attr->xattrs ? attr->xattrs->len : 0;
    uint8_t *copy = size ? memcpy(arena_take(tree, size), attr->xattrs->data, size) : NULL;

    dir->implied = false;
    dir->dir->attr = *attr;
    dir->dir->xattrs = (struct buf){.data = copy, .len = size};
    dir->dir->attr.xattrs = size ? &dir->dir->xattrs : NULL;
}

void tree_make_opaque(struct tree_node *dir, int layer)
{
    if (dir->opaque < layer)
        dir->opaque = (int16_t)layer;
}

void tree_open(struct tree *tree)
{
    *tree = (struct tree){.bucket_count = BUCKETS_FIRST};
    tree->buckets = xcalloc(BUCKETS_FIRST, sizeof(struct tree_node *));
    tree->bytes = BUCKETS_FIRST * sizeof(struct tree_node *);
    tree->root = tree_add(tree, NULL, "", 0, INT16_MAX);
    tree_set_dir(tree, tree->root);
}

void tree_done(struct tree *tree)
{
    while (tree->chunks) {
        struct tree_chunk *next = tree->chunks->next;
        free(tree->chunks);
        tree->chunks = next;
    }
    free(tree->buckets);
    *tree = (struct tree){0};
}
