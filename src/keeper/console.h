/* What the guest's kernel prints: console.log in the VM's directory, and the one before it. */
#ifndef HUSK_KEEPER_CONSOLE_H
#define HUSK_KEEPER_CONSOLE_H

#include "loop/loop.h"

enum {
    CONSOLE_FILE_MAX = 128 << 10, /* bytes; then it becomes console.log.1 */
    CONSOLE_TAIL = 512,           /* bytes of the last lines in a message */
};

struct console;
/* Takes over fd. */
struct console *console_new(struct loop *loop, int fd);
/* The last lines on one line, for a message; the caller's. "" if there are none. */
char *console_tail(void);
/* Reads what is still there first. NULL is fine. */
void console_free(struct console *console);

#endif
