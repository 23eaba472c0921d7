/* The journal of ends: a file `exits` in a VM's directory, one JSON object a line, written by the
 * keeper before it tells huskd. What a dead keeper did not get told is read from there.
 */
#ifndef HUSK_KEEPER_EXITS_H
#define HUSK_KEEPER_EXITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define EXITS_FILE "exits"

enum { EXITS_LINE_MAX = 64 << 10 };

/* The end of a container's run, or of an exec. */
struct exit_record {
    const char *ctr;
    const char *exec; /* "" for a container */
    uint64_t run;     /* of the container; 0 for an exec */
    uint32_t code;
    uint32_t signal;
    bool oom;
    const char *reason;
    uint64_t started_ns; /* CLOCK_REALTIME */
    uint64_t finished_ns;
};

/* Appends to `fd` in one write(). */
int exits_append(int fd, const struct exit_record *record, struct error **ret_error);

/* Calls `found` for each record of the file, oldest first; its strings live until it returns. A
 * file that is not there has no records. A line that is broken (the last one, when the host died)
 * is left out. */
int exits_read(const char *path, void (*found)(const struct exit_record *record, void *arg),
               void *arg, struct error **ret_error);

#endif
