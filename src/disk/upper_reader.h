/* What a container has written, read from overlayfs' upper directory on this host (a whiteout is a
 * character device 0:0, a directory that hides those below it has trusted.overlay.opaque).
 *
 * A guest made it, and may still: nothing is reached but by one name in an open directory, no link
 * is followed, and sizes, depth and number of everything are limited. Only for the files of this
 * room.
 */
#ifndef HUSK_DISK_UPPER_READER_H
#define HUSK_DISK_UPPER_READER_H

#include "base/error.h"
#include "disk/disk.h"

/* Writes the tar of a layer of what is in the directory `path`; NULL: of nothing. */
int upper_reader_diff(const char *path, const struct disk_output *out, struct error **ret_error);

#endif
