#include "api/ops.h"

#include <stdlib.h>
#include <time.h>
#include <uthash.h>

#include "base/str.h"

struct waiter {
    uint64_t op;
    void (*done)(const struct reply *reply, void *arg);
    void *arg;
    UT_hash_handle hh;
};

struct ops {
    struct core *core;
    uint64_t last;
    struct waiter *waiters;
    void (*before)(void *arg);
    void *before_arg;
};

struct ops *ops_new(struct core *core)
{
    struct ops *ops = xcalloc(1, sizeof(*ops));
    ops->core = core;
    return ops;
}

void ops_set_before(struct ops *ops, void (*before)(void *arg), void *arg)
{
    ops->before = before;
    ops->before_arg = arg;
}

void ops_free(struct ops *ops)
{
    struct waiter *w, *next;
    if (!ops)
        return;
    HASH_ITER(hh, ops->waiters, w, next) {
        HASH_DEL(ops->waiters, w);
        free(w);
    }
    free(ops);
}

uint64_t ops_ask(struct ops *ops, struct request *request,
                 void (*done)(const struct reply *reply, void *arg), void *arg)
{
    struct timespec now;
    struct waiter *w = xcalloc(1, sizeof(*w));
    w->op = request->op = ++ops->last;
    w->done = done;
    w->arg = arg;
    HASH_ADD(hh, ops->waiters, op, sizeof(w->op), w);
    clock_gettime(CLOCK_REALTIME, &now);
    if (ops->before)
        ops->before(ops->before_arg);
    core_clock(ops->core, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    core_request(ops->core, request);
    return w->op;
}

void ops_forget(struct ops *ops, uint64_t op)
{
    struct waiter *w;
    HASH_FIND(hh, ops->waiters, &op, sizeof(op), w);
    if (!w)
        return;
    HASH_DEL(ops->waiters, w);
    free(w);
    core_cancel(ops->core, op);
}

bool ops_deliver(struct ops *ops)
{
    struct reply reply;
    bool any = false;
    while (core_next_reply(ops->core, &reply)) {
        struct waiter *w;
        any = true;
        HASH_FIND(hh, ops->waiters, &reply.op, sizeof(reply.op), w);
        if (w) {
            HASH_DEL(ops->waiters, w);
            w->done(&reply, w->arg);
            free(w);
        }
        error_free(reply.error);
    }
    return any;
}
