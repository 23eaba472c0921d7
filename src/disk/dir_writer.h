/* A sink (sink.h) that writes a directory of this host.
 *
 * What comes is made under a number, not under its name, in a directory of its own that nobody else
 * writes to; names are only given when a directory is filled, relative to its descriptor, and a
 * name of an entry is one name, without "/" and neither "." nor "..". So nothing that an archive
 * says is ever a path, and no link of it is ever followed.
 *
 *      HOME/stage/17    a file, link, device, or a directory that has not got its place
 *      HOME/root        the whole, moved there last
 *
 * Needs the rights to give files to others and to make devices. What it is given by dir_write() is
 * needed until finish(). Only for the files of this room.
 */
#ifndef HUSK_DISK_DIR_WRITER_H
#define HUSK_DISK_DIR_WRITER_H

#include "disk/sink.h"

#define DIR_WRITER_STAGE "stage"
#define DIR_WRITER_ROOT  "root"

struct dir_writer;

/* In the directory `home`, which exists and has neither of the two. NULL: *ret_error. */
struct dir_writer *dir_writer_new(const char *home, struct error **ret_error);
/* What is in HOME/stage is the caller's to remove. */
void dir_writer_free(struct dir_writer *w);

extern const struct sink_ops dir_sink;

#endif
