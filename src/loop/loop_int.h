/* For the files of this room only. */
#ifndef HUSK_LOOP_LOOP_INT_H
#define HUSK_LOOP_LOOP_INT_H

#include <uv.h>

#include "loop/loop.h"

struct loop {
    uv_loop_t uv;
    uv_prepare_t turn_end;
    void (*turn_end_hook)(void *arg);
    void *turn_end_arg;
    uv_idle_t kick;            /* runs while `deferred` is not empty */
    uint64_t turn;             /* counts the runs of kick */
    struct deferred *deferred; /* circular list of work for the next turn */
};

/* Work for the next turn, at most once in the list; embedded in its owner. */
struct deferred {
    struct deferred *next, *prev; /* NULL: not in the list */
    uint64_t turn;                /* in which it was put there */
    void (*run)(struct deferred *deferred);
};

void loop_defer(struct loop *loop, struct deferred *deferred);
void loop_undefer(struct loop *loop, struct deferred *deferred);

#endif
