/* Objects as JSON: items of /list?format=json, and the whole of them for /inspect. */
#include "api/hyper/hyper.h"

json_t *show_time(int64_t ns)
{
    char text[TIME_TEXT_SIZE];
    time_write(text, ns, true);
    return json_string(text);
}

json_t *show_strings(const char *const *strings)
{
    json_t *array = json_array();
    STRV_FOREACH(s, strings)
        json_array_append_new(array, json_string(*s));
    return array;
}

json_t *show_pairs(const char *const *pairs)
{
    json_t *object = json_object();
    for (; pairs && pairs[0] && pairs[1]; pairs += 2)
        json_object_set_new(object, pairs[0], json_string(pairs[1]));
    return object;
}

static const char *vm_id(const struct api *api, struct ref ref)
{
    const struct vm *vm = world_vm(api->world, ref);
    return vm ? vm->id : "";
}

static const char *pod_id(const struct api *api, struct ref ref)
{
    const struct pod *pod = world_pod(api->world, ref);
    return pod ? pod->spec.id : "";
}

/* A name that its container was made from may point elsewhere by now, but is what the user wrote.
 */
static const char *ctr_image_name(const struct container *ctr)
{
    return str_or(ctr->spec.image, ctr->image_id);
}

static json_t *exit_code(const struct container *ctr)
{
    return ctr->finished_ns ? json_integer((json_int_t)ctr->exit_code) : json_null();
}

/* ---- items ---------------------------------------------------------------------------------- */

json_t *show_pod(const struct api *api, const struct pod *pod)
{
    json_t *containers = json_array();
    POD_FOREACH_CTR(ctr, pod)
    json_array_append_new(containers,
                          json_pack("{s:s, s:s}", "id", ctr->id, "name", ctr->spec.name));
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:s, s:o, s:s}", "id", pod->spec.id,
                     "name", pod->spec.id, "vm", vm_id(api, pod->vm), "status",
                     pod_status(api->world, pod), "created", show_time(pod->created_ns), "labels",
                     show_pairs((const char *const *)pod->spec.labels), "vcpu",
                     (json_int_t)pod->spec.vcpu, "memory", (json_int_t)pod->spec.memory_mb,
                     "restartPolicy", str_or(restart_name(pod->spec.restart), "never"),
                     "containers", containers, "reason", str_or(pod->reason, ""));
}

static void process_get(const struct api *api, const struct container *ctr, struct process *ret)
{
    process_of(ctr, world_pod(api->world, ctr->pod), world_image(api->world, ctr->image), ret);
}

json_t *show_ctr(const struct api *api, const struct container *ctr)
{
    struct process process;
    process_get(api, ctr, &process);
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:o, s:b, s:I}", "id", ctr->id,
        "name", ctr->spec.name, "pod", pod_id(api, ctr->pod), "status", ctr_status(ctr), "image",
        ctr_image_name(ctr), "imageID", ctr->image_id, "created", show_time(ctr->created_ns),
        "started", show_time(ctr->started_ns), "finished", show_time(ctr->finished_ns), "exitCode",
        exit_code(ctr), "reason", str_or(ctr->reason, ""), "command",
        show_strings((const char *const *)process.argv), "tty", (int)process.tty, "restarts",
        (json_int_t)ctr->restarts);
    process_clear(&process);
    return json;
}

json_t *show_vm(const struct api *api, const struct vm *vm)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:o}", "id", vm->id, "pod",
                     pod_id(api, vm->pod), "status", vm_status(vm), "cpu", (json_int_t)vm->cpus,
                     "memory", (json_int_t)vm->memory_mb, "accel", str_or(vm->accel, ""), "machine",
                     str_or(vm->machine, ""), "pid", (json_int_t)vm->qemu_pid, "created",
                     show_time(vm->created_ns));
}

json_t *show_image(const struct image *image)
{
    json_t *names = json_array();
    STRV_FOREACH(name, image->names) {
        CLEANUP_FREE char *familiar = image_name_short(*name);
        json_array_append_new(names, json_string(familiar));
    }
    return json_pack("{s:s, s:o, s:o, s:I}", "id", image->id, "names", names, "created",
                     show_time(image->created_ns), "size", (json_int_t)image->size_bytes);
}

/* ---- all that is known ---------------------------------------------------------------------- */

static json_t *spec_json(struct buf *text)
{
    json_t *json = json_loadb((const char *)text->data, text->len, 0, NULL);
    return json ? json : json_null();
}

json_t *inspect_ctr(const struct api *api, const struct container *ctr)
{
    CLEANUP_BUF struct buf text = {0};
    const struct pod *pod = world_pod(api->world, ctr->pod);
    struct process process;
    ctr_spec_write(&ctr->spec, &text);
    process_get(api, ctr, &process);
    json_t *json = show_ctr(api, ctr);
    json_object_set_new(json, "kind", json_string(noun_name(NOUN_CTR)));
    json_object_set_new(json, "spec", spec_json(&text));
    json_object_set_new(json, "state", json_string(ctr_state_name(ctr->state)));
    json_object_set_new(json, "want", json_string(ctr_want_name(ctr->want)));
    json_object_set_new(json, "run", json_integer((json_int_t)ctr->run));
    json_object_set_new(json, "restartPolicy",
                        json_string(str_or(restart_name(ctr_restart(ctr, pod)), "never")));
    json_object_set_new(json, "exitSignal", json_integer((json_int_t)ctr->exit_signal));
    json_object_set_new(json, "outOfMemory", json_boolean(ctr->oom));
    json_object_set_new(json, "process",
                        json_pack("{s:o, s:o, s:s, s:s, s:o, s:b, s:b, s:b, s:s}", "args",
                                  show_strings((const char *const *)process.argv), "env",
                                  show_strings((const char *const *)process.env), "workdir",
                                  str_or(process.cwd, "/"), "user", str_or(process.user, ""),
                                  "groups", show_strings((const char *const *)process.groups),
                                  "tty", (int)process.tty, "stdin", (int)process.stdin_open,
                                  "readOnly", (int)process.read_only, "stopSignal",
                                  str_or(signal_name(process.stop_signal), "")));
    process_clear(&process);
    return json;
}

json_t *inspect_pod(const struct api *api, const struct pod *pod)
{
    CLEANUP_BUF struct buf text = {0};
    json_t *json = show_pod(api, pod);
    json_t *containers = json_array();
    pod_spec_write(&pod->spec, false, &text);
    POD_FOREACH_CTR(ctr, pod)
    json_array_append_new(containers, inspect_ctr(api, ctr));
    json_object_set_new(json, "kind", json_string(noun_name(NOUN_POD)));
    json_object_set_new(json, "uid", json_string(pod->uid));
    json_object_set_new(json, "spec", spec_json(&text));
    json_object_set_new(json, "state", json_string(pod_state_name(pod->state)));
    json_object_set_new(json, "want", json_string(pod_want_name(pod->want)));
    json_object_set_new(json, "started", show_time(pod->started_ns));
    json_object_set_new(json, "containers", containers);
    return json;
}

json_t *inspect_vm(const struct api *api, const struct vm *vm)
{
    json_t *json = show_vm(api, vm);
    json_object_set_new(json, "kind", json_string(noun_name(NOUN_VM)));
    json_object_set_new(json, "state", json_string(vm_state_name(vm->state)));
    json_object_set_new(json, "paused", json_boolean(vm->paused));
    json_object_set_new(json, "reason", json_string(str_or(vm->reason, "")));
    return json;
}

json_t *inspect_image(const struct image *image)
{
    json_t *json = show_image(image);
    json_t *config = json_loads(image->config_text, 0, NULL);
    json_object_set_new(json, "kind", json_string(noun_name(NOUN_IMAGE)));
    json_object_set_new(json, "config", config ? config : json_null());
    json_object_set_new(json, "containers", json_integer((json_int_t)image->users));
    json_object_set_new(json, "files", show_strings((const char *const *)image->files));
    return json;
}
