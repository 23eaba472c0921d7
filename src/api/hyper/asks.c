/* What is asked of the core: each function fills one request from a query and a body. */
#include "api/hyper/hyper.h"

enum { GRACE_MAX_S = 24 * 3600 };

static int grace_read(struct call *call, struct request *request, struct error **ret_error)
{
    uint64_t seconds;
    if (call_number(call, "timeout", GRACE_MAX_S, call->api->config.stop_grace_ms / 1000, &seconds,
                    ret_error) < 0)
        return -1;
    request->grace_ms =
        call_query(call, "timeout") ? (uint32_t)seconds * 1000 : call->api->config.stop_grace_ms;
    return 0;
}

/* ---- pods ----------------------------------------------------------------------------------- */

static void stdin_default(const struct call *call, struct ctr_spec *ctr)
{
    if (ctr->stdin_open == UNSET && call_is_hyperctl(call))
        ctr->stdin_open = YES;
}

int ask_pod_create(struct call *call, struct request *request, struct error **ret_error)
{
    const struct buf *body = http_body(call->r);
    request->kind = REQ_POD_CREATE;
    if (pod_spec_parse((const char *)body->data, body->len, &call->api->config.limits,
                       &request->pod_spec, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < request->pod_spec->container_count; i++)
        stdin_default(call, &request->pod_spec->containers[i]);
    return 0;
}

int ask_pod_start(struct call *call, struct request *request, struct error **ret_error)
{
    const char *name = call_query(call, "vmId");
    struct vm *vm;
    request->kind = REQ_POD_START;
    request->pod = call->pod->object.ref;
    exec_start_asked(call->api->exec, call->pod);
    if (!name)
        return 0;
    if (world_find_vm(call->api->world, name, &vm, ret_error) < 0)
        return -1;
    request->vm = vm->object.ref;
    return 0;
}

int ask_pod_stop(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_POD_STOP;
    request->pod = call->pod->object.ref;
    request->keep_vm = str_eq(call_query(call, "stopVm"), "no");
    return grace_read(call, request, ret_error);
}

int ask_pod_kill(struct call *call, struct request *request, struct error **ret_error)
{
    const char *name = call_query(call, "container");
    request->kind = REQ_POD_KILL;
    request->pod = call->pod->object.ref;
    if (call_signal(call, &request->signal, ret_error) < 0)
        return -1;
    if (!name)
        return 0;
    struct container *ctr = world_ctr_in_pod(call->pod, name);
    if (!ctr && world_find_ctr(call->api->world, name, &ctr, ret_error) < 0)
        return -1;
    if (!ref_eq(ctr->pod, call->pod->object.ref))
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not of pod '%s'", name,
                         call->pod->spec.id);
    request->kind = REQ_CTR_KILL;
    request->ctr = ctr->object.ref;
    return 0;
}

int ask_pod_pause(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_POD_PAUSE;
    request->pod = call->pod->object.ref;
    return 0;
}

int ask_pod_unpause(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_POD_UNPAUSE;
    request->pod = call->pod->object.ref;
    return 0;
}

int ask_pod_remove(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_POD_REMOVE;
    request->pod = call->pod->object.ref;
    request->force = call_flag(call, "force");
    return 0;
}

int ask_pod_replace(struct call *call, struct request *request, struct error **ret_error)
{
    const char *name = call_query(call, "newPod");
    struct pod *other;
    request->kind = REQ_POD_REPLACE;
    request->pod = call->pod->object.ref;
    if (!name)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'newPod' is missing in the query of /pod/replace");
    if (world_find_pod(call->api->world, name, &other, ret_error) < 0)
        return -1;
    request->other = other->object.ref;
    return grace_read(call, request, ret_error);
}

/* ---- containers ----------------------------------------------------------------------------- */

int ask_ctr_create(struct call *call, struct request *request, struct error **ret_error)
{
    const struct buf *body = http_body(call->r);
    request->kind = REQ_CTR_CREATE;
    request->pod = call->pod->object.ref;
    if (ctr_spec_parse((const char *)body->data, body->len, &request->ctr_spec, ret_error) < 0)
        return -1;
    stdin_default(call, request->ctr_spec);
    return 0;
}

int ask_ctr_start(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_CTR_START;
    request->ctr = call->ctr->object.ref;
    return 0;
}

int ask_ctr_stop(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_CTR_STOP;
    request->ctr = call->ctr->object.ref;
    return grace_read(call, request, ret_error);
}

int ask_ctr_kill(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_CTR_KILL;
    request->ctr = call->ctr->object.ref;
    return call_signal(call, &request->signal, ret_error);
}

int ask_ctr_remove(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_CTR_REMOVE;
    request->ctr = call->ctr->object.ref;
    request->force = call_flag(call, "force");
    return 0;
}

/* ---- VMs ------------------------------------------------------------------------------------ */

int ask_vm_create(struct call *call, struct request *request, struct error **ret_error)
{
    const struct spec_limits *limits = &call->api->config.limits;
    uint64_t cpus, memory_mb;
    request->kind = REQ_VM_CREATE;
    if (call_number(call, "cpu", limits->vcpu_max, 1, &cpus, ret_error) < 0 ||
        call_number(call, "mem", limits->memory_max_mb, limits->memory_default_mb, &memory_mb,
                    ret_error) < 0)
        return -1;
    if (cpus < 1)
        return error_set(ret_error, ERROR_INVALID, 0, "cpu: a VM needs at least one");
    if (memory_mb < limits->memory_min_mb)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "memory of %llu MB is below the minimum of %llu MB",
                         (unsigned long long)memory_mb, (unsigned long long)limits->memory_min_mb);
    request->cpus = (uint32_t)cpus;
    request->memory_mb = memory_mb;
    return 0;
}

int ask_vm_kill(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_VM_KILL;
    request->vm = call->vm->object.ref;
    return 0;
}

int ask_image_tag(struct call *call, struct request *request, struct error **ret_error)
{
    request->kind = REQ_IMAGE_TAG;
    request->image = call->image->object.ref;
    request->name = call_query(call, "name");
    if (!request->name)
        return error_set(ret_error, ERROR_INVALID, 0, "'name' is missing in the query");
    if (strchr(request->name, '@'))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%.200s' is no tag: a digest is not given, it follows from the image",
                         request->name);
    return 0;
}
