/* Inside of the spec: how each kind of field is read, written, and let go. */
#ifndef HUSK_MODEL_SPEC_INT_H
#define HUSK_MODEL_SPEC_INT_H

#include <jansson.h>

#include "model/spec.h"

struct spec_kind;

struct spec_field {
    const char *key; /* "group.key" for one in an object of its own */
    const struct spec_kind *kind;
    size_t offset; /* of the member in its struct */
    int64_t min, max;
    const char *doc;
};

struct spec_kind {
    const char *type; /* in documentation and refusals: "string" */
    /* `path` is for refusals: "containers[0].image". */
    int (*read)(const json_t *value, const struct spec_field *field, const char *path, void *member,
                struct error **ret_error);
    bool (*is_empty)(const void *member);
    void (*write)(const void *member, struct buf *out);
    void (*clear)(void *member);
};

enum spec_kind_index {
    SPEC_KIND_STRING,
    SPEC_KIND_NUMBER,
    SPEC_KIND_SECONDS,
    SPEC_KIND_BOOL,
    SPEC_KIND_LIST,
    SPEC_KIND_MAP,
    SPEC_KIND_ENVS,
    SPEC_KIND_RESTART,
    SPEC_KIND_SIGNAL,
    SPEC_KIND_COUNT
};

extern const struct spec_kind spec_kinds[SPEC_KIND_COUNT];

/* "expected a string, found a number" */
int spec_wrong_type(const char *path, const char *expected, const json_t *found,
                    struct error **ret_error);

/* What the fields' values must be beyond their types. */
int pod_spec_check(const struct pod_spec *spec, const struct spec_limits *limits,
                   struct error **ret_error);
int ctr_spec_check(const struct ctr_spec *spec, const char *path, struct error **ret_error);

#endif
