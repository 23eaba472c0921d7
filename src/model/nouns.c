/* What each noun shows of itself, and its end. */
#include <signal.h>
#include <stdlib.h>

#include "base/str.h"
#include "model/world.h"

void ctr_free(struct container *ctr)
{
    if (!ctr)
        return;
    ctr_spec_clear(&ctr->spec);
    free(ctr->reason);
    free(ctr);
}

void pod_free(struct pod *pod)
{
    if (!pod)
        return;
    pod_spec_clear(&pod->spec);
    free(pod->target_vm);
    free(pod->reason);
    free(pod);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    free(vm->accel);
    free(vm->machine);
    free(vm->template);
    free(vm->image_id);
    free(vm->reason);
    free(vm);
}

void image_free(struct image *image)
{
    if (!image)
        return;
    image_config_clear(&image->config);
    free(image->config_text);
    strv_free(image->names);
    strv_free(image->files);
    free(image);
}

const struct container *vm_layer_for(const struct vm *vm, const struct pod *pod)
{
    const struct container *ctr = pod->containers;

    if (!vm->image_id || pod->container_count != 1 || pod->spec.storage_mb != vm->layer_mb)
        return NULL;
    return ctr->state == CTR_PENDING && !ctr->run && str_eq(ctr->image_id, vm->image_id) ? ctr
                                                                                         : NULL;
}

bool ctr_is_up(const struct container *ctr)
{
    return ctr->state == CTR_STARTING || ctr->state == CTR_RUNNING || ctr->state == CTR_STOPPING;
}

const char *ctr_status(const struct container *ctr)
{
    if (ctr->state == CTR_RUNNING || ctr->state == CTR_STOPPING)
        return "running";
    if (!ctr->finished_ns || ctr->state == CTR_STARTING)
        return "pending";
    return ctr->succeeded ? "succeeded" : "failed";
}

const char *vm_status(const struct vm *vm)
{
    return vm->paused ? "paused" : vm_state_name(vm->state);
}

/* Created: pending if no container ever ended, failed if one did badly or the pod itself did. */
static const char *pod_status_created(const struct pod *pod)
{
    bool ran = false;

    POD_FOREACH_CTR(c, pod) {
        if (c->finished_ns && !c->succeeded)
            return "failed";
        ran |= c->finished_ns != 0;
    }
    if (pod->failed)
        return "failed";
    return ran || pod->started_ns ? "succeeded" : "pending";
}

bool pod_has_finished(const struct pod *pod)
{
    if (pod->state == POD_CREATED)
        return pod->want == POD_WANT_CREATED;
    POD_FOREACH_CTR(c, pod) {
        bool rests = c->state == CTR_ENDED || c->state == CTR_PENDING;

        if (!rests || c->want != CTR_WANT_STOPPED)
            return false;
    }
    return pod->state == POD_RUNNING;
}

const char *pod_status(const struct world *world, const struct pod *pod)
{
    const struct vm *vm = world_vm(world, pod->vm);

    switch (pod->state) {
    case POD_CREATING:
    case POD_STARTING:
        return "pending";
    case POD_RUNNING:
        return vm && vm->paused ? "paused" : "running";
    case POD_STOPPING:
    case POD_REMOVING:
        return "stopping";
    default:
        return pod_status_created(pod);
    }
}

enum restart ctr_restart(const struct container *ctr, const struct pod *pod)
{
    if (ctr->spec.restart != RESTART_UNSET)
        return ctr->spec.restart;
    return pod->spec.restart != RESTART_UNSET ? pod->spec.restart : RESTART_NEVER;
}

unsigned ctr_stop_signal(const struct container *ctr, const struct image *image)
{
    unsigned number = ctr->spec.stop_signal;

    if (!number && image && image->config.stop_signal)
        number = signal_from_name(image->config.stop_signal);
    return number ? number : SIGTERM;
}

/* ---- what is to be run ---------------------------------------------------------------------- */

/* Sets NAME=VALUE, in the place of an earlier one of that name. */
static void env_put(char ***env, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    size_t length = equals ? (size_t)(equals - assignment) + 1 : strlen(assignment);

    for (char **old = *env; old && *old; old++) {
        if (strncmp(*old, assignment, length) == 0) {
            str_set(old, assignment);
            return;
        }
    }
    strv_push(env, assignment);
}

static void env_put_value(char ***env, const char *name, const char *value)
{
    CLEANUP_FREE char *assignment = str_printf("%s=%s", name, value);

    env_put(env, assignment);
}

static char **process_env(const struct container *ctr, const struct pod *pod,
                          const struct image *image, bool tty)
{
    char **env = NULL;

    env_put(&env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    env_put_value(&env, "HOSTNAME", pod->spec.hostname ? pod->spec.hostname : pod->spec.id);
    if (tty)
        env_put(&env, "TERM=xterm");
    STRV_FOREACH(e, image->config.env)
        env_put(&env, *e);
    STRV_FOREACH(e, ctr->spec.envs)
        env_put(&env, *e);
    return env;
}

/* An entrypoint of one's own takes the image's command away with the image's entrypoint. */
static char **process_argv(const struct container *ctr, const struct image *image)
{
    char **own = ctr->spec.entrypoint;
    char **argv = strv_copy((const char *const *)(own ? own : image->config.entrypoint));
    char **command = ctr->spec.command;

    if (!command && !own)
        command = image->config.command;
    STRV_FOREACH(word, command)
        strv_push(&argv, *word);
    return argv;
}

void process_of(const struct container *ctr, const struct pod *pod, const struct image *image,
                struct process *ret)
{
    enum tristate tty = ctr->spec.tty == UNSET ? pod->spec.tty : ctr->spec.tty;

    *ret = (struct process){
        .tty = tty == YES,
        .stdin_open = ctr->spec.stdin_open == YES,
        .read_only = ctr->spec.read_only == YES,
        .stop_signal = ctr_stop_signal(ctr, image),
        .argv = process_argv(ctr, image),
        .groups = strv_copy((const char *const *)ctr->spec.groups),
    };
    ret->env = process_env(ctr, pod, image, ret->tty);
    ret->cwd = xstrdup(str_or(ctr->spec.workdir, str_or(image->config.workdir, "/")));
    if (!str_empty(ctr->spec.group))
        ret->user = str_printf("%s:%s", str_or(ctr->spec.user, "0"), ctr->spec.group);
    else
        ret->user = xstrdup(str_or(ctr->spec.user, str_or(image->config.user, "")));
}

void process_clear(struct process *process)
{
    strv_free(process->argv);
    strv_free(process->env);
    strv_free(process->groups);
    free(process->cwd);
    free(process->user);
    *process = (struct process){0};
}
