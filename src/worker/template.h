/* A template's files: a directory of them, which appears whole or not at all.
 *
 *     template.json   what it depends on, and what the others must be
 *     state           the devices, as QEMU wrote them
 *     ram             the guest's memory; pages of zeroes are holes
 *     layer           if an image is in it: the writable layer that the guest has mounted
 *
 * They may have been cut short or changed by anybody since they were written: all of it is checked
 * before it is used.
 */
#ifndef HUSK_WORKER_TEMPLATE_H
#define HUSK_WORKER_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    TEMPLATE_FORMAT = 1,
    TEMPLATE_META_MAX = 64 << 10,   /* bytes of a template.json */
    TEMPLATE_STATE_MAX = 256 << 20, /* bytes of a state */
    TEMPLATE_HEX = 64,              /* digits of a SHA-256 */
};

/* What template.json says. */
struct template_meta {
    char **inputs; /* "name=value", in the order in which they were given */
    uint64_t state_bytes, ram_bytes;
    uint64_t layer_bytes; /* 0: there is none */
    char state_sha256[TEMPLATE_HEX + 1];
    char ram_sha256[TEMPLATE_HEX + 1];   /* of each page that is not zero: its number, its bytes */
    char layer_sha256[TEMPLATE_HEX + 1]; /* same */
};

/* Reads the text of a template.json, of any origin; ERROR_CORRUPT if it is none. */
int template_meta_parse(const char *text, size_t size, struct template_meta *ret,
                        struct error **ret_error);
/* The text, owned by the caller. */
char *template_meta_write(const struct template_meta *meta);
void template_meta_done(struct template_meta *meta);

struct template_save {
    int memory;       /* its file */
    const char *dir;  /* absolute, where the state is */
    const char *path; /* the name that it gets, on the same file system */
    const char *const *inputs;
    const char *layer; /* absolute; "": there is none */
};

/* Writes the memory, a copy of the layer and template.json into `dir`, syncs all of it, and gives
 * the directory its name; what had that name is removed. The copy has a mark in its first bytes
 * (LAYER_MARK_SIZE), which no other layer has: so whoever has a copy of it can tell, as long as
 * nobody wipes it. *ret_bytes is what the files hold. */
int template_save(const struct template_save *save, uint64_t *ret_bytes, struct error **ret_error);

/* Fills the file `memory`, whose size is that of the guest's memory and which holds zeroes, from
 * the template in `path`. ERROR_CORRUPT if anything of it is not as it was saved, or if it was made
 * of other inputs. */
int template_load(int memory, const char *path, const char *const *inputs, uint64_t *ret_bytes,
                  struct error **ret_error);

#endif
