/* Paths below the daemon's root, walked without following a link. Only for the files of this room.
 */
#ifndef HUSK_DISK_PATH_H
#define HUSK_DISK_PATH_H

#include <stdbool.h>

#include "base/error.h"

/* What is behind root in an absolute path, or the relative path itself, without doubled slashes;
 * NULL and ERROR_INVALID if it is not below root. The caller frees it. */
char *path_below(const char *root, const char *path, struct error **ret_error);

/* "ROOT/path", or the path itself if it is absolute; the caller frees it. */
char *path_full(const char *root, const char *path);

/* The directory that the last name of `path` is in; *ret_name points into path. With `make`,
 * missing directories are made. Returns a descriptor; -1 and *ret_error, with errno ENOENT if a
 * directory is missing. */
int path_parent(const char *root, const char *path, bool make, const char **ret_name,
                struct error **ret_error);

#endif
