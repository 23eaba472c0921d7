/* A registry's HTTP interface, as the OCI distribution specification 1.1 has it, on libcurl.
 *
 * A `struct registry` speaks for one repository of one registry: it finds out whether it is spoken
 * to with TLS, answers its challenges, gets a new token when one has expired, and follows
 * redirects, to which it takes no credentials along. Several requests may be under way at a time;
 * everything happens inside of registry_run() and registry_call(), in one thread.
 *
 * What a registry sends is limited: heads and documents in size, all of it in time without
 * progress. Certificates are always verified. Plain HTTP is spoken only to loopback and to the
 * registries that `insecure` names, and only where there is no TLS.
 */
#ifndef HUSK_IMAGE_REGISTRY_H
#define HUSK_IMAGE_REGISTRY_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "image/auth.h"

enum {
    REGISTRY_HEAD_MAX = 64 << 10,  /* bytes of an answer's head */
    REGISTRY_ERROR_MAX = 16 << 10, /* bytes of what is read of a refusal */
    REGISTRY_REDIRECTS_MAX = 5,    /* of one request */
    REGISTRY_SPEED_MIN = 256,      /* bytes a second: less is no progress */
    REGISTRY_URL_MAX = 8 << 10,    /* bytes of where a registry sends us to */
};

struct registry;

/* What the administrator has set; all the caller's. */
struct registry_settings {
    const char *certs;           /* directory with HOST/ca.crt, client.cert and client.key */
    const char *const *insecure; /* registries, as in references */
    const char *const *mirrors;  /* REGISTRY=MIRROR */
    uint32_t stall_ms;           /* time without progress */
};

/* `host` as references have it; `actions`: "pull" or "pull,push". Everything outlives it. */
struct registry *registry_new(const struct registry_settings *settings, const char *host,
                              const char *repository, const char *actions,
                              const struct credentials *credentials, struct error **ret_error);
/* With TLS, or without, whatever it can. ERROR_DENIED: it may not be without. */
int registry_insist(struct registry *r, bool tls, struct error **ret_error);
void registry_free(struct registry *r);
void registry_freep(struct registry **r);

/* An answer, with what is needed of its head. */
struct response {
    long status;
    char *content_type, *digest, *location; /* each may be NULL */
    uint64_t range_start;                   /* of a 206 */
    bool has_range;                         /* it says "Range: 0-N", as uploads do: … */
    uint64_t range_size;                    /* … so many bytes have come; 0 with "0-0" */
    uint64_t chunk_min;                     /* OCI-Chunk-Min-Length; 0: none */
    struct buf body;                        /* of a good answer, unless `data` took it */
    bool transient;                         /* the same request may succeed later */
};
void response_done(struct response *response);

struct registry_request {
    const char *method;
    const char *path;   /* behind /v2/REPOSITORY/, or what a Location said; copied */
    const char *accept; /* NULL: anything */
    const char *type;   /* of the body */
    const char *body;   /* must outlive the request */
    uint64_t size;      /* of the body */
    int fd;             /* with body NULL and a size: it comes from this file, … */
    uint64_t offset;    /* … from here on */
    bool chunk;         /* it is a piece of an upload, and says which */
    uint64_t from;      /* not 0: only what is behind so many bytes */
    uint64_t body_max;  /* of a good answer that is collected */
    /* How much of the body has gone out; NULL: nobody wants to know. Negative ends the request. */
    int (*sent)(void *sent_arg, uint64_t bytes, struct error **ret_error);
    void *sent_arg;
    /* Takes pieces of a good answer; NULL: it is collected. Negative ends the request. */
    int (*data)(void *arg, const struct response *response, const void *data, size_t size,
                struct error **ret_error);
    /* The end; `error` (taken over) NULL: a status below 300. */
    void (*done)(void *arg, struct response *response, struct error *error);
    void *arg;
};

/* Begins a request. */
void registry_send(struct registry *r, const struct registry_request *request);
/* Does what can be done; waits until something happens, or one of the others is ready. */
int registry_run(struct registry *r, struct pollfd *others, unsigned count, int timeout_ms,
                 struct error **ret_error);
/* One request to its end; `ret` must be done with also after an error. `arg` and the functions of
 * the request are not used. */
int registry_call(struct registry *r, const struct registry_request *request, struct response *ret,
                  struct error **ret_error);
/* Ends all requests that are under way, without calling them. */
void registry_abort(struct registry *r);

/* Whether a host name, with or without a port, is of this machine. */
bool registry_is_loopback(const char *host);

#endif
