/* The line on a terminal that says what husk waits for, and for how long. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"

enum {
    LINE_MAX_COLUMNS = 160,
    EVENT_LINE_MAX = 64 << 10, /* a longer event is not looked at */
};

/* There is one terminal, so there is one line. */
static struct {
    char *text;     /* NULL: nothing is waited for */
    char *object;   /* name or id whose events are shown */
    char *event;    /* the last one's message */
    bool shown;     /* the line is on the screen */
    bool head_read; /* of the answer on `feed` */
    struct timespec since;
    struct http feed; /* GET /events; fd -1 if there is none */
    struct buf lines; /* what came on it and is not a whole line yet */
} waiting = {.feed.fd = -1};

static double seconds_since(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void waiting_begin(struct cli *cli, const char *object, const char *format, ...)
{
    va_list ap;
    waiting_end(cli);
    if (!isatty(STDERR_FILENO))
        return;
    va_start(ap, format);
    waiting.text = str_vprintf(format, ap);
    va_end(ap);
    waiting.object = xstrdup(object);
    clock_gettime(CLOCK_MONOTONIC, &waiting.since);
    cli->http.idle = waiting_tick;
    cli->http.idle_arg = cli;
}

/* ---- the last event ------------------------------------------------------------------------- */

static void feed_open(const struct cli *cli)
{
    CLEANUP_FREE char *since = str_printf("%lld", (long long)time(NULL) - 1);
    CLEANUP_FREE char *target = http_target("/events", "follow", "true", "since", since, NULL);
    struct http_request request = {.method = "GET", .target = target, .no_wait = true};
    http_init(&waiting.feed, cli->socket);
    if (http_begin(&waiting.feed, &request, NULL) < 0)
        http_close(&waiting.feed);
}

static void event_take(const char *line, size_t size)
{
    CLEANUP_JSON json_t *event = json_loadb(line, size, 0, NULL);
    const char *message = json_text(event, "message");
    if (!*message || (!str_eq(json_text(event, "name"), waiting.object) &&
                      !str_eq(json_text(event, "id"), waiting.object)))
        return;
    str_set(&waiting.event, message);
}

/* Reads one piece of the feed; false when the feed is over. */
static bool feed_step(void)
{
    char *data;
    size_t size;
    if (!waiting.head_read) {
        if (http_read_head(&waiting.feed, NULL) < 0 || waiting.feed.head.status != 200)
            return false;
        waiting.head_read = true;
        if (waiting.feed.start == waiting.feed.end)
            return true;
    }
    if (http_read(&waiting.feed, &data, &size, NULL) < 0 || size == 0 ||
        waiting.lines.len > EVENT_LINE_MAX)
        return false;
    buf_append(&waiting.lines, data, size);
    return true;
}

static void feed_look(void)
{
    struct pollfd poller = {.fd = waiting.feed.fd, .events = POLLIN};
    while (waiting.feed.fd >= 0 && poll(&poller, 1, 0) > 0)
        if (!feed_step()) {
            http_close(&waiting.feed);
            poller.fd = -1;
        }
    uint8_t *end;
    while (waiting.lines.len && (end = memchr(waiting.lines.data, '\n', waiting.lines.len))) {
        size_t size = (size_t)(end - waiting.lines.data);
        event_take((const char *)waiting.lines.data, size);
        buf_consume(&waiting.lines, size + 1);
    }
}

/* ---- drawing -------------------------------------------------------------------------------- */

static size_t terminal_columns(void)
{
    struct winsize size = {0};
    ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    return size.ws_col && size.ws_col < LINE_MAX_COLUMNS ? size.ws_col : LINE_MAX_COLUMNS;
}

static void put(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        waiting.shown = false; /* the terminal is gone: there is nothing to erase */
}

static void draw(double seconds)
{
    CLEANUP_FREE char *line =
        waiting.event ? str_printf("%s: %s… %.0f s", waiting.text, waiting.event, seconds)
                      : str_printf("%s… %.1f s", waiting.text, seconds);
    size_t columns = terminal_columns() - 1;
    char *end = line;
    for (size_t i = 0; *end && i < columns; i++) /* whole UTF-8 characters */
        for (end++; ((unsigned char)*end & 0xc0) == 0x80; end++)
            ;
    *end = 0;
    CLEANUP_FREE char *all = str_printf("\r%s\033[K", line);
    waiting.shown = true;
    put(all);
}

void waiting_tick(void *arg)
{
    struct cli *cli = arg;
    if (!waiting.text)
        return;
    double seconds = seconds_since(&waiting.since);
    if (seconds * 1000 < WAITING_AFTER_MS)
        return;
    if (!waiting.shown && waiting.object && waiting.feed.fd < 0)
        feed_open(cli);
    feed_look();
    draw(seconds);
}

void waiting_end(struct cli *cli)
{
    if (!waiting.text)
        return;
    if (waiting.shown)
        put("\r\033[K");
    http_close(&waiting.feed);
    buf_release(&waiting.lines);
    str_set(&waiting.text, NULL);
    str_set(&waiting.object, NULL);
    str_set(&waiting.event, NULL);
    waiting.shown = waiting.head_read = false;
    cli->http.idle = NULL;
}
