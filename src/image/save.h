/* Images from the store into an archive: an OCI layout as a tar, and with `docker` also docker's
 * manifest.json, so that both kinds of reader understand it. Blobs go in as they are: digests stay.
 */
#ifndef HUSK_IMAGE_SAVE_H
#define HUSK_IMAGE_SAVE_H

#include <stdbool.h>

#include "base/error.h"

struct image_save {
    const char *root;
    int fd; /* where the archive goes */
    bool docker;
    /* Of each image: "image:ID", then "name:…" for each of its names that is wanted, and
     * "file:…" for each of its files, in their order. */
    const char *const *items;
};

/* Nothing is written before all files were found. */
int image_save(const struct image_save *save, struct error **ret_error);

#endif
