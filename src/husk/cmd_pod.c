/* start, stop, rm, kill, pause, unpause, replace, vm: what moves pods, containers and VMs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/spec.h"

/* A request whose answer is of no interest, with the status line while it lasts. */
static int act(struct cli *cli, const char *method, const char *target, const char *doing,
               const char *object, struct error **ret_error)
{
    waiting_begin(cli, object, "%s '%s'", doing, object);
    int rc = daemon_call(cli, method, target, NULL, NULL, ret_error);
    waiting_end(cli);
    return rc;
}

int cmd_start(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *name = args->words[0];
    bool container = args_has(args, "container");
    if (container && args->words[1])
        return error_set(ret_error, ERROR_INVALID, 0, "'start -c' has no use for '%s'",
                         args->words[1]);
    CLEANUP_FREE char *target =
        container ? http_target("/container/start", "container", name, NULL)
                  : http_target("/pod/start", "podId", name, "vmId", args->words[1], NULL);
    if (act(cli, "POST", target, "starting", name, ret_error) < 0)
        return -1;
    printf(container ? "Successfully started container %s\n" : "Successfully started the Pod(%s)\n",
           name);
    return 0;
}

/* ---- stop ----------------------------------------------------------------------------------- */

static int stop_one(struct cli *cli, const struct args *args, const char *name,
                    struct error **ret_error)
{
    CLEANUP_FREE char *seconds = NULL;
    uint64_t ms;
    bool container = args_has(args, "container");
    if (str_to_duration_ms(args_text(args, "time"), &ms))
        seconds = str_printf("%llu", (unsigned long long)(ms + 999) / 1000);
    const char *vm = args_has(args, "onlypod") ? "no" : "yes";
    CLEANUP_FREE char *target =
        container ? http_target("/container/stop", "container", name, "timeout", seconds, NULL)
                  : http_target("/pod/stop", "podId", name, "stopVm", vm, "timeout", seconds, NULL);
    if (act(cli, "POST", target, "stopping", name, ret_error) < 0)
        return -1;
    if (!container)
        printf("Successfully shutdown the POD: %s!\n", name);
    return 0;
}

int cmd_stop(struct cli *cli, const struct args *args, struct error **ret_error)
{
    if (args_has(args, "container") && args_has(args, "onlypod"))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "options '--container' and '--onlypod' exclude each other");
    return each_word(cli, args, stop_one);
}

/* ---- rm ------------------------------------------------------------------------------------- */

static int rm_one(struct cli *cli, const struct args *args, const char *name,
                  struct error **ret_error)
{
    const char *force = args_has(args, "force") ? "true" : NULL;
    bool container = args_has(args, "container");
    CLEANUP_FREE char *target =
        container ? http_target("/container/remove", "container", name, "force", force, NULL)
                  : http_target("/pod", "podId", name, "force", force, NULL);
    if (act(cli, container ? "POST" : "DELETE", target, "removing", name, ret_error) < 0)
        return -1;
    printf(container ? "container %s is successfully deleted!\n"
                     : "Pod(%s) is successfully deleted!\n",
           name);
    return 0;
}

int cmd_rm(struct cli *cli, const struct args *args, struct error **ret_error)
{
    return each_word(cli, args, rm_one);
}

/* ---- kill ----------------------------------------------------------------------------------- */

static int kill_one(struct cli *cli, const struct args *args, const char *name,
                    struct error **ret_error)
{
    int number = signal_number(str_or(args_text(args, "signal"), "KILL"));
    CLEANUP_FREE char *text = str_printf("%d", number), *target = NULL;
    const char *method = "POST";
    if (args_has(args, "pod")) {
        target = http_target("/pod/kill", "podName", name, "signal", text, NULL);
    } else if (str_starts(name, "vm-")) {
        target = http_target("/vm", "vm", name, NULL);
        method = "DELETE";
    } else {
        target = http_target("/container/kill", "container", name, "signal", text, NULL);
    }
    return act(cli, method, target, "signalling", name, ret_error);
}

int cmd_kill(struct cli *cli, const struct args *args, struct error **ret_error)
{
    return each_word(cli, args, kill_one);
}

/* ---- pause, replace, vm --------------------------------------------------------------------- */

int cmd_pause(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/pod/pause", "podId", args->words[0], NULL);
    return act(cli, "POST", target, "pausing", args->words[0], ret_error);
}

int cmd_unpause(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/pod/unpause", "podId", args->words[0], NULL);
    return act(cli, "POST", target, "unpausing", args->words[0], ret_error);
}

/* The new pod of --file; *ret_id is owned by the caller. */
static int replacement_create(struct cli *cli, const struct args *args, char **ret_id,
                              struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL, *answer = NULL;
    if (spec_podfile(args, args_text(args, "file"), &spec, ret_error) < 0 ||
        daemon_json(cli, "POST", "/pod/create", spec, &answer, ret_error) < 0)
        return -1;
    *ret_id = xstrdup(json_text(answer, "ID"));
    return 0;
}

static int replace_with(struct cli *cli, const char *old, const char *new, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/pod/replace", "oldPod", old, "newPod", new, NULL);
    return act(cli, "POST", target, "replacing", old, ret_error);
}

/* A new pod that was not to be started after all goes; one that is, or of which that is not known
 * since huskd is away, does not. */
static void replacement_undo(struct cli *cli, const char *pod)
{
    CLEANUP_JSON json_t *all = NULL;
    CLEANUP_FREE char *look = http_target("/inspect", "name", pod, "kind", "pod", NULL);
    CLEANUP_FREE char *undo = http_target("/pod", "podId", pod, NULL);
    if (daemon_json(cli, "GET", look, NULL, &all, NULL) == 0 &&
        str_eq(json_text(all, "want"), "created") &&
        daemon_call(cli, "DELETE", undo, NULL, NULL, NULL) == 0)
        return;
    note_print(cli, "pod '%s' was made, and may start; 'husk rm -f %s' removes it", pod, pod);
}

int cmd_replace(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *old = args_text(args, "old"), *new = args_text(args, "new");
    const char *file = args_text(args, "file");
    CLEANUP_FREE char *made = NULL;
    if (!old || !new == !file)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'replace' needs a pod to replace and one new pod: husk replace %s",
                         args->verb->arguments);
    if (file && replacement_create(cli, args, &made, ret_error) < 0)
        return -1;
    if (replace_with(cli, old, made ? made : new, ret_error) < 0) {
        if (made)
            replacement_undo(cli, made);
        return -1;
    }
    printf("Successfully replaced the old pod(%s) with new pod%s(%s)\n", old, file ? " file" : "",
           file ? file : new);
    return 0;
}

int cmd_vm(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    CLEANUP_FREE char *memory = NULL;
    uint64_t memory_mb = args_memory_mb(args, "memory", 0);
    if (memory_mb)
        memory = str_printf("%llu", (unsigned long long)memory_mb);
    CLEANUP_FREE char *target =
        http_target("/vm/create", "cpu", args_text(args, "cpu"), "mem", memory, NULL);
    waiting_begin(cli, NULL, "starting a VM");
    int rc = daemon_json(cli, "POST", target, NULL, &answer, ret_error);
    waiting_end(cli);
    if (rc == 0)
        printf("New VM id is %s\n", json_text(answer, "ID"));
    return rc;
}
