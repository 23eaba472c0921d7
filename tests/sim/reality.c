/* What really is: VMs with their keepers, processes, files; and the fake executors. */
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "sim_int.h"

enum { VMS_REAL = 64, CTRS_REAL = 128, PENDING_MAX = 1024 };

/* A container as its keeper knows it; ends are also in the keeper's journal. */
struct real_ctr {
    char id[CTR_ID_LEN + 1];
    uint64_t run;
    bool ended, told; /* told: the message has been delivered to this daemon */
    uint32_t code;
};

struct real_vm {
    char id[VM_ID_LEN + 1]; /* "": free */
    bool alive;             /* QEMU and keeper */
    bool gone_told;
    bool paused;
    char pod[POD_UID_LEN + 1];    /* placed in it */
    char image[IMAGE_ID_LEN + 1]; /* of the pool: its root is mounted, until a pod is placed */
    bool layer;                   /* then: the layer is still in its own directory */
    char mounted[CTR_ID_LEN + 1]; /* the container whose layer it became */
    struct real_ctr ctrs[CTRS_REAL];
    size_t ctr_count;
};

/* An effect on its way, with the names that its executor would have taken from the world. `ctr` of
 * a POD_PLACE: whose layer that of the VM becomes. */
struct pending {
    struct effect effect;
    char vm[VM_ID_LEN + 1];
    char pod[POD_UID_LEN + 1];
    char ctr[CTR_ID_LEN + 1];
    char image[IMAGE_ID_LEN + 1];
    uint64_t run;
};

static struct real_vm vms[VMS_REAL];
static struct pending pending[PENDING_MAX], timers[PENDING_MAX];
static size_t pending_count, timer_count;

static void layer_key(char ret[128], const char *pod, const char *ctr)
{
    snprintf(ret, 128, "%s/%s", pod, ctr);
}

/* ---- VMs ------------------------------------------------------------------------------------ */

static struct real_vm *vm_find(const char *id)
{
    for (size_t i = 0; i < VMS_REAL && *id; i++)
        if (str_eq(vms[i].id, id))
            return &vms[i];
    return NULL;
}

static struct real_vm *vm_any(void)
{
    for (unsigned n = 0; n < VMS_REAL; n++) {
        struct real_vm *vm = &vms[chance() % VMS_REAL];

        if (*vm->id && vm->alive)
            return vm;
    }
    return NULL;
}

static struct real_ctr *ctr_find(struct real_vm *vm, const char *id)
{
    for (size_t i = 0; i < vm->ctr_count; i++)
        if (str_eq(vm->ctrs[i].id, id))
            return &vm->ctrs[i];
    return NULL;
}

static void ctr_end(struct real_ctr *ctr, uint32_t code)
{
    if (ctr->ended)
        return;
    ctr->ended = true;
    ctr->told = false;
    ctr->code = code;
}

static void vm_die(struct real_vm *vm, uint32_t code)
{
    vm->alive = false;
    vm->paused = false;
    vm->gone_told = false;
    for (size_t i = 0; i < vm->ctr_count; i++)
        ctr_end(&vm->ctrs[i], code);
}

static void tell_end(struct real_ctr *ctr)
{
    struct container *known = world_ctr_by_id(sim.world, ctr->id);

    ctr->told = true;
    if (known)
        core_ctr_ended(sim.core, known->object.ref,
                       &(struct ctr_end){.run = ctr->run,
                                         .code = ctr->code,
                                         .reason = "",
                                         .started_ns = sim.wall_ns - 5,
                                         .finished_ns = sim.wall_ns});
}

/* Messages of one keeper come in order: the ends before the end of the VM. */
static bool tell_one(struct real_vm *vm)
{
    struct vm *known = world_vm_by_id(sim.world, vm->id);

    for (size_t i = 0; i < vm->ctr_count; i++) {
        if (!vm->ctrs[i].ended || vm->ctrs[i].told)
            continue;
        tell_end(&vm->ctrs[i]);
        return true;
    }
    if (vm->alive && known && !known->effect && vm->paused != known->paused &&
        known->state != VM_STOPPING) {
        core_vm_paused(sim.core, known->object.ref, vm->paused);
        return true;
    }
    if (vm->alive || vm->gone_told)
        return false;
    vm->gone_told = true;
    if (known)
        core_vm_gone(sim.core, known->object.ref, "it died");
    return true;
}

static void tell_ends(struct real_vm *vm)
{
    for (size_t i = 0; i < vm->ctr_count; i++)
        if (vm->ctrs[i].ended && !vm->ctrs[i].told)
            tell_end(&vm->ctrs[i]);
}

/* Nothing that only the journal knows may be thrown away with it. */
static void check_journal(const struct real_vm *vm)
{
    for (size_t i = 0; i < vm->ctr_count; i++) {
        const struct real_ctr *ctr = &vm->ctrs[i];
        const struct container *known = world_ctr_by_id(sim.world, ctr->id);

        if (!known || known->run != ctr->run)
            continue;
        if (!ctr->ended)
            broken("cleaned while it ran", ctr->id);
        if (known->state != CTR_ENDED && known->state != CTR_REMOVING)
            broken("end not recorded", ctr->id);
        if (known->exit_code != ctr->code)
            broken("exit code lost", ctr->id);
    }
}

/* ---- executors: 0 done, else the kind of the failure + 1 ------------------------------------- */

static int fail(enum error_kind kind)
{
    return (int)kind + 1;
}

static int do_layer(const struct pending *p)
{
    char key[128];

    layer_key(key, p->pod, p->ctr);
    set_add(&sim.layers, key);
    return 0;
}

static void check_not_running(const char *id)
{
    for (size_t i = 0; i < VMS_REAL; i++) {
        const struct real_ctr *ctr = *vms[i].id ? ctr_find(&vms[i], id) : NULL;

        if (ctr && !ctr->ended && vms[i].alive)
            broken("files removed while it runs", id);
    }
}

static int do_remove(const struct pending *p)
{
    for (size_t i = sim.layers.count; i-- > 0;) {
        const char *key = sim.layers.items[i];
        const char *id = strchr(key, '/') + 1;

        if (!str_starts(key, p->pod) || (*p->ctr && !str_eq(id, p->ctr)))
            continue;
        check_not_running(id);
        set_remove(&sim.layers, key);
    }
    return 0;
}

static int do_spawn(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (vm)
        broken("vm made twice", p->vm);
    for (size_t i = 0; i < VMS_REAL; i++) {
        if (*vms[i].id)
            continue;
        vms[i] = (struct real_vm){.alive = true};
        memcpy(vms[i].id, p->vm, sizeof(p->vm));
        memcpy(vms[i].image, p->image, sizeof(p->image));
        vms[i].layer = *p->image;
        if (*p->image && !set_has(&sim.images, p->image))
            broken("vm for an image without files", p->vm);
        return 0;
    }
    return fail(ERROR_LIMIT);
}

static int do_rehearse(const struct pending *p)
{
    const struct vm *known = world_vm_by_id(sim.world, p->vm);
    const struct real_vm *vm = vm_find(p->vm);

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    if (*vm->pod || !known || known->state == VM_IDLE)
        broken("rehearsal in a vm that is in use", p->vm);
    return 0;
}

/* The layer of the VM takes the place of the container's, which nobody has written to: at once,
 * when it is asked for. */
static void layer_moves(const struct pending *p, struct real_vm *vm)
{
    char key[128];

    layer_key(key, p->pod, p->ctr);
    if (!set_has(&sim.layers, key))
        broken("a layer moves to a container that has none", p->ctr);
    if (!vm->layer)
        broken("a layer that is not there moves", p->ctr);
    for (size_t i = 0; i < VMS_REAL; i++)
        if (*vms[i].id && ctr_find(&vms[i], p->ctr))
            broken("the layer of a container that has run is replaced", p->ctr);
    vm->layer = false;
    memcpy(vm->mounted, p->ctr, sizeof(vm->mounted));
}

/* Two guests with one file system would destroy it. */
static void check_mounted(const struct pending *p, const struct real_vm *vm)
{
    for (size_t i = 0; i < VMS_REAL; i++)
        if (&vms[i] != vm && *vms[i].id && vms[i].alive && str_eq(vms[i].mounted, p->ctr))
            broken("run with a layer that another vm has", p->ctr);
}

static int do_place(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    if (*vm->pod && !str_eq(vm->pod, p->pod))
        broken("two pods in one vm", p->vm);
    memcpy(vm->pod, p->pod, sizeof(vm->pod));
    vm->image[0] = '\0';
    return 0;
}

static void check_run(const struct pending *p, const struct real_vm *vm)
{
    char key[128];

    layer_key(key, p->pod, p->ctr);
    if (!str_eq(vm->pod, p->pod))
        broken("run in a vm without its pod", p->ctr);
    if (!set_has(&sim.layers, key))
        broken("run without a layer", p->ctr);
    if (!set_has(&sim.images, p->image))
        broken("run without an image", p->ctr);
    check_mounted(p, vm);
}

static int do_run(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    if (vm->paused)
        return fail(ERROR_TIMEOUT); /* a pause that was said to have failed */
    check_run(p, vm);
    struct real_ctr *ctr = ctr_find(vm, p->ctr);

    if (ctr && ctr->run == p->run)
        return 0; /* asked again after a crash */
    if (ctr && (!ctr->ended || !ctr->told))
        broken("run while the last one is not over", p->ctr);
    if (!ctr && vm->ctr_count == CTRS_REAL)
        return fail(ERROR_LIMIT);
    if (!ctr)
        ctr = &vm->ctrs[vm->ctr_count++];
    *ctr = (struct real_ctr){.run = p->run};
    memcpy(ctr->id, p->ctr, sizeof(ctr->id));
    return 0;
}

static int do_stop(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);
    struct real_ctr *ctr = vm ? ctr_find(vm, p->ctr) : NULL;

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    if (vm->paused)
        return fail(ERROR_TIMEOUT);
    if (ctr && ctr->run == p->run)
        ctr_end(ctr, p->effect.signal == 9 ? 137 : 143);
    return 0;
}

static int do_kill(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);
    struct real_ctr *ctr = vm ? ctr_find(vm, p->ctr) : NULL;

    if (!vm || !vm->alive || !ctr || ctr->ended)
        return fail(ERROR_STATE);
    if (percent(50))
        ctr_end(ctr, 128 + p->effect.signal);
    return 0;
}

static int do_drop(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);
    struct real_ctr *ctr = vm ? ctr_find(vm, p->ctr) : NULL;

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    if (!ctr)
        return 0;
    if (!ctr->ended)
        broken("dropped while it runs", p->ctr);
    *ctr = vm->ctrs[--vm->ctr_count];
    return 0;
}

static int do_leave(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    for (size_t i = 0; i < vm->ctr_count; i++)
        if (!vm->ctrs[i].ended)
            broken("pod leaves while a container runs", vm->ctrs[i].id);
    check_journal(vm);
    vm->pod[0] = '\0';
    vm->mounted[0] = '\0';
    vm->ctr_count = 0;
    return 0;
}

static int do_freeze(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (!vm || !vm->alive)
        return fail(ERROR_UNAVAILABLE);
    vm->paused = p->effect.token.kind == EFFECT_VM_PAUSE;
    return 0;
}

static int do_off(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (vm && vm->alive) {
        vm_die(vm, 137);
        vm->gone_told = true; /* the completion says so */
    }
    return 0;
}

static int do_clean(const struct pending *p)
{
    struct real_vm *vm = vm_find(p->vm);

    if (!vm)
        return 0;
    do_off(p);
    check_journal(vm);
    vm->id[0] = '\0';
    return 0;
}

static int do_image_files(const struct pending *p)
{
    WORLD_FOREACH(struct container, c, sim.world, NOUN_CTR)
        if (str_eq(c->image_id, p->image))
            broken("image removed while it is used", c->id);
    for (size_t i = 0; i < VMS_REAL; i++)
        if (*vms[i].id && vms[i].alive && str_eq(vms[i].image, p->image))
            broken("image removed while a vm has it", vms[i].id);
    set_remove(&sim.images, p->image);
    return 0;
}

static int (*const executors[EFFECT_COUNT])(const struct pending *) = {
    [EFFECT_MAKE_LAYER] = do_layer,     [EFFECT_REMOVE_FILES] = do_remove,
    [EFFECT_VM_SPAWN] = do_spawn,       [EFFECT_POD_PLACE] = do_place,
    [EFFECT_CTR_RUN] = do_run,          [EFFECT_CTR_STOP] = do_stop,
    [EFFECT_CTR_KILL] = do_kill,        [EFFECT_CTR_DROP] = do_drop,
    [EFFECT_POD_LEAVE] = do_leave,      [EFFECT_VM_PAUSE] = do_freeze,
    [EFFECT_VM_RESUME] = do_freeze,     [EFFECT_VM_OFF] = do_off,
    [EFFECT_VM_CLEAN] = do_clean,       [EFFECT_IMAGE_FILES] = do_image_files,
    [EFFECT_VM_REHEARSE] = do_rehearse,
};

/* ---- asking --------------------------------------------------------------------------------- */

static void pending_names(struct pending *p)
{
    struct token token = p->effect.token;
    const struct container *ctr = token.noun == NOUN_CTR ? world_ctr(sim.world, token.ref) : NULL;
    const struct pod *pod = token.noun == NOUN_POD ? world_pod(sim.world, token.ref)
                            : ctr                  ? world_pod(sim.world, ctr->pod)
                                                   : NULL;
    const struct vm *vm = token.noun == NOUN_VM ? world_vm(sim.world, token.ref)
                          : pod                 ? world_vm(sim.world, pod->vm)
                                                : NULL;
    const struct image *image = token.noun == NOUN_IMAGE ? world_image(sim.world, token.ref) : NULL;

    if (ctr) {
        memcpy(p->ctr, ctr->id, sizeof(p->ctr));
        memcpy(p->image, ctr->image_id, sizeof(p->image));
        p->run = ctr->run;
    }
    if (pod)
        memcpy(p->pod, pod->uid, sizeof(p->pod));
    if (vm)
        memcpy(p->vm, vm->id, sizeof(p->vm));
    if (vm && vm->image_id && token.kind == EFFECT_VM_SPAWN)
        snprintf(p->image, sizeof(p->image), "%s", vm->image_id);
    if (vm && token.kind == EFFECT_POD_PLACE && vm_layer_for(vm, pod))
        memcpy(p->ctr, vm_layer_for(vm, pod)->id, sizeof(p->ctr));
    if (image)
        memcpy(p->image, image->id, sizeof(p->image));
}

/* VM_OFF and VM_CLEAN overtake everything else that was asked of that VM. */
static void overtake(const struct pending *p)
{
    bool all = p->effect.token.kind == EFFECT_VM_OFF || p->effect.token.kind == EFFECT_VM_CLEAN;

    for (size_t i = 0; all && i < pending_count; i++)
        if (str_eq(pending[i].vm, p->vm) && pending[i].effect.token.kind != EFFECT_MAKE_LAYER &&
            pending[i].effect.token.kind != EFFECT_REMOVE_FILES)
            pending[i--] = pending[--pending_count];
}

void reality_ask(const struct effect *effect)
{
    struct pending p = {.effect = *effect};

    pending_names(&p);
    if (effect->token.kind == EFFECT_POD_PLACE && *p.ctr && vm_find(p.vm))
        layer_moves(&p, vm_find(p.vm));
    if (effect->token.kind == EFFECT_TIMER) {
        if (timer_count == PENDING_MAX)
            broken("timers", "too many");
        timers[timer_count++] = p;
        return;
    }
    overtake(&p);
    if (pending_count == PENDING_MAX)
        broken("effects", "too many");
    pending[pending_count++] = p;
}

static void report(const struct pending *p, int failed)
{
    static const struct effect_result booted = {"tcg", "q35", 42, NULL};
    CLEANUP_ERROR struct error *error = NULL;

    if (failed)
        error_set(&error, (enum error_kind)(failed - 1), 0, "it did not work");
    sim.effects++;
    sim.failures += failed != 0;
    core_done(sim.core, p->effect.token, error, failed ? NULL : &booted);
}

/* The keeper's messages come before its reply. A failure may hide that all was done. */
static void complete(const struct pending *p)
{
    bool fails = !sim.calm && percent(6);
    bool acts = !fails || percent(50);
    int result = acts ? executors[p->effect.token.kind](p) : 0;
    struct real_vm *vm = vm_find(p->vm);

    if (vm && acts)
        tell_ends(vm);
    report(p, fails ? fail(ERROR_TIMEOUT) : result);
}

bool reality_complete(void)
{
    if (!pending_count)
        return false;
    size_t at = chance() % pending_count;
    struct pending p = pending[at];

    pending[at] = pending[--pending_count];
    complete(&p);
    return true;
}

/* ---- what happens by itself ----------------------------------------------------------------- */

bool reality_deliver(void)
{
    size_t first = chance() % VMS_REAL;

    for (size_t i = 0; i < VMS_REAL; i++) {
        struct real_vm *vm = &vms[(first + i) % VMS_REAL];

        if (*vm->id && tell_one(vm))
            return true;
    }
    return false;
}

bool reality_is_busy(void)
{
    return pending_count || timer_count;
}

bool reality_timer(void)
{
    if (!timer_count)
        return false;
    size_t at = chance() % timer_count;
    struct pending p = timers[at];

    timers[at] = timers[--timer_count];
    sim.wall_ns += (int64_t)p.effect.delay_ms * 1000000;
    core_clock(sim.core, sim.wall_ns);
    core_done(sim.core, p.effect.token, NULL, NULL);
    return true;
}

void reality_process_ends(void)
{
    struct real_vm *vm = vm_any();

    if (vm && vm->ctr_count && !vm->paused)
        ctr_end(&vm->ctrs[chance() % vm->ctr_count], percent(50) ? 0 : (uint32_t)(chance() % 256));
}

void reality_vm_dies(void)
{
    struct real_vm *vm = vm_any();

    if (vm)
        vm_die(vm, CTR_EXIT_LOST);
}

/* ---- the daemon dies ------------------------------------------------------------------------ */

void reality_orphan(void)
{
    while (pending_count) {
        struct pending p = pending[--pending_count];

        if (percent(50))
            executors[p.effect.token.kind](&p);
    }
    timer_count = 0;
    bool rebooted = percent(5);

    for (size_t i = 0; rebooted && i < VMS_REAL; i++) {
        if (*vms[i].id && vms[i].alive)
            vm_die(&vms[i], CTR_EXIT_LOST);
        if (!vms[i].ctr_count) /* somebody tidied up: there was nothing to be remembered */
            vms[i].id[0] = '\0';
    }
}

static void adopt_one(struct real_vm *vm, struct vm *known)
{
    struct vm_snapshot snapshot = {.ready = true, .paused = vm->paused, .pod_uid = vm->pod};
    struct vm_snapshot_ctr *ctrs = xcalloc(CTRS_REAL, sizeof(*ctrs));

    for (size_t i = 0; i < vm->ctr_count; i++) {
        vm->ctrs[i].told = false;
        ctrs[i].id = vm->ctrs[i].id;
        ctrs[i].run = vm->ctrs[i].run;
        ctrs[i].ended = vm->ctrs[i].ended;
        ctrs[i].started_ns = sim.wall_ns;
    }
    snapshot.ctrs = ctrs;
    snapshot.ctr_count = vm->ctr_count;
    tell_ends(vm);
    core_vm_adopted(sim.core, known->object.ref, &snapshot);
    free(ctrs);
}

void reality_adopt(void)
{
    WORLD_FOREACH(struct vm, known, sim.world, NOUN_VM) {
        struct real_vm *vm = vm_find(known->id);

        if (vm && vm->alive) {
            adopt_one(vm, known);
            continue;
        }
        for (size_t i = 0; vm && i < vm->ctr_count; i++)
            vm->ctrs[i].told = false;
        if (vm) {
            tell_ends(vm);
            vm->gone_told = true;
        }
        if (vm || percent(50)) /* where there is nothing at all, nothing need be said */
            core_vm_gone(sim.core, known->object.ref, "it died meanwhile");
    }
    for (size_t i = 0; i < VMS_REAL; i++)
        if (*vms[i].id && !world_vm_by_id(sim.world, vms[i].id))
            broken("vm that nobody knows", vms[i].id);
}

/* ---- reality and the lists ------------------------------------------------------------------ */

static void compare_ctr(const struct container *ctr)
{
    const struct pod *pod = world_pod(sim.world, ctr->pod);
    const struct vm *known = world_vm(sim.world, pod->vm);
    struct real_vm *vm = known ? vm_find(known->id) : NULL;
    const struct real_ctr *real = vm ? ctr_find(vm, ctr->id) : NULL;
    char key[128];

    layer_key(key, pod->uid, ctr->id);
    if (!set_has(&sim.layers, key))
        broken("container without a layer", ctr->id);
    /* In a VM that was frozen after all, though that was said to have failed, it waits. */
    bool waits = known && known->paused && ctr_is_up(ctr);

    if (ctr->state != CTR_PENDING && ctr->state != CTR_RUNNING && ctr->state != CTR_ENDED && !waits)
        broken("container does not rest", ctr_state_name(ctr->state));
    if (ctr->state == CTR_RUNNING && (!real || real->ended || real->run != ctr->run))
        broken("container does not run", ctr->id);
    if (real && ctr->state != CTR_RUNNING && !real->ended && !waits)
        broken("container runs", ctr->id);
    if (real && real->ended && real->run == ctr->run && real->code != ctr->exit_code)
        broken("wrong exit code", ctr->id);
}

static void compare_vm(struct real_vm *vm)
{
    const struct vm *known = world_vm_by_id(sim.world, vm->id);
    const struct pod *pod = known ? world_pod(sim.world, known->pod) : NULL;

    if (!known)
        broken("vm left behind", vm->id);
    if (!vm->alive || (known->state != VM_IDLE && known->state != VM_ASSOCIATED))
        broken("dead vm", vm->id);
    if (vm->paused != known->paused)
        broken("pause", vm->id);
    if (!str_eq(vm->pod, pod ? pod->uid : ""))
        broken("vm with another pod", vm->id);
    if (!str_eq(vm->image, str_or(known->image_id, "")) || (known->image_id && !vm->layer))
        broken("vm for another image", vm->id);
}

/* At rest it is full, and not too full; who is in use does not belong to it. */
static void compare_pool(void)
{
    struct pool_status status;
    uint32_t idle = 0, wanted = 0;

    for (size_t i = 0; core_pool_status(sim.core, i, &status); i++) {
        bool here = !*status.shape->image || world_find_image(sim.world, status.shape->image,
                                                              &(struct image *){0}, NULL) == 0;

        if (status.waits == here)
            broken("pool", "it does not know whether an image is here");
        wanted += here ? status.shape->count : 0;
    }

    WORLD_FOREACH(struct vm, vm, sim.world, NOUN_VM) {
        if (vm->pooled && vm->state != VM_IDLE)
            broken("vm of the pool in use", vm->id);
        idle += vm->pooled;
    }
    if (idle != wanted)
        broken("pool", "it has not as many VMs as were set");
}

void reality_compare(void)
{
    uint32_t count = 0;

    for (size_t i = 0; i < VMS_REAL; i++) {
        if (!*vms[i].id)
            continue;
        compare_vm(&vms[i]);
        count++;
    }
    if (count != sim.world->tables[NOUN_VM].count)
        broken("vms", "some do not exist");
    compare_pool();
    WORLD_FOREACH(struct pod, pod, sim.world, NOUN_POD)
        if (pod->state != POD_CREATED && pod->state != POD_RUNNING)
            broken("pod does not rest", pod->spec.id);
    WORLD_FOREACH(struct container, ctr, sim.world, NOUN_CTR)
        compare_ctr(ctr);
    if (sim.layers.count != sim.world->tables[NOUN_CTR].count)
        broken("layers", "left behind");
    WORLD_FOREACH(struct image, image, sim.world, NOUN_IMAGE)
        if (!set_has(&sim.images, image->id))
            broken("image without files", image->id);
}

void reality_is_empty(void)
{
    if (sim.layers.count)
        broken("layers left behind", sim.layers.items[0]);
    for (size_t i = 0; i < VMS_REAL; i++)
        if (*vms[i].id)
            broken("vm left behind", vms[i].id);
    while (sim.images.count) /* of loads that were refused: the sweep at a start takes them */
        set_remove(&sim.images, sim.images.items[0]);
}
