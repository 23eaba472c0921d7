#include "huskd/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "api/api.h"
#include "base/log.h"
#include "base/str.h"
#include "exec/exec.h"
#include "huskd/check.h"
#include "huskd/crash.h"
#include "huskd/places.h"
#include "huskd/shapes.h"
#include "store/store.h"

enum {
    ROUNDS_A_TURN = 64,      /* of commit, replies, effects; then others have their turn */
    COMMIT_RETRY_MS = 1000,  /* after one that failed: the disk is full, most likely */
    KEEP_DEADLINE_MS = 5000, /* at the end, for VMs that are ending already */
};

struct daemon {
    const struct settings *settings;
    char **settings_list;
    char **storage_options;
    struct places places;
    uint64_t template_sizes[SETTINGS_SIZES_MAX];
    size_t template_size_count;
    int lock, listener;
    bool activated; /* the socket is systemd's */

    struct loop *loop;
    struct world *world;
    struct core *core;
    struct store *store;
    struct exec *exec;
    struct api *api;
    struct timer *kick;  /* another turn is needed */
    struct timer *retry; /* commits have failed: until then nothing is tried */
    bool tight;          /* the store has given up its reserve of space */
    struct signal_watch *term, *interrupt;
    bool adopting, serving, retrying;
    struct crash crash;

    struct timer *exit_deadline;
    unsigned stopping; /* pods and VMs that are asked to end before we do */
    bool ending;
    int status;
};

/* ---- one turn ------------------------------------------------------------------------------- */

static void adopted(void *arg);
static void stop_all(struct daemon *d);
static void end_now(void *arg);

/* What is in memory could not be written down: it never happened. All who wait are told, and the
 * world is what the store says. */
static void commit_failed(struct daemon *d, const struct error *why)
{
    CLEANUP_ERROR struct error *error = NULL;
    log_error("commit: %s", error_text(why));
    core_reset(d->core, why);
    world_clear(d->world);
    d->retrying = true;
    timer_set(d->retry, COMMIT_RETRY_MS);
    bool loaded = store_load(d->store, d->world, &error) == 0;
    if (!loaded)
        exec_halt(d->exec);
    api_turn(d->api);
    if (!loaded) {
        log_error("load the world again: %s", error_text(error));
        d->status = 1;
        loop_stop(d->loop);
        return;
    }
    d->adopting = true;
    exec_adopt(d->exec, adopted, d);
}

static void retry_now(void *arg)
{
    struct daemon *d = arg;
    d->retrying = false;
}

static void tight_check(struct daemon *d)
{
    d->tight = store_is_tight(d->store);
    core_set_tight(d->core, d->tight);
}

/* Nothing tells when a full disk has room again: whoever asks for some makes us look. */
static void request_comes(void *arg)
{
    struct daemon *d = arg;
    if (d->tight)
        tight_check(d);
}

/* Returns whether there was anything to do. */
static bool round_run(struct daemon *d)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct effect effect;
    bool dirty = world_is_dirty(d->world);
    bool bound = core_is_bound(d->core);
    if (dirty && store_commit(d->store, d->world, &error) < 0) {
        commit_failed(d, error);
        return false;
    }
    core_committed(d->core);
    if (bound && store_sync(d->store, &error) < 0) {
        commit_failed(d, error);
        return false;
    }
    if (bound)
        core_synced(d->core);
    if (dirty)
        tight_check(d);
    bool any = api_turn(d->api);
    while (core_next_effect(d->core, &effect)) {
        crash_before(&d->crash, d->core, effect.token);
        exec_act(d->exec, &effect);
        any = true;
    }
    return any || dirty;
}

static void turn_end(void *arg)
{
    struct daemon *d = arg;
    for (int i = 0; i < ROUNDS_A_TURN; i++)
        if (d->retrying || !round_run(d))
            return;
    timer_set(d->kick, 0);
}

static void kicked(void *arg)
{
    /* That there is a turn is all. */
}

/* ---- what exec tells ------------------------------------------------------------------------ */

static void effect_completed(struct token token, void *arg)
{
    struct daemon *d = arg;
    crash_after(&d->crash, d->core, token);
}

static void process_state(const char *vm, const char *ctr, const char *id, bool ended,
                          uint32_t code, const char *reason, void *arg)
{
    struct daemon *d = arg;
    api_process_state(vm, ctr, id, ended, code, reason, d->api);
}

static void vm_lost(const char *vm, void *arg)
{
    struct daemon *d = arg;
    api_vm_lost(vm, d->api);
}

/* That KVM is of no use is remembered for as long as what was tried stays the same. */
static char *kvm_circumstances(const struct daemon *d)
{
    struct utsname host = {0};
    uname(&host);
    return str_printf("%s %s %s %s %llu", host.release, d->places.qemu, d->places.kernel,
                      d->settings->machine, (unsigned long long)d->settings->kvm_deadline);
}

static void kvm_refused(const char *why, void *arg)
{
    struct daemon *d = arg;
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *tried = kvm_circumstances(d);
    if (store_meta_set(d->store, "kvm_refused", tried, &error) < 0)
        log_warning("remember that KVM is of no use: %s", error_text(error));
}

static void kvm_works(void *arg)
{
    struct daemon *d = arg;
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *tried = kvm_circumstances(d);
    if (store_meta_set(d->store, "kvm_works", tried, &error) < 0)
        log_warning("remember that KVM is of use: %s", error_text(error));
}

static void kvm_recall(struct daemon *d)
{
    CLEANUP_FREE char *tried = store_meta_get(d->store, "kvm_refused");
    CLEANUP_FREE char *worked = store_meta_get(d->store, "kvm_works");
    CLEANUP_FREE char *now = kvm_circumstances(d);
    if (worked && str_eq(worked, now))
        exec_trust_kvm(d->exec);
    else if (tried && str_eq(tried, now))
        exec_refuse_kvm(d->exec, "a guest under KVM gave no sign of life, some time ago");
}

/* ---- the start ------------------------------------------------------------------------------ */

static void serve(void *arg)
{
    struct daemon *d = arg;
    CLEANUP_ERROR struct error *error = NULL;
    if (d->serving || d->ending)
        return;
    if (api_listen(d->api, d->listener, &error) < 0) {
        log_error("%s", error_text(error));
        d->status = 1;
        loop_stop(d->loop);
        return;
    }
    d->serving = true;
    d->listener = -1;
    service_notify("READY=1");
    log_info("ready: %s, root %s", d->settings->socket, d->places.root);
}

/* The world is true again: what was under way goes on, and clients may come. */
static void adopted(void *arg)
{
    struct daemon *d = arg;
    d->adopting = false;
    if (!d->ending)
        exec_templates_begin(d->exec);
    else if (str_eq(d->settings->on_exit, "keep"))
        end_now(d);
    else
        stop_all(d);
    if (d->serving || d->ending)
        return;
    exec_sweep(d->exec);
    if (d->world->tables[NOUN_IMAGE].count == 0)
        api_load_file(d->api, d->places.busybox, serve, d);
    else
        serve(d);
}

static struct spec_limits spec_limits(const struct settings *s)
{
    struct sysinfo host = {0};
    sysinfo(&host);
    uint64_t host_bytes = (uint64_t)host.totalram * host.mem_unit;
    uint64_t cpus = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    return (struct spec_limits){
        .memory_max_mb = (s->memory_max ? s->memory_max : host_bytes) >> 20,
        .memory_min_mb = shape_memory_min(s) >> 20,
        .memory_default_mb = s->memory_default >> 20,
        .vcpu_max = (uint32_t)(s->cpu_max ? s->cpu_max : cpus),
        .storage_default_mb = s->layer_size >> 20,
        .unsized_storage = str_eq(s->storage, "overlay"),
    };
}

/* Whole GiB: a host whose kernel leaves a page more or less is the same to a template. */
static uint64_t memory_ceiling(uint64_t bytes)
{
    const uint64_t gib = 1ULL << 30;
    return (bytes + gib - 1) / gib * gib;
}

static void templates_changed(void *arg)
{
    struct daemon *d = arg;
    api_templates_changed(d->api);
}

/* The settings were checked. */
static void exec_make(struct daemon *d)
{
    const struct settings *s = d->settings;
    const struct spec_limits limits = spec_limits(s);
    settings_template_sizes(s, d->template_sizes, &d->template_size_count, NULL);
    const struct exec_config config = {
        .root = d->places.root,
        .keeper = d->places.keeper,
        .worker = d->places.worker,
        .transfer = d->places.transfer,
        .qemu = d->places.qemu,
        .kernel = d->places.kernel,
        .initrd = d->places.initrd,
        .kernel_append = s->kernel_append,
        .qemu_user = s->qemu_user,
        .module = d->places.module,
        .memory_return = str_eq(s->memory_return, "on"),
        .machine = s->machine,
        .accel = s->accel,
        .boot_deadline_ms = (uint32_t)s->boot_deadline,
        .kvm_deadline_ms = (uint32_t)s->kvm_deadline,
        .log_max_bytes = s->log_max_size,
        .image_layer_max_bytes = s->image_layer_max,
        .layer_size = s->layer_size,
        .workers = (unsigned)s->workers,
        .transfers = (unsigned)s->transfers,
        .parked_max = (unsigned)s->connections_max,
        .registries = s->registries,
        .insecure = (const char *const *)d->places.insecure,
        .mirrors = (const char *const *)d->places.mirrors,
        .registry_deadline_ms = (uint32_t)s->registry_deadline,
        .job_deadline_ms = s->job_deadline,
        .storage = s->storage,
        .storage_options = (const char *const *)d->storage_options,
        .virtiofsd = s->virtiofsd,
        .templates = str_eq(s->templates, "on"),
        .template_images = str_eq(s->template_images, "on"),
        .template_dir = d->places.templates,
        .template_sizes = d->template_sizes,
        .template_size_count = d->template_size_count,
        .zygotes = (unsigned)s->zygotes,
        .template_huge = str_eq(s->template_memory, "hugetlb"),
        .templates_max = (unsigned)s->templates_max,
        .templates_max_bytes = s->templates_max_size,
        .clone_deadline_ms = (uint32_t)s->clone_deadline,
        .busybox = d->places.busybox,
        .cpus_max = limits.vcpu_max,
        .memory_max_bytes = memory_ceiling(limits.memory_max_mb << 20),
    };
    const struct exec_hooks hooks = {
        process_state, vm_lost, effect_completed, kvm_refused, kvm_works, templates_changed, d};
    d->exec = exec_new(d->loop, d->world, d->core, &config, &hooks);
    kvm_recall(d);
}

static void api_make(struct daemon *d)
{
    const struct settings *s = d->settings;
    const struct api_config config = {
        .settings = (const char *const *)d->settings_list,
        .root = d->places.root,
        .storage = s->storage,
        .socket = s->socket,
        .machine = s->machine,
        .kernel = d->places.kernel,
        .qemu = d->places.qemu,
        .limits = spec_limits(s),
        .stop_grace_ms = (uint32_t)s->stop_grace,
        .connections_max = (unsigned)s->connections_max,
    };
    d->api = api_new(d->loop, d->world, d->core, d->store, &config);
    api_set_exec(d->api, d->exec);
    ops_set_before(api_ops(d->api), request_comes, d);
}

/* Images and layers are of the driver that made them: another one may only begin with none. */
static int storage_check(struct daemon *d, struct error **ret_error)
{
    CLEANUP_FREE char *stored = store_meta_get(d->store, "storage");
    const char *before = str_or(stored, "block"), *now = d->settings->storage;
    unsigned images = d->world->tables[NOUN_IMAGE].count;
    unsigned pods = d->world->tables[NOUN_POD].count;
    if (stored && str_eq(stored, now))
        return 0;
    if (str_eq(before, now) || images + pods == 0)
        return store_meta_set(d->store, "storage", now, ret_error);
    return error_set(ret_error, ERROR_STATE, 0,
                     "the root '%s' has images (%u) or pods (%u) of the storage driver '%s': set "
                     "storage=%s, remove them, or choose another root",
                     d->places.root, images, pods, before, before);
}

static int world_make(struct daemon *d, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/husk.db", d->places.root);
    struct pool_shape shapes[POOL_SHAPES_MAX];
    size_t shape_count;
    uint64_t seed;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        return error_set(ret_error, ERROR_IO, errno, "getrandom");
    d->world = world_new();
    if (store_open(path, &d->store, ret_error) < 0 || store_load(d->store, d->world, ret_error) < 0)
        return error_wrap(ret_error, "the store '%s'", path);
    if (storage_check(d, ret_error) < 0)
        return -1;
    store_keep_events(d->store, d->settings->events_keep);
    d->core = core_new(d->world, seed);
    core_set_restarts(d->core, &(struct restart_policy){.first_ms = d->settings->restart_delay_min,
                                                        .max_ms = d->settings->restart_delay_max,
                                                        .forget_ms = d->settings->restart_reset});
    if (shapes_read(d->settings, shapes, &shape_count, ret_error) < 0)
        return -1;
    core_set_pool(d->core, shapes, shape_count);
    return 0;
}

static void end_asked(int signal, void *arg);

int daemon_new(const struct settings *settings, struct daemon **ret, struct error **ret_error)
{
    struct daemon *d = xcalloc(1, sizeof(*d));
    d->settings = settings;
    d->lock = d->listener = -1;
    places_init(&d->places, settings);
    d->settings_list = settings_list(settings);
    d->storage_options =
        str_empty(settings->storage_opt) ? NULL : str_split(settings->storage_opt, ',');
    /* Without options a driver has what it needs, or its first job says what is missing. */
    if ((d->storage_options && check_storage(settings, d->places.worker, ret_error) < 0) ||
        crash_read(&d->crash, ret_error) < 0 || root_take(&d->places, &d->lock, ret_error) < 0 ||
        socket_take(settings, &d->listener, &d->activated, ret_error) < 0 ||
        world_make(d, ret_error) < 0) {
        daemon_free(d);
        return -1;
    }
    d->loop = loop_new();
    d->kick = timer_new(d->loop, kicked, d);
    d->retry = timer_new(d->loop, retry_now, d);
    d->term = signal_watch_new(d->loop, SIGTERM, end_asked, d);
    d->interrupt = signal_watch_new(d->loop, SIGINT, end_asked, d);
    exec_make(d);
    api_make(d);
    *ret = d;
    return 0;
}

int daemon_run(struct daemon *d)
{
    loop_set_turn_end(d->loop, turn_end, d);
    d->adopting = true;
    exec_adopt(d->exec, adopted, d);
    loop_run(d->loop);
    service_notify("STOPPING=1");
    return d->status;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void end_now(void *arg)
{
    struct daemon *d = arg;
    loop_stop(d->loop);
}

static void one_stopped(const struct reply *reply, void *arg)
{
    struct daemon *d = arg;
    if (reply->error)
        log_warning("stop: %s", error_text(reply->error));
    if (--d->stopping == 0)
        end_now(d);
}

static void vm_end(struct daemon *d, const struct vm *vm)
{
    struct request request = {.kind = REQ_VM_KILL, .vm = vm->object.ref};
    d->stopping++;
    ops_ask(api_ops(d->api), &request, one_stopped, d);
}

/* on_exit=keep: what is ending already may end. Its keeper waits for our word that all is known,
 * which otherwise it would get from the next daemon only. */
static void stop_begun(struct daemon *d)
{
    WORLD_FOREACH(struct vm, vm, d->world, NOUN_VM)
        if (vm->state == VM_STOPPING)
            vm_end(d, vm);
    if (!d->stopping)
        end_now(d);
}

/* on_exit=stop: pods go to Created, those that wait for their restart too; idle VMs end. */
static void stop_all(struct daemon *d)
{
    WORLD_FOREACH(struct pod, pod, d->world, NOUN_POD) {
        struct request request = {.kind = REQ_POD_STOP,
                                  .pod = pod->object.ref,
                                  .grace_ms = (uint32_t)d->settings->stop_grace};
        if (pod->state == POD_REMOVING ||
            (pod->state == POD_CREATED && pod->want != POD_WANT_RUNNING))
            continue;
        d->stopping++;
        ops_ask(api_ops(d->api), &request, one_stopped, d);
    }
    WORLD_FOREACH(struct vm, vm, d->world, NOUN_VM)
        if (!ref_is(vm->pod) || vm->state == VM_STOPPING)
            vm_end(d, vm);
    if (!d->stopping)
        end_now(d);
}

static void end_late(void *arg)
{
    struct daemon *d = arg;
    log_error("%u pods or VMs have not ended in time, and go on", d->stopping);
    d->status = 1;
    end_now(d);
}

static void end_asked(int signal, void *arg)
{
    struct daemon *d = arg;
    bool again = d->ending;
    d->ending = true;
    service_notify("STOPPING=1");
    api_stop_listening(d->api);
    bool keep = str_eq(d->settings->on_exit, "keep");
    if (again || (keep && d->adopting)) {
        end_now(d);
        return;
    }
    core_end(d->core);
    d->exit_deadline = timer_new(d->loop, end_late, d);
    timer_set(d->exit_deadline, keep ? KEEP_DEADLINE_MS : d->settings->exit_deadline);
    if (keep) {
        stop_begun(d);
        return;
    }
    log_info("pods are stopped first");
    if (!d->adopting) /* else once it is known what runs */
        stop_all(d);
}

/* The loop is not taken apart: the process is about to end, and keepers' connections with it. */
void daemon_free(struct daemon *d)
{
    if (!d)
        return;
    api_free(d->api);
    if (d->lock >= 0 && d->loop && !d->activated)
        unlink(d->settings->socket);
    exec_free(d->exec);
    core_free(d->core);
    store_close(d->store);
    world_free(d->world);
    if (d->listener >= 0)
        close(d->listener);
    if (d->lock >= 0)
        close(d->lock);
    strv_free(d->settings_list);
    strv_free(d->storage_options);
    places_done(&d->places);
    free(d);
}

void daemon_print_steps(void)
{
    for (const char *const *step = core_steps(); *step; step++)
        puts(*step);
}
