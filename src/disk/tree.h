/* The names of an image while its layers are put together, the topmost layer first.
 *
 * Going downwards, what a higher layer said about a path is final, so every file's data is read
 * and written once, and a layer's file that is covered is never written. A node is therefore
 * marked with the layer that decided it:
 *
 *      WHITEOUT    nothing is here; hides the lower layers' nodes of that name
 *      LEAF        anything but a directory; it was written and has a number in the sink
 *      LINK        a hard link whose target has not come yet
 *      DIR         a directory. It may be `implied` by a path through it: then the first layer
 *                  that has an entry for it gives the attributes, and root:root 0755 otherwise.
 *                  Layers below `opaque` add nothing to it.
 *
 * All of it is in one arena that is freed at once: a name of an image costs some 85 bytes, and
 * whoever adds to the tree is to look at tree.bytes, since names, attributes and link targets come
 * from strangers.
 *
 * Only for the files of this room.
 */
#ifndef HUSK_DISK_TREE_H
#define HUSK_DISK_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "disk/sink.h"

enum { TREE_NOT_OPAQUE = -1 };

enum tree_kind { TREE_WHITEOUT, TREE_LEAF, TREE_LINK, TREE_DIR };

/* What hard links share. */
struct tree_leaf {
    uint64_t nid;
    uint32_t links;  /* nodes that point here */
    uint8_t type;    /* enum sink_type */
    bool links_done; /* the count was written */
};

struct tree_dir {
    struct sink_attr attr; /* attr.xattrs is &xattrs or NULL */
    struct buf xattrs;     /* in the arena: not to be released */
    struct sink_dir place; /* once planned */
    uint32_t children;
    uint32_t subdirs;
};

struct tree_node {
    struct tree_node *parent;
    struct tree_node *child; /* the first */
    struct tree_node *next;  /* of the same parent */
    struct tree_node *hash_next;
    union {
        struct tree_leaf *leaf;
        struct tree_dir *dir;
        const char *link; /* path of the target */
    };
    int16_t layer;
    int16_t opaque; /* layers below this number are hidden; TREE_NOT_OPAQUE */
    uint8_t kind;   /* enum tree_kind */
    bool implied;
    char name[];
};

struct tree_chunk;

struct tree {
    struct tree_node *root;
    struct tree_node **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    size_t bytes; /* of memory that all of this takes */
    struct tree_chunk *chunks;
};

void tree_open(struct tree *tree);
void tree_done(struct tree *tree);

/* NULL if parent has no child of that name (which need not end in a NUL). */
struct tree_node *tree_find(const struct tree *tree, const struct tree_node *parent,
                            const char *name, size_t length);
/* The node of a whole path without "." and ".."; "" is the root. */
struct tree_node *tree_lookup(const struct tree *tree, const char *path);
/* A new whiteout: the caller makes of it what it should be. */
struct tree_node *tree_add(struct tree *tree, struct tree_node *parent, const char *name,
                           size_t length, int layer);

/* What a node was is forgotten. The leaf is shared, the link's path copied. */
void tree_set_whiteout(struct tree_node *node);
void tree_set_leaf(struct tree_node *node, struct tree_leaf *leaf);
void tree_set_link(struct tree *tree, struct tree_node *node, const char *target);
/* Keeps the children and the attributes of one that is a directory already. */
void tree_set_dir(struct tree *tree, struct tree_node *node);
/* Gives a directory its own attributes, with a copy of attr->xattrs. */
void tree_set_attr(struct tree *tree, struct tree_node *dir, const struct sink_attr *attr);

/* A leaf that no node has yet. */
struct tree_leaf *tree_leaf(struct tree *tree, uint64_t nid, enum sink_type type);

/* Whether a layer's entries below this directory are covered by a higher layer. */
static inline bool tree_is_opaque(const struct tree_node *dir, int layer)
{
    return layer < dir->opaque;
}

/* The layers below this one add nothing to the directory. */
void tree_make_opaque(struct tree_node *dir, int layer);

#endif
