/* The files of an image archive, taken off a stream that cannot be rewound.
 *
 * A tar, plain or compressed with gzip, zstd, xz or bzip2, is read once: each regular file goes
 * into the scratch directory under a number, and is hashed on the way. Blobs that the store has
 * already are hashed but not written. Only for the files of this room.
 */
#ifndef HUSK_IMAGE_SPOOL_H
#define HUSK_IMAGE_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/load.h"

enum {
    SPOOL_MEMBERS_MAX = 8192, /* files of an archive */
    SPOOL_NAME_MAX = 1024,    /* bytes of a file's name */
    SPOOL_LINKS_MAX = 8,      /* links to links to a file */
};

struct member {
    char *name;   /* without "./" */
    char *target; /* of a link: the other member's name; NULL for a file */
    char *path;   /* where its bytes are */
    uint64_t size;
    char hex[65]; /* sha256 of its bytes */
};

struct spool {
    struct member *members; /* sorted by name once read */
    size_t count;
};

int spool_read(struct spool *spool, const struct image_load *load, struct error **ret_error);
void spool_done(struct spool *spool);

/* The file of that name, links followed; NULL if there is none. */
struct member *spool_find(const struct spool *spool, const char *name);
/* The blob of that digest (64 hexadecimal digits), in an OCI layout. */
struct member *spool_blob(const struct spool *spool, const char *hex);
/* A small file as a text; the caller frees it. */
char *member_text(const struct member *member, size_t max, struct error **ret_error);

#endif
