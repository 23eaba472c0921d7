/* What pods take of the host, and containers of their VM. All guests are asked at first, at once;
 * those that do not answer in time are shown without. Then one VM is looked at in a turn of the
 * loop, so that others are served in between. */
#include <stdlib.h>
#include <time.h>

#include "api/hyper/hyper.h"

enum { GUESTS_DEADLINE_MS = 2000 };

struct pod_stats {
    struct stats *stats;
    struct ref pod;
    struct ask *ask;  /* of its guest; NULL: it has answered, or nobody could be asked */
    char *containers; /* JSON of what it has told; NULL: nothing */
};

struct stats {
    struct call *call;
    struct timer *timer;
    struct pod_stats *pods; /* that had a VM when it began */
    size_t count, at;
    size_t asked; /* guests that have not answered yet */
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
    json_number(out, "share", (int64_t)usage.share_bytes);
    json_number(out, "read", (int64_t)usage.read_bytes);
    json_number(out, "written", (int64_t)usage.written_bytes);
}

/* ---- the guests ----------------------------------------------------------------------------- */

static char *containers_text(const struct api *api, const struct pod *pod)
{
    struct ctr_usage usage;
    struct buf out = {0};
    json_open(&out, NULL, '[');
    POD_FOREACH_CTR(ctr, pod) {
        if (ctr->state != CTR_RUNNING || !exec_ctr_usage(api->exec, ctr, &usage))
            continue;
        json_open(&out, NULL, '{');
        json_text(&out, "id", ctr->id);
        json_text(&out, "name", ctr->spec.name);
        json_number(&out, "memory", (int64_t)usage.memory_bytes);
        json_number(&out, "memoryLimit", (int64_t)usage.memory_max_bytes);
        json_number(&out, "pids", usage.pids);
        json_number(&out, "pidsLimit", usage.pids_max);
        json_close(&out, '}');
    }
    json_close(&out, ']');
    return buf_take_str(&out);
}

static void guest_told(const struct error *error, uint64_t value, void *arg)
{
    struct pod_stats *p = arg;
    struct stats *stats = p->stats;
    const struct api *api = stats->call->api;
    const struct pod *pod = world_pod(api->world, p->pod);
    p->ask = NULL;
    if (!error && pod)
        p->containers = containers_text(api, pod);
    if (--stats->asked == 0)
        timer_set(stats->timer, 0);
}

static void guests_ask(struct stats *stats)
{
    struct exec *exec = stats->call->api->exec;
    for (struct pod_stats *p = stats->pods; exec && p < stats->pods + stats->count; p++) {
        p->ask = exec_usage_ask(exec, p->pod, guest_told, p);
        stats->asked += p->ask != NULL;
    }
    timer_set(stats->timer, stats->asked ? GUESTS_DEADLINE_MS : 0);
}

/* The deadline has passed, or there are none. */
static void guests_forget(struct stats *stats)
{
    for (struct pod_stats *p = stats->pods; p < stats->pods + stats->count; p++)
        if (p->ask)
            exec_ask_forget(take(p->ask));
}

/* ---- the answer ----------------------------------------------------------------------------- */

static void pod_add(struct stats *stats, const struct pod *pod, const struct vm *vm,
                    const char *containers)
{
    json_open(&stats->out, NULL, '{');
    json_text(&stats->out, "pod", pod->spec.id);
    json_text(&stats->out, "vm", vm->id);
    json_number(&stats->out, "cpu", vm->cpus);
    json_number(&stats->out, "memory", (int64_t)vm->memory_mb);
    json_number(&stats->out, "upTime", wall_ns() - vm->created_ns);
    show_usage(stats->call->api, vm, &stats->out);
    if (containers)
        json_raw(&stats->out, "containers", containers);
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
    if (stats->at == 0)
        guests_forget(stats);
    if (stats->at == stats->count) {
        stats_end(stats);
        return;
    }
    const struct pod_stats *p = stats->pods + stats->at++;
    const struct pod *pod = world_pod(world, p->pod);
    const struct vm *vm = pod ? world_vm(world, pod->vm) : NULL;
    if (vm && vm->qemu_pid)
        pod_add(stats, pod, vm, p->containers);
    timer_set(stats->timer, 0);
}

static void stats_free(void *data)
{
    struct stats *stats = data;
    guests_forget(stats);
    for (size_t i = 0; i < stats->count; i++)
        free(stats->pods[i].containers);
    timer_free(stats->timer);
    buf_release(&stats->out);
    free(stats->pods);
    free(stats);
}

static void pods_choose(struct stats *stats, const struct pod *only)
{
    const struct world *world = stats->call->api->world;
    stats->pods = xcalloc(world->tables[NOUN_POD].count + 1, sizeof(*stats->pods));
    CLEANUP_FREE const void **all = objects_by_age(world, NOUN_POD);
    for (const void **at = all; *at; at++) {
        const struct pod *pod = *at;
        if (ref_is(pod->vm) && (!only || pod == only))
            stats->pods[stats->count++] =
                (struct pod_stats){.stats = stats, .pod = pod->object.ref};
    }
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
    guests_ask(stats);
}
