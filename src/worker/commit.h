/* JOB_COMMIT: an image of what a container has changed. */
#ifndef HUSK_WORKER_COMMIT_H
#define HUSK_WORKER_COMMIT_H

#include <stdint.h>

#include "worker/peer.h"

/* As the other jobs of job.c. */
int job_commit(struct peer *peer, const void *request, uint64_t *ret_value,
               struct error **ret_error);

#endif
