/* Objects as JSON: items of /list?format=json, and the whole of them for /inspect. Each function
 * writes fields into an object that its caller has opened.
 */
#include "api/hyper/hyper.h"

void show_time(struct buf *out, const char *key, int64_t ns)
{
    char text[TIME_TEXT_SIZE];
    time_write(text, ns, true);
    json_text(out, key, text);
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

static void process_get(const struct api *api, const struct container *ctr, struct process *ret)
{
    process_of(ctr, world_pod(api->world, ctr->pod), world_image(api->world, ctr->image), ret);
}

/* ---- items ---------------------------------------------------------------------------------- */

static void show_pod_only(const struct api *api, const struct pod *pod, struct buf *out)
{
    json_text(out, "id", pod->spec.id);
    json_text(out, "name", pod->spec.id);
    json_text(out, "vm", vm_id(api, pod->vm));
    json_text(out, "status", pod_status(api->world, pod));
    show_time(out, "created", pod->created_ns);
    json_pairs(out, "labels", (const char *const *)pod->spec.labels);
    json_number(out, "vcpu", (int64_t)pod->spec.vcpu);
    json_number(out, "memory", (int64_t)pod->spec.memory_mb);
    json_text(out, "restartPolicy", str_or(restart_name(pod->spec.restart), "never"));
    json_text(out, "reason", pod->reason);
    show_time(out, "expires", pod->expires_ns);
}

void show_pod(const struct api *api, const struct pod *pod, struct buf *out)
{
    show_pod_only(api, pod, out);
    json_open(out, "containers", '[');
    POD_FOREACH_CTR(ctr, pod) {
        json_open(out, NULL, '{');
        json_text(out, "id", ctr->id);
        json_text(out, "name", ctr->spec.name);
        json_close(out, '}');
    }
    json_close(out, ']');
}

/* Of the last run, once it has ended. */
static void show_exit_code(const struct container *ctr, struct buf *out)
{
    if (ctr->finished_ns && !ctr_is_up(ctr))
        json_number(out, "exitCode", ctr->exit_code);
    else
        json_raw(out, "exitCode", NULL);
}

void show_ctr(const struct api *api, const struct container *ctr, struct buf *out)
{
    struct process process;
    process_get(api, ctr, &process);
    json_text(out, "id", ctr->id);
    json_text(out, "name", ctr->spec.name);
    json_text(out, "pod", pod_id(api, ctr->pod));
    json_text(out, "status", ctr_status(ctr));
    json_text(out, "image", str_or(ctr->spec.image, ctr->image_id));
    json_text(out, "imageID", ctr->image_id);
    show_time(out, "created", ctr->created_ns);
    show_time(out, "started", ctr->started_ns);
    show_time(out, "finished", ctr_is_up(ctr) ? 0 : ctr->finished_ns);
    show_exit_code(ctr, out);
    json_text(out, "reason", ctr->state == CTR_RUNNING ? NULL : ctr->reason);
    json_strings(out, "command", (const char *const *)process.argv);
    json_bool(out, "tty", process.tty);
    json_number(out, "restarts", ctr->restarts);
    process_clear(&process);
}

/* A name of the image, as people give it; else its id, "" if it is NULL. Owned.*/
static char *image_text(const struct api *api, const char *id)
{
    const struct image *image = id ? world_image_by_id(api->world, id) : NULL;
    return image && image->names ? image_name_short(image->names[0]) : xstrdup(str_or(id, ""));
}

void show_vm(const struct api *api, const struct vm *vm, struct buf *out)
{
    CLEANUP_FREE char *image = image_text(api, vm->image_id);
    json_text(out, "id", vm->id);
    json_text(out, "pod", pod_id(api, vm->pod));
    json_text(out, "status", vm_status(vm));
    json_number(out, "cpu", vm->cpus);
    json_number(out, "memory", (int64_t)vm->memory_mb);
    json_text(out, "accel", vm->accel);
    json_text(out, "machine", vm->machine);
    json_text(out, "template", vm->template);
    json_text(out, "image", image);
    json_text(out, "imageID", vm->image_id);
    json_number(out, "pid", vm->qemu_pid);
    show_time(out, "created", vm->created_ns);
}

/* Its names by tag, or those by digest. */
static void show_image_names(const struct image *image, const char *key, bool digests,
                             struct buf *out)
{
    json_open(out, key, '[');
    STRV_FOREACH(name, image->names) {
        CLEANUP_FREE char *familiar = image_name_short(*name);
        if (digests == (strchr(familiar, '@') != NULL))
            json_text(out, NULL, familiar);
    }
    json_close(out, ']');
}

void show_image(const struct api *api, const struct image *image, struct buf *out)
{
    json_text(out, "id", image->id);
    show_image_names(image, "names", false, out);
    show_image_names(image, "digests", true, out);
    show_time(out, "created", image->created_ns);
    json_number(out, "size", (int64_t)image->size_bytes);
}

/* ---- all that is known ---------------------------------------------------------------------- */

static void inspect_process(const struct api *api, const struct container *ctr, struct buf *out)
{
    struct process process;
    process_get(api, ctr, &process);
    json_open(out, "process", '{');
    json_strings(out, "args", (const char *const *)process.argv);
    json_strings(out, "env", (const char *const *)process.env);
    json_text(out, "workdir", str_or(process.cwd, "/"));
    json_text(out, "user", process.user);
    json_strings(out, "groups", (const char *const *)process.groups);
    json_bool(out, "tty", process.tty);
    json_bool(out, "stdin", process.stdin_open);
    json_bool(out, "readOnly", process.read_only);
    json_text(out, "stopSignal", signal_name(process.stop_signal));
    json_close(out, '}');
    process_clear(&process);
}

void inspect_ctr(const struct api *api, const struct container *ctr, struct buf *out)
{
    struct buf spec = {0};
    ctr_spec_write(&ctr->spec, &spec);
    CLEANUP_FREE char *spec_text = buf_take_str(&spec);
    json_text(out, "kind", noun_name(NOUN_CTR));
    show_ctr(api, ctr, out);
    json_raw(out, "spec", spec_text);
    json_text(out, "state", ctr_state_name(ctr->state));
    json_text(out, "want", ctr_want_name(ctr->want));
    json_number(out, "run", (int64_t)ctr->run);
    json_text(out, "restartPolicy",
              str_or(restart_name(ctr_restart(ctr, world_pod(api->world, ctr->pod))), "never"));
    show_time(out, "restartAt", ctr->restart_ns);
    json_number(out, "exitSignal", ctr->exit_signal);
    json_bool(out, "outOfMemory", ctr->oom);
    inspect_process(api, ctr, out);
}

void inspect_pod(const struct api *api, const struct pod *pod, struct buf *out)
{
    struct buf spec = {0};
    pod_spec_write(&pod->spec, false, &spec);
    CLEANUP_FREE char *spec_text = buf_take_str(&spec);
    json_text(out, "kind", noun_name(NOUN_POD));
    show_pod_only(api, pod, out);
    json_text(out, "uid", pod->uid);
    json_raw(out, "spec", spec_text);
    json_text(out, "state", pod_state_name(pod->state));
    json_text(out, "want", pod_want_name(pod->want));
    show_time(out, "started", pod->started_ns);
    if (world_vm(api->world, pod->vm))
        show_usage(api, world_vm(api->world, pod->vm), out);
    json_open(out, "containers", '[');
    POD_FOREACH_CTR(ctr, pod) {
        json_open(out, NULL, '{');
        inspect_ctr(api, ctr, out);
        json_close(out, '}');
    }
    json_close(out, ']');
}

void inspect_vm(const struct api *api, const struct vm *vm, struct buf *out)
{
    json_text(out, "kind", noun_name(NOUN_VM));
    show_vm(api, vm, out);
    json_text(out, "state", vm_state_name(vm->state));
    json_bool(out, "paused", vm->paused);
    json_bool(out, "pooled", vm->pooled);
    show_usage(api, vm, out);
    json_text(out, "reason", vm->reason);
}

void inspect_image(const struct api *api, const struct image *image, struct buf *out)
{
    json_text(out, "kind", noun_name(NOUN_IMAGE));
    show_image(api, image, out);
    json_raw(out, "config", image->config_text);
    json_number(out, "containers", image->users);
    json_strings(out, "files", (const char *const *)image->files);
}
