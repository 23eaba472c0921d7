#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "hyper/qemu_int.h"

static void op_advance(struct op *op);

static void op_finish(struct op *op)
{
    struct hyper *h = op->h;
    assert(h->ops == op);
    op->done(op->error, op->arg); /* operations that this starts stand in line behind */
    h->ops = op->next;
    error_free(op->error);
    if (op->fd >= 0)
        close(op->fd);
    free(op);
    if (h->ops)
        op_advance(h->ops);
}

static void undone(const json_t *value, const struct error *error, void *arg)
{
    op_advance(arg); /* what cannot be undone goes with the VM */
}

static void op_undo(struct op *op)
{
    while (op->at > 0) {
        const struct step *s = &op->steps[--op->at];
        if (!s->undo)
            continue;
        qmp_send(op->h->qmp, s->undo, s->undo_arguments(op), -1, undone, op);
        return;
    }
    op_finish(op);
}

static void step_done(const json_t *value, const struct error *error, void *arg)
{
    struct op *op = arg;
    if (error)
        error_set(&op->error, error->kind, 0, "%s", error->message);
    else if (op->steps[op->at].takes_fd)
        op->fdset = json_integer_value(json_object_get(value, "fdset-id"));
    if (!error)
        op->at++;
    op_advance(op);
}

static void op_advance(struct op *op)
{
    if (op->error) {
        op_undo(op);
        return;
    }
    if (op->at == op->step_count) {
        op_finish(op);
        return;
    }
    const struct step *s = &op->steps[op->at];
    if (s->command) {
        qmp_send(op->h->qmp, s->command, s->arguments ? s->arguments(op) : NULL,
                 s->takes_fd ? op->fd : -1, step_done, op);
        return;
    }
    op->h->awaiting = true;
    timer_set(op->h->awaits, s->until->deadline_ms);
}

void op_start(struct hyper *h, struct op op)
{
    struct op *o = xmemdup(&op, sizeof(op));
    struct op **end = &h->ops;
    o->h = h;
    while (*end)
        end = &(*end)->next;
    *end = o;
    if (h->ops == o)
        op_advance(o);
}

/* ---- several -------------------------------------------------------------------------------- */

struct batch {
    unsigned open;
    struct error *error;
    hyper_done *done;
    void *arg;
};

struct batch *batch_new(unsigned count, hyper_done *done, void *arg)
{
    struct batch *batch = xcalloc(1, sizeof(*batch));
    *batch = (struct batch){.open = count, .done = done, .arg = arg};
    return batch;
}

void batch_done(const struct error *error, void *arg)
{
    struct batch *batch = arg;
    if (error && !batch->error)
        error_set(&batch->error, error->kind, 0, "%s", error->message);
    if (--batch->open)
        return;
    batch->done(batch->error, batch->arg);
    error_free(batch->error);
    free(batch);
}

/* ---- events --------------------------------------------------------------------------------- */

static void awaits_end(struct hyper *h)
{
    h->awaiting = false;
    timer_unset(h->awaits);
}

void op_event(struct hyper *h, const char *name, const json_t *data)
{
    struct op *op = h->ops;
    const struct awaited *until = h->awaiting ? op->steps[op->at].until : NULL;
    if (!until || !str_eq(name, until->event))
        return;
    enum verdict verdict = until->judge(op, data, &op->error);
    if (verdict == NOT_OURS)
        return;
    awaits_end(h);
    if (verdict == ARRIVED)
        op->at++;
    op_advance(op);
}

void op_late(void *arg)
{
    struct hyper *h = arg;
    struct op *op = h->ops;
    awaits_end(h);
    op->steps[op->at].until->late(op, &op->error);
    op_advance(op);
}

void op_abandon(struct hyper *h)
{
    if (h->awaiting)
        op_late(h);
}
