#include "logs/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"

struct log_file {
    char *path;
    int fd; /* -1: it could not be opened again after a rotation */
    uint64_t size;
    uint64_t max_bytes;
    bool torn;                            /* the last write was cut off in the middle of a line */
    struct buf partial[LOG_STREAM_COUNT]; /* the beginning of a line */
    struct buf out;
    struct error *failed; /* of a write before the flush */
    time_t second;        /* of which `stamp` is the text */
    char stamp[32];
};

static const char *const stream_names[] = {"stdout", "stderr"};
_Static_assert(ARRAY_SIZE(stream_names) == LOG_STREAM_COUNT, "a name for each stream");

/* ---- JSON ----------------------------------------------------------------------------------- */

static bool is_plain(uint8_t c)
{
    return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

static void put_special(struct buf *out, uint8_t c)
{
    static const char names[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    for (const char *p = names; *p; p += 2)
        if ((uint8_t)*p == c) {
            char text[2] = {'\\', p[1]};
            buf_append(out, text, 2);
            return;
        }
    if (c < 0x80)
        buf_printf(out, "\\u%04x", c);
    else
        buf_append_str(out, "\\ufffd");
}

static void put_escaped(struct buf *out, const uint8_t *p, size_t size)
{
    while (size) {
        size_t n = 0;
        while (n < size && is_plain(p[n]))
            n++;
        if (!n)
            n = str_utf8_length(p, size);
        if (n) {
            buf_append(out, p, n);
        } else {
            put_special(out, *p);
            n = 1;
        }
        p += n;
        size -= n;
    }
}

static void put_time(struct log_file *log)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != log->second || !*log->stamp) {
        struct tm tm;
        gmtime_r(&now.tv_sec, &tm);
        strftime(log->stamp, sizeof(log->stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        log->second = now.tv_sec;
    }
    buf_printf(&log->out, "%s.%09ldZ", log->stamp, now.tv_nsec);
}

/* ---- the file ------------------------------------------------------------------------------- */

static int file_open(struct log_file *log, struct error **ret_error)
{
    struct stat st;
    char last = '\n';
    log->fd = open(log->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log->fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "log '%s'", log->path);
    log->size = fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    /* The run before may have ended in the middle of a line, by a full disk. */
    if (log->size && pread(log->fd, &last, 1, (off_t)log->size - 1) == 1)
        log->torn = last != '\n';
    return 0;
}

static int file_rotate(struct log_file *log, struct error **ret_error)
{
    CLEANUP_FREE char *old = str_printf("%s.1", log->path);
    if (rename(log->path, old) < 0)
        return error_set(ret_error, ERROR_IO, errno, "rotate log '%s'", log->path);
    close(log->fd);
    log->torn = false;
    return file_open(log, ret_error);
}

static int file_write(struct log_file *log, const uint8_t *data, size_t size,
                      struct error **ret_error)
{
    while (size) {
        ssize_t n = write(log->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "write log '%s'", log->path);
        data += n;
        size -= (size_t)n;
        log->size += (uint64_t)n;
        log->torn = size > 0;
    }
    return 0;
}

static int out_write(struct log_file *log, struct error **ret_error)
{
    if (!log->out.len)
        return 0;
    if (log->fd < 0 && file_open(log, ret_error) < 0)
        return -1;
    if (log->max_bytes && log->size >= log->max_bytes && file_rotate(log, ret_error) < 0)
        return -1;
    if (log->torn && file_write(log, (const uint8_t *)"\n", 1, ret_error) < 0)
        return -1;
    return file_write(log, log->out.data, log->out.len, ret_error);
}

int log_file_flush(struct log_file *log, struct error **ret_error)
{
    struct error *error = NULL;
    if (!log->failed)
        out_write(log, &error);
    else
        error = take(log->failed);
    buf_release(&log->out);
    return error ? error_move(ret_error, &error) : 0;
}

int log_file_open(const char *path, uint64_t max_bytes, struct log_file **ret,
                  struct error **ret_error)
{
    struct log_file *log = xcalloc(1, sizeof(*log));
    log->path = xstrdup(path);
    log->max_bytes = max_bytes;
    if (file_open(log, ret_error) < 0) {
        free(log->path);
        free(log);
        return -1;
    }
    *ret = log;
    return 0;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static void put_piece(struct log_file *log, enum log_stream stream, const uint8_t *data,
                      size_t size)
{
    buf_append_str(&log->out, "{\"log\":\"");
    put_escaped(&log->out, data, size);
    buf_printf(&log->out, "\",\"stream\":\"%s\",\"time\":\"", stream_names[stream]);
    put_time(log);
    buf_append_str(&log->out, "\"}\n");
    if (log->out.len < LOG_BUFFER_MAX)
        return;
    if (!log->failed)
        out_write(log, &log->failed);
    buf_release(&log->out);
}

/* How much of the line at p makes the next piece; 0: more is needed. */
static size_t piece_size(const uint8_t *p, size_t size)
{
    size_t window = size < LOG_PIECE_MAX ? size : LOG_PIECE_MAX;
    const uint8_t *end = memchr(p, '\n', window);
    if (end)
        return (size_t)(end - p) + 1;
    if (size < LOG_PIECE_MAX)
        return 0;
    /* Not in the middle of a character, if it is text at all. */
    size_t cut = LOG_PIECE_MAX;
    while (cut > LOG_PIECE_MAX - 4 && cut < size && (p[cut] & 0xc0) == 0x80)
        cut--;
    return cut;
}

static void put_pieces(struct log_file *log, enum log_stream stream, const uint8_t **p,
                       size_t *size)
{
    size_t n;
    while (*size && (n = piece_size(*p, *size))) {
        put_piece(log, stream, *p, n);
        *p += n;
        *size -= n;
    }
}

void log_file_write(struct log_file *log, enum log_stream stream, const void *data, size_t size)
{
    struct buf *partial = &log->partial[stream];
    const uint8_t *p = data;

    /* Only as much is added to the beginning of a line as completes it. */
    while (partial->len && size) {
        const uint8_t *end = memchr(p, '\n', size);
        size_t part = end ? (size_t)(end - p) + 1 : size;
        if (part > LOG_PIECE_MAX)
            part = LOG_PIECE_MAX;
        buf_append(partial, p, part);
        p += part;
        size -= part;
        const uint8_t *line = partial->data;
        size_t left = partial->len;
        put_pieces(log, stream, &line, &left);
        buf_consume(partial, partial->len - left);
    }
    put_pieces(log, stream, &p, &size);
    if (!partial->len)
        buf_release(partial);
    buf_append(partial, p, size);
}

int log_file_close(struct log_file *log, struct error **ret_error)
{
    if (!log)
        return 0;
    for (int i = 0; i < LOG_STREAM_COUNT; i++) {
        if (log->partial[i].len)
            put_piece(log, (enum log_stream)i, log->partial[i].data, log->partial[i].len);
        buf_release(&log->partial[i]);
    }
    int r = log_file_flush(log, ret_error);
    if (log->fd >= 0)
        close(log->fd);
    free(log->path);
    free(log);
    return r;
}
