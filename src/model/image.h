/* An image: a root filesystem prepared once, and the config that says how to run it.
 *
 *      present → removing → gone
 *
 * Names are full ("docker.io/library/busybox:latest") and each points at one image. Containers
 * keep the image by its id: it cannot be removed before them. In `removing` it has no name and no
 * user; its files are going.
 */
#ifndef HUSK_MODEL_IMAGE_H
#define HUSK_MODEL_IMAGE_H

#include <stddef.h>
#include <uthash.h>

#include "base/error.h"
#include "model/object.h"

enum image_state { IMAGE_PRESENT, IMAGE_REMOVING, IMAGE_STATE_COUNT };

enum {
    IMAGE_ID_LEN = 71, /* "sha256:" and 64 hexadecimal digits */
    IMAGES_MAX = 16384,
    IMAGE_NAMES_MAX = 256,      /* of one image */
    IMAGE_NAME_LEN_MAX = 512,   /* of a full name */
    IMAGE_CONFIG_MAX = 1 << 20, /* bytes of a config's text */
};

/* What the image's config says about running it; OCI image spec, "config". */
struct image_config {
    char **entrypoint, **command, **env;
    char *workdir, *user, *stop_signal;
    char **labels; /* name, value, name, value … */
};

struct image_name {
    struct image *image;
    char *name; /* full */
    UT_hash_handle hh;
};

/* The pods with a first container of the image for which a VM that is made anew starts sooner than
 * a generic one of the pool. */
struct image_quick {
    uint64_t layer_mb; /* the size of the container's layer; 0: there are no such pods */
    uint64_t memory_min_mb, memory_max_mb;
    uint32_t cpus_max;
};

struct image {
    struct object object;
    char id[IMAGE_ID_LEN + 1]; /* digest of its config */
    enum image_state state;
    char *config_text; /* the config, JSON as it came */
    struct image_config config;
    char **names;        /* full, in the order they were given */
    uint64_t size_bytes; /* of the prepared root */
    int64_t created_ns;  /* as the image says */
    char **files;        /* relative to the root of the daemon */
    uint32_t users;      /* containers made from it; by world.c */

    /* the core's own, not stored */
    uint32_t effect;
    uint32_t retries;
    uint32_t timer;
    struct op *ops;
    struct image_quick quick;

    UT_hash_handle by_id;
};

const char *image_state_name(enum image_state state);
int image_state_from_name(const char *name);

/* "busybox" → "docker.io/library/busybox:latest"; a digest reference keeps its digest. Owned.
 * ERROR_INVALID if it cannot be a reference. */
int image_name_full(const char *name, char **ret, struct error **ret_error);
/* "docker.io/library/busybox:latest" → "busybox:latest"; owned. */
char *image_name_short(const char *full);

int image_config_parse(const char *text, size_t size, struct image_config *ret,
                       struct error **ret_error);
void image_config_clear(struct image_config *config);

void image_free(struct image *image);

#endif
