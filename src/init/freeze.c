#include "init/freeze.h"

#include <unistd.h>

#include "init/container.h"
#include "init/disk.h"
#include "init/events.h"
#include "init/grow.h"
#include "init/identity.h"
#include "init/serve.h"
#include "init/slot.h"

enum {
    LOOK_MS = 20,
    SLOTS_DEADLINE_MS = 5000, /* then it is frozen with those that are ready */
    SETTLE_MS = 700,          /* RCU's grace periods, released cgroups, delayed work */
};

enum phase { PHASE_AWAKE, PHASE_SETTLING, PHASE_FROZEN };

static enum phase phase;
static uint32_t freeze_seq;
static uint64_t deadline_ms;
static struct alarm freeze_alarm;

static void freeze_done(struct alarm *alarm)
{
    sync();
    phase = PHASE_FROZEN;
    serve_reply(freeze_seq, NULL);
}

static void freeze_look(struct alarm *alarm)
{
    if (!slots_ready() && now_ms() < deadline_ms)
        alarm_set(alarm, LOOK_MS, freeze_look);
    else
        alarm_set(alarm, SETTLE_MS, freeze_done);
}

void freeze_begin(uint32_t seq)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (phase != PHASE_AWAKE || !pod_idle()) {
        error_set(&error, ERROR_STATE, 0, "a guest that %s cannot be frozen",
                  phase == PHASE_AWAKE ? "has a pod" : "is frozen");
        serve_reply(seq, error);
        return;
    }
    phase = PHASE_SETTLING;
    freeze_seq = seq;
    deadline_ms = now_ms() + SLOTS_DEADLINE_MS;
    disks_remember();
    slots_fill();
    freeze_look(&freeze_alarm);
}

void freeze_end(const struct wire_awake *message)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (phase != PHASE_FROZEN) {
        error_set(&error, ERROR_STATE, 0, "the guest is awake");
    } else if (identity_change(message, &error) == 0) {
        phase = PHASE_AWAKE;
        grow_expect(message->cpus);
    }
    serve_reply(message->seq, error);
}

bool freeze_refuses(uint32_t seq)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (phase == PHASE_AWAKE)
        return false;
    error_set(&error, ERROR_STATE, 0, "the guest is frozen, and waits for AWAKE");
    serve_reply(seq, error);
    return true;
}
