#include "init/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"

enum { LINE_MAX_BYTES = 1024, FILE_PIECE = 4096, MEMINFO_MAX = 256 };

static void (*say_sink)(int level, const char *line);

void say_to(void (*sink)(int level, const char *line))
{
    say_sink = sink;
}

void say(int level, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);

    CLEANUP_FD int kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (kmsg >= 0)
        dprintf(kmsg, "<%d>husk-init: %s\n", level, line);
    if (say_sink)
        say_sink(level, line);
}

int file_write_at(int dir, const char *path, const char *text)
{
    CLEANUP_FD int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    return write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

int file_write(const char *path, const char *text)
{
    return file_write_at(AT_FDCWD, path, text);
}

char *file_read_at(int dir, const char *path, size_t max)
{
    CLEANUP_BUF struct buf text = {0};
    /* Not blocking, for a container may have put a FIFO there. */
    CLEANUP_FD int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    /* Most files are short: what they need is small, and small is cheap to allocate. */
    char piece[FILE_PIECE];
    while (text.len < max) {
        size_t want = max - text.len < sizeof(piece) ? max - text.len : sizeof(piece);
        ssize_t n = read(fd, piece, want);
        if (n < 0)
            return NULL;
        if (n == 0)
            break;
        buf_append(&text, piece, (size_t)n);
    }
    return buf_take_str(&text);
}

char *file_read(const char *path, size_t max)
{
    return file_read_at(AT_FDCWD, path, max);
}

uint64_t file_number(const char *path)
{
    CLEANUP_FREE char *text = file_read(path, FILE_PIECE);
    return text ? strtoull(text, NULL, 10) : 0;
}

uint64_t memory_bytes(const char *what)
{
    CLEANUP_FREE char *text = file_read("/proc/meminfo", MEMINFO_MAX);
    const char *at = text ? strstr(text, what) : NULL;
    return at ? strtoull(at + strlen(what) + 1, NULL, 10) << 10 : 0;
}

int mkdir_all(const char *path, mode_t mode)
{
    CLEANUP_FREE char *copy = xstrdup(path);
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return -1;
        *p = '/';
    }
    struct stat st;
    if (mkdir(copy, mode) == 0)
        return 0;
    if (errno != EEXIST || stat(copy, &st) < 0)
        return -1;
    errno = ENOTDIR;
    return S_ISDIR(st.st_mode) ? 0 : -1;
}

void fd_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}
