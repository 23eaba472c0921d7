/* What is done with registries, as messages to husk-transfer. */
#include <stdlib.h>

#include "exec/exec_int.h"

void transfer_clear(struct exec_transfer *t)
{
    if (t->credentials)
        explicit_bzero(t->credentials, strlen(t->credentials));
    free(t->name);
    free(t->credentials);
    strv_free(t->files);
    strv_free(t->sources);
}

unsigned transfer_job(const struct exec_transfer *t)
{
    static const unsigned types[] = {
        [TRANSFER_PULL] = WIRE_JOB_PULL,
        [TRANSFER_PUSH] = WIRE_JOB_PUSH,
        [TRANSFER_LOGIN] = WIRE_JOB_LOGIN,
        [TRANSFER_LOGOUT] = WIRE_JOB_LOGOUT,
    };
    return types[t->kind];
}

void transfer_send(struct conn *conn, const struct exec_config *config,
                   const struct exec_transfer *t)
{
    const struct wire_job_pull pull = {.seq = 1,
                                       .root = config->root,
                                       .reference = t->name,
                                       .credentials = t->credentials,
                                       .layer_max_bytes = config->image_layer_max_bytes,
                                       .certs = config->registries,
                                       .insecure = config->insecure,
                                       .mirrors = config->mirrors,
                                       .stall_ms = config->registry_deadline_ms};
    const struct wire_job_push push = {.seq = 1,
                                       .root = config->root,
                                       .reference = t->name,
                                       .credentials = t->credentials,
                                       .files = (const char *const *)t->files,
                                       .sources = (const char *const *)t->sources,
                                       .certs = config->registries,
                                       .insecure = config->insecure,
                                       .stall_ms = config->registry_deadline_ms};
    const struct wire_job_login login = {.seq = 1,
                                         .root = config->root,
                                         .registry = t->name,
                                         .credentials = t->credentials,
                                         .keep = t->keep,
                                         .certs = config->registries,
                                         .insecure = config->insecure,
                                         .stall_ms = config->registry_deadline_ms};
    const struct wire_job_logout logout = {.seq = 1, .root = config->root, .registry = t->name};
    const void *const messages[] = {
        [TRANSFER_PULL] = &pull,
        [TRANSFER_PUSH] = &push,
        [TRANSFER_LOGIN] = &login,
        [TRANSFER_LOGOUT] = &logout,
    };
    conn_send(conn, transfer_job(t), 0, messages[t->kind]);
}

struct job *exec_check(struct exec *exec, const char *const *items, bool repair,
                       const struct load_ops *ops, void *arg)
{
    return pool_check(exec->pool, items, repair, ops, arg);
}

struct job *exec_disk_usage(struct exec *exec, const struct container *only,
                            const struct load_ops *ops, void *arg)
{
    CLEANUP_STRV char **layers = NULL;
    WORLD_FOREACH(struct container, ctr, exec->world, NOUN_CTR) {
        const struct pod *pod = world_pod(exec->world, ctr->pod);
        if (!pod || (only && ctr != only))
            continue;
        strv_push(&layers, ctr->id);
        strv_push_take(&layers, path_of_layer(exec, pod, ctr));
    }
    return pool_usage(exec->pool, (const char *const *)layers, !only, ops, arg);
}

struct job *exec_save(struct exec *exec, int fd, const char *const *items, bool docker,
                      const struct load_ops *ops, void *arg)
{
    return pool_save(exec->pool, fd, items, docker, ops, arg);
}

struct job *exec_transfer(struct exec *exec, struct exec_transfer *transfer,
                          const struct load_ops *ops, void *arg)
{
    return pool_transfer(exec->pool, transfer, ops, arg);
}

void exec_job_cancel(struct exec *exec, struct job *job)
{
    pool_cancel(exec->pool, job);
}
