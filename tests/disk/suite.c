/* suite DRIVER DIRECTORY [RIG]: what every storage driver must pass, as TAP. Needs root: it mounts
 * what a guest would mount, in a mount namespace of its own. The directory must be empty; it is
 * left so.
 */
#include <locale.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
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

static int run(const struct test *tests, const struct rig *rig, int number)
{
    for (; tests->name; tests++) {
        int before = suite_failures;
        time_t start = time(NULL);
        tests->run(rig);
        printf("%s %d - %s: %s\n", suite_failures == before ? "ok" : "not ok", ++number,
               rig->disk.ops->name, tests->name);
        printf("# %ld s\n", (long)(time(NULL) - start));
    }
    return number;
}

/* How the drivers are set up: in the first rig there is room for all, in the second the layers are
 * small, in the third the pool is. */
enum { RIGS = 3 };
static const struct plan {
    const char *driver;
    const char *options[RIGS][8];
    uint64_t layer_bytes[RIGS];
    const struct test *tests[RIGS][5];
} plans[] = {
    {"block",
     {{NULL}, {NULL}},
     {1ULL << 30, 64 << 20},
     {{tests_content, tests_life, tests_sized, tests_changes, NULL}, {tests_small, NULL}}},
    {"devicemapper",
     {{"dm.basesize=4G", "dm.loopdatasize=12G", "dm.loopmetadatasize=64M", NULL},
      {"dm.basesize=64M", "dm.loopdatasize=512M", "dm.loopmetadatasize=8M", NULL},
      {"dm.basesize=256M", "dm.loopdatasize=96M", "dm.loopmetadatasize=8M", NULL}},
     {4ULL << 30, 64 << 20, 256 << 20},
     {{tests_content, tests_life, tests_sized, tests_dm, NULL},
      {tests_small, NULL},
      {tests_dm_small, NULL}}},
    {"overlay", {{NULL}}, {0}, {{tests_content, tests_life, tests_changes, tests_overlay, NULL}}},
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
            number = run(*tests, rig, number);
        rig_free(rig);
    }
    printf("1..%d\n", number);
    return suite_failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || argc > 4 || !setlocale(LC_CTYPE, "C.UTF-8")) {
        fprintf(stderr, "usage: suite DRIVER DIRECTORY [RIG], where there is a locale 'C.UTF-8'\n");
        return 2;
    }
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        perror("suite: a mount namespace of its own");
        return 2;
    }
    for (size_t i = 0; i < ARRAY_SIZE(plans); i++)
        if (strcmp(plans[i].driver, argv[1]) == 0)
            return plan_run(&plans[i], argv[2], argv[3]);
    fprintf(stderr, "suite: there is no driver '%s'\n", argv[1]);
    return 2;
}
