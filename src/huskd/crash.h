/* Death on demand, for the tests that kill huskd at every step of a recipe.
 *
 * HUSK_CRASH_AT=STEP[:before|:after] in the environment: the daemon kills itself by SIGKILL right
 * after the commit that begins this step and before its effect (before, the default), or when the
 * effect has been carried out and before that is written down (after). `huskd --steps` lists the
 * steps.
 */
#ifndef HUSK_HUSKD_CRASH_H
#define HUSK_HUSKD_CRASH_H

#include <stdbool.h>

#include "core/core.h"

struct crash {
    const char *step; /* a row of core_steps(); NULL: never */
    bool after;
};

/* ERROR_INVALID if there is no such step. */
int crash_read(struct crash *ret, struct error **ret_error);
void crash_before(const struct crash *crash, const struct core *core, struct token token);
void crash_after(const struct crash *crash, const struct core *core, struct token token);

#endif
