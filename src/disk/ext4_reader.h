/* What a container has written, read from its layer without mounting it: an ext4 file system whose
 * directory "upper" is the upper one of an overlay (Documentation/filesystems/overlayfs.rst of
 * Linux: a whiteout is a character device 0:0, a directory that hides those below it has the
 * attribute trusted.overlay.opaque).
 *
 * All of it comes from a guest: what may be in it has limits (ext4_tree.h, walk.h). Only for the
 * files of this room.
 */
#ifndef HUSK_DISK_EXT4_READER_H
#define HUSK_DISK_EXT4_READER_H

#include "base/error.h"
#include "disk/disk.h"

/* Writes the tar of a layer. A file system without "upper" was never used: its layer is empty. */
int ext4_reader_diff(const char *path, const struct disk_output *out, struct error **ret_error);

#endif
