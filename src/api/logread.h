/* Reads a container's log: lines of JSON {"log":…,"stream":…,"time":…} in a file and, before it,
 * in the rotated one beside it (".1"). Never more than one line of it is in memory.
 */
#ifndef HUSK_API_LOGREAD_H
#define HUSK_API_LOGREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum {
    LOG_LINE_MAX = 256 << 10,  /* of the file; longer ones are left out */
    LOG_TAIL_ALL = UINT32_MAX, /* all lines, as far as they are kept */
};

struct log_query {
    int64_t since_ns; /* nothing older */
    uint32_t tail;    /* at most so many of the last lines */
    bool out, err;    /* which of the two streams */
    bool timestamps;  /* a time and a space before each line */
    bool framed;      /* each piece has a header {1 or 2, 0, 0, 0, length, big-endian} */
};

struct log_read;

/* A log that is not there is empty. */
int log_read_open(const char *path, const struct log_query *query, struct log_read **ret,
                  struct error **ret_error);
void log_read_free(struct log_read *log);
/* Writes up to size bytes of what is there; 0: nothing more now. Call again later to follow the
 * log, also over its rotation. */
size_t log_read_some(struct log_read *log, char *to, size_t size);

#endif
