/* What happened when on the way of a container from the request to its first output.
 *
 * A container's record begins with the request that made it, or with its start if it was made long
 * before, and gathers marks: the daemon's own, and those that keepers send. Nothing of it is
 * stored; the oldest records are dropped. When the container runs, the time of each step, since
 * the mark before it, is added to that step's distribution.
 */
#ifndef HUSK_EXEC_TIMING_H
#define HUSK_EXEC_TIMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    TIMING_RECORDS_MAX = 128,
    TIMING_MARKS_MAX = 40, /* of one container */
    TIMING_NAME_MAX = 15,  /* characters: small letters, digits, '-' */
    TIMING_STEPS_MAX = 48, /* names of steps that are known */
    TIMING_SAMPLES = 256,  /* of each step: the last ones */
};

struct timing;

struct timing_mark {
    char name[TIMING_NAME_MAX + 1];
    uint64_t ns; /* CLOCK_MONOTONIC */
};

struct timing *timing_new(void);
void timing_free(struct timing *timing);

uint64_t timing_now_ns(void);

/* A new record of that container, instead of an older one. */
void timing_begin(struct timing *timing, const char *ctr, const char *name, uint64_t ns);
/* A start was asked: the mark "start", in a new record if there is none, or one with such a mark.
 */
void timing_start(struct timing *timing, const char *ctr, uint64_t ns);
/* A new record if there is none, or one of an earlier run. */
void timing_again(struct timing *timing, const char *ctr, const char *name, uint64_t ns);
/* A mark of a container that has a record; others, and what was before its beginning, are dropped.
 * A name that it has already is dropped too. */
void timing_add(struct timing *timing, const char *ctr, const char *name, uint64_t ns);
/* The same from "name=NANOSECONDS", which a keeper sent. What is malformed is dropped. */
void timing_add_text(struct timing *timing, const char *ctr, const char *text);
/* It runs: adds the steps so far to the distributions. Once a record. */
void timing_runs(struct timing *timing, const char *ctr);

/* The marks of a container in the order of time; 0: there is no record. */
size_t timing_marks(const struct timing *timing, const char *ctr, const struct timing_mark **ret);
/* "layer 1.2, keeper 2.5 …": milliseconds since the first mark, for the events. */
void timing_describe(const struct timing *timing, const char *ctr, struct buf *out);

/* The distribution of one step, of its last TIMING_SAMPLES times. */
struct timing_step {
    const char *name;
    uint64_t count; /* of all times */
    double p50_ms, p90_ms, p99_ms;
};
/* The step of that number; false if there is none. */
bool timing_step(const struct timing *timing, size_t number, struct timing_step *ret);

#endif
