/* The jobs that huskd gives to a worker: rows of one table, each answered by a REPLY. */
#ifndef HUSK_WORKER_JOB_H
#define HUSK_WORKER_JOB_H

#include "worker/peer.h"

/* Does what the frame asks, and answers. A job that fails is an answer; negative means that the
 * two sides cannot talk any more. */
int job_run(struct peer *peer, const struct wire_frame *frame, struct error **ret_error);

#endif
