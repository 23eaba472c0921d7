/* Writable layers: sparse ext4 files. Only for the files of this room.
 *
 * mke2fs makes one empty filesystem a size, in root/cache; a layer is a copy of the few hundred
 * kilobytes of it that are data. It has a journal of 4 MiB: a guest may be killed at any moment
 * and its layer must mount again. The tables of inodes count as zeroed, which in a new sparse
 * file they are, so that the guest's kernel never fills them in.
 */
#ifndef HUSK_DISK_EXT4_H
#define HUSK_DISK_EXT4_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/disk.h"

/* A new filesystem in the file or block device `path`, whose bytes are all zero; with `grows`, it
 * has what ext4_grow() needs to be quick. */
int ext4_format(const char *path, bool grows, struct error **ret_error);

/* Makes the filesystem, which nobody has mounted, as large as the device that it is on. */
int ext4_grow(const char *path, struct error **ret_error);

/* As layer_make and layer_spares of disk.h. */
int ext4_make(const char *root, const struct disk_layer_spec *layer, struct error **ret_error);
int ext4_spares(const char *root, uint64_t size_bytes, uint32_t count, const char *const *likes,
                struct error **ret_error);

/* A copy of a layer that nobody writes to, as the new file `copy`. Both are absolute or relative to
 * root. */
int ext4_copy(const char *root, const char *path, const char *copy, struct error **ret_error);

/* Writes what the copy's journal holds to its place, and makes of it a file system that
 * ext4_tree.h can read. *ret_was_clean: nothing was to be done. */
int ext4_repair(const char *path, bool *ret_was_clean, struct error **ret_error);

#endif
