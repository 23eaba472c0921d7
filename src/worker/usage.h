/* JOB_USAGE: what the daemon's files take of the disk. */
#ifndef HUSK_WORKER_USAGE_H
#define HUSK_WORKER_USAGE_H

#include <stdint.h>

#include "worker/peer.h"

/* As the other jobs of job.c. */
int job_usage(struct peer *peer, const void *request, uint64_t *ret_value,
              struct error **ret_error);

#endif
