/* What those who read a layer have in common: how much of everything a guest may have made, and the
 * files that have several names, which are hard links in a tar. Only for the files of this room.
 */
#ifndef HUSK_DISK_WALK_H
#define HUSK_DISK_WALK_H

#include <stddef.h>
#include <stdint.h>

#include "disk/tar_writer.h"

struct known;

struct walk {
    struct tar_writer tar;
    struct known *known; /* files with several names that were added */
    size_t bytes;        /* of memory for names */
};

void walk_open(struct walk *w, const struct disk_output *out);
void walk_done(struct walk *w);

/* Memory for names, within DISK_NAMES_MAX, or ERROR_TOO_LARGE. Who frees it takes it from
 * w->bytes. */
int walk_memory(struct walk *w, size_t size, struct error **ret_error);
/* The same for one more name, which is counted in *entries, within DISK_ENTRIES_MAX. */
int walk_name(struct walk *w, uint64_t *entries, size_t size, struct error **ret_error);
/* ERROR_TOO_LARGE for a directory that lies too deep. */
int walk_depth(int depth, struct error **ret_error);
/* "PATH/NAME", which the caller frees; NULL and ERROR_TOO_LARGE if that is too long. */
char *walk_child(const char *path, const char *name, struct error **ret_error);
/* A file that has `names` of them in all. 1: it was added before, and now has this one, too; 0: it
 * is to be added. */
int walk_link(struct walk *w, const char *path, uint64_t ino, uint64_t names,
              const struct sink_attr *attr, struct error **ret_error);

#endif
