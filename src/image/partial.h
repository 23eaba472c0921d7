/* A blob on its way into the store: blobs/partial/HEX.
 *
 * The file holds the first bytes of the blob, and stays when a transfer breaks off, so that the
 * next one, of any process, goes on behind them; what is already there is hashed when it is
 * opened. It is locked while somebody works on it. Nothing is believed before all of it has the
 * digest of its name. Only for the files of this room.
 */
#ifndef HUSK_IMAGE_PARTIAL_H
#define HUSK_IMAGE_PARTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "base/error.h"
#include "image/place.h"

struct partial {
    char *path;
    int fd; /* -1: not open */
    char hex[DIGEST_HEX + 1];
    uint64_t size; /* that it must have in the end */
    uint64_t have; /* bytes that are there, all of them hashed */
    EVP_MD_CTX *hash;
};

/* Opens or makes the file. 1: another process works on it; 0: it is ours until it is closed. */
int partial_open(struct partial *p, const char *root, const char *hex, uint64_t size,
                 struct error **ret_error);
/* More bytes; beyond the size is ERROR_CORRUPT. */
int partial_write(struct partial *p, const void *data, size_t size, struct error **ret_error);
/* Throws away what is there. */
int partial_restart(struct partial *p, struct error **ret_error);
/* With all of its bytes there: whether it is the blob of its name. ERROR_CORRUPT if not, and the
 * file is removed. */
int partial_verify(struct partial *p, struct error **ret_error);
/* Makes a verified blob durable and gives it its place in blobs/sha256. */
int partial_place(struct partial *p, struct placing *placing, struct error **ret_error);
/* Removes the file: what is in it is not worth keeping. */
void partial_drop(struct partial *p);
/* Lets go of it. The file stays, if it is there. */
void partial_close(struct partial *p);

#endif
