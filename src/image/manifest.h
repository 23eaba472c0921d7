/* The JSON documents of images: docker's archive manifest, OCI index, OCI (or docker schema 2)
 * manifest, and the config. They come from strangers: types are checked, unknown media types are
 * refused by name, every list has a limit, duplicate keys are refused. Keys that are not needed
 * are not looked at, as the specifications ask.
 *
 * Sources: OCI image specification 1.1; "Docker Image Specification v1.2" (moby/docker-image-spec).
 * Digests here are the 64 hexadecimal digits without "sha256:". Only for the files of this room.
 */
#ifndef HUSK_IMAGE_MANIFEST_H
#define HUSK_IMAGE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    MANIFEST_MAX = 4 << 20,     /* bytes of a manifest or an index */
    CONFIG_MAX = 1 << 20,       /* bytes of a config: it travels in one message */
    MANIFEST_LAYERS_MAX = 512,  /* of one image */
    MANIFEST_IMAGES_MAX = 1024, /* of one archive, and of one index */
    MANIFEST_NAMES_MAX = 1024,  /* of one image */
};

/* One image of a docker archive; paths name members of the archive. */
struct docker_image {
    char *config;
    char **layers;
    char **tags;
};

struct docker_manifest {
    struct docker_image *images;
    size_t count;
};

int docker_manifest_parse(const char *text, size_t size, struct docker_manifest *ret,
                          struct error **ret_error);
void docker_manifest_done(struct docker_manifest *manifest);

/* The platform that images must be for. */
#define IMAGE_PLATFORM "linux/amd64"

enum descriptor_kind {
    DESCRIPTOR_INDEX,
    DESCRIPTOR_MANIFEST,
    DESCRIPTOR_CONFIG,
    DESCRIPTOR_LAYER,
    DESCRIPTOR_OTHER, /* only in an index, where it is passed over, as OCI 1.1 asks */
};

enum layer_coding { LAYER_PLAIN, LAYER_GZIP, LAYER_ZSTD };

/* What one document says of another. */
struct descriptor {
    enum descriptor_kind kind;
    char *digest;
    uint64_t size;
    char *platform;           /* "linux/amd64" or "linux/arm/v7"; NULL: not said */
    char *name;               /* from the annotations, as it stands there; NULL: none */
    enum layer_coding coding; /* only for oci_manifest_write() */
};

struct oci_index {
    struct descriptor *items;
    size_t count;
};

int oci_index_parse(const char *text, size_t size, struct oci_index *ret, struct error **ret_error);
void oci_index_done(struct oci_index *index);

struct oci_manifest {
    struct descriptor config;
    struct descriptor *layers;
    size_t count;
};

int oci_manifest_parse(const char *text, size_t size, struct oci_manifest *ret,
                       struct error **ret_error);
void oci_manifest_done(struct oci_manifest *manifest);

/* The manifest of an image whose archive has none: the same image gives the same text. Owned. */
char *oci_manifest_write(const struct oci_manifest *manifest);
/* By the first bytes of a layer's file; four are enough. */
enum layer_coding layer_coding_of(const uint8_t *start, size_t size);

/* Whether a document is an index or a manifest: what it says itself, else what it was served as
 * (content_type may be NULL), else what is in it. Other media types, and docker's schema 1, are
 * ERROR_UNSUPPORTED by name. */
int document_kind(const char *text, size_t size, const char *content_type,
                  enum descriptor_kind *ret, struct error **ret_error);
/* What a manifest says that it is, or OCI's where it says nothing; owned. */
char *document_media_type(const char *text, size_t size);

/* What is needed of a config; the types of all that huskd will read of it were checked. */
struct image_config {
    char **diff_ids;
    uint64_t created_ns; /* 0: not said */
};

/* ERROR_UNSUPPORTED for any platform but linux/amd64. */
int image_config_parse(const char *text, size_t size, struct image_config *ret,
                       struct error **ret_error);
void image_config_done(struct image_config *config);

#endif
