/* What a container's program reads first, read before there is a container: in clones of an image's
 * template it is in memory already, and not even the code that would read it is run.
 */
#ifndef HUSK_INIT_AHEAD_H
#define HUSK_INIT_AHEAD_H

/* For a process in its root. `program` may be NULL; one without a slash is looked for in the
 * directories of `path`. Nothing that is missing, or too large, is an error. */
void read_ahead(const char *program, const char *path);

#endif
