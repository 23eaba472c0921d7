/* The VM from boot to its end.
 *
 *   BOOTING ──hello──► READY ──QEMU ends──► GONE
 *
 * GONE is entered when QEMU has ended *and* all that the guest sent was read: an exit code that
 * was on its way is not lost.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/console.h"
#include "keeper/container.h"
#include "keeper/share.h"

void vm_tell(struct keeper *k)
{
    struct wire_vm_state state = {.state = k->state,
                                  .paused = k->paused,
                                  .pod = k->pod,
                                  .qemu_pid = k->hyper ? k->ops->pid(k->hyper) : 0,
                                  .reason = k->reason,
                                  .no_hello = k->no_hello,
                                  .cloned = k->mode == WIRE_BOOT_CLONE};
    control_send(k, WIRE_VM_STATE, &state);
}

int vm_check_usable(const struct keeper *k, struct error **ret_error)
{
    if (k->state == WIRE_VM_GONE)
        return error_set(ret_error, ERROR_STATE, 0, "the VM has ended: %s", k->reason);
    if (k->state != WIRE_VM_READY && !k->waking)
        return error_set(ret_error, ERROR_STATE, 0, "the VM does not run yet");
    if (k->state_fd >= 0)
        return error_set(ret_error, ERROR_STATE, 0, "the VM is being made a template");
    if (k->settled)
        return error_set(ret_error, ERROR_STATE, 0, "the VM is a zygote");
    if (k->rehearsal)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM rehearses");
    if (k->turned_off)
        return error_set(ret_error, ERROR_STATE, 0, "the VM is being turned off");
    if (k->paused || k->pause_asks)
        return error_set(ret_error, ERROR_PAUSED, 0, "the VM is paused");
    return 0;
}

/* ---- the end -------------------------------------------------------------------------------- */

static char *reason_gone(const struct keeper *k)
{
    if (k->broken)
        return xstrdup(k->broken);
    if (k->frozen)
        return xstrdup("it was made a template");
    if (k->turned_off)
        return xstrdup("it was turned off");
    if (k->shut_down)
        return xstrdup("the guest turned itself off");
    if (k->state == WIRE_VM_READY)
        return xstrdup(k->hyper_reason);
    CLEANUP_FREE char *tail = console_tail();
    return str_printf("%s before the guest said hello%s%s", k->hyper_reason,
                      *tail ? "; its console ends: " : "", tail);
}

static void asks_fail(struct keeper *k, const char *why)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, k->no_hello ? ERROR_TIMEOUT : ERROR_UNAVAILABLE, 0, "vm '%s': %s", k->vm,
              why);
    ask_answer(k, &k->boot_asks, error);
    ask_answer(k, &k->pause_asks, error);
    ask_answer(k, &k->place_asks, error);
    ask_answer(k, &k->leave_asks, error);
    ask_answer(k, &k->off_asks, NULL);
    template_gone(k, error);
    rehearsal_go_on(k, error);
}

/* Not before its mounts are: the next VM may have them. */
static void vm_gone(struct keeper *k)
{
    CLEANUP_FREE char *ended = NULL;
    if (!share_end(k->share))
        return;
    k->reason = reason_gone(k);
    k->no_hello = k->state == WIRE_VM_BOOTING && !k->turned_off;
    ended = str_printf("the VM ended: %s", k->reason);
    log_info("%s", ended);
    guest_fail_requests(k, ended);
    containers_lost(k, ended);
    execs_lost(k, ended);
    k->ops->free(take(k->hyper));
    k->state = WIRE_VM_GONE;
    k->paused = k->waking = false;
    timer_unset(k->boot);
    timer_unset(k->off);
    str_set(&k->pod, "");
    vm_tell(k);
    asks_fail(k, k->reason);
    keeper_check_end(k);
}

/* QEMU's process has ended; the agent's connection ends by that. */
static void hyper_gone(const char *why, void *arg)
{
    struct keeper *k = arg;
    k->hyper_reason = xstrdup(why);
    console_free(take(k->console));
    if (!k->guest)
        vm_gone(k);
}

void vm_share_ended(struct keeper *k)
{
    bool vm_lives = k->hyper && !k->hyper_reason;
    if (k->state == WIRE_VM_GONE || !k->asked)
        return;
    if (vm_lives && share_failure(k->share))
        vm_break(k, share_failure(k->share));
    else if (vm_lives && !k->quitting) { /* QEMU was first, and we hear of it next */
        k->quitting = true;
        timer_set(k->off, QUIT_DEADLINE_MS);
    } else if (!vm_lives && !k->guest)
        vm_gone(k);
}

/* The guest turned itself off; QEMU ends by itself now, or is helped. */
static void hyper_shut_down(void *arg)
{
    struct keeper *k = arg;
    k->shut_down = true;
    k->quitting = true;
    timer_set(k->off, QUIT_DEADLINE_MS);
}

/* All that the guest had to say and to write was before this; QEMU has nothing to save. */
void vm_halted(struct keeper *k)
{
    if (!k->hyper || k->hyper_reason)
        return;
    hyper_shut_down(k);
    k->ops->kill(k->hyper);
}

static void hyper_mark(const char *name, void *arg)
{
    struct keeper *k = arg;
    mark_add(&k->marks, name);
    if (k->waking && str_eq(name, "running"))
        vm_set_clock(k); /* AWAKE was written before QEMU even started */
}

static void hyper_disk_failed(void *arg)
{
    struct keeper *k = arg;
    if (k->paused)
        return;
    k->paused = true;
    k->paused_ms = loop_now_ms(k->loop);
    guest_stretch_deadlines(k, 0);
    control_event(k, LOG_LEVEL_WARNING, WIRE_EVENT_DISK_FULL,
                  "the storage has no room for what a container writes, and the VM is paused: make "
                  "room, then unpause the pod");
    vm_tell(k);
}

static void hyper_not_copied(const char *why, void *arg)
{
    control_event(arg, LOG_LEVEL_WARNING, WIRE_EVENT_ZYGOTE_FAILED, why);
}

static const struct hyper_events hyper_events = {.gone = hyper_gone,
                                                 .shut_down = hyper_shut_down,
                                                 .mark = hyper_mark,
                                                 .not_copied = hyper_not_copied,
                                                 .disk_failed = hyper_disk_failed};

void vm_link_ended(struct keeper *k, const struct error *why)
{
    if (k->hyper_reason) {
        vm_gone(k);
        return;
    }
    if (why)
        vm_break(k, error_text(why));
    else if (!k->quitting) { /* QEMU is about to end; if it is not, it is of no more use */
        k->quitting = true;
        timer_set(k->off, QUIT_DEADLINE_MS);
    }
}

void vm_break(struct keeper *k, const char *why)
{
    if (k->broken || !k->hyper)
        return;
    k->broken = guest_text(why);
    log_warning("the VM is ended: %s", k->broken);
    k->ops->kill(k->hyper);
}

/* ---- boot ----------------------------------------------------------------------------------- */

static void boot_late(void *arg)
{
    struct keeper *k = arg;
    CLEANUP_FREE char *tail = console_tail();
    CLEANUP_FREE char *why =
        str_printf("the guest did not say hello in time%s%s",
                   *tail ? "; its console ends: " : ", and its console is empty", tail);
    vm_break(k, why);
}

/* VM_OFF's next, harder step. */
static void off_late(void *arg)
{
    struct keeper *k = arg;
    if (!k->hyper)
        return;
    if (k->quitting) {
        k->ops->kill(k->hyper);
        return;
    }
    k->quitting = true;
    k->ops->quit(k->hyper);
    timer_set(k->off, QUIT_DEADLINE_MS);
}

static int state_open(const struct keeper *k, const struct wire_vm_boot *m, int *ret,
                      struct error **ret_error)
{
    if (!k->resumes)
        return 0;
    *ret = open(m->state, O_RDONLY | O_CLOEXEC);
    return *ret >= 0 ? 0 : error_set(ret_error, ERROR_IO, errno, "state '%s'", m->state);
}

/* The layer is about to be another one than its template's: nobody must take it for that again,
 * whatever happens from now on. */
static int mark_wipe(const struct hyper_disk *disks, unsigned count, struct error **ret_error)
{
    static const uint8_t zeroes[LAYER_MARK_SIZE];
    for (unsigned i = 0; i < count; i++) {
        if (disks[i].read_only || disks[i].fd < 0)
            continue;
        if (pwrite(disks[i].fd, zeroes, sizeof(zeroes), 0) != sizeof(zeroes))
            return error_set(ret_error, ERROR_IO, errno, "disk '%s'", disks[i].path);
        return 0;
    }
    return error_set(ret_error, ERROR_INVALID, 0, "no layer came with the template's image");
}

/* The first disks are those whose root the template has ready. */
static int root_claim(struct keeper *k, struct hyper_disk *disks, unsigned count,
                      struct error **ret_error)
{
    disks[0].inherited = true;
    if (mark_wipe(disks, count, ret_error) < 0)
        return -1;
    return k->mode == WIRE_BOOT_ZYGOTE ? zygote_watch_layer(k, disks, count, ret_error) : 0;
}

static int hyper_begin(struct keeper *k, const struct wire_vm_boot *m, int memory_fd,
                       struct error **ret_error)
{
    static const enum hyper_origin origins[] = {[WIRE_BOOT_COLD] = HYPER_COLD,
                                                [WIRE_BOOT_CLONE] = HYPER_CLONE,
                                                [WIRE_BOOT_TEMPLATE] = HYPER_TEMPLATE,
                                                [WIRE_BOOT_ZYGOTE] = HYPER_CLONE};
    struct hyper_disk disks[HYPER_BOOT_DISKS_MAX];
    struct hyper_spec spec = {.vm = k->vm,
                              .machine = m->machine,
                              .accel = m->accel,
                              .origin = origins[k->mode],
                              .layout = {.base_bytes = m->base_bytes,
                                         .memory_max_bytes = m->memory_max_bytes,
                                         .cpus_max = m->cpus_max},
                              .memory_fd = memory_fd,
                              .state_fd = -1,
                              .share_fd = k->share ? share_vhost(k->share) : -1,
                              .cpus = m->cpus,
                              .memory_bytes = m->memory_bytes,
                              .program = m->qemu,
                              .kernel = m->kernel,
                              .initrd = m->initrd,
                              .append = m->append,
                              .user = m->user,
                              .module = m->module,
                              .memory_return = m->memory_return,
                              .zygote = k->mode == WIRE_BOOT_ZYGOTE,
                              .copy_of = m->copy_of,
                              .rules_fd = k->rules,
                              .disks = disks};
    struct hyper_ends ends;
    const char *unshared = k->share ? share_failure(k->share) : k->unshared;
    if (unshared)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "%s", unshared);
    int r = state_open(k, m, &spec.state_fd, ret_error);
    if (r == 0)
        r = disks_boot(k, m->disks, disks, &spec.disk_count, ret_error);
    if (r == 0 && m->rooted)
        r = root_claim(k, disks, spec.disk_count, ret_error);
    if (r == 0)
        r = k->ops->start(k->loop, &spec, &hyper_events, k, &ends, &k->hyper, ret_error);
    for (unsigned i = 0; i < spec.disk_count; i++)
        if (disks[i].fd >= 0)
            close(disks[i].fd);
    if (spec.state_fd >= 0)
        close(spec.state_fd);
    if (k->share)
        share_connected(k->share);
    if (r < 0)
        return -1;
    mark_add(&k->marks, "qemu");
    k->console = console_new(k->loop, ends.console);
    guest_connect(k, ends.agent, k->resumes);
    return 0;
}

static void vm_ready(struct keeper *k)
{
    timer_unset(k->boot);
    k->state = WIRE_VM_READY;
    mark_add(&k->marks, "awake");
    marks_tell(k, NULL, &k->marks);
    vm_tell(k);
    ask_answer(k, &k->boot_asks, NULL);
}

void vm_greeted(struct keeper *k)
{
    vm_ready(k);
}

/* ---- a clone -------------------------------------------------------------------------------- */

static void awoken(struct keeper *k, const struct error *error, void *arg)
{
    if (error) {
        vm_break(k, error_text(error));
        return;
    }
    k->waking = false;
    vm_set_clock(k);
    if (!k->grows)
        vm_ready(k);
}

static void grown(const struct error *error, void *arg)
{
    struct keeper *k = arg;
    k->grows = false;
    if (k->hyper_reason)
        return;
    if (error)
        vm_break(k, error_text(error));
    else if (!k->waking)
        vm_ready(k);
}

/* What it says and does first is all in line before QEMU runs. */
static void clone_begin(struct keeper *k, const struct wire_vm_boot *m)
{
    k->waking = k->grows = true;
    guest_awake(k, m, awoken);
    k->ops->grow(k->hyper, m->memory_bytes, m->cpus, grown, k);
}

static int boot_check(const struct wire_vm_boot *m, struct error **ret_error)
{
    if (m->mode > WIRE_BOOT_ZYGOTE)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0, "no VM starts in mode %u", m->mode);
    return 0;
}

int vm_boot(struct keeper *k, const struct wire_vm_boot *m, int memory_fd, struct error **ret_error)
{
    if (boot_check(m, ret_error) < 0)
        return -1;
    if (k->state == WIRE_VM_GONE)
        return error_set(ret_error, ERROR_STATE, 0, "the VM has ended: %s", k->reason);
    if (ask_add(k, &k->boot_asks, m->seq, ret_error) < 0)
        return -1;
    if (k->state == WIRE_VM_READY)
        ask_answer(k, &k->boot_asks, NULL);
    if (k->asked)
        return 0;
    k->asked = true;
    k->memory_bytes = m->memory_bytes;
    k->mode = (enum wire_boot_mode)m->mode;
    k->resumes = m->mode == WIRE_BOOT_CLONE || m->mode == WIRE_BOOT_ZYGOTE ||
                 (m->mode == WIRE_BOOT_TEMPLATE && !str_empty(m->state));
    k->boot = timer_new(k->loop, boot_late, k);
    k->off = timer_new(k->loop, off_late, k);
    CLEANUP_ERROR struct error *error = NULL;
    if (hyper_begin(k, m, memory_fd, &error) < 0) {
        k->reason = xstrdup(error_text(error));
        k->state = WIRE_VM_GONE;
        vm_tell(k);
        error_wrap(&error, "vm '%s'", k->vm);
        ask_answer(k, &k->boot_asks, error);
        return 0;
    }
    timer_set(k->boot, m->boot_deadline_ms ? m->boot_deadline_ms : BOOT_DEADLINE_MS);
    vm_tell(k);
    if (k->resumes)
        clone_begin(k, m);
    return 0;
}

/* ---- off, pause ----------------------------------------------------------------------------- */

static void not_awaited(const struct error *error, void *arg)
{
}

/* A huskd that has been started again does not know how much time the last one has given. */
static void off_arm(struct keeper *k, uint32_t grace_ms)
{
    uint64_t now = loop_now_ms(k->loop), due = now + grace_ms;
    if (k->off_connection != k->connection && k->off_ms > due)
        due = k->off_ms;
    k->off_connection = k->connection;
    k->off_ms = due;
    timer_set(k->off, due - now);
}

int vm_off(struct keeper *k, uint32_t seq, uint32_t grace_ms, struct error **ret_error)
{
    if (ask_add(k, &k->off_asks, seq, ret_error) < 0)
        return -1;
    if (!k->asked || k->state == WIRE_VM_GONE) {
        ask_answer(k, &k->off_asks, NULL);
        return 0;
    }
    k->turned_off = true;
    if (k->hyper_reason || k->quitting)
        return 0;
    if (k->paused)
        k->ops->resume(k->hyper, not_awaited, NULL);
    guest_send(k, WIRE_POWER_OFF, 0, &(struct wire_power_off){});
    off_arm(k, k->state == WIRE_VM_READY ? grace_ms : 0);
    return 0;
}

static void clock_ask(struct keeper *k);

/* The clock is late by less than the exchange took. If that was long, as on a busy host: again. */
static void clock_set(struct keeper *k, const struct error *error, void *arg)
{
    bool late = loop_now_ms(k->loop) - k->clock_ms > CLOCK_LATE_MS;
    k->clock_asked = false;
    if (!error && late && k->clock_tries)
        clock_ask(k);
}

static void clock_ask(struct keeper *k)
{
    struct wire_set_clock m = {.time_ns = realtime_ns()};
    k->clock_asked = true;
    k->clock_ms = loop_now_ms(k->loop);
    k->clock_tries--;
    guest_request(k, WIRE_SET_CLOCK, 0, &m, clock_set, NULL);
}

void vm_set_clock(struct keeper *k)
{
    k->clock_tries = CLOCK_TRIES;
    if (!k->clock_asked)
        clock_ask(k);
}

static void paused(const struct error *error, void *arg)
{
    struct keeper *k = arg;
    k->paused = !error;
    k->paused_ms = loop_now_ms(k->loop);
    guest_stretch_deadlines(k, 0);
    if (!error)
        vm_tell(k);
    ask_answer(k, &k->pause_asks, error);
}

static void resumed(const struct error *error, void *arg)
{
    struct keeper *k = arg;
    if (!error) {
        k->paused = false;
        vm_set_clock(k);
        guest_stretch_deadlines(k, loop_now_ms(k->loop) - k->paused_ms);
        vm_tell(k);
    }
    ask_answer(k, &k->pause_asks, error);
}

int vm_pause(struct keeper *k, uint32_t seq, bool pause, struct error **ret_error)
{
    if (k->state != WIRE_VM_READY || k->hyper_reason || k->turned_off)
        return error_set(ret_error, ERROR_STATE, 0, "the VM does not run");
    if (k->pause_asks && k->pausing == pause)
        return ask_add(k, &k->pause_asks, seq, ret_error);
    if (k->pause_asks)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM is being %s",
                         k->pausing ? "paused" : "resumed");
    if (k->paused == pause) {
        control_reply(k, seq, NULL);
        return 0;
    }
    if (ask_add(k, &k->pause_asks, seq, ret_error) < 0)
        return -1;
    k->pausing = pause;
    if (pause)
        k->ops->pause(k->hyper, paused, k);
    else
        k->ops->resume(k->hyper, resumed, k);
    return 0;
}

/* ---- the pod -------------------------------------------------------------------------------- */

static void placed(struct keeper *k, const struct error *error, void *arg)
{
    if (!error) {
        free(k->pod);
        k->pod = take(k->placing);
        /* What POD_SETUP says of the time is old when a guest under emulation, fresh from its boot,
         * gets to it. Now that it answers it is quick. */
        vm_set_clock(k);
        mark_add(&k->marks, "placed");
        marks_tell(k, NULL, &k->marks);
        vm_tell(k);
    }
    free(take(k->placing));
    ask_answer(k, &k->place_asks, error);
}

int vm_place(struct keeper *k, const struct wire_pod_place *m, struct error **ret_error)
{
    uint8_t entropy[ENTROPY_SIZE];
    /* A clone that wakes up is told the time when its CPUs run. */
    struct wire_pod_setup setup = {.hostname = m->hostname,
                                   .time_ns = k->waking ? 0 : realtime_ns(),
                                   .entropy = {entropy, sizeof(entropy)},
                                   .hosts = m->hosts,
                                   .resolv = m->resolv};
    if (vm_check_usable(k, ret_error) < 0)
        return -1;
    if (str_eq(k->pod, m->pod)) {
        control_reply(k, m->seq, NULL);
        return 0;
    }
    if (str_eq(k->placing, m->pod)) /* of a huskd that has been started again */
        return ask_add(k, &k->place_asks, m->seq, ret_error);
    if (*k->pod || k->placing)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM has a pod already");
    if (!str_empty(m->layer_to) && disk_rename(k, m->layer_from, m->layer_to, ret_error) < 0)
        return -1;
    if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy))
        setup.entropy.size = 0;
    if (ask_add(k, &k->place_asks, m->seq, ret_error) < 0)
        return -1;
    k->placing = xstrdup(m->pod);
    guest_request(k, WIRE_POD_SETUP, 0, &setup, placed, k);
    return 0;
}

void vm_left(struct keeper *k, const struct error *error)
{
    if (!k->pod_leaves || (!error && disks_leaving(k)))
        return;
    k->pod_leaves = false;
    if (k->rehearsal) {
        rehearsal_go_on(k, error);
        return;
    }
    if (!error) {
        str_set(&k->pod, "");
        vm_tell(k);
    }
    ask_answer(k, &k->leave_asks, error);
}

/* Its disks must be free for another VM before the pod counts as gone. */
static void cleared(struct keeper *k, const struct error *error, void *arg)
{
    if (!error)
        containers_forget(k);
    k->pod_leaves = true;
    vm_left(k, error);
}

int vm_leave(struct keeper *k, uint32_t seq, struct error **ret_error)
{
    struct wire_pod_clear clear = {0};
    if (vm_check_usable(k, ret_error) < 0)
        return -1;
    if (containers_any_runs(k))
        return error_set(ret_error, ERROR_BUSY, 0, "containers of the pod still run");
    bool first = !k->leave_asks;
    if (ask_add(k, &k->leave_asks, seq, ret_error) < 0)
        return -1;
    if (first)
        guest_request(k, WIRE_POD_CLEAR, 0, &clear, cleared, k);
    return 0;
}
