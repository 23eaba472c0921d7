#include "loop/loop_int.h"

#include <assert.h>
#include <stdlib.h>

#include "base/str.h"

/* libuv's start and init functions fail only on misuse, but uv_poll_init, which may be given any
 * descriptor. */
static void sure(int rc)
{
    assert(rc == 0);
    (void)rc;
}

static void loop_turn_end(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    if (loop->turn_end_hook)
        loop->turn_end_hook(loop->turn_end_arg);
}

/* What the deferred work defers itself waits for the turn after this one. */
static void loop_kick(uv_idle_t *handle)
{
    struct loop *loop = handle->data;
    uint64_t turn = ++loop->turn;

    while (loop->deferred && loop->deferred->turn < turn) {
        struct deferred *d = loop->deferred;
        loop_undefer(loop, d);
        d->run(d);
    }
    if (!loop->deferred)
        uv_idle_stop(&loop->kick);
}

struct loop *loop_new(void)
{
    struct loop *loop = xcalloc(1, sizeof(*loop));

    sure(uv_loop_init(&loop->uv));
    sure(uv_prepare_init(&loop->uv, &loop->turn_end));
    sure(uv_idle_init(&loop->uv, &loop->kick));
    loop->turn_end.data = loop->kick.data = loop;
    sure(uv_prepare_start(&loop->turn_end, loop_turn_end));
    uv_unref((uv_handle_t *)&loop->turn_end);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    uv_close((uv_handle_t *)&loop->turn_end, NULL);
    uv_close((uv_handle_t *)&loop->kick, NULL);
    loop->turn_end_hook = NULL;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    sure(uv_loop_close(&loop->uv));
    free(loop);
}

void loop_run(struct loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
    uv_stop(&loop->uv);
}

uint64_t loop_now_ms(struct loop *loop)
{
    return uv_now(&loop->uv);
}

void loop_set_turn_end(struct loop *loop, void (*hook)(void *arg), void *arg)
{
    loop->turn_end_hook = hook;
    loop->turn_end_arg = arg;
}

void loop_defer(struct loop *loop, struct deferred *d)
{
    if (d->next)
        return;
    d->turn = loop->turn;
    if (!loop->deferred) {
        loop->deferred = d->next = d->prev = d;
        sure(uv_idle_start(&loop->kick, loop_kick));
        return;
    }
    d->next = loop->deferred;
    d->prev = loop->deferred->prev;
    d->prev->next = d->next->prev = d;
}

void loop_undefer(struct loop *loop, struct deferred *d)
{
    if (!d->next)
        return;
    if (d->next == d) {
        loop->deferred = NULL;
    } else {
        d->prev->next = d->next;
        d->next->prev = d->prev;
        if (loop->deferred == d)
            loop->deferred = d->next;
    }
    d->next = d->prev = NULL;
}

/* ---- timers --------------------------------------------------------------------------------- */

struct timer {
    uv_timer_t uv;
    void (*fired)(void *arg);
    void *arg;
};

static void timer_fired(uv_timer_t *uv)
{
    struct timer *timer = uv->data;
    timer->fired(timer->arg);
}

static void handle_freed(uv_handle_t *uv)
{
    free(uv->data);
}

struct timer *timer_new(struct loop *loop, void (*fired)(void *arg), void *arg)
{
    struct timer *timer = xcalloc(1, sizeof(*timer));
    sure(uv_timer_init(&loop->uv, &timer->uv));
    timer->uv.data = timer;
    timer->fired = fired;
    timer->arg = arg;
    return timer;
}

void timer_set(struct timer *timer, uint64_t delay_ms)
{
    uv_update_time(timer->uv.loop); /* else the time that this turn has taken would count */
    sure(uv_timer_start(&timer->uv, timer_fired, delay_ms, 0));
}

void timer_unset(struct timer *timer)
{
    uv_timer_stop(&timer->uv);
}

void timer_free(struct timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->uv, handle_freed);
}

/* ---- descriptors ---------------------------------------------------------------------------- */

struct watch {
    uv_poll_t uv;
    void (*ready)(int events, void *arg);
    void *arg;
    int events;
};

static void watch_arm(struct watch *watch);

/* An error is reported as readiness for what is watched: the next read or write tells which. So is
 * by libuv a hangup that nothing else comes with, which the kernel tells unasked: what watches for
 * it asks for urgent data, of which these descriptors have none. */
static void watch_ready(uv_poll_t *uv, int status, int events)
{
    struct watch *watch = uv->data;
    int ready = 0;

    if (events & (UV_READABLE | UV_DISCONNECT) || status < 0)
        ready |= WATCH_READ;
    if (events & UV_WRITABLE || status < 0)
        ready |= WATCH_WRITE;
    if (events & UV_PRIORITIZED || status < 0)
        ready |= WATCH_HANGUP;
    if (status < 0)
        watch_arm(
            watch); /* libuv watches no more after an error, and one read may not be the last */
    watch->ready(ready & watch->events, watch->arg);
}

static void watch_arm(struct watch *watch)
{
    int events = watch->events;

    sure(uv_poll_start(&watch->uv,
                       (events & WATCH_READ ? UV_READABLE : 0) |
                           (events & WATCH_WRITE ? UV_WRITABLE : 0) |
                           (events & WATCH_HANGUP ? UV_PRIORITIZED : 0),
                       watch_ready));
}

struct watch *watch_new(struct loop *loop, int fd, int events, void (*ready)(int events, void *arg),
                        void *arg)
{
    struct watch *watch = xcalloc(1, sizeof(*watch));
    sure(uv_poll_init(&loop->uv, &watch->uv, fd));
    watch->uv.data = watch;
    watch->ready = ready;
    watch->arg = arg;
    watch_set(watch, events);
    return watch;
}

void watch_set(struct watch *watch, int events)
{
    if (watch->events == events)
        return;
    watch->events = events;
    if (events)
        watch_arm(watch);
    else
        sure(uv_poll_stop(&watch->uv));
}

void watch_free(struct watch *watch)
{
    if (watch)
        uv_close((uv_handle_t *)&watch->uv, handle_freed);
}

/* ---- signals -------------------------------------------------------------------------------- */

struct signal_watch {
    uv_signal_t uv;
    void (*came)(int signal, void *arg);
    void *arg;
};

static void signal_came(uv_signal_t *uv, int signal)
{
    struct signal_watch *watch = uv->data;
    watch->came(signal, watch->arg);
}

struct signal_watch *signal_watch_new(struct loop *loop, int signal,
                                      void (*came)(int signal, void *arg), void *arg)
{
    struct signal_watch *watch = xcalloc(1, sizeof(*watch));
    sure(uv_signal_init(&loop->uv, &watch->uv));
    watch->uv.data = watch;
    watch->came = came;
    watch->arg = arg;
    sure(uv_signal_start(&watch->uv, signal_came, signal));
    return watch;
}

void signal_watch_free(struct signal_watch *watch)
{
    if (watch)
        uv_close((uv_handle_t *)&watch->uv, handle_freed);
}
