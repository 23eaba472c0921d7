/* What a former huskd left: keepers that live, keepers that died, directories of VMs.
 *
 *     each VM of the world:  connect ── refused ──> its journal is read; gone
 *                               └── HELLO, SNAPSHOT ──> adopted
 *     each other directory:  all that works in it is killed; removed
 *
 * When the last snapshot is in, or its deadline has passed, the core is told that it may go on.
 */
#include <dirent.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "exec/template.h"

/* Of a keeper's answer: then it is taken for hung, and killed, with its pod. A busy host may let
 * one wait for seconds. */
enum { SNAPSHOT_DEADLINE_MS = 20000, CONNECT_AGAIN_MS = 200, CONNECTS_MAX = 100 };

static void adopt_one_done(struct exec *exec)
{
    if (--exec->adopting)
        return;
    core_reloaded(exec_core(exec));
    if (exec->adopted)
        exec->adopted(exec->adopted_arg);
}

static void adopt_gone(struct link *link, const char *reason)
{
    struct exec *exec = link->exec;
    link->gone = true;
    link_read_exits(link);
    core_vm_gone(exec_core(exec), link->ref, reason);
}

static void adopt_end(struct link *link)
{
    link->adopting = false;
    timer_unset(link->deadline);
    adopt_one_done(link->exec);
}

void adopt_link_closed(struct link *link)
{
    adopt_gone(link, "its keeper ended while huskd was starting");
    asks_fail(link);
    adopt_end(link);
}

void adopt_snapshot_replied(struct link *link, const struct error *error)
{
    if (!link->adopting || !link->conn)
        return;
    if (error) {
        log_error("vm '%s': snapshot: %s", link->vm, error_text(error));
        link_kill_leftovers(link->exec, link->vm);
        return; /* its connection ends */
    }
    CLEANUP_FREE struct vm_snapshot_ctr *ctrs = xcalloc(link->known_count + 1, sizeof(*ctrs));
    for (size_t i = 0; i < link->known_count; i++) {
        ctrs[i].id = link->known[i].id;
        ctrs[i].run = link->known[i].run;
        ctrs[i].ended = link->known[i].ended;
        ctrs[i].started_ns = link->known[i].started_ns;
    }
    struct vm_snapshot snapshot = {
        .ready = link->ready,
        .paused = link->paused,
        .pod_uid = str_or(link->pod, ""),
        .qemu_pid = link->qemu_pid,
        .ctrs = ctrs,
        .ctr_count = link->known_count,
    };
    struct core *core = exec_core(link->exec);
    if (link->gone)
        core_vm_gone(core, link->ref, link->reason);
    else
        core_vm_adopted(core, link->ref, &snapshot);
    adopt_end(link);
}

static void snapshot_replied(const struct error *error, uint64_t value, void *arg)
{
    adopt_snapshot_replied(arg, error);
}

static void adopt_connect(struct link *link);

/* It is tried once more to reach it; or it listens and does not answer: it is of no use any more.
 */
static void adopt_late(void *arg)
{
    struct link *link = arg;
    if (!link->adopting) {
        adopt_connect(link);
        return;
    }
    log_error("vm '%s': its keeper does not answer", link->vm);
    link_kill_leftovers(link->exec, link->vm);
    if (link->conn)
        conn_close(link->conn, false);
}

/* Only who is refused knows that nobody is there. That the host is out of descriptors, say, may be
 * over soon, and nothing tells when. */
static void adopt_connect(struct link *link)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (!link->conn && link_connect(link, &error) < 0) {
        if (error->kind != ERROR_NOT_FOUND && link->connects_left--) {
            timer_set(link->deadline, CONNECT_AGAIN_MS);
            return;
        }
        if (error->kind != ERROR_NOT_FOUND)
            log_error("vm '%s': %s", link->vm, error_text(error));
        timer_unset(link->deadline);
        adopt_gone(link, "its keeper is gone");
        adopt_one_done(link->exec);
        return;
    }
    link->adopting = true;
    link_forget_known(link);
    timer_set(link->deadline, SNAPSHOT_DEADLINE_MS);
    link_ask(link, WIRE_SNAPSHOT, &(struct wire_snapshot){0}, -1, snapshot_replied, link);
}

static void adopt_vm(struct exec *exec, const struct vm *vm)
{
    struct link *link = link_find(exec, vm->id);
    if (!link)
        link = link_new(exec, vm->id, vm->object.ref);
    link->ref = vm->object.ref;
    exec->adopting++;
    link->adopting = false;
    link->connects_left = CONNECTS_MAX;
    if (!link->deadline)
        link->deadline = timer_new(exec->loop, adopt_late, link);
    adopt_connect(link);
}

/* Directories that no VM owns, perhaps with a keeper and a QEMU in them. */
static void clear_strangers(struct exec *exec)
{
    CLEANUP_FREE char *path = path_full(exec, "vms");
    CLEANUP_STRV char **strangers = NULL;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const struct link *link = link_find(exec, entry->d_name);
        if (entry->d_name[0] == '.' || world_vm_by_id(exec->world, entry->d_name) ||
            (link && link->making))
            continue;
        bool ours = str_starts(entry->d_name, TEMPLATE_VM) || str_starts(entry->d_name, ZYGOTE_VM);
        log_write(ours ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "vm '%s' is not known: it is ended",
                  entry->d_name);
        link_kill_leftovers(exec, entry->d_name);
        strv_push_take(&strangers, path_of_vm(entry->d_name));
    }
    if (directory)
        closedir(directory);
    if (strangers)
        pool_remove(exec->pool, (const char *const *)strangers, NULL, NULL);
}

/* Links of VMs that the world does not know (any more). */
static void drop_unknown_links(struct exec *exec)
{
    struct link *link, *next;
    DL_FOREACH_SAFE(exec->links, link, next)
        if (!world_vm_by_id(exec->world, link->vm) && !link->making)
            link_free(link);
}

void exec_adopt(struct exec *exec, void (*done)(void *arg), void *arg)
{
    exec_forget_tasks(exec);
    exec->adopted = done;
    exec->adopted_arg = arg;
    exec->adopting = 1;
    struct link *link;
    DL_FOREACH(exec->links, link)
        link->adopting = false; /* should it have been so: a former adoption came to nothing */
    drop_unknown_links(exec);
    clear_strangers(exec);
    zygotes_tell(exec->templates);
    WORLD_FOREACH(struct vm, vm, exec->world, NOUN_VM)
        adopt_vm(exec, vm);
    adopt_one_done(exec);
}
