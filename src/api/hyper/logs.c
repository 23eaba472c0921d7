/* /container/logs, and the replay of a log to who attaches too late. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "api/hyper/hyper.h"
#include "api/logread.h"
#include "base/log.h"

enum { REPLAY_SIZE = 32 << 10, LOG_SETTLE_MS = 150 };

static char *log_path(const struct api *api, const struct container *ctr)
{
    const struct pod *pod = world_pod(api->world, ctr->pod);
    return str_printf("%s/pods/%s/%s.log", api->config.root, pod->uid, ctr->id);
}

bool ctr_has_tty(const struct api *api, const struct container *ctr)
{
    struct process process;
    process_of(ctr, world_pod(api->world, ctr->pod), world_image(api->world, ctr->image), &process);
    bool tty = process.tty;
    process_clear(&process);
    return tty;
}

/* ---- one inotify instance for all followers -------------------------------------------------- */

struct follow {
    struct follow *prev, *next;
    struct call *call;
    int mark; /* inotify's number of the directory; others may have the same */
};

struct log_watch {
    int fd;
    struct watch *watch;
    struct follow *follows;
};

static void log_moved(int events, void *arg)
{
    struct log_watch *watch = arg;
    char buffer[16 << 10] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t size = read(watch->fd, buffer, sizeof(buffer));
    const struct inotify_event *event;
    for (char *p = buffer; size > 0 && p < buffer + size; p += sizeof(*event) + event->len) {
        struct follow *follow;
        event = (const struct inotify_event *)(const void *)p;
        DL_FOREACH(watch->follows, follow)
            if (follow->mark == event->wd)
                http_wake(follow->call->r);
    }
}

static int log_watch_need(struct api *api, struct error **ret_error)
{
    if (api->log_watch)
        return 0;
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "follow logs");
    api->log_watch = xcalloc(1, sizeof(*api->log_watch));
    api->log_watch->fd = fd;
    api->log_watch->watch = watch_new(api->loop, fd, WATCH_READ, log_moved, api->log_watch);
    return 0;
}

void log_watch_free(struct log_watch *watch)
{
    if (!watch)
        return;
    watch_free(watch->watch);
    close(watch->fd);
    free(watch);
}

static int follow_start(struct call *call, const char *path, struct follow *follow,
                        struct error **ret_error)
{
    struct api *api = call->api;
    CLEANUP_FREE char *directory = xstrndup(path, (size_t)(strrchr(path, '/') - path));
    if (log_watch_need(api, ret_error) < 0 || call_follow(call, ret_error) < 0)
        return -1;
    follow->mark =
        inotify_add_watch(api->log_watch->fd, directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
    if (follow->mark < 0)
        return error_set(ret_error, ERROR_IO, errno, "follow '%s'", path);
    follow->call = call;
    DL_APPEND(api->log_watch->follows, follow);
    return 0;
}

static void follow_stop(struct log_watch *watch, struct follow *follow)
{
    struct follow *other;
    if (!follow->call)
        return;
    DL_DELETE(watch->follows, follow);
    DL_SEARCH_SCALAR(watch->follows, other, mark, follow->mark);
    if (!other)
        inotify_rm_watch(watch->fd, follow->mark);
}

/* ---- the request ---------------------------------------------------------------------------- */

struct logs {
    struct api *api;
    struct ref ctr;
    struct log_read *read;
    struct follow follow;
    struct timer *settle; /* the keeper may write its last lines after it has told the end */
    bool follows, settled;
};

static void logs_free(void *data)
{
    struct logs *logs = data;
    follow_stop(logs->api->log_watch, &logs->follow);
    timer_free(logs->settle);
    log_read_free(logs->read);
    free(logs);
}

static void logs_settled(void *arg)
{
    struct logs *logs = arg;
    logs->settled = true;
    http_wake(logs->follow.call->r);
}

/* Whether more may come: it is up, or about to be. */
static bool logs_go_on(const struct logs *logs)
{
    const struct container *ctr = world_ctr(logs->api->world, logs->ctr);
    return ctr && (ctr_is_up(ctr) || ctr->want == CTR_WANT_RUNNING);
}

static ssize_t logs_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct logs *logs = call->data;
    size_t n = log_read_some(logs->read, to, size);
    if (n > 0)
        return (ssize_t)n;
    if (!logs->follows || logs->settled)
        return -1;
    if (!logs_go_on(logs))
        timer_set(logs->settle, LOG_SETTLE_MS);
    return 0;
}

static int query_read(struct call *call, struct log_query *ret, struct error **ret_error)
{
    const char *since = call_query(call, "since"), *tail = call_query(call, "tail");
    uint64_t lines = LOG_TAIL_ALL;
    *ret = (struct log_query){.out = call_flag(call, "stdout"),
                              .err = call_flag(call, "stderr"),
                              .timestamps = call_flag(call, "timestamps"),
                              .framed = !ctr_has_tty(call->api, call->ctr)};
    if (!ret->out && !ret->err)
        ret->out = ret->err = true;
    if (since && !time_read(since, &ret->since_ns))
        return error_set(ret_error, ERROR_INVALID, 0, "since: '%s' is not a time", since);
    if (tail && !str_eq(tail, "all") && !str_to_u64(tail, 0, LOG_TAIL_ALL, &lines))
        return error_set(ret_error, ERROR_INVALID, 0, "tail: '%s' is not a number of lines", tail);
    ret->tail = (uint32_t)lines;
    return 0;
}

void look_logs(struct call *call)
{
    struct error *error = NULL;
    struct log_query query;
    CLEANUP_FREE char *path = log_path(call->api, call->ctr);
    struct logs *logs = xcalloc(1, sizeof(*logs));
    logs->api = call->api;
    logs->ctr = call->ctr->object.ref;
    logs->follows = call_flag(call, "follow");
    logs->settle = timer_new(call->api->loop, logs_settled, logs);
    call->data = logs;
    call->data_free = logs_free;
    if (query_read(call, &query, &error) < 0 ||
        log_read_open(path, &query, &logs->read, &error) < 0 ||
        (logs->follows && follow_start(call, path, &logs->follow, &error) < 0))
        call_fail(call, error);
    else
        http_reply_stream(call->r, 200, "application/octet-stream", logs_pull);
}

/* ---- replay --------------------------------------------------------------------------------- */

struct replay {
    struct log_read *read;
    int fd;
    struct watch *watch;
    char data[REPLAY_SIZE];
    size_t size, sent;
};

static void replay_free(struct replay *replay)
{
    watch_free(replay->watch);
    close(replay->fd);
    log_read_free(replay->read);
    free(replay);
}

static void replay_ready(int events, void *arg)
{
    struct replay *replay = arg;
    if (replay->sent == replay->size) {
        replay->sent = 0;
        replay->size = log_read_some(replay->read, replay->data, sizeof(replay->data));
    }
    ssize_t n = send(replay->fd, replay->data + replay->sent, replay->size - replay->sent,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        replay->sent += (size_t)n;
    else if (replay->size == 0 || (errno != EAGAIN && errno != EINTR))
        replay_free(replay); /* all is said, or nobody listens */
}

void log_replay(struct api *api, const struct container *ctr, int fd)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *path = log_path(api, ctr);
    struct log_query query = {.since_ns = ctr->started_ns,
                              .tail = LOG_TAIL_ALL,
                              .out = true,
                              .err = true,
                              .framed = !ctr_has_tty(api, ctr)};
    struct log_read *read;
    if (log_read_open(path, &query, &read, &error) < 0) {
        log_error("container '%s': %s", ctr->spec.name, error_text(error));
        close(fd);
        return;
    }
    struct replay *replay = xcalloc(1, sizeof(*replay));
    replay->read = read;
    replay->fd = fd;
    replay->watch = watch_new(api->loop, fd, WATCH_WRITE, replay_ready, replay);
}
