/* What a VM takes of the host: read from /proc, of QEMU and of its keeper. */
#ifndef HUSK_EXEC_USAGE_H
#define HUSK_EXEC_USAGE_H

#include <stdint.h>

#include "base/error.h"

struct exec;
struct vm;

struct usage {
    uint64_t cpu_ns;        /* of QEMU, since it began */
    uint64_t private_bytes; /* memory that only this QEMU has: ends with it */
    uint64_t shared_bytes;  /* that others have mapped too: the template's pages, programs */
    uint64_t keeper_bytes;  /* private ones of the keeper */
    uint64_t read_bytes, written_bytes; /* of the host's disks */
};

/* Of a VM that runs: ERROR_NOT_FOUND if it does not. It takes about as long as a page fault for
 * each MiB, so ask for one VM at a time. */
int exec_usage(const struct exec *exec, const struct vm *vm, struct usage *ret,
               struct error **ret_error);

/* Of the process with that number. `ret_parent` is its parent. */
int usage_of_process(int pid, struct usage *ret, int *ret_parent, struct error **ret_error);

#endif
