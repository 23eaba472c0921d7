/* The programs of e2fsprogs, run to their end. Only for the files of this room. */
#ifndef HUSK_DISK_TOOL_H
#define HUSK_DISK_TOOL_H

#include "base/error.h"

/* argv ends with NULL. It has a deadline; if it fails, its first line is in the sentence. */
int tool_run(const char *const *argv, struct error **ret_error);
/* The same, of a program for which exit codes up to status_max are no failure. */
int tool_run_until(const char *const *argv, int status_max, struct error **ret_error);

#endif
