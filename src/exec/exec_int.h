/* The inside of exec: shared by its files only. */
#ifndef HUSK_EXEC_EXEC_INT_H
#define HUSK_EXEC_EXEC_INT_H

#include "base/str.h"
#include "exec/exec.h"

struct commit;
struct link;
struct making;
struct pool;
struct templates;

enum {
    LINK_VM_MAX = TEMPLATE_ID_MAX + 9, /* "vm-…", or as template_vm_name() makes it */
    BOOTS_A_CPU = 4,                   /* VMs that boot at a time */
};

#define REHEARSAL_PREFIX "cache/rehearsal-"
/* How the names of our own VMs begin. */
#define TEMPLATE_VM "tpl-"
#define ZYGOTE_VM   "zyg-"

/* JOB_ROOT; owned. */
struct job_root {
    char *image_path, *layer_path, *layer_top;
};

/* An effect that is being done. */
struct task {
    struct task *prev, *next;
    struct exec *exec;
    struct effect effect;
    struct timer *timer;  /* its deadline; of a TIMER, its time */
    struct ask *ask;      /* what it waits for: a keeper … */
    struct job *job;      /* … or a worker */
    struct job_root root; /* CTR_RUN: what the storage driver gives to the VM */
};

/* A client that waits for its container to start. */
struct parked {
    struct parked *prev, *next;
    struct ref ctr;
    struct tty_size size;
    bool awaited; /* the container was to run when it was looked at last */
    int fd;
    struct buf early;
};

struct exec {
    struct loop *loop;
    struct world *world;
    struct core *core;
    struct exec_config config;
    struct exec_hooks hooks;
    struct task *tasks;
    struct link *links;
    struct pool *pool;
    struct timing *timing;
    struct templates *templates;
    struct timer *line; /* somebody may boot now */
    struct parked *parked;
    unsigned parked_count;
    struct timer *parked_timer;
    char *kvm_refused; /* why, with accel=auto; NULL: not refused */
    bool kvm_works;    /* a guest came up under it: no later one's silence is its fault */
    bool kvm_is_bad;   /* one came up by emulation that had not under it */

    unsigned adopting; /* links that have not told all, and 1 while they are being looked for */
    void (*adopted)(void *arg);
    void *adopted_arg;
};

/* ---- exec.c --------------------------------------------------------------------------------- */

/* The core, with its clock set. */
struct core *exec_core(struct exec *exec);
/* Reports and frees. result may be NULL. */
void task_done(struct task *task, const struct error *error, const struct effect_result *result);
/* For asks and jobs: `arg` is the task. */
void task_answered(const struct error *error, uint64_t value, void *arg);
/* What a sweep must leave, relative to the root; owned. */
char **exec_keep(const struct exec *exec);
/* Effects that were under way when the world was forgotten. */
void exec_forget_tasks(struct exec *exec);
/* What the task waits for, whose arg it is. Its time begins with the job: there may be a line, in
 * which it waits no longer than one job may take. */
void task_begin_job(struct task *task, struct job *job);
void task_fail(struct task *task, enum error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A mark of all containers of the pod. */
void timing_of_pod(struct exec *exec, const struct pod *pod, const char *name);

/* ---- link.c: one keeper's connection -------------------------------------------------------- */

struct link {
    struct link *prev, *next;
    struct exec *exec;
    bool listed; /* else it only waits for the end of its connection */
    char vm[LINK_VM_MAX + 1];
    struct ref ref;    /* of the VM; none if the world does not know it */
    struct conn *conn; /* NULL: the keeper is gone */
    struct ask *asks;
    uint32_t next_seq;
    const char *accel; /* it was booted with; NULL: we did not boot it */

    bool ready, paused; /* as VM_STATE says */
    bool gone, no_hello;
    char *pod, *reason;
    int32_t qemu_pid;

    bool retry;         /* once closed, boot again: cold, or without KVM */
    bool kvm_tried;     /* it boots under KVM, which nobody knows to work */
    bool kvm_doubted;   /* it gave no sign of life under KVM, and boots without */
    struct task *spawn; /* VM_SPAWN that waits for the guest */
    bool in_line;       /* for its boot */
    bool waits;         /* in line, for its template */
    struct ref rooted;  /* the container whose root the template has; none */
    bool booting;
    bool cloning;          /* its template counts it */
    struct making *making; /* the VM is of no world: something is made by it; else NULL */
    bool copies;           /* it is a copy of the template's zygote */
    bool copies_not;       /* that failed: not again */
    char template[TEMPLATE_ID_MAX + 1]; /* it is cloned of; "": it boots cold */
    char blamed[TEMPLATE_ID_MAX + 1];   /* of which a clone failed before */
    char *why_cold;                     /* NULL: it is no matter */

    bool adopting;          /* SNAPSHOT is under way */
    unsigned connects_left; /* tries to reach a keeper that may be there */
    struct timer *deadline;
    struct known { /* containers, as the snapshot tells */
        char *id;
        uint64_t run;
        bool ended;
        int64_t started_ns;
    } * known;
    size_t known_count;

    struct told_usage { /* the last answer to USAGE */
        char ctr[CTR_ID_LEN + 1];
        struct ctr_usage usage;
    } * usages;
    size_t usage_count;
    bool usages_told; /* its reply has come: what comes next is another answer */
};

/* NULL if there is none. */
struct link *link_find(const struct exec *exec, const char *vm);
/* The keeper of that VM, if it lives. */
struct link *link_of_vm(const struct exec *exec, struct ref vm);
struct link *link_of_pod(const struct exec *exec, struct ref pod);
struct link *link_new(struct exec *exec, const char *vm, struct ref ref);
void link_free(struct link *link);
/* Sends away a living keeper whose VM is gone, and forgets it. */
void link_dismiss(struct link *link);
/* Starts the keeper's process, connects. */
int link_spawn(struct link *link, struct error **ret_error);
/* Connects to a keeper that may be there: ERROR_NOT_FOUND if none is. */
int link_connect(struct link *link, struct error **ret_error);

/* Sends a request: `message` is its struct, whose first field is the seq (filled in here). `done`
 * is called once with the reply, or when the keeper is gone, unless ask_forget() was called.
 * fd: sent along and closed, -1: none. */
struct ask *link_ask(struct link *link, unsigned type, void *message, int fd,
                     void (*done)(const struct error *error, uint64_t value, void *arg), void *arg);
void ask_forget(struct ask *ask);
/* Answers all that was asked with the keeper's end. */
void asks_fail(struct link *link);

/* The containers that a snapshot told of. */
void link_forget_known(struct link *link);

/* Tells the core the ends in the journal of a keeper that is dead. */
void link_read_exits(struct link *link);
/* SIGKILL to every process that works in the VM's directory. */
void link_kill_leftovers(const struct exec *exec, const char *vm);

/* ---- usage.c --------------------------------------------------------------------------------- */

/* The keeper tells what the guest has told. */
void usage_came(struct link *link, const struct wire_ctr_usage *message);

/* ---- vm.c, container.c: the effects --------------------------------------------------------- */

void act_vm_spawn(struct task *task);
void act_vm_off(struct task *task);
void act_vm_clean(struct task *task);
void act_vm_rehearse(struct task *task);
void act_vm_pause(struct task *task);
void act_vm_resume(struct task *task);
void act_pod_place(struct task *task);
void act_pod_leave(struct task *task);
void act_ctr_run(struct task *task);
void act_ctr_stop(struct task *task);
void act_ctr_kill(struct task *task);
void act_ctr_drop(struct task *task);
void act_make_layer(struct task *task);
void act_remove_files(struct task *task);
void act_image_files(struct task *task);

/* VM_OFF's deadline has passed: its keeper hangs, and is killed with all that is its VM's. */
void vm_off_late(const struct task *task);

/* ---- boot.c: VM_SPAWN ----------------------------------------------------------------------- */

struct timer *boot_line_new(struct exec *exec);
/* In a later turn: who waits in line may be next. */
void boot_line_look(struct exec *exec);
/* A VM boots, or would if it had its turn. */
bool boot_line_busy(const struct exec *exec);
/* What every VM has in common. Points into the config. */
void boot_message(const struct exec *exec, const char *accel, struct wire_vm_boot *ret);
/* That QEMU and what it boots can be used; said here, where the settings have names. */
int boot_check(const struct exec_config *config, struct error **ret_error);
/* The keeper could not have a copy of the zygote, and goes on without. */
void boot_not_copied(struct link *link, const char *why);
/* The connection has ended: whether another keeper is booting the VM now. */
bool boot_link_closed(struct link *link);
/* VM_OFF or VM_CLEAN overtakes what was asked. */
void boot_overtaken(struct exec *exec, struct ref ref);
/* The link goes. */
void boot_forget(struct link *link);

/* What a link tells its VM's owner. */
void vm_state_came(struct link *link);
void vm_link_closed(struct link *link);

/* ---- attach.c ------------------------------------------------------------------------------- */

/* The container's RUN is about to be sent on this link: those who wait for it go first. The size of
 * the terminal of one of them. */
struct tty_size parked_hand_over(struct exec *exec, struct link *link, const struct container *ctr);
void parked_free_all(struct exec *exec);

/* ---- adopt.c -------------------------------------------------------------------------------- */

void adopt_snapshot_replied(struct link *link, const struct error *error);
void adopt_link_closed(struct link *link);

/* ---- storage.c: layers that a VM can have only while they are attached ----------------------- */

/* Whether the storage driver must be asked before a VM gets a layer, and after it had it. */
bool storage_attaches(const struct exec *exec);
/* Whether VMs are served directories. */
bool storage_shares(const struct exec_config *config);
/* For asks and jobs: `arg` is the task, and what the VM had of its object is free now. Detaches
 * that, then reports. */
void storage_released(const struct error *error, uint64_t value, void *arg);
void job_root_clear(struct job_root *root);

/* ---- pool.c: workers ------------------------------------------------------------------------ */

typedef void job_done(const struct error *error, uint64_t value, void *arg);

struct pool *pool_new(struct exec *exec);
void pool_free(struct pool *pool);
/* A writable layer that is to be made. */
struct layer_spec {
    const char *path;
    const char *image; /* the prepared root that it is for */
    uint64_t size_bytes;
    const char *like; /* absolute: a layer that it may be a copy of; "": none */
};

/* What a template is written down as. */
struct template_files {
    const char *dir, *path; /* absolute: where it is put together, and its place */
    const char *layer;      /* absolute; "": none */
    const char *const *inputs;
};

/* Paths are relative to the root. `done` as for an ask, and never before the call returns. */
struct job *pool_layer(struct pool *pool, const char *directory, const struct layer_spec *layer,
                       job_done *done, void *arg);
/* Fills *ret_root, which must stay until `done`. */
struct job *pool_attach(struct pool *pool, const char *image, const char *layer,
                        struct job_root *ret_root, job_done *done, void *arg);
struct job *pool_detach(struct pool *pool, const char *const *layers, job_done *done, void *arg);
struct job *pool_remove(struct pool *pool, const char *const *paths, job_done *done, void *arg);
/* The same below another directory than the root; nobody waits for it. */
void pool_remove_below(struct pool *pool, const char *root, const char *const *paths);
/* Makes the image that is rehearsed and a layer, in `directory`, which is made first. */
struct job *pool_rehearsal(struct pool *pool, const char *directory, const char *image,
                           const char *layer, job_done *done, void *arg);
/* `memory` is taken over. The value is the bytes of the files. */
struct job *pool_template_save(struct pool *pool, int memory, const struct template_files *files,
                               job_done *done, void *arg);
struct job *pool_template_load(struct pool *pool, int memory, const char *path,
                               const char *const *inputs, job_done *done, void *arg);
/* Sees to it that there are spare layers. */
void pool_spares(struct pool *pool);
/* Of a removal that was not sent yet: what images in the world have is left out then. */
void pool_spare_shared(struct job *job);
/* Removes what belongs to no object of the world, as it will be then. */
void pool_sweep(struct pool *pool, bool all);
struct job *pool_save(struct pool *pool, int fd, const char *const *items, bool docker,
                      const struct load_ops *ops, void *arg);
struct job *pool_check(struct pool *pool, const char *const *items, bool repair,
                       const struct load_ops *ops, void *arg);
/* layers as JOB_USAGE has them. */
struct job *pool_usage(struct pool *pool, const char *const *layers, bool all,
                       const struct load_ops *ops, void *arg);
struct job *pool_load(struct pool *pool, int fd, const struct load_ops *ops, void *arg);
/* `commit` is taken over. */
struct job *pool_commit(struct pool *pool, struct commit *commit, const struct load_ops *ops,
                        void *arg);
/* Answers what the job's worker has asked with JOB_HOLD. */
void job_answer(struct job *job, const struct error *error);
void job_forget(struct job *job);
/* No job begins any more. */
void pool_halt(struct pool *pool);
/* `begun` is called with the job's arg when a worker takes it: to be asked for in the turn in which
 * the job was added. */
void job_on_begin(struct job *job, void (*begun)(void *arg));
/* The message for that, the freeing of it, and its sending. */
unsigned transfer_job(const struct exec_transfer *t);
void transfer_clear(struct exec_transfer *t);
void transfer_send(struct conn *conn, const struct exec_config *config,
                   const struct exec_transfer *t);
struct job *pool_transfer(struct pool *pool, struct exec_transfer *transfer,
                          const struct load_ops *ops, void *arg);
void pool_cancel(struct pool *pool, struct job *job);

/* ---- template_image.c ----------------------------------------------------------------------- */

/* The layer that a new one of the container should be a copy of, absolute; "": none. Owned. */
char *template_layer(struct exec *exec, const struct pod *pod, const struct container *ctr);
/* All of these that there are; owned. */
char **template_layers(const struct exec *exec);
/* A container of its image was started: the next one may find a template. */
void template_image_used(struct exec *exec, const struct container *ctr);
/* The image goes, and what was made of it. */
void templates_forget_image(struct exec *exec, const struct image *image);

/* ---- paths, relative to the root; owned ------------------------------------------------------ */

char *path_of_pod(const struct pod *pod);
char *path_of_layer(const struct exec *exec, const struct pod *pod, const struct container *ctr);
char *path_of_log(const struct pod *pod, const struct container *ctr);
/* The prepared root filesystem of a container's image; "" if the image is gone. */
/* The prepared root of an image; "" if it is NULL, or has none. */
const char *image_file(const struct image *image);
/* What an image (NULL: none) runs if nobody asks for something else, and where that is looked for;
 * "" if it does not say. Belongs to the image. */
void image_program(const struct image *image, const char **ret_program, const char **ret_path);
char *path_of_image(const struct exec *exec, const struct container *ctr);
char *path_of_vm(const char *vm);
/* Of one of the pool that is for an image: the layer that will be a container's. */
char *path_of_vm_layer(const char *vm);
/* The prepared root of the image that is rehearsed. */
char *rehearsal_image(const struct exec_config *config);
/* "ROOT/path"; owned. */
char *path_full(const struct exec *exec, const char *path);

#endif
