#include "disk/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

enum { DIR_MODE = 0711, OPEN_DIR = O_RDONLY | O_DIRECTORY | O_CLOEXEC };

char *path_below(const char *root, const char *path, struct error **ret_error)
{
    size_t length = strlen(root);
    const char *rest = path;
    CLEANUP_STRV char **kept = NULL;

    while (length > 0 && root[length - 1] == '/')
        length--;
    if (path[0] == '/')
        rest = strncmp(path, root, length) == 0 && path[length] == '/' ? path + length : "";
    CLEANUP_STRV char **names = str_split(rest, '/');
    STRV_FOREACH(name, names) {
        if (strcmp(*name, "..") == 0) {
            strv_freep(&kept);
            kept = NULL;
            break;
        }
        if (**name && strcmp(*name, ".") != 0)
            strv_push(&kept, *name);
    }
    if (!kept) {
        error_set(ret_error, ERROR_INVALID, 0, "'%s' is not below '%s'", path, root);
        return NULL;
    }
    return strv_join((const char *const *)kept, "/");
}

static int step(int dir, const char *name, bool make)
{
    int fd = openat(dir, name, OPEN_DIR | O_NOFOLLOW);

    if (fd >= 0 || errno != ENOENT || !make)
        return fd;
    if (mkdirat(dir, name, DIR_MODE) < 0 && errno != EEXIST)
        return -1;
    return openat(dir, name, OPEN_DIR | O_NOFOLLOW);
}

int path_parent(const char *root, const char *path, bool make, const char **ret_name,
                struct error **ret_error)
{
    int dir = open(root, OPEN_DIR);
    const char *slash;

    while (dir >= 0 && (slash = strchr(path, '/'))) {
        CLEANUP_FREE char *name = xstrndup(path, (size_t)(slash - path));
        int next = step(dir, name, make);
        int err = errno;
        close(dir);
        errno = err;
        dir = next;
        path = slash + 1;
    }
    *ret_name = path;
    if (dir < 0) {
        int err = errno;
        error_set(ret_error, ERROR_IO, err, "open the directory of '%s'", path);
        errno = err;
    }
    return dir;
}

char *path_full(const char *root, const char *path)
{
    return path[0] == '/' ? xstrdup(path) : str_printf("%s/%s", root, path);
}
