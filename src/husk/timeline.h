/* The waterfall of `run --timing`: what happened when, here and in huskd.
 *
 * Both use CLOCK_MONOTONIC of the same machine.
 */
#ifndef HUSK_HUSK_TIMELINE_H
#define HUSK_HUSK_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "husk/cli.h"

enum { TIMELINE_MAX = 64, TIMELINE_NAME_MAX = 24 };

struct timeline {
    bool wanted; /* else nothing is gathered */
    size_t count;
    struct timeline_mark {
        char name[TIMELINE_NAME_MAX];
        uint64_t ns;
    } marks[TIMELINE_MAX];
};

uint64_t timeline_now_ns(void);
void timeline_mark(struct timeline *timeline, const char *name);
/* A moment in the past; of 0 nothing is known. */
void timeline_mark_at(struct timeline *timeline, const char *name, uint64_t ns);
/* Adds what huskd knows of that container's start. That it knows nothing is no error. */
void timeline_ask(struct timeline *timeline, struct cli *cli, const char *container);
/* On standard error. */
void timeline_print(struct timeline *timeline);

#endif
