/* A core whose effects the test completes; shared by the unit tests of this room. */
#ifndef HUSK_CORE_CORE_FIXTURE_H
#define HUSK_CORE_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/core_int.h"

extern struct world *world;
extern struct core *core;
extern uint64_t last_op;

/* Before and after each test: a world with the image busybox, whose preparation is not done yet. */
int begin(void **state);
int end(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* A pod 'web' of one container. */
extern const char ONE[];
struct pod *make_pod(const char *text);

/* The reply to the last request: "" if done, the sentence if not, NULL if there is none yet. */
const char *answer(void);
const char *ask(struct request request);
/* Completes everything but timers, until there is nothing more; `failing` fails. */
void act(enum effect_kind failing);
/* Completes what is asked up to the next timer, lets that fire and returns its delay; 0: none. */
uint64_t act_and_wait(void);
/* Until nothing is asked any more. */
void settle(void);
/* So many idle VMs of the usual shape. */
void set_pool(uint32_t count);

#endif
