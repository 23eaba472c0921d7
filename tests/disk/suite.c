/* suite PLAN DIRECTORY [RIG]: what every storage driver must pass, as TAP. Needs root: it mounts
 * what a guest would mount, in a mount namespace of its own. The directory must be empty; it is
 * left so.
 */
#include <linux/capability.h>
#include <locale.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "suite.h"

int suite_failures;

bool suite_check(bool held, const char *what, const char *file, int line)
{
    if (held)
        return true;
    suite_failures++;
    printf("# %s:%d: %s\n", file, line, what);
    return false;
}

bool suite_done(int result, struct error *error, const char *what, const char *file, int line)
{
    bool good = suite_check(result == 0, what, file, line);

    if (!good)
        printf("# %s\n", error_text(error));
    error_free(error);
    return good;
}

static int run(const char *plan, const struct test *tests, const struct rig *rig, int number)
{
    for (; tests->name; tests++) {
        int before = suite_failures;
        time_t start = time(NULL);
        tests->run(rig);
        printf("%s %d - %s: %s\n", suite_failures == before ? "ok" : "not ok", ++number, plan,
               tests->name);
        printf("# %ld s\n", (long)(time(NULL) - start));
    }
    return number;
}

/* How the drivers are set up; a plan has the name of its driver, but for `quota`, which is overlay
 * where there are project quotas. In the first rig there is room for all, in the second the layers
 * are small, in the third the pool is. */
enum { RIGS = 3 };
static const struct plan {
    const char *name, *driver;
    const char *options[RIGS][8];
    uint64_t layer_bytes[RIGS];
    const struct test *tests[RIGS][6];
} plans[] = {
    {"block",
     "block",
     {{NULL}, {NULL}},
     {1ULL << 30, 64 << 20},
     {{tests_content, tests_life, tests_sized, tests_changes, NULL}, {tests_small, NULL}}},
    {"devicemapper",
     "devicemapper",
     {{"dm.basesize=4G", "dm.loopdatasize=12G", "dm.loopmetadatasize=64M", NULL},
      {"dm.basesize=64M", "dm.loopdatasize=512M", "dm.loopmetadatasize=8M", NULL},
      {"dm.basesize=256M", "dm.loopdatasize=96M", "dm.loopmetadatasize=8M", NULL}},
     {4ULL << 30, 64 << 20, 256 << 20},
     {{tests_content, tests_life, tests_sized, tests_changes, tests_dm, NULL},
      {tests_small, NULL},
      {tests_dm_small, NULL}}},
    {"overlay",
     "overlay",
     {{NULL}},
     {0},
     {{tests_content, tests_life, tests_changes, tests_overlay, NULL}}},
    {"quota",
     "overlay",
     {{"overlay.size=1G", NULL}, {NULL}},
     {1ULL << 30, 64 << 20},
     {{tests_life, tests_sized, tests_quota_usual, NULL}, {tests_small, tests_quota, NULL}}},
};

static int plan_run(const struct plan *plan, const char *home, const char *only)
{
    static const char *const names[RIGS] = {"wide", "narrow", "full"};
    int number = 0;

    for (size_t i = 0; i < RIGS && plan->tests[i][0]; i++) {
        if (only && strcmp(only, names[i]) != 0)
            continue;
        struct rig *rig = rig_new(home, names[i], disk_driver(plan->driver, NULL), plan->options[i],
                                  plan->layer_bytes[i]);
        for (const struct test *const *tests = plan->tests[i]; *tests; tests++)
            number = run(plan->name, *tests, rig, number);
        rig_free(rig);
    }
    printf("1..%d\n", number);
    return suite_failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* With it a quota of ext4 does not hold; who mounts the roots of containers has not got it either
 * (keeper/confine.c). */
static int resource_drop(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    if (syscall(SYS_capget, &header, sets) < 0)
        return -1;
    sets[0].effective &= ~(1U << CAP_SYS_RESOURCE);
    return (int)syscall(SYS_capset, &header, sets);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || argc > 4 || !setlocale(LC_CTYPE, "C.UTF-8")) {
        fprintf(stderr, "usage: suite PLAN DIRECTORY [RIG], where there is a locale 'C.UTF-8'\n");
        return 2;
    }
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        perror("suite: a mount namespace of its own");
        return 2;
    }
    if (resource_drop() < 0) {
        perror("suite: drop a capability");
        return 2;
    }
    for (size_t i = 0; i < ARRAY_SIZE(plans); i++)
        if (strcmp(plans[i].name, argv[1]) == 0)
            return plan_run(&plans[i], argv[2], argv[3]);
    fprintf(stderr, "suite: there is no plan '%s'\n", argv[1]);
    return 2;
}
