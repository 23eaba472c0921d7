/* The digest of a tar that nobody keeps: two trees with the same one are the same. */
#ifndef HUSK_DISK_OUTPUT_DIGEST_H
#define HUSK_DISK_OUTPUT_DIGEST_H

#include <stdint.h>

#include "disk/disk.h"

enum { OUTPUT_DIGEST_SIZE = 32 }; /* SHA-256 */

/* *ret: of all that `write` writes to its output. Zeros after an error. */
int output_digest(int (*write)(void *arg, const struct disk_output *out, struct error **ret_error),
                  void *arg, uint8_t ret[OUTPUT_DIGEST_SIZE], struct error **ret_error);

#endif
