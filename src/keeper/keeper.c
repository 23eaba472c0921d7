#include "keeper/keeper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/console.h"
#include "keeper/container.h"
#include "keeper/exits.h"
#include "keeper/share.h"
#include "keeper/stream.h"

uint64_t realtime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- requests that wait --------------------------------------------------------------------- */

int ask_add(struct keeper *k, struct ask **asks, uint32_t seq, struct error **ret_error)
{
    size_t count = 0;
    struct ask *a;
    LL_COUNT(*asks, a, count);
    if (count >= ASKS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d requests wait for this already", ASKS_MAX);
    a = xcalloc(1, sizeof(*a));
    a->connection = k->connection;
    a->seq = seq;
    LL_APPEND(*asks, a);
    return 0;
}

void ask_answer_value(struct keeper *k, struct ask **asks, uint64_t value)
{
    struct ask *a;
    LL_FOREACH(*asks, a)
        if (a->connection == k->connection)
            control_reply_value(k, a->seq, value);
    while (*asks) {
        a = *asks;
        LL_DELETE(*asks, a);
        free(a);
    }
}

void ask_answer(struct keeper *k, struct ask **asks, const struct error *error)
{
    struct ask *list = take(*asks);
    while (list) {
        struct ask *a = list;
        list = a->next;
        if (a->connection == k->connection)
            control_reply(k, a->seq, error);
        free(a);
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

static void turn_end(void *arg)
{
    struct keeper *k = arg;
    struct stream *s;
    DL_FOREACH(k->streams, s)
        stream_flush_log(s);
}

struct keeper *keeper_new(struct loop *loop, const char *vm, int listener)
{
    struct keeper *k = xcalloc(1, sizeof(*k));
    k->loop = loop;
    k->vm = xstrdup(vm);
    k->pod = xstrdup("");
    k->ops = &hyper_qemu;
    k->state_fd = k->rules = -1;
    k->listener = listener;
    k->exits_fd = open(EXITS_FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (k->exits_fd < 0)
        log_error("open '%s': %s", EXITS_FILE, strerror(errno));
    mark_add(&k->marks, "keeper");
    loop_set_turn_end(loop, turn_end, k);
    control_listen(k);
    return k;
}

void keeper_stop(struct keeper *k)
{
    k->stopping = true;
    if (k->control)
        conn_close(k->control, false); /* control_closed() goes on */
    else
        loop_stop(k->loop);
}

void keeper_check_end(struct keeper *k)
{
    bool vm_lives = k->asked && k->state != WIRE_VM_GONE;
    if (k->dismissed && !k->stopping && !vm_lives && !k->leaving)
        keeper_stop(k);
}

static void timers_free(struct keeper *k)
{
    timer_free(k->orphan);
    timer_free(k->linger);
    timer_free(k->boot);
    timer_free(k->off);
    timer_free(k->request_timer);
}

/* After the loop has ended: QEMU is gone, or never was. */
void keeper_free(struct keeper *k)
{
    struct container *c, *c_next;
    struct exec *e, *e_next;
    assert(!k->hyper && !k->guest && !k->requests && !k->control);
    DL_FOREACH_SAFE(k->containers, c, c_next)
        container_free(c);
    DL_FOREACH_SAFE(k->execs, e, e_next)
        exec_free(e);
    while (k->leaving) {
        struct client *client = k->leaving;
        DL_DELETE(k->leaving, client);
        client_free(client);
    }
    disks_free(k);
    share_free(k->share);
    timers_free(k);
    watch_free(k->listener_watch);
    if (k->listener >= 0)
        close(k->listener);
    if (k->exits_fd >= 0)
        close(k->exits_fd);
    if (k->state_fd >= 0)
        close(k->state_fd);
    if (k->rules >= 0)
        close(k->rules);
    loop_set_turn_end(k->loop, NULL, NULL);
    free(k->vm);
    free(k->pod);
    free(k->placing);
    free(k->reason);
    free(k->layer);
    free(k->broken);
    free(k->unshared);
    free(k->hyper_reason);
    strv_free(k->marks);
    free(k);
}
