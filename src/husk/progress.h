/* How far an image has come: bytes sent, then the daemon's own messages.
 *
 * On a terminal a line is redrawn in place: "Loading layer 3f4a…  [=====>    ] 12.3 MB/40 MB". Of
 * layers that come side by side each has its line, with its rate; what is done moves up and stays.
 * Elsewhere each new message is a line, without the steps between.
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
    PROGRESS_ITEMS_MAX = 1024,   /* things side by side */
};

/* A layer, or another thing that messages are about. */
struct progress_item {
    char *id, *status;
    uint64_t current, total;
    uint64_t since_ms, since; /* when its bytes began to come, and how many there were */
};

struct progress {
    FILE *out;
    bool terminal;
    bool several;                /* things side by side */
    bool quiet;                  /* nothing is shown but errors */
    struct progress_item *items; /* not done yet; off a terminal, all */
    size_t item_count;
    unsigned rows;     /* lines of items on the screen */
    bool drawn;        /* a line is on the screen, unfinished */
    uint64_t drawn_ms; /* when */
    char *last;        /* the last status line off a terminal, not to be repeated; owned */
    struct buf pending;
};

/* "text [====>   ] current/total"; total 0 is not known. For a process with one thing at a time. */
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
