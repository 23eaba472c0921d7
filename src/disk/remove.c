/* Removal that never follows a link and never leaves the daemon's root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/disk.h"
#include "disk/path.h"

enum {
    REMOVE_DEPTH_MAX = 300,
    LIFTED_SIZE = 16, /* of a name */
    SCRATCH_MODE = 0700,
    SCRATCH_RANDOM = 10,
};

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* A listing of the directory `name`, with a descriptor of its own. */
static DIR *dir_open(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (fd >= 0 && !dir)
        close(fd);
    return dir;
}

/* What is being removed. Each level of directories takes a descriptor, and who wrote them may have
 * made more levels than there are descriptors: what lies too deep is moved up, and removed after
 * the rest. */
struct removal {
    int top; /* the directory of what is removed */
    char **lifted;
};

static int lift(struct removal *r, int parent, const char *name)
{
    char random[LIFTED_SIZE + 1] = "";

    str_random(random, LIFTED_SIZE, "abcdefghijklmnopqrstuvwxyz");
    if (renameat2(parent, name, r->top, random, RENAME_NOREPLACE) < 0)
        return -1;
    strv_push(&r->lifted, random);
    return 0;
}

static int remove_below(struct removal *r, int parent, const char *name, int depth,
                        struct error **ret_error)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return error_set(ret_error, ERROR_IO, errno, "remove '%s'", name);
    if (depth > REMOVE_DEPTH_MAX && lift(r, parent, name) == 0)
        return 0;
    DIR *dir = dir_open(parent, name);
    if (!dir)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", name);
    struct dirent *entry;
    int result = 0;
    while (result == 0 && (entry = readdir(dir)))
        if (!is_dots(entry->d_name))
            result = remove_below(r, dirfd(dir), entry->d_name, depth + 1, ret_error);
    closedir(dir);
    if (result == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        result = error_set(ret_error, ERROR_IO, errno, "remove '%s'", name);
    return result;
}

static int remove_at(int parent, const char *name, struct error **ret_error)
{
    struct removal r = {.top = parent};
    int result = remove_below(&r, parent, name, 0, ret_error);

    while (result == 0 && r.lifted && *r.lifted) {
        CLEANUP_STRV char **lifted = take(r.lifted);
        STRV_FOREACH(at, lifted)
            if (result == 0)
                result = remove_below(&r, parent, *at, 0, ret_error);
    }
    strv_free(r.lifted);
    return result;
}

int disk_remove(const char *root, const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *below = path_below(root, path, ret_error);
    CLEANUP_ERROR struct error *error = NULL;
    const char *name;

    if (!below)
        return -1;
    int dir = path_parent(root, below, false, &name, &error);
    if (dir < 0)
        return error->err == ENOENT ? 0 : error_move(ret_error, &error);
    int result = remove_at(dir, name, &error);
    close(dir);
    if (result == 0)
        return 0;
    error_wrap(&error, "remove '%s'", below);
    return error_move(ret_error, &error);
}

/* Its new place has a name that nobody else chooses. */
static int gone_move(int dir, const char *name, int gone)
{
    char random[SCRATCH_RANDOM + 1] = "";

    str_random(random, SCRATCH_RANDOM, "abcdefghijklmnopqrstuvwxyz");
    return renameat(dir, name, gone, random);
}

int disk_discard(const char *root, const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *below = path_below(root, path, ret_error);
    CLEANUP_ERROR struct error *error = NULL;
    const char *name, *ignored;

    if (!below)
        return -1;
    int dir = path_parent(root, below, false, &name, &error);
    if (dir < 0)
        return error->err == ENOENT ? 0 : error_move(ret_error, &error);
    int gone = path_parent(root, "tmp/gone/.", true, &ignored, NULL);
    bool moved = gone >= 0 && gone_move(dir, name, gone) == 0;
    close(dir);
    if (gone >= 0)
        close(gone);
    return moved ? 0 : disk_remove(root, path, ret_error);
}

/* ---- sweeping ------------------------------------------------------------------------------- */

struct sweep {
    char **keep; /* sorted */
    size_t count;
    struct error *error; /* the first; the rest is swept all the same */
};

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool sweep_keeps(const struct sweep *sweep, const char *path)
{
    return sweep->count > 0 &&
           bsearch(&path, sweep->keep, sweep->count, sizeof(char *), text_compare);
}

/* Whether something below path is kept: the first text not before "path/" begins with it. */
static bool sweep_keeps_below(const struct sweep *sweep, const char *path)
{
    CLEANUP_FREE char *prefix = str_printf("%s/", path);
    size_t low = 0, high = sweep->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(sweep->keep[middle], prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sweep->count && str_starts(sweep->keep[low], prefix);
}

/* Whether another process works on it. */
static bool is_locked(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return false;
    bool locked = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return locked;
}

/* What is swept, and what stays besides that which is wanted. */
struct place {
    const char *name;
    bool locks;     /* what somebody works on */
    time_t fresh_s; /* what was changed in this time */
};

static bool is_fresh(int dir, const char *name, time_t fresh_s)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime > time(NULL) - fresh_s;
}

static void sweep_dir(struct sweep *sweep, int parent, const char *name, const char *path,
                      const struct place *place);

static void sweep_entry(struct sweep *sweep, int dir, const char *name, const char *path,
                        const struct place *place)
{
    if (sweep_keeps(sweep, path) || (place->locks && is_locked(dir, name)) ||
        (place->fresh_s && is_fresh(dir, name, place->fresh_s)))
        return;
    if (sweep_keeps_below(sweep, path)) {
        sweep_dir(sweep, dir, name, path, place);
        return;
    }
    CLEANUP_ERROR struct error *error = NULL;
    if (remove_at(dir, name, &error) < 0 && !sweep->error) {
        error_wrap(&error, "sweep '%s'", path);
        sweep->error = take(error);
    }
}

static void sweep_dir(struct sweep *sweep, int parent, const char *name, const char *path,
                      const struct place *place)
{
    DIR *dir = dir_open(parent, name);
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (is_dots(entry->d_name))
            continue;
        CLEANUP_FREE char *below = str_printf("%s/%s", path, entry->d_name);
        sweep_entry(sweep, dirfd(dir), entry->d_name, below, place);
    }
    closedir(dir);
}

int disk_sweep(const char *root, const char *const *keep, uint32_t partial_keep_s,
               struct error **ret_error)
{
    const struct place places[] = {
        {"blobs/sha256", false, 0}, {"blobs/partial", true, partial_keep_s},
        {"images", false, 0},       {"pods", false, 0},
        {"tmp", true, 0},
    };
    struct sweep sweep = {.keep = strv_copy(keep), .count = strv_count(keep)};
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = errno;

    if (sweep.count > 0)
        qsort(sweep.keep, sweep.count, sizeof(char *), text_compare);
    for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(places); i++)
        sweep_dir(&sweep, fd, places[i].name, places[i].name, &places[i]);
    strv_free(sweep.keep);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, err, "open '%s'", root);
    close(fd);
    return sweep.error ? error_move(ret_error, &sweep.error) : 0;
}

/* ---- room for work -------------------------------------------------------------------------- */

int disk_scratch(const char *root, char **ret_path, int *ret_fd, struct error **ret_error)
{
    char random[SCRATCH_RANDOM + 1] = "";
    const char *name;

    str_random(random, SCRATCH_RANDOM, "abcdefghijklmnopqrstuvwxyz");
    CLEANUP_FREE char *below = str_printf("tmp/job-%.*s", SCRATCH_RANDOM, random);
    int dir = path_parent(root, below, true, &name, ret_error);
    if (dir < 0)
        return -1;
    int fd = -1;
    if (mkdirat(dir, name, SCRATCH_MODE) == 0)
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int err = errno;
    close(dir);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(ret_error, ERROR_IO, fd < 0 ? err : errno, "make '%s/%s'", root, below);
    *ret_fd = fd;
    *ret_path = str_printf("%s/%s", root, below);
    return 0;
}
