#include "exec/timing.h"

#include <stdlib.h>
#include <time.h>
#include <uthash.h>

#include "base/str.h"
#include "model/spec.h"

enum { NS_A_MS = 1000000 };

struct record {
    char ctr[CTR_ID_LEN + 1];
    struct timing_mark marks[TIMING_MARKS_MAX];
    size_t count;
    bool counted; /* it is in the distributions */
    UT_hash_handle hh;
};

struct step {
    char name[TIMING_NAME_MAX + 1];
    uint64_t count;
    uint32_t samples_us[TIMING_SAMPLES]; /* a ring */
};

struct timing {
    struct record *records; /* by container, the oldest first */
    struct step *steps[TIMING_STEPS_MAX];
    size_t step_count;
};

struct timing *timing_new(void)
{
    return xcalloc(1, sizeof(struct timing));
}

static void record_drop(struct timing *timing, struct record *record)
{
    HASH_DEL(timing->records, record);
    free(record);
}

void timing_free(struct timing *timing)
{
    if (!timing)
        return;
    while (timing->records)
        record_drop(timing, timing->records);
    for (size_t i = 0; i < timing->step_count; i++)
        free(timing->steps[i]);
    free(timing);
}

uint64_t timing_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- marks ---------------------------------------------------------------------------------- */

static struct record *record_find(const struct timing *timing, const char *ctr)
{
    struct record *record;
    HASH_FIND_STR(timing->records, ctr, record);
    return record;
}

static bool name_is_good(const char *name, size_t length)
{
    return length && length <= TIMING_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") >= length;
}

static void mark_add(struct record *record, const char *name, size_t length, uint64_t ns)
{
    size_t at = record->count;
    if (record->count == TIMING_MARKS_MAX || !name_is_good(name, length))
        return;
    for (size_t i = 0; i < record->count; i++)
        if (strlen(record->marks[i].name) == length &&
            strncmp(record->marks[i].name, name, length) == 0)
            return;
    for (; at > 0 && record->marks[at - 1].ns > ns; at--)
        record->marks[at] = record->marks[at - 1];
    record->marks[at] = (struct timing_mark){.ns = ns};
    memcpy(record->marks[at].name, name, length);
    record->count++;
}

void timing_begin(struct timing *timing, const char *ctr, const char *name, uint64_t ns)
{
    struct record *record = record_find(timing, ctr);
    if (strlen(ctr) > CTR_ID_LEN)
        return;
    if (record)
        record_drop(timing, record);
    if (HASH_COUNT(timing->records) == TIMING_RECORDS_MAX)
        record_drop(timing, timing->records);
    record = xcalloc(1, sizeof(*record));
    memcpy(record->ctr, ctr, strlen(ctr) + 1);
    HASH_ADD_STR(timing->records, ctr, record);
    mark_add(record, name, strlen(name), ns);
}

static bool has_mark(const struct record *record, const char *name)
{
    for (size_t i = 0; i < record->count; i++)
        if (str_eq(record->marks[i].name, name))
            return true;
    return false;
}

void timing_start(struct timing *timing, const char *ctr, uint64_t ns)
{
    const struct record *record = record_find(timing, ctr);
    if (!record || has_mark(record, "start"))
        timing_begin(timing, ctr, "start", ns);
    else
        timing_add(timing, ctr, "start", ns);
}

void timing_again(struct timing *timing, const char *ctr, const char *name, uint64_t ns)
{
    const struct record *record = record_find(timing, ctr);
    if (!record || record->counted)
        timing_begin(timing, ctr, name, ns);
}

void timing_add(struct timing *timing, const char *ctr, const char *name, uint64_t ns)
{
    struct record *record = record_find(timing, ctr);
    if (record && record->count && ns >= record->marks[0].ns)
        mark_add(record, name, strlen(name), ns);
}

void timing_add_text(struct timing *timing, const char *ctr, const char *text)
{
    struct record *record = record_find(timing, ctr);
    const char *equals = strchr(text, '=');
    uint64_t ns;
    if (!record || !record->count || !equals ||
        !str_to_u64(equals + 1, record->marks[0].ns, timing_now_ns(), &ns))
        return;
    mark_add(record, text, (size_t)(equals - text), ns);
}

size_t timing_marks(const struct timing *timing, const char *ctr, const struct timing_mark **ret)
{
    const struct record *record = record_find(timing, ctr);
    *ret = record ? record->marks : NULL;
    return record ? record->count : 0;
}

void timing_describe(const struct timing *timing, const char *ctr, struct buf *out)
{
    const struct timing_mark *marks;
    size_t count = timing_marks(timing, ctr, &marks);
    for (size_t i = 1; i < count; i++)
        buf_printf(out, "%s%s %.1f", i > 1 ? ", " : "", marks[i].name,
                   (double)(marks[i].ns - marks[0].ns) / NS_A_MS);
}

/* ---- distributions -------------------------------------------------------------------------- */

static struct step *step_get(struct timing *timing, const char *name)
{
    for (size_t i = 0; i < timing->step_count; i++)
        if (str_eq(timing->steps[i]->name, name))
            return timing->steps[i];
    if (timing->step_count == TIMING_STEPS_MAX)
        return NULL;
    struct step *step = xcalloc(1, sizeof(*step));
    memcpy(step->name, name, strlen(name) + 1);
    timing->steps[timing->step_count++] = step;
    return step;
}

/* Between the answer to a create and the request of a start is the user's time. */
void timing_runs(struct timing *timing, const char *ctr)
{
    struct record *record = record_find(timing, ctr);
    if (!record || record->counted)
        return;
    record->counted = true;
    for (size_t i = 1; i < record->count; i++) {
        struct step *step = step_get(timing, record->marks[i].name);
        uint64_t us = (record->marks[i].ns - record->marks[i - 1].ns) / 1000;
        if (step && !str_eq(step->name, "start"))
            step->samples_us[step->count++ % TIMING_SAMPLES] =
                us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The nearest rank: at least so many percent of the times are not longer. */
static double percentile_ms(const uint32_t *sorted_us, size_t count, size_t percent)
{
    return sorted_us[(count * percent + 99) / 100 - 1] / 1000.0;
}

bool timing_step(const struct timing *timing, size_t number, struct timing_step *ret)
{
    uint32_t sorted[TIMING_SAMPLES];
    if (number >= timing->step_count)
        return false;
    const struct step *step = timing->steps[number];
    size_t count = step->count < TIMING_SAMPLES ? step->count : TIMING_SAMPLES;
    *ret = (struct timing_step){.name = step->name, .count = step->count};
    if (!count)
        return true;
    memcpy(sorted, step->samples_us, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare);
    ret->p50_ms = percentile_ms(sorted, count, 50);
    ret->p90_ms = percentile_ms(sorted, count, 90);
    ret->p99_ms = percentile_ms(sorted, count, 99);
    return true;
}
