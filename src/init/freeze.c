#include "init/freeze.h"

#include <unistd.h>

#include "base/str.h"
#include "init/container.h"
#include "init/disk.h"
#include "init/events.h"
#include "init/grow.h"
#include "init/identity.h"
#include "init/root.h"
#include "init/serve.h"
#include "init/slot.h"

enum {
    LOOK_MS = 20,
    SLOTS_DEADLINE_MS = 5000, /* then it is frozen with those that are ready */
    SETTLE_MS = 700,          /* RCU's grace periods, released cgroups, delayed work */
};

enum phase { PHASE_AWAKE, PHASE_PREPARING, PHASE_SETTLING, PHASE_FROZEN };

static enum phase phase;
static uint32_t freeze_seq;
static uint64_t deadline_ms;
static struct alarm freeze_alarm;

/* Layers at the very last: what is written after that would be missing on the disks of clones. */
static void freeze_done(struct alarm *alarm)
{
    CLEANUP_ERROR struct error *error = NULL;

    bool freezes = phase == PHASE_SETTLING;
    sync();
    phase = slots_flush(&error) == 0 && freezes ? PHASE_FROZEN : PHASE_AWAKE;
    serve_reply(freeze_seq, error);
}

static void freeze_look(struct alarm *alarm)
{
    if (!slots_ready() && now_ms() < deadline_ms)
        alarm_set(alarm, LOOK_MS, freeze_look);
    else
        alarm_set(alarm, SETTLE_MS, freeze_done);
}

/* A slot whose root is that of the image's next container. */
static int slot_prepare(const struct wire_freeze *m, bool warmed, struct error **ret_error)
{
    if (m->warm)
        slots_warm();
    if (str_empty(m->layer_disk))
        return 0;
    CLEANUP_FREE char *image = disk_find(m->image_disk);
    CLEANUP_FREE char *layer = disk_find(m->layer_disk);
    if (!image || !layer)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "disk '%s' is not there",
                         image ? m->layer_disk : m->image_disk);
    const struct root root = {.image_device = image, .layer_device = layer};
    return slots_fill_rooted(&root, m, warmed, ret_error);
}

static void slots_begin(const struct wire_freeze *message, enum phase next)
{
    CLEANUP_ERROR struct error *error = NULL;

    disks_remember();
    if (phase != PHASE_AWAKE || !pod_idle())
        error_set(&error, ERROR_STATE, 0, "a guest that %s cannot be %s",
                  phase == PHASE_AWAKE ? "has a pod" : "is frozen",
                  next == PHASE_SETTLING ? "frozen" : "prepared");
    else
        slot_prepare(message, next == PHASE_PREPARING, &error);
    if (error) {
        serve_reply(message->seq, error);
        return;
    }
    phase = next;
    freeze_seq = message->seq;
    deadline_ms = now_ms() + SLOTS_DEADLINE_MS;
    slots_fill();
    freeze_look(&freeze_alarm);
}

void freeze_begin(const struct wire_freeze *message)
{
    slots_begin(message, PHASE_SETTLING);
}

void prepare_begin(const struct wire_prepare *message)
{
    const struct wire_freeze as = {.seq = message->seq,
                                   .image_disk = message->image_disk,
                                   .layer_disk = message->layer_disk,
                                   .program = message->program,
                                   .path = message->path};
    slots_begin(&as, PHASE_PREPARING);
}

void freeze_end(const struct wire_awake *message)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (phase != PHASE_FROZEN) {
        error_set(&error, ERROR_STATE, 0, "the guest is awake");
    } else if (identity_change(message, &error) == 0) {
        phase = PHASE_AWAKE;
        grow_expect(message->cpus, message->more_bytes);
    }
    serve_reply(message->seq, error);
}

bool freeze_refuses(uint32_t seq)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (phase == PHASE_AWAKE)
        return false;
    error_set(&error, ERROR_STATE, 0, "the guest %s",
              phase == PHASE_PREPARING ? "is being prepared" : "is frozen, and waits for AWAKE");
    serve_reply(seq, error);
    return true;
}
