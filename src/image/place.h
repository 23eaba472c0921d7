/* Places in the daemon's root: blobs by digest, and prepared roots.
 *
 *      blobs/sha256/HEX    of an image, checked, never written again
 *      blobs/partial/HEX   on its way in; goes to blobs/sha256 by a rename once its image is whole
 *
 * A `struct placing` notes what it put into its place, so that all of it can be taken back while
 * nobody has been told of it. Only for the files of this room.
 */
#ifndef HUSK_IMAGE_PLACE_H
#define HUSK_IMAGE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DIGEST_HEX = 64, SHA256_SIZE = 32 };

struct placing {
    const char *root; /* the caller's */
    char **placed;
};

/* "blobs/sha256/HEX"; owned. */
char *blob_file(const char *hex);
/* Whether the store has that blob with that size. */
bool blob_is_there(const char *root, const char *hex, uint64_t size);

/* Makes the directories of blobs and images. */
int place_dirs(const char *root, struct error **ret_error);
/* Gives a file its place below root, durably but for its name. The source stays; what is in the
 * place already stays too, being the same. */
int place_file(struct placing *p, const char *from, const char *file, struct error **ret_error);
/* The same for a text. `scratch` is a directory for the file in between. */
int place_text(struct placing *p, const char *scratch, const char *text, size_t size,
               const char *file, struct error **ret_error);
/* Makes the names durable. */
int place_sync(const struct placing *p, struct error **ret_error);
/* Takes back what was placed. */
void place_undo(struct placing *p);
void place_done(struct placing *p);

/* The hexadecimal sha256 of some bytes. */
void sha256_text(const void *data, size_t size, char ret_hex[DIGEST_HEX + 1]);

#endif
