#include "husk/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"

enum { BAR_WIDTH = 40 };

uint64_t timeline_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void timeline_mark_at(struct timeline *timeline, const char *name, uint64_t ns)
{
    if (!timeline->wanted || !ns || timeline->count == TIMELINE_MAX)
        return;
    struct timeline_mark *mark = &timeline->marks[timeline->count++];
    mark->ns = ns;
    snprintf(mark->name, sizeof(mark->name), "%s", name);
}

void timeline_mark(struct timeline *timeline, const char *name)
{
    timeline_mark_at(timeline, name, timeline_now_ns());
}

void timeline_ask(struct timeline *timeline, struct cli *cli, const char *container)
{
    CLEANUP_JSON json_t *answer = NULL;
    const json_t *mark;
    size_t i;
    if (!timeline->wanted)
        return;
    CLEANUP_FREE char *target = http_target("/timing", "container", container, NULL);
    if (daemon_json(cli, "GET", target, NULL, &answer, NULL) < 0)
        return;
    json_array_foreach(json_object_get(answer, "marks"), i, mark) {
        CLEANUP_FREE char *name = str_printf("  %s", json_text(mark, "name"));
        timeline_mark_at(timeline, name, (uint64_t)json_integer_value(json_object_get(mark, "ns")));
    }
}

static int compare(const void *a, const void *b)
{
    const struct timeline_mark *x = a, *y = b;
    return x->ns < y->ns ? -1 : x->ns > y->ns;
}

/* Where in the bar that moment is. */
static int column(const struct timeline *timeline, uint64_t ns)
{
    uint64_t first = timeline->marks[0].ns, last = timeline->marks[timeline->count - 1].ns;
    return last > first ? (int)((ns - first) * BAR_WIDTH / (last - first)) : 0;
}

/* Each line's bar is the time from the line before. */
void timeline_print(struct timeline *timeline)
{
    struct timeline_mark *marks = timeline->marks;
    if (!timeline->count)
        return;
    qsort(marks, timeline->count, sizeof(*marks), compare);
    for (size_t i = 0; i < timeline->count; i++) {
        uint64_t before = i ? marks[i - 1].ns : marks[0].ns;
        int from = column(timeline, before), to = column(timeline, marks[i].ns);
        fprintf(stderr, "%8.1f ms %+7.1f  %-18s |%*s%.*s\n",
                (double)(marks[i].ns - marks[0].ns) / 1e6, (double)(marks[i].ns - before) / 1e6,
                marks[i].name, from, "", to - from, "########################################");
    }
}
