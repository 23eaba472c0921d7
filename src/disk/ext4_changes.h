/* What a container has changed, by two ext4 file systems of which one began as a copy of the other:
 * that of its image (ext4_writer.h), and that which a guest has written since. Neither is mounted.
 *
 * An inode that has its number, generation, time of change, type and size at the same path in both
 * is the same file; anything else goes into the layer. What a guest claims there harms only the
 * image that is made of it. Both have limits all the same (ext4_tree.h, walk.h). Only for the files
 * of this room.
 */
#ifndef HUSK_DISK_EXT4_CHANGES_H
#define HUSK_DISK_EXT4_CHANGES_H

#include <stdbool.h>

#include "base/error.h"
#include "disk/disk.h"

struct ext4_changes_spec {
    const char *before, *now; /* files or devices; both are clean */
    /* Files are the same only if their bytes are: a time of change that was not synced is lost
     * with its VM, while data that was is not. */
    bool careful;
};

/* Writes the tar of a layer. If the one did not begin as a copy of the other, all is in it. */
int ext4_changes(const struct ext4_changes_spec *spec, const struct disk_output *out,
                 struct error **ret_error);

#endif
