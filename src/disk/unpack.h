/* Layers into a tree and a sink, the topmost first (tree.h says why).
 *
 * A layer is read as tar reads it, with the OCI image specification's whiteouts: an entry
 * ".wh.NAME" hides NAME of the lower layers, ".wh..wh..opq" hides everything of the lower layers
 * in its directory. The last of several entries of one name counts. Leading "/" and "./" mean
 * nothing. Refused, with a sentence that names the entry: "..", paths and targets that are too
 * long or too deep, entries below something of the same layer that is not a directory, hard links
 * to what is not there. An entry below what is only in a *lower* layer a link or a file makes it a
 * directory, as overlayfs does. Attributes of kinds that sinks do not keep are left out, and so
 * is trusted.overlay.*, which would be taken as orders by the guest's overlayfs.
 *
 * Only for the files of this room.
 */
#ifndef HUSK_DISK_UNPACK_H
#define HUSK_DISK_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/disk.h"
#include "disk/sink.h"
#include "disk/tree.h"

struct unpack_link;

struct unpack {
    struct tree tree;
    const struct sink_ops *sink;
    void *writer;
    const struct disk_watch *watch; /* NULL: nobody wants to know */
    uint64_t layer_max_bytes;
    size_t entries;           /* seen in all layers */
    struct tree_node **links; /* hard links whose targets have not come yet */
    size_t link_count, link_cap;
    bool link_moved; /* a pass found that a target is a hard link itself */
    /* Of the layer at work. */
    int layer;
    uint64_t layer_bytes; /* of its files */
    struct buf xattrs;    /* of the entry at work */
};

/* The writer stays the caller's. */
void unpack_open(struct unpack *u, const struct sink_ops *sink, void *writer,
                 uint64_t layer_max_bytes, const struct disk_watch *watch);
void unpack_done(struct unpack *u);

/* Numbers must come in falling order. */
int unpack_layer(struct unpack *u, const struct disk_layer *layer, int number,
                 struct error **ret_error);

/* After the lowest layer: the directories, and the sink's end. */
int unpack_finish(struct unpack *u, const uint8_t uuid[16], uint64_t *ret_size,
                  struct error **ret_error);

/* Both for all layers of an image. */
int unpack_image(struct unpack *u, const struct disk_image *image, const uint8_t uuid[16],
                 uint64_t *ret_size, struct error **ret_error);

/* A path of an archive without "/" in front, "." and doubled slashes; NULL and *ret_error if it
 * must be refused. "" is the root. The caller frees it. */
char *unpack_path(const char *path, struct error **ret_error);

#endif
