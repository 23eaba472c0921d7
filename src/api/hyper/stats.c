/* What pods take of the host. One VM is looked at in a turn of the loop, so that others are served
 * in between. */
#include <stdlib.h>
#include <time.h>

#include "api/hyper/hyper.h"

struct stats {
    struct call *call;
    struct timer *timer;
    struct ref *pods; /* that had a VM when it began */
    size_t count, at;
    struct buf out;
};

static int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void show_usage(const struct api *api, const struct vm *vm, struct buf *out)
{
    struct usage usage;
    if (exec_usage(api->exec, vm, &usage, NULL) < 0)
        return;
    json_number(out, "cpuTime", (int64_t)usage.cpu_ns);
    json_number(out, "private", (int64_t)usage.private_bytes);
    json_number(out, "shared", (int64_t)usage.shared_bytes);
    json_number(out, "keeper", (int64_t)usage.keeper_bytes);
    json_number(out, "read", (int64_t)usage.read_bytes);
    json_number(out, "written", (int64_t)usage.written_bytes);
}

static void pod_add(struct stats *stats, const struct pod *pod, const struct vm *vm)
{
    json_open(&stats->out, NULL, '{');
    json_text(&stats->out, "pod", pod->spec.id);
    json_text(&stats->out, "vm", vm->id);
    json_number(&stats->out, "cpu", vm->cpus);
    json_number(&stats->out, "memory", (int64_t)vm->memory_mb);
    json_number(&stats->out, "upTime", wall_ns() - vm->created_ns);
    show_usage(stats->call->api, vm, &stats->out);
    json_close(&stats->out, '}');
}

static void stats_end(struct stats *stats)
{
    json_close(&stats->out, ']');
    json_close(&stats->out, '}');
    call_json_text(stats->call, 200, &stats->out);
}

static void stats_turn(void *arg)
{
    struct stats *stats = arg;
    const struct world *world = stats->call->api->world;
    if (stats->at == stats->count) {
        stats_end(stats);
        return;
    }
    const struct pod *pod = world_pod(world, stats->pods[stats->at++]);
    const struct vm *vm = pod ? world_vm(world, pod->vm) : NULL;
    if (vm && vm->qemu_pid)
        pod_add(stats, pod, vm);
    timer_set(stats->timer, 0);
}

static void stats_free(void *data)
{
    struct stats *stats = data;
    timer_free(stats->timer);
    buf_release(&stats->out);
    free(stats->pods);
    free(stats);
}

static void pods_choose(struct stats *stats, const struct pod *only)
{
    const struct world *world = stats->call->api->world;
    stats->pods = xcalloc(world->tables[NOUN_POD].count + 1, sizeof(*stats->pods));
    WORLD_FOREACH(struct pod, pod, world, NOUN_POD)
        if (ref_is(pod->vm) && (!only || pod == only))
            stats->pods[stats->count++] = pod->object.ref;
}

void look_stats(struct call *call)
{
    const char *name = call_query(call, "pod");
    struct error *error = NULL;
    struct pod *pod = NULL;
    if (name && world_find_pod(call->api->world, name, &pod, &error) < 0) {
        call_fail(call, error);
        return;
    }
    struct stats *stats = xcalloc(1, sizeof(*stats));
    stats->call = call;
    stats->timer = timer_new(call->api->loop, stats_turn, stats);
    pods_choose(stats, pod);
    call->data = stats;
    call->data_free = stats_free;
    json_open(&stats->out, NULL, '{');
    json_number(&stats->out, "time", wall_ns());
    json_open(&stats->out, "items", '[');
    timer_set(stats->timer, 0);
}
