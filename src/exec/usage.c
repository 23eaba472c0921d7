#include "exec/usage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "exec/exec_int.h"

/* A file of /proc/PID, which is read in lines; NULL if there is none. */
static FILE *process_file(int pid, const char *name)
{
    CLEANUP_FREE char *path = str_printf("/proc/%d/%s", pid, name);
    return fopen(path, "re");
}

/* Sums the values of the lines that begin with one of the words; `unit` bytes each. */
static uint64_t lines_sum(FILE *f, const char *const *words, uint64_t unit)
{
    char line[256];
    uint64_t sum = 0;
    while (fgets(line, sizeof(line), f))
        STRV_FOREACH(word, words)
            if (str_starts(line, *word))
                sum += strtoull(line + strlen(*word), NULL, 10) * unit;
    return sum;
}

static uint64_t file_sum(int pid, const char *name, const char *const *words, uint64_t unit)
{
    FILE *f = process_file(pid, name);
    if (!f)
        return 0; /* it has just ended */
    uint64_t sum = lines_sum(f, words, unit);
    fclose(f);
    return sum;
}

/* proc_pid_stat(5): the name in parentheses may hold anything. */
static int stat_read(int pid, int *ret_parent, uint64_t *ret_cpu_ns, struct error **ret_error)
{
    char line[1024];
    unsigned long user, system;
    FILE *f = process_file(pid, "stat");
    if (!f)
        return error_set(ret_error, ERROR_NOT_FOUND, errno, "process %d", pid);
    const char *rest = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
    fclose(f);
    if (!rest || sscanf(rest, ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", ret_parent,
                        &user, &system) != 3)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "process %d has ended", pid);
    *ret_cpu_ns = (user + system) * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
    return 0;
}

int usage_of_process(int pid, struct usage *ret, int *ret_parent, struct error **ret_error)
{
    static const char *const privates[] = {"Private_Clean:", "Private_Dirty:", NULL};
    static const char *const shareds[] = {"Shared_Clean:", "Shared_Dirty:", NULL};
    static const char *const reads[] = {"read_bytes:", NULL};
    static const char *const writes[] = {"write_bytes:", NULL};
    *ret = (struct usage){0};
    if (stat_read(pid, ret_parent, &ret->cpu_ns, ret_error) < 0)
        return -1;
    FILE *f = process_file(pid, "smaps_rollup");
    if (!f)
        return error_set(ret_error, ERROR_DENIED, errno, "the memory of process %d", pid);
    ret->private_bytes = lines_sum(f, privates, 1024);
    rewind(f);
    ret->shared_bytes = lines_sum(f, shareds, 1024);
    fclose(f);
    ret->read_bytes = file_sum(pid, "io", reads, 1);
    ret->written_bytes = file_sum(pid, "io", writes, 1);
    return 0;
}

/* Whether that process is the VM's: its number could be somebody else's by now. */
static bool process_is_of(const struct exec *exec, const struct vm *vm, int pid)
{
    char path[64], where[4096];
    CLEANUP_FREE char *below = path_of_vm(vm->id);
    CLEANUP_FREE char *home = path_full(exec, below);
    snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
    ssize_t n = readlink(path, where, sizeof(where) - 1);
    if (n < 0)
        return false;
    where[n] = '\0';
    return str_eq(where, home);
}

/* ---- who serves files ----------------------------------------------------------------------- */

enum { CHILDREN_TEXT = 256, CHILDREN_DEPTH = 4 }; /* husk-share, virtiofsd, and the child of that */

/* All that come of a process, but QEMU; the keeper starts each by its first and only thread, and so
 * do they. */
static void children_add(int pid, int qemu, unsigned depth, struct usage *ret)
{
    char text[CHILDREN_TEXT], *rest = NULL;
    CLEANUP_FREE char *name = str_printf("task/%d/children", pid);
    FILE *f = depth ? process_file(pid, name) : NULL;
    char *line = f ? fgets(text, sizeof(text), f) : NULL;
    if (f)
        fclose(f);
    for (char *word = line ? strtok_r(line, " ", &rest) : NULL; word;
         word = strtok_r(NULL, " ", &rest)) {
        struct usage usage;
        int child = atoi(word), parent;
        if (child <= 0 || child == qemu || usage_of_process(child, &usage, &parent, NULL) < 0)
            continue;
        ret->share_bytes += usage.private_bytes;
        ret->cpu_ns += usage.cpu_ns;
        ret->read_bytes += usage.read_bytes;
        ret->written_bytes += usage.written_bytes;
        children_add(child, qemu, depth - 1, ret);
    }
}

/* ---- the VM --------------------------------------------------------------------------------- */

int exec_usage(const struct exec *exec, const struct vm *vm, struct usage *ret,
               struct error **ret_error)
{
    struct usage keeper;
    int parent, ignored;
    if (vm->qemu_pid <= 0 || !process_is_of(exec, vm, vm->qemu_pid))
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "vm '%s' does not run", vm->id);
    if (usage_of_process(vm->qemu_pid, ret, &parent, ret_error) < 0)
        return error_wrap(ret_error, "vm '%s'", vm->id);
    if (process_is_of(exec, vm, parent) && usage_of_process(parent, &keeper, &ignored, NULL) == 0) {
        ret->keeper_bytes = keeper.private_bytes;
        children_add(parent, vm->qemu_pid, CHILDREN_DEPTH, ret);
    }
    return 0;
}

/* ---- the guest ------------------------------------------------------------------------------ */

struct ask *exec_usage_ask(struct exec *exec, struct ref pod,
                           void (*done)(const struct error *error, uint64_t value, void *arg),
                           void *arg)
{
    struct link *link = link_of_pod(exec, pod);
    return link ? link_ask(link, WIRE_USAGE, &(struct wire_usage){}, -1, done, arg) : NULL;
}

void exec_ask_forget(struct ask *ask)
{
    ask_forget(ask);
}

enum { USAGES_MAX = 64 }; /* in one answer */

/* What came before the last reply belongs to that. */
void usage_came(struct link *link, const struct wire_ctr_usage *message)
{
    if (link->usages_told)
        link->usage_count = 0;
    link->usages_told = false;
    if (link->usage_count == USAGES_MAX)
        return;
    link->usages = xrealloc(link->usages, (link->usage_count + 1) * sizeof(*link->usages));
    struct told_usage *told = &link->usages[link->usage_count++];
    *told = (struct told_usage){.usage = {.memory_bytes = message->memory_bytes,
                                          .memory_max_bytes = message->memory_max_bytes,
                                          .pids = message->pids,
                                          .pids_max = message->pids_max}};
    snprintf(told->ctr, sizeof(told->ctr), "%s", message->ctr);
}

bool exec_ctr_usage(const struct exec *exec, const struct container *ctr, struct ctr_usage *ret)
{
    const struct link *link = link_of_pod(exec, ctr->pod);
    for (size_t i = 0; link && i < link->usage_count; i++)
        if (str_eq(link->usages[i].ctr, ctr->id)) {
            *ret = link->usages[i].usage;
            return true;
        }
    return false;
}
