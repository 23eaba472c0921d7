/* A container's shell is run before there is a container: what it needs first is then mapped,
 * activated and (under emulation) translated, which takes longer than to run it.
 */
#ifndef HUSK_INIT_WARM_H
#define HUSK_INIT_WARM_H

/* In the first process of a container to come, whose root is there: runs `/bin/sh -c echo`, if the
 * image has it, to its end or for some time. It leaves nothing: no process, no file, no output. */
void warm_shell(void);

#endif
