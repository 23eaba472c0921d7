/* Storage drivers whose layers must be attached: made ready for a VM before it gets them, and let
 * go of when it has them no more. What is Created is not attached. And the one whose layers are not
 * disks of a VM, but directories that are served to it.
 */
#include <stdlib.h>

#include "exec/exec_int.h"

bool storage_attaches(const struct exec *exec)
{
    return !str_eq(exec->config.storage, "block");
}

bool storage_shares(const struct exec_config *config)
{
    return str_eq(config->storage, "overlay");
}

void job_root_clear(struct job_root *root)
{
    free(root->image_path);
    free(root->layer_path);
    free(root->layer_top);
    *root = (struct job_root){0};
}

/* Of the task's container, or of all in its pod, or in the pod of its VM. */
static char **layers_of(const struct task *task)
{
    const struct world *world = task->exec->world;
    struct token token = task->effect.token;
    const struct container *one = token.noun == NOUN_CTR ? world_ctr(world, token.ref) : NULL;
    const struct vm *vm = token.noun == NOUN_VM ? world_vm(world, token.ref) : NULL;
    const struct pod *pod = one                      ? world_pod(world, one->pod)
                            : vm                     ? world_pod(world, vm->pod)
                            : token.noun == NOUN_POD ? world_pod(world, token.ref)
                                                     : NULL;
    char **layers = NULL;
    if (!pod)
        return NULL;
    POD_FOREACH_CTR(ctr, pod) {
        if (!one || ctr == one)
            strv_push_take(&layers, path_of_layer(task->exec, pod, ctr));
    }
    return layers;
}

void storage_released(const struct error *error, uint64_t value, void *arg)
{
    struct task *task = arg;
    task->ask = NULL;
    task->job = NULL;
    CLEANUP_STRV char **layers = storage_attaches(task->exec) && !error ? layers_of(task) : NULL;
    if (layers)
        task_begin_job(
            task, pool_detach(task->exec->pool, (const char *const *)layers, task_answered, task));
    else
        task_done(task, error, NULL);
}
