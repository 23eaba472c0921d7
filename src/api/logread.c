#include "api/logread.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/times.h"
#include "base/buf.h"
#include "base/str.h"

enum { LOG_CHUNK = 32 << 10, OPEN_TRIES = 10 };

struct log_read {
    char *path;
    struct log_query query;
    int older, fd;  /* the rotated file, until it is read; the current one; -1: not there */
    bool rotated;   /* `fd` is not the current one any more, and gets no more lines */
    struct buf in;  /* read and not yet taken apart */
    struct buf out; /* ready, and not yet asked for */
    bool skipping;  /* inside a line that is too long */
};

/* ---- opening, and finding the last lines ---------------------------------------------------- */

/* Moves the file to the start of its last *lines lines; *lines becomes how many are missing. */
static void seek_tail(int fd, uint32_t *lines)
{
    char block[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    bool last = true;
    for (off_t at = end; at > 0;) {
        size_t size = at < (off_t)sizeof(block) ? (size_t)at : sizeof(block);
        at -= (off_t)size;
        if (pread(fd, block, size, at) != (ssize_t)size)
            break;
        for (size_t i = size; i > 0; i--) {
            if (block[i - 1] != '\n')
                continue;
            if (!last && --*lines == 0) {
                lseek(fd, at + (off_t)i, SEEK_SET);
                return;
            }
            last = false;
        }
    }
    if (!last)
        --*lines;
    lseek(fd, 0, SEEK_SET);
}

static void skip_all(int *fd)
{
    if (*fd >= 0)
        lseek(*fd, 0, SEEK_END);
}

static void tail_find(struct log_read *log)
{
    uint32_t lines = log->query.tail;
    if (lines == LOG_TAIL_ALL)
        return;
    if (lines > 0 && log->fd >= 0)
        seek_tail(log->fd, &lines);
    else
        skip_all(&log->fd);
    if (lines > 0 && log->older >= 0)
        seek_tail(log->older, &lines);
    else
        skip_all(&log->older);
}

static int file_open(const char *path, int *ret_fd, struct error **ret_error)
{
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd < 0 && errno != ENOENT)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    return 0;
}

static bool same_file(int fd, const char *path)
{
    struct stat here, there;
    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

/* Both, as they are at one moment. */
static int files_open(struct log_read *log, const char *older, struct error **ret_error)
{
    for (int tries = 0;; tries++) {
        if (file_open(log->path, &log->fd, ret_error) < 0 ||
            file_open(older, &log->older, ret_error) < 0)
            return -1;
        if (log->fd < 0) { /* in the middle of a rotation */
            log->fd = log->older;
            log->older = -1;
        }
        if (log->fd < 0 || log->older < 0 || same_file(log->fd, log->path) || tries == OPEN_TRIES)
            return 0;
        close(log->fd);
        close(log->older);
        log->fd = log->older = -1;
    }
}

int log_read_open(const char *path, const struct log_query *query, struct log_read **ret,
                  struct error **ret_error)
{
    CLEANUP_FREE char *older = str_printf("%s.1", path);
    struct log_read *log = xcalloc(1, sizeof(*log));
    log->path = xstrdup(path);
    log->query = *query;
    log->older = log->fd = -1;
    if (files_open(log, older, ret_error) < 0) {
        log_read_free(log);
        return -1;
    }
    tail_find(log);
    *ret = log;
    return 0;
}

void log_read_free(struct log_read *log)
{
    if (!log)
        return;
    if (log->older >= 0)
        close(log->older);
    if (log->fd >= 0)
        close(log->fd);
    buf_release(&log->in);
    buf_release(&log->out);
    free(log->path);
    free(log);
}

/* ---- a line --------------------------------------------------------------------------------- */

static void piece_put(struct log_read *log, bool err, const char *time, const char *text,
                      size_t size)
{
    size_t before = log->query.timestamps ? strlen(time) + 1 : 0;
    uint32_t length = (uint32_t)(size + before);
    const uint8_t header[8] = {err ? 2 : 1,
                               0,
                               0,
                               0,
                               (uint8_t)(length >> 24),
                               (uint8_t)(length >> 16),
                               (uint8_t)(length >> 8),
                               (uint8_t)length};
    if (log->query.framed)
        buf_append(&log->out, header, sizeof(header));
    if (before)
        buf_printf(&log->out, "%s ", time);
    buf_append(&log->out, text, size);
}

static void line_take(struct log_read *log, const char *line, size_t size)
{
    json_t *root = json_loadb(line, size, JSON_ALLOW_NUL, NULL);
    const char *text, *stream, *time;
    size_t text_size;
    int64_t ns;
    if (root && json_unpack(root, "{s:s%, s:s, s:s}", "log", &text, &text_size, "stream", &stream,
                            "time", &time) == 0) {
        bool err = str_eq(stream, "stderr");
        bool wanted = err ? log->query.err : log->query.out;
        bool young = !log->query.since_ns || (time_read(time, &ns) && ns >= log->query.since_ns);
        if (wanted && young)
            piece_put(log, err, time, text, text_size);
    }
    json_decref(root);
}

/* Takes whole lines out of `in`, until something has come of it. */
static void lines_take(struct log_read *log)
{
    while (log->out.len == 0 && log->in.len) {
        const uint8_t *newline = memchr(log->in.data, '\n', log->in.len);
        if (!newline && log->in.len > LOG_LINE_MAX) {
            log->skipping = true;
            buf_clear(&log->in);
        }
        if (!newline)
            return;
        size_t size = (size_t)(newline - log->in.data);
        if (!log->skipping)
            line_take(log, (const char *)log->in.data, size);
        log->skipping = false;
        buf_consume(&log->in, size + 1);
    }
}

/* ---- the files ------------------------------------------------------------------------------ */

/* Whether another file is the current one now. */
static bool file_is_rotated(const struct log_read *log)
{
    return access(log->path, F_OK) == 0 && (log->fd < 0 || !same_file(log->fd, log->path));
}

/* The file that was begun when ours was rotated. Ours is PATH.1 then, unless that has been replaced
 * too: what came after ours is PATH.1 itself in that case, or is gone. */
static bool file_next(struct log_read *log)
{
    CLEANUP_FREE char *older = str_printf("%s.1", log->path);
    int next = open(log->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (log->fd >= 0 && !same_file(log->fd, older)) {
        int skipped = open(older, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (skipped >= 0 && next >= 0)
            close(next);
        next = skipped >= 0 ? skipped : next;
    }
    if (next < 0)
        return false;
    if (log->fd >= 0)
        close(log->fd);
    log->fd = next;
    return true;
}

static bool file_read(struct log_read *log)
{
    for (;;) {
        int fd = log->older >= 0 ? log->older : log->fd;
        ssize_t n = fd < 0 ? 0 : read(fd, buf_reserve(&log->in, LOG_CHUNK), LOG_CHUNK);
        if (n > 0) {
            log->in.len += (size_t)n;
            return true;
        }
        if (log->older >= 0) {
            close(log->older);
            log->older = -1;
        } else if (!log->rotated) {
            /* The end of a file may have moved until it was rotated: it is read once more. */
            log->rotated = file_is_rotated(log);
            if (!log->rotated)
                return false;
        } else if (file_next(log)) {
            log->rotated = false;
        } else {
            return false;
        }
    }
}

size_t log_read_some(struct log_read *log, char *to, size_t size)
{
    lines_take(log);
    while (log->out.len == 0 && file_read(log))
        lines_take(log);
    size_t n = log->out.len < size ? log->out.len : size;
    if (n == 0) { /* idle: keep no memory but a line that is not whole yet */
        buf_release(&log->out);
        if (!log->in.len)
            buf_release(&log->in);
        return 0;
    }
    memcpy(to, log->out.data, n);
    buf_consume(&log->out, n);
    return n;
}
