/* Inside of the simulation. */
#ifndef HUSK_TESTS_SIM_INT_H
#define HUSK_TESTS_SIM_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"

enum { IMAGE_NAMES = 3, OPS_PER_LIFE = 1 << 20, REAL_MAX = 4096 };

/* A set of strings that is never large. */
struct set {
    char *items[REAL_MAX];
    size_t count;
};

struct store;

struct sim {
    uint64_t seed, random, step;
    int64_t wall_ns;
    bool calm;     /* no more failures, deaths and crashes: all shall settle */
    uint32_t pool; /* VMs that are kept idle, once the images are here */
    struct world *world;
    struct core *core;
    struct store *store;
    char *path, *directory; /* of a store on disk; NULL: in memory */
    uint64_t first_op, last_op, open_ops;
    uint8_t kinds[OPS_PER_LIFE];          /* enum request_kind of operations, from first_op */
    uint64_t answered[OPS_PER_LIFE / 64]; /* bits, from first_op */
    size_t answered_count;
    struct set layers; /* "pod uid/container id" */
    struct set images; /* ids */
    uint64_t crashes, full, effects, failures, failed_replies;
    uint64_t requests[REQ_COUNT];
};
extern struct sim sim;

uint64_t chance(void);
bool percent(unsigned n);
/* Prints seed and step, and aborts. */
void broken(const char *what, const char *who) __attribute__((noreturn));

/* ---- set.c ---------------------------------------------------------------------------------- */

void set_add(struct set *set, const char *item);
bool set_has(const struct set *set, const char *item);
void set_remove(struct set *set, const char *item);
bool set_has_op(uint64_t op);
void set_add_op(uint64_t op);

/* ---- reality.c ------------------------------------------------------------------------------ */

void reality_ask(const struct effect *effect);
/* Something that was asked is done, or fails. False: nothing was asked. */
bool reality_complete(void);
/* A keeper's message arrives. */
bool reality_deliver(void);
bool reality_timer(void);
/* Something was asked that is not done, or a timer is set. */
bool reality_is_busy(void);
void reality_process_ends(void);
void reality_vm_dies(void);
/* The daemon died: what it had asked is done or not, and nobody hears of it. */
void reality_orphan(void);
/* Tells the core of a new daemon what there is. */
void reality_adopt(void);
void reality_compare(void);
void reality_is_empty(void);

#endif
