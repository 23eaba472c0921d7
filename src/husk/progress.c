#include "husk/progress.h"

#include <jansson.h>
#include <stdlib.h>
#include <sys/ioctl.h>
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

/* ---- several things side by side ------------------------------------------------------------ */

static void item_clear(struct progress_item *item)
{
    free(item->id);
    free(item->status);
}

static struct progress_item *item_get(struct progress *progress, const char *id)
{
    for (size_t i = 0; i < progress->item_count; i++)
        if (str_eq(progress->items[i].id, id))
            return &progress->items[i];
    if (progress->item_count >= PROGRESS_ITEMS_MAX)
        return NULL;
    progress->items =
        xrealloc(progress->items, (progress->item_count + 1) * sizeof(*progress->items));
    struct progress_item *item = &progress->items[progress->item_count++];
    *item = (struct progress_item){.id = xstrdup(id)};
    return item;
}

static void item_remove(struct progress *progress, struct progress_item *item)
{
    size_t at = (size_t)(item - progress->items);
    item_clear(item);
    progress->item_count--;
    memmove(item, item + 1, (progress->item_count - at) * sizeof(*item));
}

/* Whether nothing more will be said of it. */
static bool item_is_done(const struct progress_item *item)
{
    static const char *const last[] = {"Pull complete", "Already exists", "Pushed", "Mounted",
                                       "Layer already exists"};
    for (size_t i = 0; i < ARRAY_SIZE(last); i++)
        if (str_starts(item->status, last[i]))
            return true;
    return str_starts(item->status, "Pulling from");
}

static void item_draw(const struct progress *progress, const struct progress_item *item)
{
    char bar[BAR_WIDTH + 1], done[32], all[32], rate[32];
    uint64_t now = now_ms();
    if (!item->total) {
        fprintf(progress->out, "%s: %s\033[K\n", item->id, item->status);
        return;
    }
    size_format(done, sizeof(done), (double)item->current);
    size_format(all, sizeof(all), (double)item->total);
    progress_bar(bar, BAR_WIDTH, item->current, item->total);
    fprintf(progress->out, "%s: %-12s [%s] %s/%s", item->id, item->status, bar, done, all);
    if (now > item->since_ms && item->current > item->since) {
        size_format(rate, sizeof(rate),
                    (double)(item->current - item->since) * 1000 / (double)(now - item->since_ms));
        fprintf(progress->out, "  %s/s", rate);
    }
    fputs("\033[K\n", progress->out);
}

static void items_erase(struct progress *progress)
{
    if (progress->rows)
        fprintf(progress->out, "\033[%uA\033[J", progress->rows);
    progress->rows = 0;
}

/* No more than the screen has room for: a line that has scrolled away cannot be redrawn. */
static void items_draw(struct progress *progress)
{
    struct winsize size = {.ws_row = 24};
    ioctl(fileno(progress->out), TIOCGWINSZ, &size);
    unsigned room = size.ws_row > 4 ? size.ws_row - 2U : 2;
    for (size_t i = 0; i < progress->item_count && progress->rows < room; i++, progress->rows++)
        item_draw(progress, &progress->items[i]);
    fflush(progress->out);
}

/* On a terminal: what is done is printed above the others and forgotten. */
static void item_show(struct progress *progress, struct progress_item *item, bool changed)
{
    uint64_t now = now_ms();
    bool done = item_is_done(item);
    if (!changed && !done && now < progress->drawn_ms + PROGRESS_STEP_MS)
        return;
    progress->drawn_ms = now;
    items_erase(progress);
    if (done) {
        fprintf(progress->out, "%s: %s\n", item->id, item->status);
        item_remove(progress, item);
    }
    items_draw(progress);
}

static void item_take(struct progress *progress, const char *id, const char *status,
                      uint64_t current, uint64_t total)
{
    struct progress_item *item = item_get(progress, id);
    if (!item)
        return;
    bool changed = !str_eq(item->status, status);
    if (changed || current < item->since) {
        item->since_ms = now_ms();
        item->since = current;
    }
    str_set(&item->status, status);
    item->current = current;
    item->total = total;
    if (progress->terminal)
        item_show(progress, item, changed);
    else if (changed && !total)
        fprintf(progress->out, "%s: %s\n", id, status);
}

static void status_take(struct progress *progress, const char *status)
{
    if (progress->terminal) {
        items_erase(progress);
        fprintf(progress->out, "%s\n", status);
        items_draw(progress);
    } else {
        show_line(progress, status);
    }
}

/* ---- the daemon's messages ------------------------------------------------------------------ */

static int error_take(struct progress *progress, const json_t *message, const char *text,
                      struct error **ret_error)
{
    int kind = error_kind_from_name(json_text(message, "kind"));
    progress_clear(progress);
    items_erase(progress);
    return error_set(ret_error, kind < 0 ? ERROR_INVALID : (enum error_kind)kind, 0, "%s", text);
}

static int message_take(struct progress *progress, const json_t *message, struct error **ret_error)
{
    const json_t *detail = json_object_get(message, "progressDetail");
    const char *id = json_text(message, "id"), *status = json_text(message, "status");
    const char *stream = json_text(message, "stream"), *error = json_text(message, "error");
    uint64_t current = (uint64_t)json_integer_value(json_object_get(detail, "current"));
    uint64_t total = (uint64_t)json_integer_value(json_object_get(detail, "total"));
    if (*error)
        return error_take(progress, message, error, ret_error);
    if (progress->quiet)
        return 0;
    if (*stream) { /* its own line feeds are in it */
        progress_clear(progress);
        fputs(stream, progress->out);
        fflush(progress->out);
    }
    if (*status && progress->several && *id) {
        item_take(progress, id, status, current, total);
    } else if (*status && progress->several) {
        status_take(progress, status);
    } else if (*status) {
        CLEANUP_FREE char *text = *id ? str_printf("%s: %s", id, status) : xstrdup(status);
        progress_show(progress, text, current, total);
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
    for (size_t i = 0; i < progress->item_count; i++)
        item_clear(&progress->items[i]);
    free(progress->items);
    progress->items = NULL;
    progress->item_count = 0;
    buf_release(&progress->pending);
    str_set(&progress->last, NULL);
}
