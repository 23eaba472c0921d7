/* stats: what pods take of the host. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/table.h"

enum { INTERVAL_MS = 1000 };

/* The answers for the pods that were named, or for all, as one list; a reference of the caller's.
 */
static int stats_ask(struct cli *cli, const struct args *args, json_t **ret,
                     struct error **ret_error)
{
    static const char *const all[] = {NULL, NULL};
    const char *const *words = args->words[0] ? (const char *const *)args->words : all;
    *ret = json_array();
    do {
        CLEANUP_JSON json_t *answer = NULL;
        CLEANUP_FREE char *target = http_target("/stats", "pod", *words, NULL);
        if (daemon_json(cli, "GET", target, NULL, &answer, ret_error) < 0) {
            json_decref(*ret);
            *ret = NULL;
            return -1;
        }
        json_array_extend(*ret, json_object_get(answer, "items"));
    } while (*words && *++words);
    return 0;
}

static double number(const json_t *item, const char *name)
{
    return json_number_value(json_object_get(item, name));
}

/* Of the time since the sample before; without one, since the VM began. */
static double cpu_percent(const json_t *item, const json_t *before)
{
    const json_t *old;
    size_t i;
    double used = number(item, "cpuTime"), passed = number(item, "upTime");
    json_array_foreach(before, i, old)
        if (str_eq(json_text(old, "vm"), json_text(item, "vm"))) {
            used -= number(old, "cpuTime");
            passed -= number(old, "upTime");
        }
    return passed > 0 ? used * 100 / passed : 0;
}

static char *size_text(double bytes)
{
    char text[32];
    size_format(text, sizeof(text), bytes);
    return xstrdup(text);
}

/* Of all containers of the pod; NULL: the guest has not answered. */
static const json_t *containers_of(const json_t *item, const char *name, double *ret)
{
    const json_t *containers = json_object_get(item, "containers"), *ctr;
    size_t i;
    *ret = 0;
    json_array_foreach(containers, i, ctr)
        *ret += number(ctr, name);
    return containers;
}

static char *containers_memory(const json_t *item)
{
    double bytes;
    return containers_of(item, "memory", &bytes) ? size_text(bytes) : xstrdup("-");
}

static char *containers_pids(const json_t *item)
{
    double pids;
    return containers_of(item, "pids", &pids) ? str_printf("%.0f", pids) : xstrdup("-");
}

static void print_table(const json_t *items, const json_t *before)
{
    static const char *const titles[] = {"POD ID",           "CPU",           "Private", "Shared",
                                         "Memory of the VM", "In containers", "PIDs",    "Read",
                                         "Written"};
    CLEANUP_TABLE struct table table = {.columns = ARRAY_SIZE(titles)};
    const json_t *item;
    size_t i;
    table_row(&table, titles);
    json_array_foreach(items, i, item) {
        CLEANUP_FREE char *cpu = str_printf("%.1f %%", cpu_percent(item, before));
        CLEANUP_FREE char *private =
            size_text(number(item, "private") + number(item, "keeper") + number(item, "share"));
        CLEANUP_FREE char *shared = size_text(number(item, "shared"));
        CLEANUP_FREE char *memory = size_text(number(item, "memory") * (1 << 20));
        CLEANUP_FREE char *used = containers_memory(item);
        CLEANUP_FREE char *pids = containers_pids(item);
        CLEANUP_FREE char *reads = size_text(number(item, "read"));
        CLEANUP_FREE char *written = size_text(number(item, "written"));
        table_row(&table, (const char *const[]){json_text(item, "pod"), cpu, private, shared,
                                                memory, used, pids, reads, written});
    }
    table_print(&table, stdout);
}

static void print(const struct args *args, const json_t *items, const json_t *before)
{
    if (str_eq(args_text(args, "output"), "json")) {
        json_dumpf(items, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        if (!args_has(args, "no-stream") && isatty(STDOUT_FILENO))
            fputs("\033[H\033[J", stdout); /* from the top left corner of an empty screen */
        print_table(items, before);
    }
    fflush(stdout);
}

int cmd_stats(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *before = NULL;
    for (;;) {
        json_t *items;
        if (stats_ask(cli, args, &items, ret_error) < 0)
            return -1;
        print(args, items, before);
        json_decref(before);
        before = items;
        if (args_has(args, "no-stream") || ferror(stdout))
            return 0;
        poll(NULL, 0, INTERVAL_MS);
    }
}
