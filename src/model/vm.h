/* A VM: one running virtual machine with husk's agent in it, and its keeper.
 *
 *      booting → idle ⇄ associated → stopping → gone
 *
 * It is in the store from before its keeper is started until its directory <root>/vms/<id> is
 * gone, so that nothing of it can be forgotten. `paused` lies on top of idle and associated.
 * In `stopping` it is first turned off, and then (`dead`) cleaned: leftovers killed, directory
 * removed, keeper dismissed.
 */
#ifndef HUSK_MODEL_VM_H
#define HUSK_MODEL_VM_H

#include <uthash.h>

#include "model/object.h"

enum vm_state { VM_BOOTING, VM_IDLE, VM_ASSOCIATED, VM_STOPPING, VM_STATE_COUNT };

enum {
    VM_ID_LEN = 13, /* "vm-" and ten capital letters */
    VMS_MAX = 1024, /* as HyperContainer */
};

struct vm {
    struct object object;
    char id[VM_ID_LEN + 1];
    enum vm_state state;
    struct ref pod; /* the one that it was made for or that is in it; none: idle */
    uint32_t cpus;
    uint64_t memory_mb;
    char *accel;        /* "kvm" or "tcg"; NULL until it is booted */
    char *machine;      /* "q35" or "microvm"; NULL until it is booted */
    char *template;     /* id of the one that it was cloned of; NULL: it booted cold */
    int32_t qemu_pid;   /* 0: not known */
    int64_t created_ns; /* wall clock */
    bool paused;        /* vCPUs are frozen */
    bool dead;          /* QEMU is gone for sure; it only has to be cleaned */
    char *reason;       /* why it ended, NULL: because it was asked to */
    bool pooled;        /* made to be idle until a pod takes it, and no pod was placed in it yet */
    char *image_id;     /* pooled: the image whose root is ready in it, over a writable layer of its
                         * own; NULL: none */
    uint64_t layer_mb;  /* then: size of that layer */

    /* the core's own, not stored */
    bool seen;         /* after a reload: its keeper was found, or found gone */
    uint32_t effect;   /* serial of the effect that is on its way, 0: none */
    uint32_t grace_ms; /* of the VM_OFF that is due */
    uint32_t retries;  /* of cleaning */
    uint32_t timer;
    struct op *ops;

    /* table of world.c */
    UT_hash_handle by_id;
};

const char *vm_state_name(enum vm_state state);
int vm_state_from_name(const char *name);
/* "associated", "idle", "paused" …: what `list vm` shows. */
const char *vm_status(const struct vm *vm);

void vm_free(struct vm *vm);

/* The container of the pod whose writable layer that of the VM becomes when the pod moves in: the
 * only one, of just that image, which has never run. NULL: there is none. */
struct container;
struct pod;
const struct container *vm_layer_for(const struct vm *vm, const struct pod *pod);

#endif
