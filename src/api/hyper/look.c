/* Answers that need nobody but the world. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "api/hyper/hyper.h"

#define API_VERSION "1.17" /* of HyperContainer's interface */

enum { NS_A_SECOND = 1000000000 };

void look_ping(struct call *call)
{
    struct buf out = {0};
    buf_append_str(&out, "OK");
    http_reply(call->r, 200, "text/plain", &out);
}

void look_version(struct call *call)
{
    call_json(call, 200,
              json_pack("{s:i, s:s, s:s}", "ID", (int)getpid(), "Version", HUSK_VERSION,
                        "ApiVersion", API_VERSION));
}

static json_t *pairs_info(const char *const *pairs)
{
    json_t *object = json_object();
    for (; pairs && pairs[0] && pairs[1]; pairs += 2)
        json_object_set_new(object, pairs[0], json_string(pairs[1]));
    return object;
}

/* ---- info ----------------------------------------------------------------------------------- */

static char *os_name(void)
{
    char line[512];
    char *name = NULL;
    FILE *f = fopen("/etc/os-release", "re");
    while (f && !name && fgets(line, sizeof(line), f))
        if (str_starts(line, "PRETTY_NAME=")) {
            const char *value = line + strlen("PRETTY_NAME=");
            value += strspn(value, "\"");
            name = xstrndup(value, strcspn(value, "\"\n"));
        }
    if (f)
        fclose(f);
    return name ? name : xstrdup("Linux");
}

/* Bytes that only this process has. */
static uint64_t memory_private(void)
{
    char line[256];
    unsigned long long kb, sum = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Private_Clean: %llu", &kb) == 1 ||
            sscanf(line, "Private_Dirty: %llu", &kb) == 1)
            sum += kb << 10;
    if (f)
        fclose(f);
    return sum;
}

static uint32_t count_of(const struct api *api, enum noun noun)
{
    return api->world->tables[noun].count;
}

static json_t *driver_status(const struct api *api)
{
    static const char *const verbs[] = {
#define VERB(upper, name, short_name, arguments, object, right, help) name,
#include "core/verbs.def"
#undef VERB
    };
    json_t *status = json_array();
    static const struct {
        const char *driver, *layers, *images;
    } kinds[] = {{"block", "ext4", "erofs"},
                 {"overlay", "directories, by overlayfs and virtiofs", "directories"},
                 {"devicemapper", "thin", "thin"}};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!str_eq(kinds[i].driver, api->config.storage))
            continue;
        json_array_append_new(status, json_pack("[s, s]", "Writable layers", kinds[i].layers));
        json_array_append_new(status, json_pack("[s, s]", "Images", kinds[i].images));
        if (str_eq(kinds[i].driver, "overlay"))
            json_array_append_new(status,
                                  json_pack("[s, s]", "Virtual machines", "boot cold, no clones"));
    }
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (api->calls[i]) {
            CLEANUP_FREE char *name = str_printf("Calls of %s", verbs[i]);
            json_array_append_new(status, json_pack("[s, I]", name, (json_int_t)api->calls[i]));
        }
    return status;
}

static json_t *pool_info(const struct api *api)
{
    struct pool_status status;
    json_t *shapes = json_array();
    for (size_t i = 0; core_pool_status(api->core, i, &status); i++) {
        const struct pool_shape *shape = status.shape;
        CLEANUP_FREE char *image = image_name_short(shape->image);
        json_array_append_new(
            shapes, json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:b}", "cpu", (json_int_t)shape->cpus,
                              "memory", (json_int_t)shape->memory_mb, "image", image, "number",
                              (json_int_t)shape->count, "idle", (json_int_t)status.idle, "coming",
                              (json_int_t)status.coming, "waits", (int)status.waits));
    }
    return shapes;
}

void look_info(struct call *call)
{
    const struct api *api = call->api;
    const struct api_config *config = &api->config;
    struct sysinfo host = {0};
    struct utsname name = {0};
    const char *reason;
    const char *accel = exec_accel(api->exec, &reason);
    CLEANUP_FREE char *os = os_name();
    sysinfo(&host);
    uname(&name);
    json_t *json = json_pack(
        "{s:s, s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:I, s:s, s:o, s:s}", "ID", name.nodename,
        "Containers", (json_int_t)count_of(api, NOUN_CTR), "Images",
        (json_int_t)count_of(api, NOUN_IMAGE), "Pods", (json_int_t)count_of(api, NOUN_POD),
        "Driver", config->storage, "DockerRootDir", config->root, "IndexServerAddress", "",
        "ExecutionDriver", "husk-" HUSK_VERSION, "MemTotal",
        (json_int_t)((uint64_t)host.totalram * host.mem_unit), "Operating System", os,
        "DriverStatus", driver_status(api), "Name", name.nodename);
    json_t *more = json_pack(
        "{s:s, s:o, s:o, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:o, s:o}", "Version",
        HUSK_VERSION, "Templates", templates_info(api), "Pool", pool_info(api), "VMs",
        (json_int_t)count_of(api, NOUN_VM), "Accel", accel, "AccelReason", reason, "Machine",
        config->machine, "Kernel", config->kernel, "Qemu", config->qemu, "RootDir", config->root,
        "Socket", config->socket, "MemPrivate", (json_int_t)memory_private(), "Settings",
        pairs_info(config->settings), "Timing", timing_info(api));
    json_object_update(json, more);
    json_decref(more);
    call_json(call, 200, json);
}

/* ---- lists ---------------------------------------------------------------------------------- */

/* Which objects a list is of: of one pod, of one VM, or all. */
struct filter {
    struct ref pod, vm;
};

static int filter_read(struct call *call, struct filter *ret, struct error **ret_error)
{
    const char *pod_name = call_query(call, "pod"), *vm_name = call_query(call, "vm");
    struct pod *pod = NULL;
    struct vm *vm = NULL;
    if (pod_name && world_find_pod(call->api->world, pod_name, &pod, ret_error) < 0)
        return -1;
    if (vm_name && world_find_vm(call->api->world, vm_name, &vm, ret_error) < 0)
        return -1;
    ret->pod = pod ? pod->object.ref : REF_NONE;
    ret->vm = vm ? vm->object.ref : REF_NONE;
    return 0;
}

static bool filter_passes(const struct filter *filter, struct ref pod, struct ref vm)
{
    return (!ref_is(filter->pod) || ref_eq(filter->pod, pod)) &&
           (!ref_is(filter->vm) || ref_eq(filter->vm, vm));
}

static const char *pod_name_of(const struct api *api, struct ref ref)
{
    const struct pod *pod = world_pod(api->world, ref);
    return pod ? pod->spec.id : "";
}

static void list_pods(const struct api *api, const struct filter *filter, bool json,
                      struct buf *out)
{
    CLEANUP_FREE const void **all = objects_by_age(api->world, NOUN_POD);
    for (const void **at = all; *at; at++) {
        const struct pod *pod = *at;
        const struct vm *vm = world_vm(api->world, pod->vm);
        if (!filter_passes(filter, pod->object.ref, pod->vm))
            continue;
        if (!json) {
            CLEANUP_FREE char *line = str_printf("%s:%s:%s:%s", pod->spec.id, pod->spec.id,
                                                 vm ? vm->id : "", pod_status(api->world, pod));
            json_text(out, NULL, line);
            continue;
        }
        json_open(out, NULL, '{');
        show_pod(api, pod, out);
        json_close(out, '}');
    }
}

static void list_ctr(const struct api *api, const struct container *ctr, const struct pod *pod,
                     bool json, struct buf *out)
{
    if (!json) {
        CLEANUP_FREE char *line =
            str_printf("%s:%s:%s:%s", ctr->id, ctr->spec.name, pod->spec.id, ctr_status(ctr));
        json_text(out, NULL, line);
        return;
    }
    json_open(out, NULL, '{');
    show_ctr(api, ctr, out);
    json_close(out, '}');
}

static void list_ctrs(const struct api *api, const struct filter *filter, bool json,
                      struct buf *out)
{
    CLEANUP_FREE const void **all = objects_by_age(api->world, NOUN_POD);
    for (const void **at = all; *at; at++) {
        const struct pod *pod = *at;
        if (!filter_passes(filter, pod->object.ref, pod->vm))
            continue;
        POD_FOREACH_CTR(ctr, pod)
            list_ctr(api, ctr, pod, json, out);
    }
}

static void list_vms(const struct api *api, const struct filter *filter, bool json, struct buf *out)
{
    CLEANUP_FREE const void **all = objects_by_age(api->world, NOUN_VM);
    for (const void **at = all; *at; at++) {
        const struct vm *vm = *at;
        if (!filter_passes(filter, vm->pod, vm->object.ref))
            continue;
        if (!json) {
            CLEANUP_FREE char *line =
                str_printf("%s:%s:%s", vm->id, pod_name_of(api, vm->pod), vm_status(vm));
            json_text(out, NULL, line);
            continue;
        }
        json_open(out, NULL, '{');
        show_vm(api, vm, out);
        json_close(out, '}');
    }
}

static void list_images(const struct api *api, const struct filter *filter, bool json,
                        struct buf *out)
{
    CLEANUP_FREE const void **all = objects_by_age(api->world, NOUN_IMAGE);
    for (const void **at = all; *at; at++) {
        const struct image *image = *at;
        if (image->state != IMAGE_PRESENT)
            continue;
        if (!json) {
            json_text(out, NULL, image->id);
            continue;
        }
        json_open(out, NULL, '{');
        show_image(api, image, out);
        json_close(out, '}');
    }
}

void look_list(struct call *call)
{
    static const struct {
        const char *item, *key;
        void (*list)(const struct api *api, const struct filter *filter, bool json,
                     struct buf *out);
    } lists[] = {
        {"pod", "podData", list_pods},
        {"container", "cData", list_ctrs},
        {"vm", "vmData", list_vms},
        {"image", "imageData", list_images},
    };
    const char *item = str_or(call_query(call, "item"), "pod");
    bool json = str_eq(call_query(call, "format"), "json");
    struct buf out = {0};
    struct filter filter;
    struct error *error = NULL;
    if (filter_read(call, &filter, &error) < 0) {
        call_fail(call, error);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        if (!str_eq(lists[i].item, item))
            continue;
        json_open(&out, NULL, '{');
        json_text(&out, "item", item);
        json_open(&out, json ? "items" : lists[i].key, '[');
        lists[i].list(call->api, &filter, json, &out);
        json_close(&out, ']');
        json_close(&out, '}');
        /* 201 is what HyperContainer says here, and hyperctl expects. */
        call_json_text(call, json ? 200 : 201, &out);
        return;
    }
    error_set(&error, ERROR_INVALID, 0, "item: '%s' is not one of pod, container, vm, image", item);
    call_fail(call, error);
}

static json_t *line_json(char *line)
{
    json_t *json = json_string(line);
    free(line);
    return json;
}

void look_images(struct call *call)
{
    const char *wanted = call_query(call, "filter");
    json_t *list = json_array();
    CLEANUP_FREE const void **all = objects_by_age(call->api->world, NOUN_IMAGE);
    for (const void **at = all; *at; at++) {
        const struct image *image = *at;
        const char *id = image->id + strlen("sha256:"); /* a colon more would not be understood */
        const long long created = (long long)(image->created_ns / NS_A_SECOND);
        const unsigned long long size = image->size_bytes;
        if (image->state != IMAGE_PRESENT)
            continue;
        bool tagged = false;
        STRV_FOREACH(name, image->names)
            tagged = tagged || !strchr(*name, '@');
        if (!tagged && !wanted)
            json_array_append_new(
                list, line_json(str_printf("<none>:<none>:%s:%lld:%llu", id, created, size)));
        STRV_FOREACH(name, image->names) {
            CLEANUP_FREE char *familiar = image_name_short(*name);
            if (strchr(familiar, '@')) /* its line would have a colon too many */
                continue;
            const char *base = strrchr(familiar, '/');
            const char *tag = strchr(base ? base : familiar, ':');
            CLEANUP_FREE char *repository =
                xstrndup(familiar, tag ? (size_t)(tag - familiar) : strlen(familiar));
            if (!wanted || str_eq(wanted, familiar) || str_eq(wanted, repository))
                json_array_append_new(
                    list, line_json(str_printf("%s:%s:%lld:%llu", familiar, id, created, size)));
        }
    }
    call_json(call, 200, json_pack("{s:o}", "imagesList", list));
}

/* ---- one pod, one container, as hyperctl reads them ----------------------------------------- */

static json_t *time_or_null(int64_t ns)
{
    char text[TIME_TEXT_SIZE];
    time_write(text, ns, false);
    return json_string(text);
}

static json_t *ctr_status_info(const struct container *ctr)
{
    bool up = ctr_is_up(ctr);
    bool ended = !up && ctr->finished_ns;
    const char *status = ctr_status(ctr);
    CLEANUP_FREE char *word = xstrdup(status);
    *word = (char)toupper((unsigned char)*word);
    json_t *running =
        up ? json_pack("{s:o}", "startedAt", time_or_null(ctr->started_ns)) : json_object();
    json_t *terminated =
        ended ? json_pack("{s:I, s:s, s:o, s:o}", "exitCode", (json_int_t)ctr->exit_code, "reason",
                          str_or(ctr->reason, word), "startedAt", time_or_null(ctr->started_ns),
                          "finishedAt", time_or_null(ctr->finished_ns))
              : json_object();
    json_t *waiting =
        up || ended ? json_object() : json_pack("{s:s}", "reason", str_or(ctr->reason, word));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "name", ctr->spec.name, "containerID",
                     ctr->id, "phase", status, "waiting", waiting, "running", running, "terminated",
                     terminated);
}

static json_t *strings_info(const char *const *strings)
{
    json_t *array = json_array();
    STRV_FOREACH(s, strings)
        json_array_append_new(array, json_string(*s));
    return array;
}

static json_t *env_info(const char *const *env)
{
    json_t *list = json_array();
    STRV_FOREACH(entry, env) {
        size_t len = strcspn(*entry, "=");
        json_array_append_new(list, json_pack("{s:s%, s:s}", "env", *entry, len, "value",
                                              (*entry)[len] ? *entry + len + 1 : ""));
    }
    return list;
}

static json_t *ctr_spec_info(const struct api *api, const struct container *ctr)
{
    struct process process;
    process_of(ctr, world_pod(api->world, ctr->pod), world_image(api->world, ctr->image), &process);
    const char *const *argv = (const char *const *)process.argv;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:b}", "name", ctr->spec.name,
                  "containerID", ctr->id, "image", str_or(ctr->spec.image, ""), "imageID",
                  ctr->image_id, "workingDir", str_or(process.cwd, "/"), "commands",
                  strings_info(argv), "args", strings_info(argv && argv[0] ? argv + 1 : NULL),
                  "env", env_info((const char *const *)process.env), "tty", (int)process.tty);
    process_clear(&process);
    return json;
}

void look_pod_info(struct call *call)
{
    const struct api *api = call->api;
    const struct pod *pod = call->pod;
    const struct vm *vm = world_vm(api->world, pod->vm);
    json_t *containers = json_array(), *statuses = json_array();
    CLEANUP_FREE char *phase = xstrdup(pod_status(api->world, pod));
    *phase = (char)toupper((unsigned char)*phase);
    POD_FOREACH_CTR(ctr, pod) {
        json_array_append_new(containers, ctr_spec_info(api, ctr));
        json_array_append_new(statuses, ctr_status_info(ctr));
    }
    json_t *spec = json_pack("{s:o, s:I, s:I, s:o}", "containers", containers, "vcpu",
                             (json_int_t)pod->spec.vcpu, "memory", (json_int_t)pod->spec.memory_mb,
                             "labels", pairs_info((const char *const *)pod->spec.labels));
    call_json(call, 200,
              json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o, s:{s:s, s:o}}", "podID", pod->spec.id,
                        "podName", pod->spec.id, "kind", "Pod", "apiVersion", API_VERSION, "vm",
                        vm ? vm->id : "", "createdAt", (json_int_t)(pod->created_ns / NS_A_SECOND),
                        "spec", spec, "status", "phase", phase, "containerStatus", statuses));
}

void look_container_info(struct call *call)
{
    const struct container *ctr = call->ctr;
    call_json(call, 200,
              json_pack("{s:o, s:I, s:s, s:o}", "container", ctr_spec_info(call->api, ctr),
                        "createdAt", (json_int_t)(ctr->created_ns / NS_A_SECOND), "podID",
                        pod_name_of(call->api, ctr->pod), "status", ctr_status_info(ctr)));
}

/* ---- inspect -------------------------------------------------------------------------------- */

static int inspect_pod_named(const struct api *api, const char *name, struct buf *out,
                             struct error **ret_error)
{
    struct pod *found;
    if (world_find_pod(api->world, name, &found, ret_error) < 0)
        return -1;
    inspect_pod(api, found, out);
    return 0;
}

static int inspect_ctr_named(const struct api *api, const char *name, struct buf *out,
                             struct error **ret_error)
{
    struct container *found;
    if (world_find_ctr(api->world, name, &found, ret_error) < 0)
        return -1;
    inspect_ctr(api, found, out);
    return 0;
}

static int inspect_vm_named(const struct api *api, const char *name, struct buf *out,
                            struct error **ret_error)
{
    struct vm *found;
    if (world_find_vm(api->world, name, &found, ret_error) < 0)
        return -1;
    inspect_vm(api, found, out);
    return 0;
}

static int inspect_image_named(const struct api *api, const char *name, struct buf *out,
                               struct error **ret_error)
{
    struct image *found;
    if (world_find_image(api->world, name, &found, ret_error) < 0)
        return -1;
    inspect_image(api, found, out);
    return 0;
}

static const struct {
    enum noun noun;
    int (*inspect)(const struct api *api, const char *name, struct buf *out,
                   struct error **ret_error);
} inspected[] = {
    {NOUN_POD, inspect_pod_named},
    {NOUN_CTR, inspect_ctr_named},
    {NOUN_VM, inspect_vm_named},
    {NOUN_IMAGE, inspect_image_named},
};

/* The first noun that has something of that name; a pod before its container of the same name. */
static int inspect_any(const struct api *api, const char *name, struct buf *out,
                       struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(inspected); i++) {
        CLEANUP_ERROR struct error *error = NULL;
        if (inspected[i].inspect(api, name, out, &error) == 0)
            return 0;
        if (error->kind != ERROR_NOT_FOUND)
            return error_move(ret_error, &error);
    }
    return error_set(ret_error, ERROR_NOT_FOUND, 0, "there is no pod, container, vm or image '%s'",
                     name);
}

static int inspect_kind(const struct api *api, const char *kind, const char *name, struct buf *out,
                        struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(inspected); i++)
        if (str_eq(kind, noun_name(inspected[i].noun)))
            return inspected[i].inspect(api, name, out, ret_error);
    return error_set(ret_error, ERROR_INVALID, 0,
                     "kind: '%s' is not one of pod, container, vm, image", kind);
}

void look_inspect(struct call *call)
{
    const char *name = call_query(call, "name"), *kind = call_query(call, "kind");
    struct error *error = NULL;
    CLEANUP_BUF struct buf out = {0};
    int rc = -1;
    json_open(&out, NULL, '{');
    if (!name)
        error_set(&error, ERROR_INVALID, 0, "'name' is missing in the query of /inspect");
    else if (kind)
        rc = inspect_kind(call->api, kind, name, &out, &error);
    else
        rc = inspect_any(call->api, name, &out, &error);
    json_close(&out, '}');
    if (rc < 0)
        call_fail(call, error);
    else
        call_json_text(call, 200, &out);
}

/* ---- exit codes ----------------------------------------------------------------------------- */

static void exitcode_known(const struct reply *reply, void *arg)
{
    struct call *call = arg;
    call->op = 0;
    if (reply->error)
        http_reply_error(call->r, reply->error);
    else
        call_json(call, 200, json_integer((json_int_t)reply->value));
}

void look_exitcode(struct call *call)
{
    const char *exec = call_query(call, "exec");
    struct request request = {.kind = REQ_CTR_WAIT, .ctr = call->ctr->object.ref};
    if (exec)
        session_exitcode(call, exec);
    else
        call_ask(call, &request, exitcode_known);
}
