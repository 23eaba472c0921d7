/* Writes the root of an image into an empty ext4 file system, by libext2fs: nothing is mounted, and
 * no name of an archive becomes a path of the host. Only for the files of this room.
 *
 * The tree becomes the directory EXT4_WRITER_TOP, so that lost+found stays out of it. It is a sink:
 * sink.h says in which order things come. Blocks of zeros are not written: they are holes.
 */
#ifndef HUSK_DISK_EXT4_WRITER_H
#define HUSK_DISK_EXT4_WRITER_H

#include <stdint.h>

#include "disk/sink.h"

#define EXT4_WRITER_TOP "root"

struct ext4_writer;

/* Opens what mke2fs made: a file or a block device. More than max_bytes of blocks are
 * ERROR_NO_SPACE, before the last of them is written; 0: as much as fits. */
struct ext4_writer *ext4_writer_new(const char *path, uint64_t max_bytes, struct error **ret_error);
/* Frees it, also in the middle; what was written is then of no use. */
void ext4_writer_free(struct ext4_writer *w);

/* Its writer is a struct ext4_writer. */
extern const struct sink_ops ext4_sink;

#endif
