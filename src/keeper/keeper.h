/* The keeper: the process that owns one VM. It starts QEMU, is the only one to read what the guest
 * sends, holds the containers' logs and the sockets of attached clients, and survives huskd.
 *
 *      huskd ──control.c──► vm.c container.c exec.c ──guest.c──► the agent in the guest
 *                                    │
 *                 clients ◄──► client.c, stream.c (credit)
 *
 * Everything runs in one thread. An object that waits for the guest or for QEMU stays until it is
 * answered: when the VM ends, all that is open is answered with an error first (vm_gone), and only
 * then do containers and execs end.
 */
#ifndef HUSK_KEEPER_KEEPER_H
#define HUSK_KEEPER_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "hyper/hyper.h"
#include "loop/loop.h"
#include "proto/wire.h"

struct client;
struct container;
struct disk;
struct exec;
struct guest_request;
struct stream;
struct console;

enum {
    CONTAINERS_MAX = 64,    /* in one VM */
    EXECS_MAX = 256,        /* that run in one VM */
    EXECS_REMEMBERED = 256, /* that have ended, for SNAPSHOT */
    ASKS_MAX = 32,          /* of one kind that wait for the same thing */
    GUEST_REQUESTS_MAX = 512,
    ENTROPY_SIZE = 64,              /* bytes that a guest is given */
    GUEST_LINES_MAX = 1000,         /* of GUEST_LOG in the keeper's own log */
    GUEST_TEXT_MAX = 512,           /* bytes of a text of the guest that is shown to people */
    GUEST_DEADLINE_MS = 30 * 1000,  /* for an answer of the guest */
    CLOCK_LATE_MS = 4,              /* if setting the clock takes longer, it is set again, */
    CLOCK_TRIES = 50,               /* and so many times in all */
    KILL_DEADLINE_MS = 20 * 1000,   /* from SIGKILL to the end of a container */
    QUIT_DEADLINE_MS = 3 * 1000,    /* from QMP quit to SIGKILL */
    BOOT_DEADLINE_MS = 120 * 1000,  /* if huskd names none */
    ORPHAN_DEADLINE_MS = 60 * 1000, /* a keeper that nobody asks for a VM ends */
    REHEARSAL_DEADLINE_MS = 60 * 1000,
    /* After DISMISS, for clients that still read, as a pager's user does. One that is dead is seen
     * at once: this is for one that is alive and never reads again. */
    LINGER_DEADLINE_MS = 24 * 60 * 60 * 1000,
    CODE_VM_ENDED = 255, /* "exit code" of a process whose VM ended under it */
};

/* Requests of huskd that wait for something: each is answered once. */
struct ask {
    struct ask *next;
    uint64_t connection; /* keeper.connection when it came: an older huskd gets no answer */
    uint32_t seq;
};

struct keeper {
    struct loop *loop;
    char *vm; /* id */

    /* control.c */
    int listener;
    struct watch *listener_watch;
    struct conn *control; /* NULL: no huskd is there */
    uint64_t connection;  /* counts them */
    struct timer *orphan;
    bool dismissed;
    bool stopping;
    struct timer *linger;

    /* vm.c */
    enum wire_vm_phase state;
    bool asked; /* VM_BOOT came */
    bool paused;
    bool pausing; /* or, if not, being resumed: what pause_asks wait for */
    bool no_hello;
    char *reason;    /* why it is gone */
    char *broken;    /* what the guest did that ends it, NULL while it behaves */
    bool turned_off; /* we were asked to end it */
    bool pod_leaves; /* the pod is out of the guest, its disks may not be out of the VM */
    const struct hyper_ops *ops;
    struct hyper *hyper; /* NULL before VM_BOOT, and when QEMU is gone */
    bool shut_down;      /* the guest turned itself off */
    char *hyper_reason;  /* QEMU has ended, its last output is still read */
    struct console *console;
    struct timer *boot; /* deadline of the guest's hello */
    enum wire_boot_mode mode;
    bool resumes;            /* it goes on where a template was frozen */
    bool waking;             /* a clone: AWAKE is sent and not answered; requests may follow it */
    bool grows;              /* same, and it is being given more memory or CPUs */
    struct timer *off;       /* the next, harder step of VM_OFF */
    uint64_t off_ms;         /* when that is due, on the loop's clock */
    uint64_t off_connection; /* that asked for it last */
    bool quitting;           /* QEMU was told to quit: SIGKILL is next */
    struct ask *boot_asks, *off_asks, *pause_asks, *place_asks, *leave_asks;
    uint64_t paused_ms;    /* when, on the loop's clock */
    bool clock_asked;      /* SET_CLOCK is not answered yet */
    uint64_t clock_ms;     /* when it was sent, on the loop's clock */
    unsigned clock_tries;  /* that are left */
    char *pod;             /* uid, "" if none is placed */
    char *placing;         /* uid of the pod that moves in now, NULL if none */
    char **marks;          /* of the way to READY */
    uint64_t memory_bytes; /* of the VM when it has grown */

    /* usage.c */
    struct ask *usage_asks;

    /* template.c */
    struct ask *freeze_asks;
    int state_fd; /* the file that takes the template's state; -1: it is not being frozen */
    bool frozen;  /* and all is written */
    bool settled; /* a zygote that can be copied */
    char *layer;  /* of a zygote: the path of the layer whose root it has ready; NULL: none */
    struct timespec layer_time; /* same: when it was written to last, by us */
    int rules; /* of landlock(7), for QEMUs that we have not started; -1: none. Set by main() */

    /* rehearsal.c */
    struct rehearsal *rehearsal; /* NULL: none is under way */

    /* share.c */
    struct share *share; /* NULL: no files are served */
    char *unshared;      /* they should be, and cannot: why */

    /* guest.c */
    struct conn *guest;
    uint32_t guest_seq;
    struct guest_request *requests; /* oldest first */
    size_t request_count;
    struct timer *request_timer;
    unsigned guest_lines; /* of GUEST_LOG that were written */

    /* container.c, exec.c, disk.c, stream.c */
    struct container *containers;
    struct exec *execs;
    struct disk *disks;
    struct stream *streams;
    uint32_t last_stream;
    struct client *leaving; /* clients whose process has ended, until all is written */
    int exits_fd;
};

/* ---- keeper.c ------------------------------------------------------------------------------- */

/* In the VM's directory; `listener` becomes the keeper's. */
struct keeper *keeper_new(struct loop *loop, const char *vm, int listener);
void keeper_free(struct keeper *k);
/* Ends the loop, in a later turn. */
void keeper_stop(struct keeper *k);
/* Ends the process when nobody needs it any more. */
void keeper_check_end(struct keeper *k);
uint64_t realtime_ns(void);

/* Remembers a request. ERROR_LIMIT if too many wait already. */
int ask_add(struct keeper *k, struct ask **asks, uint32_t seq, struct error **ret_error);
/* Answers all of them; error NULL: done. */
void ask_answer(struct keeper *k, struct ask **asks, const struct error *error);
void ask_answer_value(struct keeper *k, struct ask **asks, uint64_t value);

/* ---- control.c ------------------------------------------------------------------------------ */

void control_listen(struct keeper *k);
/* To huskd, if there is one. */
void control_send(struct keeper *k, unsigned type, const void *message);
void control_reply(struct keeper *k, uint32_t seq, const struct error *error);
void control_reply_value(struct keeper *k, uint32_t seq, uint64_t value);
/* Remembers that something happened on the way to a container's first output: now. */
void mark_add(char ***marks, const char *name);
/* Tells huskd all of them. `ctr`: NULL if they are the VM's. */
void marks_tell(struct keeper *k, const char *ctr, char ***marks);
void control_event(struct keeper *k, unsigned level, const char *reason, const char *message);

/* ---- vm.c ----------------------------------------------------------------------------------- */

/* Answers the request later, or returns an error now. `memory_fd` (-1: none) stays the caller's. */
int vm_boot(struct keeper *k, const struct wire_vm_boot *m, int memory_fd,
            struct error **ret_error);
/* The guest said hello. */
void vm_greeted(struct keeper *k);
/* Ends a VM whose guest does what no honest one does; `why` is a sentence. */
void vm_break(struct keeper *k, const char *why);
/* These answer the request later, or return an error now. */
int vm_off(struct keeper *k, uint32_t seq, uint32_t grace_ms, struct error **ret_error);
int vm_pause(struct keeper *k, uint32_t seq, bool pause, struct error **ret_error);
int vm_place(struct keeper *k, const struct wire_pod_place *m, struct error **ret_error);
int vm_leave(struct keeper *k, uint32_t seq, struct error **ret_error);
/* The guest has ended everything in it. */
void vm_halted(struct keeper *k);
void vm_tell(struct keeper *k);
/* A disk is out, or (error) will not go: perhaps the pod that leaves was waiting for it. */
void vm_left(struct keeper *k, const struct error *error);
/* husk-share has ended. */
void vm_share_ended(struct keeper *k);
/* The agent's connection has ended. */
void vm_link_ended(struct keeper *k, const struct error *why);
/* ERROR_PAUSED, or ERROR_STATE, unless it runs, or is a clone that wakes up. */
int vm_check_usable(const struct keeper *k, struct error **ret_error);
/* The guest's clock is set to the host's, to some ms as soon as the host is not too busy for it. */
void vm_set_clock(struct keeper *k);

/* ---- template.c ----------------------------------------------------------------------------- */

/* Answers the request when QEMU is gone, or returns an error now. */
int template_freeze(struct keeper *k, const struct wire_vm_freeze *m, struct error **ret_error);
/* QEMU has ended: tells what has become of the freezing. */
void template_gone(struct keeper *k, const struct error *why);
/* A zygote begins, with these disks: whoever wrote to its layer, it must not have been the guest.
 */
int zygote_watch_layer(struct keeper *k, const struct hyper_disk *disks, unsigned count,
                       struct error **ret_error);

/* ---- rehearsal.c ---------------------------------------------------------------------------- */

/* Answers the request when it is over, or returns an error now. */
int rehearsal_begin(struct keeper *k, const struct wire_vm_rehearse *m, struct error **ret_error);
/* Something that a rehearsal waits for may be so. `error`: or will not be, and it is over. */
void rehearsal_go_on(struct keeper *k, const struct error *error);

/* ---- guest.c -------------------------------------------------------------------------------- */

typedef void guest_done(struct keeper *k, const struct error *error, void *arg);

/* A text of the guest as UTF-8 without control characters, cut to GUEST_TEXT_MAX; the caller's. */
char *guest_text(const char *text);
/* `cloned`: the guest has greeted another keeper before, and does not say hello. */
void guest_connect(struct keeper *k, int fd, bool cloned);
/* A frame from the guest: every byte of it may be hostile. */
void guest_frame(struct keeper *k, const struct wire_frame *frame);
/* The first words to the guest of a clone, which will have what it was booted with. `done` comes
 * with its answer. */
void guest_awake(struct keeper *k, const struct wire_vm_boot *boot, guest_done *done);
/* Sends a request; its `seq` (the first field of each) is set here. `done` may be called at once
 * if it cannot be sent. */
void guest_request(struct keeper *k, unsigned type, uint32_t stream, void *message,
                   guest_done *done, void *arg);
/* The owner of `arg` goes: its requests are not answered to it any more. */
void guest_cancel(struct keeper *k, const void *arg);
/* Answers everything open with an error. */
void guest_fail_requests(struct keeper *k, const char *why);
/* While the VM is paused no deadline runs. */
void guest_stretch_deadlines(struct keeper *k, uint64_t by_ms);
void guest_send(struct keeper *k, unsigned type, uint32_t stream, const void *message);

#endif
