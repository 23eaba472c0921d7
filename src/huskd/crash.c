#include "huskd/crash.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"

int crash_read(struct crash *ret, struct error **ret_error)
{
    const char *text = getenv("HUSK_CRASH_AT");
    *ret = (struct crash){0};
    if (str_empty(text))
        return 0;
    CLEANUP_FREE char *name = xstrdup(text);
    ret->after = str_ends(name, ":after");
    if (ret->after || str_ends(name, ":before"))
        *strrchr(name, ':') = '\0';
    for (const char *const *step = core_steps(); *step; step++)
        if (str_eq(*step, name))
            ret->step = *step;
    if (!ret->step)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "HUSK_CRASH_AT: there is no step '%s', see huskd --steps", name);
    return 0;
}

static void crash_at(const struct crash *crash, const struct core *core, struct token token)
{
    if (str_eq(core_step_of(core, token), crash->step))
        kill(getpid(), SIGKILL);
}

void crash_before(const struct crash *crash, const struct core *core, struct token token)
{
    if (crash->step && !crash->after)
        crash_at(crash, core, token);
}

void crash_after(const struct crash *crash, const struct core *core, struct token token)
{
    if (crash->step && crash->after)
        crash_at(crash, core, token);
}
