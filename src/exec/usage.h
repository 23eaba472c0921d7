/* What a VM takes of the host: read from /proc, of QEMU, of its keeper, and of who serves files to
 * it. And what its containers take of the VM: the guest tells. */
#ifndef HUSK_EXEC_USAGE_H
#define HUSK_EXEC_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct ask;
struct container;
struct exec;
struct ref;
struct vm;

struct usage {
    uint64_t cpu_ns;        /* of QEMU and who serves files, since they began */
    uint64_t private_bytes; /* memory that only this QEMU has: ends with it */
    uint64_t shared_bytes;  /* that others have mapped too: the template's pages, programs */
    uint64_t keeper_bytes;  /* private ones of the keeper */
    uint64_t share_bytes;   /* same, of husk-share and virtiofsd; 0: there are none */
    uint64_t read_bytes, written_bytes; /* of the host's disks */
};

/* Of a VM that runs: ERROR_NOT_FOUND if it does not. It takes about as long as a page fault for
 * each MiB, so ask for one VM at a time. */
int exec_usage(const struct exec *exec, const struct vm *vm, struct usage *ret,
               struct error **ret_error);

/* Of the process with that number. `ret_parent` is its parent. */
int usage_of_process(int pid, struct usage *ret, int *ret_parent, struct error **ret_error);

/* What a container takes of its VM, and may take. */
struct ctr_usage {
    uint64_t memory_bytes, memory_max_bytes; /* without page cache that is not in use */
    uint32_t pids, pids_max;                 /* processes and threads */
};

/* Asks the guest of a pod. `done` is called once, later, with an error or when exec_ctr_usage()
 * knows; unless exec_ask_forget() is called before. A guest that hangs takes its time. NULL, and
 * nothing is called, if there is nobody to ask. */
struct ask *exec_usage_ask(struct exec *exec, struct ref pod,
                           void (*done)(const struct error *error, uint64_t value, void *arg),
                           void *arg);
void exec_ask_forget(struct ask *ask);
/* While `done` is called: false if the guest did not name that container. */
bool exec_ctr_usage(const struct exec *exec, const struct container *ctr, struct ctr_usage *ret);

#endif
