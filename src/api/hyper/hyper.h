/* The inside of the HyperContainer dialect: shared by the files of this directory only. */
#ifndef HUSK_API_HYPER_HYPER_H
#define HUSK_API_HYPER_HYPER_H

#include <jansson.h>

#include "api/api.h"
#include "api/http.h"
#include "api/jsonout.h"
#include "api/times.h"
#include "base/str.h"

enum verb {
#define VERB(upper, name, short_name, arguments, object, right, help) VERB_##upper,
#include "core/verbs.def"
#undef VERB
    VERB_COUNT
};

struct process_session;
struct template_build;
struct transfer;
struct call;

struct api {
    struct loop *loop;
    struct world *world;
    struct core *core;
    struct store *store;
    struct exec *exec;
    struct ops *ops;
    struct http *http;
    struct api_config config;
    uint64_t calls[VERB_COUNT]; /* how often each verb was asked for */

    struct call *followers; /* of logs and events: woken when something is new */
    unsigned follower_count;
    uint64_t revision; /* that followers of events were told of */
    struct log_watch *log_watch;
    struct process_session *sessions;
    struct template_build *builds; /* requests that wait for a template */
    struct transfer *transfers;    /* pulls and pushes that are under way */
};

/* A request that is being answered. */
struct call {
    struct call *prev, *next; /* in api->followers */
    struct api *api;
    struct http_request *r;
    const struct route *route;
    struct pod *pod; /* found, valid until the handler returns */
    struct container *ctr;
    struct vm *vm;
    struct image *image;

    uint64_t op;                        /* asked of the core; 0: nothing */
    char id[NAME_LEN_MAX + CTR_ID_LEN]; /* of the object, for the answer */
    bool follows;                       /* in api->followers */
    void *data;                         /* the handler's own … */
    void (*data_free)(void *data);      /* … and its end */
};

/* ---- hyper.c -------------------------------------------------------------------------------- */

/* Called with what the query says; fills the request. */
typedef int prepare_fn(struct call *call, struct request *request, struct error **ret_error);
/* The distributions of the steps of starts, for /info. */
json_t *timing_info(const struct api *api);

typedef void look_fn(struct call *call);

const char *call_query(const struct call *call, const char *name); /* NULL if not there or "" */
bool call_flag(const struct call *call, const char *name);         /* "true", "yes", "1" */
/* The client is an unmodified hyperctl, which forwards its input always and has no word for it. */
bool call_is_hyperctl(const struct call *call);
/* The query's number, or `otherwise` if there is none. */
int call_number(const struct call *call, const char *name, uint64_t max, uint64_t otherwise,
                uint64_t *ret, struct error **ret_error);
int call_signal(const struct call *call, unsigned *ret, struct error **ret_error);
/* A query that is a JSON array of strings; owned. */
int call_strings(const struct call *call, const char *name, char ***ret, struct error **ret_error);

/* Answers with JSON; takes the reference. */
void call_json(struct call *call, unsigned status, json_t *json);
/* The same with text, whose end is put here; the buffer is released. */
void call_json_text(struct call *call, unsigned status, struct buf *json);
/* Answers with the error, and frees it. */
void call_fail(struct call *call, struct error *error);
/* Asks the core; `done` is called unless the client leaves before. */
void call_ask(struct call *call, struct request *request,
              void (*done)(const struct reply *reply, void *call));
/* The request is woken when something is new. */
int call_follow(struct call *call, struct error **ret_error);

/* ---- asks.c: questions to the core; look.c and others: answers of our own ------------------- */

#define ASK(method, path, verb, object, query, status, answer, prepare) prepare_fn prepare;
#define LOOK(method, path, verb, object, query, look)                   look_fn look;
#include "api/hyper/routes.def"
#undef ASK
#undef LOOK

/* ---- order.c -------------------------------------------------------------------------------- */

/* All pods, VMs or images, the oldest first; NULL at the end. The array is the caller's. */
const void **objects_by_age(const struct world *world, enum noun noun);

/* ---- show.c: objects as JSON ---------------------------------------------------------------- */

/* Each writes the fields of an object that is open. */
void show_pod(const struct api *api, const struct pod *pod, struct buf *out);
void show_ctr(const struct api *api, const struct container *ctr, struct buf *out);
void show_vm(const struct api *api, const struct vm *vm, struct buf *out);
void show_image(const struct api *api, const struct image *image, struct buf *out);
/* Of a VM that runs: what it takes of the host (stats.c). */
void show_usage(const struct api *api, const struct vm *vm, struct buf *out);
void show_time(struct buf *out, const char *key, int64_t ns);
/* All that is known. */
void inspect_pod(const struct api *api, const struct pod *pod, struct buf *out);
void inspect_ctr(const struct api *api, const struct container *ctr, struct buf *out);
void inspect_vm(const struct api *api, const struct vm *vm, struct buf *out);
void inspect_image(const struct api *api, const struct image *image, struct buf *out);

/* ---- process.c: sessions of exec ------------------------------------------------------------ */

void sessions_free(struct api *api);
/* /exitcode of an exec. */
void session_exitcode(struct call *call, const char *exec);

/* ---- logs.c --------------------------------------------------------------------------------- */

struct log_watch;
void log_watch_free(struct log_watch *watch);
/* Writes what the container's last run left in its log to the client's socket (taken over). */
void log_replay(struct api *api, const struct container *ctr, int fd);
bool ctr_has_tty(const struct api *api, const struct container *ctr);

/* ---- templates.c ---------------------------------------------------------------------------- */

/* How many there are in which state; a new reference. */
json_t *templates_info(const struct api *api);

/* ---- images.c ------------------------------------------------------------------------------- */

/* Asks the core to take in an image that a worker has made; `done` as for ops_ask(). */
void image_add_ask(struct api *api, const struct wire_job_image *came,
                   void (*done)(const struct reply *reply, void *arg), void *arg);

/* The head of an upload is here. */
void load_begin(struct call *call);

#endif
