/* JOB_CHECK: whether images are still what they were. */
#ifndef HUSK_WORKER_CHECK_H
#define HUSK_WORKER_CHECK_H

#include <stdint.h>

#include "worker/peer.h"

/* As the other jobs of job.c. */
int job_check(struct peer *peer, const void *request, uint64_t *ret_value,
              struct error **ret_error);

#endif
