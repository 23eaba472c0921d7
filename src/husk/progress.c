#include "husk/progress.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"
#include "husk/cli.h"

enum { BAR_WIDTH = 30 };

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void progress_bar(char *ret, size_t width, uint64_t current, uint64_t total)
{
    double part = total ? (double)current / (double)total : 0;
    size_t filled = (size_t)((part > 1 ? 1 : part) * (double)width);
    memset(ret, '=', filled);
    memset(ret + filled, ' ', width - filled);
    if (filled && filled < width)
        ret[filled - 1] = '>';
    ret[width] = 0;
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", progress->out);
    progress->drawn = false;
}

/* Off a terminal: each text once. */
static void show_line(struct progress *progress, const char *text)
{
    if (str_eq(progress->last, text))
        return;
    str_set(&progress->last, text);
    fprintf(progress->out, "%s\n", text);
    fflush(progress->out);
}

void progress_show(struct progress *progress, const char *text, uint64_t current, uint64_t total)
{
    char bar[BAR_WIDTH + 1], done[32], all[32];
    uint64_t now = now_ms();
    if (!progress->terminal) {
        show_line(progress, text);
        return;
    }
    if (progress->drawn && now < progress->drawn_ms + PROGRESS_STEP_MS && current < total)
        return;
    size_format(done, sizeof(done), (double)current);
    size_format(all, sizeof(all), (double)total);
    progress_bar(bar, BAR_WIDTH, current, total);
    if (total)
        fprintf(progress->out, "\r%s [%s] %s/%s\033[K", text, bar, done, all);
    else if (current)
        fprintf(progress->out, "\r%s %s\033[K", text, done);
    else
        fprintf(progress->out, "\r%s\033[K", text);
    fflush(progress->out);
    progress->drawn = true;
    progress->drawn_ms = now;
}

static int message_take(struct progress *progress, const json_t *message, struct error **ret_error)
{
    const json_t *detail = json_object_get(message, "progressDetail");
    const char *id = json_text(message, "id"), *status = json_text(message, "status");
    const char *stream = json_text(message, "stream"), *error = json_text(message, "error");
    if (*error) {
        progress_clear(progress);
        return error_set(ret_error, ERROR_INVALID, 0, "%s", error);
    }
    if (*stream) { /* its own line feeds are in it */
        progress_clear(progress);
        fputs(stream, progress->out);
        fflush(progress->out);
    }
    if (*status) {
        CLEANUP_FREE char *text = *id ? str_printf("%s: %s", id, status) : xstrdup(status);
        progress_show(progress, text,
                      (uint64_t)json_integer_value(json_object_get(detail, "current")),
                      (uint64_t)json_integer_value(json_object_get(detail, "total")));
    }
    return 0;
}

static int line_take(struct progress *progress, const char *line, size_t size,
                     struct error **ret_error)
{
    json_error_t why;
    if (strspn(line, " \t\r") >= size)
        return 0;
    CLEANUP_JSON json_t *message = json_loadb(line, size, 0, &why);
    if (!message)
        return error_set(ret_error, ERROR_CORRUPT, 0, "huskd's progress is not JSON: %s", why.text);
    return message_take(progress, message, ret_error);
}

int progress_feed(struct progress *progress, const void *data, size_t size,
                  struct error **ret_error)
{
    struct buf *pending = &progress->pending;
    uint8_t *end;
    buf_append(pending, data, size);
    while (pending->len && (end = memchr(pending->data, '\n', pending->len))) {
        size_t line = (size_t)(end - pending->data);
        *end = 0;
        if (line_take(progress, (const char *)pending->data, line, ret_error) < 0)
            return -1;
        buf_consume(pending, line + 1);
    }
    if (pending->len > PROGRESS_LINE_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "a progress message is over %d bytes",
                         PROGRESS_LINE_MAX);
    return 0;
}

void progress_done(struct progress *progress)
{
    progress_clear(progress);
    buf_release(&progress->pending);
    str_set(&progress->last, NULL);
}
