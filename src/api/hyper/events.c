/* /events: the store's log of what happened, a line each, and on request what happens next. */
#include <stdlib.h>

#include "api/hyper/hyper.h"

enum { EVENTS_BATCH = 64 };

struct events {
    struct api *api;
    uint64_t revision; /* of the last one that was sent */
    int64_t since_ns;
    bool follow;
    struct buf out;
};

static bool event_put(const struct feed_event *event, void *arg)
{
    struct events *events = arg;
    json_open(&events->out, NULL, '{');
    show_time(&events->out, "time", event->time_ns);
    json_number(&events->out, "revision", (int64_t)event->revision);
    json_text(&events->out, "kind", noun_name(event->noun));
    json_text(&events->out, "id", event->id);
    json_text(&events->out, "name", event->name);
    json_text(&events->out, "reason", event->reason);
    json_text(&events->out, "message", event->message);
    json_close(&events->out, '}');
    buf_append_str(&events->out, "\n");
    events->revision = event->revision;
    return true;
}

static void events_free(void *data)
{
    struct events *events = data;
    buf_release(&events->out);
    free(events);
}

static ssize_t events_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct events *events = call->data;
    if (events->out.len == 0 &&
        store_feed_each(events->api->store, events->revision, events->since_ns, EVENTS_BATCH,
                        event_put, events, NULL) < 0)
        return -1;
    size_t n = events->out.len < size ? events->out.len : size;
    if (n == 0) {
        buf_release(&events->out);
        return events->follow ? 0 : -1;
    }
    memcpy(to, events->out.data, n);
    buf_consume(&events->out, n);
    return (ssize_t)n;
}

/* Without a time: all that is kept, or with follow what comes from now on. */
void look_events(struct call *call)
{
    const char *since = call_query(call, "since");
    struct error *error = NULL;
    int64_t since_ns = 0;
    bool follow = call_flag(call, "follow");
    if (since && !time_read(since, &since_ns))
        error_set(&error, ERROR_INVALID, 0, "since: '%s' is not a time", since);
    if (!error && follow)
        call_follow(call, &error);
    if (error) {
        call_fail(call, error);
        return;
    }
    struct events *events = xcalloc(1, sizeof(*events));
    events->api = call->api;
    events->since_ns = since_ns;
    events->follow = follow;
    events->revision = follow && !since ? store_revision(call->api->store) : 0;
    call->data = events;
    call->data_free = events_free;
    http_reply_stream(call->r, 200, "application/x-ndjson", events_pull);
}
