/* JOB_COMMIT, for the pool of workers. */
#ifndef HUSK_EXEC_COMMIT_H
#define HUSK_EXEC_COMMIT_H

#include "exec/exec_int.h"

struct commit;

/* The worker asks for the layer to be held, or has copied it. Answered by job_answer(). */
void commit_hold(struct commit *commit, bool on);
void commit_send(struct conn *conn, const struct exec_config *config, const struct commit *commit);
/* The job is over: what it held is let go. NULL is fine. */
void commit_free(struct commit *commit);

#endif
