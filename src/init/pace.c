#include "init/pace.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init/events.h"

enum { QUIET_MS = 30 };

static bool batch; /* husk-init waits until who runs has had its time */
static bool came;  /* since the alarm was set */
static struct alarm quiet;

/* What it starts is as any other process. musl's own function is a stub. */
static void policy_set(unsigned policy)
{
    const struct sched_attr attr = {
        .size = sizeof(attr), .sched_policy = policy, .sched_flags = SCHED_FLAG_RESET_ON_FORK};
    batch = syscall(SYS_sched_setattr, 0, &attr, 0) == 0 && policy == SCHED_BATCH;
}

static void pace_look(struct alarm *alarm)
{
    if (came)
        alarm_set(alarm, QUIET_MS, pace_look);
    else
        policy_set(SCHED_NORMAL);
    came = false;
}

void pace_bulk(void)
{
    came = true;
    if (batch)
        return;
    policy_set(SCHED_BATCH);
    alarm_set(&quiet, QUIET_MS, pace_look);
}
