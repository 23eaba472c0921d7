/* A directory for the files of a unit test, fuzz target or simulation: below TMPDIR, where
 * tools/check notices what is left behind. For tests only.
 */
#ifndef HUSK_BASE_SCRATCH_H
#define HUSK_BASE_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

/* A new, empty directory; the caller removes it and frees its path. Ends the process if it cannot
 * be made. */
static inline char *scratch_make(const char *name)
{
    const char *parent = getenv("TMPDIR");
    char *path = str_printf("%s/husk-%s-XXXXXX", str_empty(parent) ? "/tmp" : parent, name);
    if (!mkdtemp(path)) {
        perror(path);
        abort();
    }
    return path;
}

#endif
