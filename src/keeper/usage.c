/* What containers take of the VM, as the guest tells when it is asked. Nothing that it says is more
 * than the VM has, and it is told on only of containers that are known.
 */
#include "base/str.h"
#include "keeper/container.h"

enum { PIDS_MAX = 1 << 22 }; /* of any Linux */

static uint64_t at_most(uint64_t value, uint64_t max)
{
    return value < max ? value : max;
}

void usage_came(struct container *c, const struct wire_ctr_usage *m)
{
    uint64_t memory = c->keeper->memory_bytes;
    if (c->keeper->usage_asks && !c->rehearsal)
        c->usage = (struct container_usage){
            .told = true,
            .memory_bytes = at_most(m->memory_bytes, memory),
            .memory_max_bytes = m->memory_max_bytes ? at_most(m->memory_max_bytes, memory) : memory,
            .pids = (uint32_t)at_most(m->pids, PIDS_MAX),
            .pids_max = m->pids_max ? (uint32_t)at_most(m->pids_max, PIDS_MAX) : PIDS_MAX};
}

static void usage_tell(struct container *c)
{
    struct wire_ctr_usage message = {.ctr = c->id,
                                     .memory_bytes = c->usage.memory_bytes,
                                     .memory_max_bytes = c->usage.memory_max_bytes,
                                     .pids = c->usage.pids,
                                     .pids_max = c->usage.pids_max};
    control_send(c->keeper, WIRE_CTR_USAGE, &message);
}

static void guest_answered(struct keeper *k, const struct error *error, void *arg)
{
    for (struct container *c = k->containers; c; c = c->next) {
        if (c->usage.told && !error)
            usage_tell(c);
        c->usage.told = false;
    }
    ask_answer(k, &k->usage_asks, error);
}

int usage_ask(struct keeper *k, uint32_t seq, struct error **ret_error)
{
    bool asked = k->usage_asks;
    if (vm_check_usable(k, ret_error) < 0 || ask_add(k, &k->usage_asks, seq, ret_error) < 0)
        return -1;
    if (!asked)
        guest_request(k, WIRE_USAGE, 0, &(struct wire_usage){}, guest_answered, k);
    return 0;
}
