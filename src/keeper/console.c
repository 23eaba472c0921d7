#include "keeper/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"

#define CONSOLE_FILE "console.log"
#define CONSOLE_OLD  "console.log.1"

enum { CONSOLE_READ_SIZE = 4096 };

struct console {
    int fd;
    int file;
    size_t size;
    struct watch *watch;
};

static void file_open(struct console *c)
{
    c->file = open(CONSOLE_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    c->size = 0;
}

/* A console that cannot be written is lost without a word: the VM matters more. */
static void file_write(struct console *c, const char *data, size_t size)
{
    if (c->size >= CONSOLE_FILE_MAX) {
        if (c->file >= 0)
            close(c->file);
        rename(CONSOLE_FILE, CONSOLE_OLD);
        file_open(c);
    }
    c->size += size;
    while (c->file >= 0 && size) {
        ssize_t n = write(c->file, data, size);
        if (n <= 0)
            break;
        data += n;
        size -= (size_t)n;
    }
}

/* False when there is nothing more. */
static bool console_read(struct console *c)
{
    char data[CONSOLE_READ_SIZE];
    ssize_t n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);
    if (n > 0)
        file_write(c, data, (size_t)n);
    else if (n == 0 || errno != EAGAIN)
        watch_set(c->watch, 0);
    return n > 0;
}

static void console_ready(int events, void *arg)
{
    console_read(arg);
}

struct console *console_new(struct loop *loop, int fd)
{
    struct console *c = xcalloc(1, sizeof(*c));
    c->fd = fd;
    file_open(c);
    c->watch = watch_new(loop, fd, WATCH_READ, console_ready, c);
    return c;
}

char *console_tail(void)
{
    char text[CONSOLE_TAIL + 1];
    int fd = open(CONSOLE_FILE, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = size > CONSOLE_TAIL ? size - CONSOLE_TAIL : 0;
    ssize_t n = size <= 0 ? 0 : pread(fd, text, CONSOLE_TAIL, from);
    if (fd >= 0)
        close(fd);
    CLEANUP_FREE char *tail = xcalloc(1, sizeof(text));
    size_t len = 0;
    for (ssize_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] >= ' ' && (unsigned char)text[i] < 0x7f)
            tail[len++] = text[i];
        else if (text[i] == '\n' && len && tail[len - 1] != ';')
            tail[len++] = ';';
    }
    while (len && tail[len - 1] == ';')
        tail[--len] = 0;
    return take(tail);
}

void console_free(struct console *c)
{
    if (!c)
        return;
    while (console_read(c))
        ;
    watch_free(c->watch);
    close(c->fd);
    if (c->file >= 0)
        close(c->file);
    free(c);
}
