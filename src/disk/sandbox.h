/* A process for work on bytes that a guest has written, in which a fault of what reads them does no
 * harm. Only for the files of this room.
 *
 * It may open one file, and another one to read, and read and run the system's programs until
 * sandbox_narrow(); of the rest of the file systems nothing (Landlock, as far as the kernel has
 * it). No program that it runs gains a privilege, and it has none but to pass through directories
 * of others; under root it sees no processes but its own, and no network. It dies with its maker.
 */
#ifndef HUSK_DISK_SANDBOX_H
#define HUSK_DISK_SANDBOX_H

#include "base/error.h"
#include "disk/disk.h"

/* Files or devices. */
struct sandbox_files {
    const char *file;   /* may be read and written */
    const char *beside; /* may be read; NULL: there is none */
};

typedef int sandbox_work(const struct sandbox_files *files, const struct disk_output *out,
                         struct error **ret_error);

/* Does the work there. What it writes to its `out` comes to ours, within the limit, and its error
 * is ours, with a text that is plain; ERROR_CORRUPT if it dies. */
int sandbox_run(const struct sandbox_files *files, sandbox_work *work,
                const struct disk_output *out, struct error **ret_error);

/* Called by the work: from now on it can only read its files. */
int sandbox_narrow(const struct sandbox_files *files, struct error **ret_error);

#endif
