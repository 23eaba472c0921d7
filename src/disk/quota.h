/* Directories that are held to a size, by project quotas of the file system that they are in (xfs;
 * ext4 with its feature `project`). Only for the files of this room.
 *
 * A directory's project is inherited by all that is made in it, and the file system counts by
 * project. The projects of a daemon are PROJECT_COUNT numbers that begin at one made of its root,
 * so that two daemons on one file system have different ones. No record of them is kept: a project
 * of which the file system has no file is free, and the next directory may have it. So nothing that
 * dies at whatever line can leak one.
 *
 * What exceeds its size is told ENOSPC by xfs, and EDQUOT by ext4.
 */
#ifndef HUSK_DISK_QUOTA_H
#define HUSK_DISK_QUOTA_H

#include <stdint.h>

#include "base/error.h"

/* Holds the new and empty directory `dir`, somewhere below root, to `bytes`, and to as many files
 * as a layer of that size of the driver `block` could have. `lock` is a directory of the daemon's
 * that is locked meanwhile. ERROR_UNSUPPORTED, with the reason and the way out, where the file
 * system does not hold projects to a size. */
int quota_give(const char *root, int dir, int lock, uint64_t bytes, struct error **ret_error);

/* Forgets the limits of projects that have no files any more. Without quotas there are none. */
int quota_collect(const char *root, int lock, struct error **ret_error);

#endif
