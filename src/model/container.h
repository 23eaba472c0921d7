/* A container: an instance of an image inside one pod.
 *
 *      creating → pending → starting → running → ended      (start again from ended)
 *                    ↑          │          │        ↑
 *                    └──────────┘          └→ stopping
 *      any of them → removing → gone
 *
 *  - What is on disk of it is its writable layer and log, in <root>/pods/<pod uid>/.
 *  - `starting`, `running` and `stopping` only while the pod has a VM and was placed in it.
 *  - `run` names a start: reports about another run are of the past, and are dropped.
 *  - exit_code … reason are of the last run that ended, and stay until the next one ends.
 */
#ifndef HUSK_MODEL_CONTAINER_H
#define HUSK_MODEL_CONTAINER_H

#include <uthash.h>

#include "model/image.h"
#include "model/object.h"
#include "model/pod.h"
#include "model/spec.h"

enum ctr_state {
    CTR_CREATING, /* its layer is being made */
    CTR_PENDING,  /* has a layer; never ran */
    CTR_STARTING, /* RUN is on its way */
    CTR_RUNNING,
    CTR_STOPPING, /* a signal is on its way, or its grace has not passed */
    CTR_ENDED,
    CTR_REMOVING, /* its files are being removed */
    CTR_STATE_COUNT
};

enum ctr_want { CTR_WANT_STOPPED, CTR_WANT_RUNNING, CTR_WANT_GONE, CTR_WANT_COUNT };

enum { CTR_EXIT_LOST = 255 }; /* exit code of a container whose end nobody saw */

struct container {
    struct object object;
    struct ref pod;
    uint32_t place;         /* grows along the list; by world.c */
    struct container *next; /* of the pod, in the order of declaration; by world.c */
    char id[CTR_ID_LEN + 1];
    struct ctr_spec spec; /* as asked, names filled in; never changes */
    struct ref image;
    char image_id[IMAGE_ID_LEN + 1]; /* of what it was made from, wherever the name points now */

    enum ctr_want want;
    enum ctr_state state;
    uint64_t run;       /* counts starts; 0: never ran */
    uint32_t restarts;  /* by its policy, since it was started by a user */
    uint32_t backoff;   /* restarts in a row that ended early: 2^n seconds until the next */
    int64_t restart_ns; /* wall clock of the restart that is due; 0: none */
    bool stop_asked;    /* its end, when it comes, was asked for: shown as succeeded */
    bool held;          /* the VM may hold its disks: DROP before its files go */

    /* the last end */
    int64_t created_ns;   /* wall clock, as all …_ns here */
    int64_t started_ns;   /* of the current or last run; 0: never */
    int64_t finished_ns;  /* 0: never ended */
    uint32_t exit_code;   /* exact: code, or 128 + signal */
    uint32_t exit_signal; /* 0: it exited */
    bool oom;
    bool succeeded; /* exit code 0, or stopped on request */
    char *reason;   /* why it failed, NULL if there is no more to say than the code */

    /* the core's own, not stored */
    uint32_t effect;   /* serial of the effect that is on its way, 0: none */
    uint32_t timer;    /* serial of the timer that is set, 0: none */
    uint32_t retries;  /* of removing its files */
    uint32_t grace_ms; /* of the stop that goes on */
    struct op *ops;

    /* tables of world.c */
    UT_hash_handle by_id;
    UT_hash_handle by_name;
    struct container *same_name; /* others of this name, in other pods */
};

/* "creating" …; what `list` shows: "pending", "running", "succeeded" or "failed". */
const char *ctr_state_name(enum ctr_state state);
int ctr_state_from_name(const char *name);
const char *ctr_want_name(enum ctr_want want);
int ctr_want_from_name(const char *name);
const char *ctr_status(const struct container *ctr);

/* What `stop` sends: the spec's, else the image's, else SIGTERM. */
unsigned ctr_stop_signal(const struct container *ctr, const struct image *image);

void ctr_free(struct container *ctr);

/* Whether a process of it is, or may be, in the VM. */
bool ctr_is_up(const struct container *ctr);

/* The policy that holds for it: its own, else the pod's, else never. */
enum restart ctr_restart(const struct container *ctr, const struct pod *pod);

/* What is to be run: the spec over the image's config. Owned copies. */
struct process {
    char **argv; /* empty if neither image nor spec say what to run: refused at creation */
    char **env;  /* PATH is always there; TERM with a terminal; HOSTNAME */
    char *cwd;   /* "/" if nobody says */
    char *user;  /* "user[:group]", "" for root */
    char **groups;
    bool tty, stdin_open, read_only;
    unsigned stop_signal;
};
void process_of(const struct container *ctr, const struct pod *pod, const struct image *image,
                struct process *ret);
void process_clear(struct process *process);

#endif
