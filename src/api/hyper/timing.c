/* How long the steps of a start took. */
#include "api/hyper/hyper.h"

void look_timing(struct call *call)
{
    const struct timing_mark *marks;
    size_t count = timing_marks(exec_timing(call->api->exec), call->ctr->id, &marks);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:I}", "name", marks[i].name, "ns", (json_int_t)marks[i].ns));
    call_json(call, 200, json_pack("{s:s, s:o}", "container", call->ctr->id, "marks", list));
}

json_t *timing_info(const struct api *api)
{
    json_t *steps = json_object();
    struct timing_step step;
    for (size_t i = 0; timing_step(exec_timing(api->exec), i, &step); i++)
        if (step.count)
            json_object_set_new(steps, step.name,
                                json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)step.count,
                                          "p50", step.p50_ms, "p90", step.p90_ms, "p99",
                                          step.p99_ms));
    return steps;
}
