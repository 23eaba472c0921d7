/* Requests to the core, and the way back of their replies.
 *
 * The core answers at the end of a turn; whoever asked is called then, once, unless the question
 * was forgotten.
 */
#ifndef HUSK_API_OPS_H
#define HUSK_API_OPS_H

#include "core/core.h"

struct ops;

struct ops *ops_new(struct core *core);
/* Called before each request is put to the core: the place to tell it what may have changed. */
void ops_set_before(struct ops *ops, void (*before)(void *arg), void *arg);
void ops_free(struct ops *ops);

/* request->op is filled in and returned. */
uint64_t ops_ask(struct ops *ops, struct request *request,
                 void (*done)(const struct reply *reply, void *arg), void *arg);
void ops_forget(struct ops *ops, uint64_t op);
/* Hands out all replies that there are. Returns whether there were any. */
bool ops_deliver(struct ops *ops);

#endif
