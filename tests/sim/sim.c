/* A simulation of core and store over a reality made of lists.
 *
 *   sim [--seed N] [--steps N]
 *
 * The real core and the real store are driven by random requests; the executors are fakes that
 * change a "reality" (which VMs, layers, files exist; what runs where) and now and then fail, with
 * or without having done what was asked. VMs and processes die. Between any two steps the daemon
 * may be killed: before its commit, after it, between replies and effects. Then the world is
 * loaded again and told about what reality holds.
 *
 * Every effect is checked against reality when it is done, every object after each turn. At the
 * end of each episode all is left to settle: then reality must be exactly what the lists say, and
 * after everything was removed there must be nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/scratch.h"
#include "base/str.h"
#include "core/core.h"
#include "sim_int.h"
#include "store/store.h"

struct sim sim;

/* ---- chance --------------------------------------------------------------------------------- */

uint64_t chance(void)
{
    uint64_t z = sim.random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool percent(unsigned n)
{
    return chance() % 100 < n;
}

void broken(const char *what, const char *who)
{
    fprintf(stderr, "sim: seed %" PRIu64 ", step %" PRIu64 ": %s: %s\n", sim.seed, sim.step, what,
            who);
    abort();
}

/* ---- requests ------------------------------------------------------------------------------- */

static struct object *any(enum noun noun)
{
    const struct table *table = &sim.world->tables[noun];

    if (!table->count)
        return NULL;
    for (;;) {
        struct object *o = table->slots[chance() % table->used].object;

        if (o)
            return o;
    }
}

static struct ref any_ref(enum noun noun)
{
    struct object *o = any(noun);

    return o ? o->ref : REF_NONE;
}

static const char *const policies[] = {"never", "onFailure", "always"};

static void make_pod(struct request *request)
{
    CLEANUP_BUF struct buf text = {0};
    CLEANUP_ERROR struct error *error = NULL;
    static const unsigned ttls[] = {0, 1, 500, 100000};
    unsigned count = (unsigned)(chance() % 4);
    bool mortal = percent(25);

    buf_printf(&text, "{\"id\":\"p%u\",\"restartPolicy\":\"%s\",", (unsigned)(chance() % 8),
               policies[chance() % (mortal ? 2 : 3)]);
    if (mortal)
        buf_printf(&text, "\"ttlSecondsAfterFinished\":%u,", ttls[chance() % ARRAY_SIZE(ttls)]);
    buf_append_str(&text, "\"containers\":[");
    for (unsigned i = 0; i < count; i++)
        buf_printf(&text, "%s{\"name\":\"c%u\",\"image\":\"i%u\",\"command\":[\"x\"]}",
                   i ? "," : "", i, (unsigned)(chance() % IMAGE_NAMES));
    buf_append_str(&text, "]}");
    if (pod_spec_parse((char *)text.data, text.len, NULL, &request->pod_spec, &error) < 0)
        broken("podfile", error_text(error));
}

static void make_ctr(struct request *request)
{
    CLEANUP_BUF struct buf text = {0};

    buf_printf(&text, "{\"image\":\"i%u\",\"command\":[\"x\"],\"restartPolicy\":\"%s\"}",
               (unsigned)(chance() % IMAGE_NAMES), policies[chance() % 3]);
    if (ctr_spec_parse((char *)text.data, text.len, &request->ctr_spec, NULL) < 0)
        broken("container", "spec");
}

/* The worker has made the files already when an image is added. */
static void add_image(struct request *request)
{
    static struct image facts;
    static char *names[2], *files[2];
    static char name[64];
    unsigned n = (unsigned)(chance() % IMAGE_NAMES);
    struct image *old;

    snprintf(facts.id, sizeof(facts.id), "sha256:%064u", n);
    snprintf(name, sizeof(name), "docker.io/library/i%u:latest",
             (unsigned)(chance() % IMAGE_NAMES));
    names[0] = name;
    files[0] = facts.id;
    facts.config_text = (char *)(uintptr_t) "{\"config\":{}}";
    facts.names = names;
    facts.files = files;
    request->image_new = &facts;
    old = world_image_by_id(sim.world, facts.id);
    if (!old)
        set_add(&sim.images, facts.id);
}

/* Which requests, how often: those that make things happen come more often than those that end
 * them. */
static const struct {
    enum request_kind kind;
    unsigned weight;
} mix[] = {
    {REQ_POD_CREATE, 14}, {REQ_POD_START, 16}, {REQ_POD_STOP, 8},     {REQ_POD_REMOVE, 6},
    {REQ_POD_KILL, 2},    {REQ_POD_PAUSE, 4},  {REQ_POD_UNPAUSE, 6},  {REQ_POD_REPLACE, 5},
    {REQ_CTR_CREATE, 5},  {REQ_CTR_START, 6},  {REQ_CTR_STOP, 5},     {REQ_CTR_KILL, 2},
    {REQ_CTR_REMOVE, 4},  {REQ_CTR_WAIT, 3},   {REQ_VM_CREATE, 3},    {REQ_VM_KILL, 3},
    {REQ_IMAGE_ADD, 6},   {REQ_IMAGE_TAG, 1},  {REQ_IMAGE_REMOVE, 2},
};

static enum request_kind any_kind(void)
{
    unsigned total = 0;

    for (size_t i = 0; i < ARRAY_SIZE(mix); i++)
        total += mix[i].weight;
    unsigned at = (unsigned)(chance() % total);

    for (size_t i = 0;; i++) {
        if (at < mix[i].weight)
            return mix[i].kind;
        at -= mix[i].weight;
    }
}

static void ask(struct request *request)
{
    request->op = ++sim.last_op;
    sim.open_ops++;
    sim.kinds[request->op - sim.first_op] = (uint8_t)request->kind;
    sim.requests[request->kind]++;
    if (request->kind == REQ_POD_CREATE && !request->pod_spec)
        make_pod(request);
    if (request->kind == REQ_CTR_CREATE && !request->ctr_spec)
        make_ctr(request);
    if (request->kind == REQ_IMAGE_ADD)
        add_image(request);
    core_request(sim.core, request);
}

static void ask_anything(void)
{
    struct request request = {
        .kind = any_kind(),
        .pod = any_ref(NOUN_POD),
        .other = any_ref(NOUN_POD),
        .ctr = any_ref(NOUN_CTR),
        .image = any_ref(NOUN_IMAGE),
        .name = "other",
        .force = percent(50),
        .keep_vm = percent(30),
        .grace_ms = percent(50) ? 1000 : 0,
    };

    if (request.kind == REQ_VM_KILL || percent(40))
        request.vm = any_ref(NOUN_VM);
    ask(&request);
}

/* ---- the daemon ----------------------------------------------------------------------------- */

static void check_world(void)
{
    uint32_t pooled = 0;
    CLEANUP_ERROR struct error *error = NULL;

    if (world_verify(sim.world, &error) < 0)
        broken("invariant", error_text(error));
    WORLD_FOREACH(struct vm, vm, sim.world, NOUN_VM)
        pooled += vm->pooled && !ref_is(vm->pod) && vm->state != VM_STOPPING;
    if (pooled > sim.pool)
        broken("pool", "it has more VMs than were set");
}

static void take_replies(void)
{
    struct reply reply;

    while (core_next_reply(sim.core, &reply)) {
        if (reply.op < sim.first_op || reply.op > sim.last_op || set_has_op(reply.op))
            broken("reply", "to nobody, or for the second time");
        set_add_op(reply.op);
        sim.open_ops--;
        sim.failed_replies += reply.error != NULL;
        error_free(reply.error);
    }
}

static void take_effects(void)
{
    struct effect effect;

    while (core_next_effect(sim.core, &effect))
        reality_ask(&effect);
}

/* Pods take what there is of 1 CPU and 128 MB, some of it for an image that comes and goes; the
 * last shape is never asked for. */
static void set_pool(uint32_t count)
{
    struct pool_shape shapes[] = {{.cpus = 1, .count = (count + 2) / 3},
                                  {.cpus = 1, .count = (count + 1) / 3},
                                  {.cpus = 2, .count = count / 3}};

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        shapes[i].memory_mb = SPEC_MEMORY_DEFAULT_MB;
    shapes[0].layer_mb = SPEC_STORAGE_DEFAULT_MB;
    snprintf(shapes[0].image, sizeof(shapes[0].image), "docker.io/library/i0:latest");
    sim.pool = count;
    core_set_pool(sim.core, shapes, ARRAY_SIZE(shapes));
}

static void load(void)
{
    CLEANUP_ERROR struct error *error = NULL;

    sim.world = world_new();
    if (store_load(sim.store, sim.world, &error) < 0)
        broken("load", error_text(error));
    sim.core = core_new(sim.world, chance());
    core_clock(sim.core, sim.wall_ns);
    sim.first_op = sim.last_op + 1;
    sim.open_ops = 0;
    sim.answered_count = 0;
    set_pool((uint32_t)(chance() % 4)); /* its settings may have changed */
    reality_adopt();
    core_reloaded(sim.core);
}

/* SIGKILL: what was not committed never was; what was asked may or may not have been done. */
static void crash(void)
{
    CLEANUP_ERROR struct error *error = NULL;

    sim.crashes++;
    reality_orphan();
    core_free(sim.core);
    world_free(sim.world);
    if (sim.path) {
        store_close(sim.store);
        if (store_open(sim.path, &sim.store, &error) < 0)
            broken("store", error_text(error));
    }
    load();
}

/* A full disk: the turn never was, and its clients are told. */
static void commit_failed(const struct error *why)
{
    sim.full++;
    core_reset(sim.core, why);
    take_replies();
    reality_orphan();
    core_free(sim.core);
    world_free(sim.world);
    store_limit_pages(sim.store, 0);
    load();
}

/* The end of a loop turn, with a chance to die at each of its seams. */
static void turn_end(void)
{
    CLEANUP_ERROR struct error *error = NULL;
    bool dying = !sim.calm && percent(1);
    unsigned seam = (unsigned)(chance() % 4);

    check_world();
    if (dying && seam == 0) {
        crash();
        return;
    }
    if (!sim.calm && chance() % 500 == 0)
        store_limit_pages(sim.store, 1); /* it may not grow any more */
    if (store_commit(sim.store, sim.world, &error) < 0) {
        commit_failed(error);
        return;
    }
    core_committed(sim.core);
    if (dying && seam == 1) {
        crash();
        return;
    }
    take_replies();
    if (dying && seam == 2) {
        crash();
        return;
    }
    take_effects();
    if (dying)
        crash();
}

/* ---- episodes ------------------------------------------------------------------------------- */

static void something_happens(void)
{
    unsigned what = (unsigned)(chance() % 100);

    sim.wall_ns += (int64_t)(chance() % 2000) * 1000000;
    core_clock(sim.core, sim.wall_ns);
    if (what < 20 && sim.open_ops < 100)
        ask_anything();
    else if (what < 68)
        reality_complete();
    else if (what < 84)
        reality_deliver();
    else if (what < 92)
        reality_process_ends();
    else if (what < 94)
        reality_vm_dies();
    else
        reality_timer();
}

/* At rest, long after, none is here any more whose time to live is over: something of it is up, or
 * would be, or gone, if it were not paused. */
static void check_expired(void)
{
    WORLD_FOREACH(struct pod, pod, sim.world, NOUN_POD) {
        const struct vm *vm = world_vm(sim.world, pod->vm);
        bool paused = vm && vm->paused, lives = !pod->spec.ttl.given;

        POD_FOREACH_CTR(c, pod)
            lives |= ctr_is_up(c) ||
                     (paused && (c->want == CTR_WANT_RUNNING || c->state == CTR_REMOVING));
        if (!lives)
            broken("has finished, and stays", pod->spec.id);
    }
}

/* At rest only somebody who waits for a container's end may be without an answer. */
static void check_operations(void)
{
    for (uint64_t op = sim.first_op; op <= sim.last_op; op++) {
        uint8_t kind = sim.kinds[op - sim.first_op];
        CLEANUP_FREE char *object = core_waits_for(sim.core, op);

        if (set_has_op(op) || kind == REQ_CTR_WAIT)
            continue;
        CLEANUP_FREE char *what = str_printf("request %u waits for nothing", kind);

        broken(what, object ? object : "no object");
    }
}

static void settle(void)
{
    sim.calm = true;
    store_limit_pages(sim.store, 0);
    for (unsigned n = 0; n < 100000; n++) {
        sim.wall_ns += INT64_C(400000) * 1000000;
        core_clock(sim.core, sim.wall_ns);
        bool moved = reality_deliver();

        moved = reality_complete() || moved;
        moved = reality_timer() || moved;

        turn_end();
        if (!moved && !reality_is_busy()) {
            reality_compare();
            check_operations();
            check_expired();
            sim.calm = false;
            return;
        }
    }
    broken("settle", "it never becomes quiet");
}

static void remove_all(void)
{
    WORLD_FOREACH(struct pod, pod, sim.world, NOUN_POD)
        ask(&(struct request){.kind = REQ_POD_REMOVE, .pod = pod->object.ref, .force = true});
    settle();
    set_pool(0);
    WORLD_FOREACH(struct vm, vm, sim.world, NOUN_VM)
        ask(&(struct request){.kind = REQ_VM_KILL, .vm = vm->object.ref});
    WORLD_FOREACH(struct image, image, sim.world, NOUN_IMAGE)
        ask(&(struct request){.kind = REQ_IMAGE_REMOVE, .image = image->object.ref, .force = true});
    settle();
    if (sim.open_ops)
        broken("operations", "some were never answered");
    for (int noun = 0; noun < NOUN_COUNT; noun++)
        if (sim.world->tables[noun].count)
            broken("left behind", noun_name((enum noun)noun));
    reality_is_empty();
}

static void begin(bool on_disk)
{
    CLEANUP_ERROR struct error *error = NULL;

    sim.path = NULL;
    if (on_disk) {
        sim.directory = scratch_make("sim");
        sim.path = str_printf("%s/store", sim.directory);
    }
    if (store_open(sim.path ? sim.path : ":memory:", &sim.store, &error) < 0)
        broken("store", error_text(error));
    load();
}

static void end(void)
{
    core_free(sim.core);
    world_free(sim.world);
    store_close(sim.store);
    if (!sim.path)
        return;
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".reserve"};

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        CLEANUP_FREE char *file = str_printf("%s%s", sim.path, suffixes[i]);

        unlink(file);
    }
    rmdir(sim.directory);
    free(sim.directory);
    free(sim.path);
}

static uint64_t argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
    uint64_t value;

    for (int i = 1; i + 1 < argc; i++)
        if (str_eq(argv[i], name) && str_to_u64(argv[i + 1], 0, UINT64_MAX, &value))
            return value;
    return otherwise;
}

int main(int argc, char **argv)
{
    enum { EPISODE_STEPS = 2500, ON_DISK_EVERY = 200 };
    uint64_t steps = argument(argc, argv, "--steps", 1000000);

    sim.seed = argument(argc, argv, "--seed", (uint64_t)getpid() * 1000003 + 17);
    sim.random = sim.seed;
    sim.wall_ns = INT64_C(1700000000) * 1000000000;
    printf("# seed %" PRIu64 ", %" PRIu64 " steps\n", sim.seed, steps);
    fflush(stdout);
    for (uint64_t episode = 0; sim.step < steps; episode++) {
        begin(episode % ON_DISK_EVERY == ON_DISK_EVERY - 1);
        for (unsigned i = 0; i < EPISODE_STEPS && sim.step < steps; i++, sim.step++) {
            something_happens();
            if (percent(60))
                turn_end();
        }
        turn_end();
        settle();
        remove_all();
        end();
    }
    printf("# %" PRIu64 " crashes, %" PRIu64 " full disks, %" PRIu64 " effects (%" PRIu64
           " failed), %" PRIu64 " operations (%" PRIu64 " refused or failed)\n",
           sim.crashes, sim.full, sim.effects, sim.failures, sim.last_op, sim.failed_replies);
    printf("ok 1 - nothing is lost in %" PRIu64 " random steps\n1..1\n", sim.step);
    return 0;
}
