/* What a user asks for: the podfile. spec.def has one row a field; JSON in and out, the
 * refusals and podfile(5) come from it.
 *
 * Keys are matched without regard to case, as HyperContainer's decoder does. A key that does not
 * exist is refused by its path (`containers[0].imgae`); one that HyperContainer knows and husk does
 * not act on yet is refused unless it is empty. Syntax errors have line and column.
 */
#ifndef HUSK_MODEL_SPEC_H
#define HUSK_MODEL_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum {
    NAME_LEN_MAX = 63,        /* of pods and containers: also a hostname's label */
    SPEC_TEXT_MAX = 1 << 20,  /* bytes of a podfile */
    SPEC_CONTAINERS_MAX = 64, /* in a podfile, and in a pod */
    SPEC_ARGS_MAX = 4096,     /* strings in command, entrypoint, envs */
    SPEC_MEMORY_MIN_MB = 64,  /* less does not boot the guest */
    SPEC_MEMORY_DEFAULT_MB = 128,
    SPEC_VCPU_MAX = 255,
    SPEC_STORAGE_DEFAULT_MB = 10240,
    SPEC_STORAGE_MIN_MB = 16, /* of a writable layer: ext4 needs as much */
    CTR_ID_LEN = 64,          /* hexadecimal digits */
};

enum restart { RESTART_UNSET, RESTART_NEVER, RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_COUNT };

/* "", "never", "onFailure", "always" */
const char *restart_name(enum restart restart);
int restart_from_name(const char *name);

enum tristate { UNSET, NO, YES };

/* A span of time, of which 0 is one too. */
struct seconds {
    bool given;
    uint32_t count;
};

struct ctr_spec {
#define SPEC_POD(kind, type, key, member, min, max, doc)
#define SPEC_CTR(kind, type, key, member, min, max, doc) type member;
#include "model/spec.def"
};

struct pod_spec {
#define SPEC_POD(kind, type, key, member, min, max, doc) type member;
#define SPEC_CTR(kind, type, key, member, min, max, doc)
#include "model/spec.def"
    struct ctr_spec *containers; /* owned array, in the order of the file */
    size_t container_count;
};

/* What this host and its settings allow. Zeroes: no such limit. */
struct spec_limits {
    uint64_t memory_max_mb;      /* of the host */
    uint64_t memory_min_mb;      /* 0: SPEC_MEMORY_MIN_MB */
    uint64_t memory_default_mb;  /* 0: SPEC_MEMORY_DEFAULT_MB */
    uint32_t vcpu_max;           /* 0: SPEC_VCPU_MAX */
    uint64_t storage_default_mb; /* size of a writable layer; 0: SPEC_STORAGE_DEFAULT_MB */
    bool unsized_storage;        /* a writable layer for which none is asked has no size */
};

/* The podfile `text` (of `size` bytes, no NUL needed), checked and with defaults. Names and ids
 * that are not given stay empty: the core chooses them. */
int pod_spec_parse(const char *text, size_t size, const struct spec_limits *limits,
                   struct pod_spec **ret, struct error **ret_error);
/* One container, as in a podfile's list: the body of /container/create. */
int ctr_spec_parse(const char *text, size_t size, struct ctr_spec **ret, struct error **ret_error);

/* Canonical JSON on one line: declared order of keys, what is empty is left out. The pod's own
 * fields and, if `with_containers`, its list. */
void pod_spec_write(const struct pod_spec *spec, bool with_containers, struct buf *out);
void ctr_spec_write(const struct ctr_spec *spec, struct buf *out);

void pod_spec_clear(struct pod_spec *spec);
void pod_spec_free(struct pod_spec *spec);
void pod_spec_freep(struct pod_spec **spec);
void ctr_spec_clear(struct ctr_spec *spec);
void ctr_spec_free(struct ctr_spec *spec);
void ctr_spec_freep(struct ctr_spec **spec);
#define CLEANUP_POD_SPEC __attribute__((cleanup(pod_spec_freep)))
#define CLEANUP_CTR_SPEC __attribute__((cleanup(ctr_spec_freep)))

/* [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most NAME_LEN_MAX. `what` ("pod name") begins the refusal. */
int name_check(const char *what, const char *name, struct error **ret_error);

/* Whether the pod may have a container with that policy. */
int pod_restart_check(const struct pod_spec *spec, enum restart restart, struct error **ret_error);

/* "TERM", "SIGTERM", "15" → 15; 0 if it is none. Numbers are Linux's on x86. */
unsigned signal_from_name(const char *name);
/* "SIGTERM"; NULL if it has no name. */
const char *signal_name(unsigned number);

/* One row of spec.def, for documentation. */
struct spec_row {
    const char *object; /* "pod" or "container" */
    const char *key;
    const char *type; /* "string", "number", "list of strings" … */
    int64_t min, max;
    const char *doc;
};
size_t spec_rows(const struct spec_row **ret);

#endif
