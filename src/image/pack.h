/* A layer on its way into the store: a tar comes in pieces, is compressed with gzip, and has both
 * of its digests when it ends. The same tar gives the same bytes. Only for the files of this room
 * and for workers.
 */
#ifndef HUSK_IMAGE_PACK_H
#define HUSK_IMAGE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct layer_pack;

/* A layer as it came out of it. */
struct layer_packed {
    char digest[65];  /* of the compressed file, hexadecimal */
    char diff_id[65]; /* of the tar */
    uint64_t size;    /* of the compressed file */
};

/* `path`: a new file. */
struct layer_pack *layer_pack_new(const char *path, struct error **ret_error);
int layer_pack_write(struct layer_pack *pack, const void *data, size_t size,
                     struct error **ret_error);
int layer_pack_end(struct layer_pack *pack, struct layer_packed *ret, struct error **ret_error);
void layer_pack_free(struct layer_pack *pack);

#endif
