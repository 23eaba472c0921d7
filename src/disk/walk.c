#include "disk/walk.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/str.h"

/* A file with several names, by its first one. */
struct known {
    uint64_t ino;
    char *path;
    UT_hash_handle hh;
};

void walk_open(struct walk *w, const struct disk_output *out)
{
    *w = (struct walk){0};
    tar_writer_open(&w->tar, out);
}

void walk_done(struct walk *w)
{
    struct known *known, *next;

    HASH_ITER(hh, w->known, known, next) {
        HASH_DEL(w->known, known);
        free(known->path);
        free(known);
    }
    tar_writer_done(&w->tar);
}

int walk_memory(struct walk *w, size_t size, struct error **ret_error)
{
    if (size > DISK_NAMES_MAX - w->bytes)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "its names need more than %d MiB of memory",
                         DISK_NAMES_MAX >> 20);
    w->bytes += size;
    return 0;
}

int walk_name(struct walk *w, uint64_t *entries, size_t size, struct error **ret_error)
{
    if (++*entries > DISK_ENTRIES_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "there are more than %d files",
                         DISK_ENTRIES_MAX);
    return walk_memory(w, size, ret_error);
}

int walk_depth(int depth, struct error **ret_error)
{
    if (depth <= DISK_PATH_DEPTH_MAX)
        return 0;
    return error_set(ret_error, ERROR_TOO_LARGE, 0, "directories lie more than %d deep",
                     DISK_PATH_DEPTH_MAX);
}

char *walk_child(const char *path, const char *name, struct error **ret_error)
{
    char *child = str_printf("%s%s%s", path, *path ? "/" : "", name);

    if (strlen(child) <= DISK_PATH_MAX)
        return child;
    free(child);
    error_set(ret_error, ERROR_TOO_LARGE, 0, "a path has more than %d bytes", DISK_PATH_MAX);
    return NULL;
}

int walk_link(struct walk *w, const char *path, uint64_t ino, uint64_t names,
              const struct sink_attr *attr, struct error **ret_error)
{
    struct known *known;

    if (names < 2)
        return 0;
    HASH_FIND(hh, w->known, &ino, sizeof(ino), known);
    if (known)
        return tar_writer_link(&w->tar, path, attr, known->path, ret_error) < 0 ? -1 : 1;
    if (walk_memory(w, sizeof(*known) + strlen(path), ret_error) < 0)
        return -1;
    known = xcalloc(1, sizeof(*known));
    known->ino = ino;
    known->path = xstrdup(path);
    HASH_ADD(hh, w->known, ino, sizeof(known->ino), known);
    return 0;
}
