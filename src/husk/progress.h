/* How far an image has been loaded: bytes sent, then the daemon's own messages.
 *
 * On a terminal one line is redrawn in place: "Loading layer 3f4a…  [=====>    ] 12.3 MB/40 MB";
 * elsewhere each new message is a line, without the steps between.
 */
#ifndef HUSK_HUSK_PROGRESS_H
#define HUSK_HUSK_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/error.h"

enum {
    PROGRESS_LINE_MAX = 1 << 20, /* bytes of one message */
    PROGRESS_STEP_MS = 50,       /* between two redraws */
};

struct progress {
    FILE *out;
    bool terminal;
    bool drawn;        /* a line is on the screen, unfinished */
    uint64_t drawn_ms; /* when */
    char *last;        /* the last status line off a terminal, not to be repeated; owned */
    struct buf pending;
};

/* "text [====>   ] current/total"; total 0 is not known. */
void progress_show(struct progress *progress, const char *text, uint64_t current, uint64_t total);
/* Bytes of the daemon's messages: JSON texts, one after the other. An {"error": …} among them is
 * returned as the error. */
int progress_feed(struct progress *progress, const void *data, size_t size,
                  struct error **ret_error);
/* Erases what is half drawn. */
void progress_clear(struct progress *progress);
void progress_done(struct progress *progress);

/* A bar of `width` columns and its NUL, for tests too. */
void progress_bar(char *ret, size_t width, uint64_t current, uint64_t total);

#endif
