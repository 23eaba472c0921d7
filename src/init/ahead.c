#include "init/ahead.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "init/util.h"

enum {
    FILE_MAX = 8 << 20, /* bytes; of a larger program nobody knows which pages it needs */
    PIECE = 64 << 10,
    TIMES = 2,
    SHARE = 4, /* of the available memory, at most this part in one file */
};

/* The loaders of programs, and what nearly all of them load. */
static const char *const usual[] = {
    "/etc/ld.so.cache", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6", "/lib/ld-musl-x86_64.so.1",
};

static void file_touch(const char *path)
{
    struct stat st;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX ||
        (uint64_t)st.st_size > memory_bytes("MemAvailable") / SHARE)
        return;
    CLEANUP_FREE char *piece = xmalloc(PIECE);
    /* The second time its pages become active ones: else the first process to end does that, page
     * by page, while somebody waits for its end. */
    for (int i = 0; i < TIMES; i++) {
        lseek(fd, 0, SEEK_SET);
        while (read(fd, piece, PIECE) > 0)
            ;
    }
}

/* Where it is not is remembered by the kernel, too. */
static void program_touch(const char *program, const char *path)
{
    CLEANUP_STRV char **dirs = str_split(path, ':');
    if (strchr(program, '/')) {
        file_touch(program);
        return;
    }
    STRV_FOREACH(dir, dirs) {
        CLEANUP_FREE char *file = str_printf("%s/%s", **dir ? *dir : ".", program);
        if (access(file, X_OK) < 0)
            continue;
        file_touch(file);
        return;
    }
}

void read_ahead(const char *program, const char *path)
{
    for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
        file_touch(usual[i]);
    if (!str_empty(program))
        program_touch(program, path);
}
