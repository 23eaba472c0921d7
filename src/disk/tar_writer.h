/* The tar of a layer, entry by entry: POSIX ustar, with extended headers (pax) for what that has no
 * room for. The same entries give the same bytes. Holes are zeros: the OCI image specification asks
 * for that ("Sparse Files"). Whiteouts are its markers ".wh.NAME" and ".wh..wh..opq".
 *
 * Only for the files of this room.
 */
#ifndef HUSK_DISK_TAR_WRITER_H
#define HUSK_DISK_TAR_WRITER_H

#include <stdint.h>

#include "base/buf.h"
#include "disk/disk.h"
#include "disk/sink.h"

struct tar_writer {
    const struct disk_output *out;
    uint64_t written;
    uint64_t left;    /* bytes of the entry's data that are still to come */
    uint64_t entries; /* without the markers' own */
    struct buf pax;   /* the records of an entry's extended header */
};

void tar_writer_open(struct tar_writer *tar, const struct disk_output *out);
void tar_writer_done(struct tar_writer *tar);

/* An entry of the attr's type. `target` is that of a symbolic link; of a file, `size` bytes of data
 * follow. The path is relative to the root; "" is the root itself. */
int tar_writer_add(struct tar_writer *tar, const char *path, const struct sink_attr *attr,
                   const char *target, uint64_t size, struct error **ret_error);
/* One more name of a file that was added as `target`. */
int tar_writer_link(struct tar_writer *tar, const char *path, const struct sink_attr *attr,
                    const char *target, struct error **ret_error);
/* The next bytes of the last file's data; NULL: zeros. */
int tar_writer_data(struct tar_writer *tar, const void *data, uint64_t size,
                    struct error **ret_error);
/* Nothing of the layers below is to be seen at that path. */
int tar_writer_whiteout(struct tar_writer *tar, const char *path, struct error **ret_error);
/* Nothing of the layers below is to be seen in that directory. */
int tar_writer_opaque(struct tar_writer *tar, const char *path, struct error **ret_error);
/* What ends an archive. */
int tar_writer_end(struct tar_writer *tar, struct error **ret_error);

#endif
