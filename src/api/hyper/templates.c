/* /template/…: what VMs are cloned of. They are no objects of the world: exec has them. */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "api/hyper/hyper.h"
#include "exec/usage.h"

/* A request that waits until a template is made. */
struct template_build {
    struct template_build *prev, *next;
    struct call *call;
    char id[TEMPLATE_ID_MAX + 1];
    char *told; /* the last status that was sent */
    struct buf out;
    bool over;
};

/* ---- looking -------------------------------------------------------------------------------- */

static void image_show(const struct api *api, const char *id, struct buf *out)
{
    struct image *image = NULL;
    if (*id)
        world_find_image(api->world, id, &image, NULL);
    CLEANUP_FREE char *name =
        image && image->names && *image->names ? image_name_short(*image->names) : NULL;
    json_text(out, "image", str_or(name, id));
}

struct showing {
    const struct api *api;
    struct buf *out;
};

static void template_show(const struct api *api, const struct template_info *info, struct buf *out)
{
    json_text(out, "id", info->id);
    image_show(api, info->image, out);
    json_text(out, "state", info->state);
    json_text(out, "step", info->step);
    json_text(out, "reason", info->reason);
    json_number(out, "memory", (int64_t)(info->memory_bytes >> 20));
    json_number(out, "size", (int64_t)info->disk_bytes);
    show_time(out, "created", info->created_ns);
    show_time(out, "used", info->used_ns);
    json_number(out, "clones", (int64_t)info->clones);
    json_number(out, "vms", info->vms);
    json_text(out, "zygote", info->zygote);
    json_text(out, "zygoteStep", info->zygote_step);
    json_text(out, "zygoteReason", info->zygote_reason);
}

/* What it takes, if there is one: to look costs a walk through its pages. */
static void zygote_show(const struct template_info *info, struct buf *out)
{
    struct usage usage;
    int parent;
    if (!info->zygote_pid || usage_of_process(info->zygote_pid, &usage, &parent, NULL) < 0)
        return;
    json_number(out, "zygotePid", info->zygote_pid);
    json_number(out, "zygotePrivate", (int64_t)usage.private_bytes);
    json_number(out, "zygoteShared", (int64_t)usage.shared_bytes);
}

static void template_list(const struct template_info *info, void *arg)
{
    const struct showing *showing = arg;
    json_open(showing->out, NULL, '{');
    template_show(showing->api, info, showing->out);
    json_close(showing->out, '}');
}

void look_templates(struct call *call)
{
    CLEANUP_BUF struct buf out = {0};
    json_open(&out, NULL, '{');
    json_open(&out, "items", '[');
    struct showing showing = {call->api, &out};
    exec_templates_each(call->api->exec, template_list, &showing);
    json_close(&out, ']');
    json_close(&out, '}');
    call_json_text(call, 200, &out);
}

static const char *name_wanted(const struct call *call, struct error **ret_error)
{
    const char *name = call_query(call, "name");
    if (!name)
        error_set(ret_error, ERROR_INVALID, 0, "'name' is missing in the query");
    return name;
}

void look_template(struct call *call)
{
    struct error *error = NULL;
    struct template_info info;
    CLEANUP_BUF struct buf out = {0};
    const char *name = name_wanted(call, &error);
    if (!name || exec_template_get(call->api->exec, name, &info, &error) < 0) {
        call_fail(call, error);
        return;
    }
    json_open(&out, NULL, '{');
    json_text(&out, "kind", "template");
    template_show(call->api, &info, &out);
    zygote_show(&info, &out);
    json_open(&out, "inputs", '{');
    STRV_FOREACH(input, info.inputs) {
        CLEANUP_FREE char *key = xstrndup(*input, strcspn(*input, "="));
        json_text(&out, key, *input + strlen(key) + 1);
    }
    json_close(&out, '}');
    json_close(&out, '}');
    call_json_text(call, 200, &out);
}

static void template_count(const struct template_info *info, void *arg)
{
    json_t *counts = arg;
    json_int_t count = json_integer_value(json_object_get(counts, info->state));
    json_object_set_new(counts, info->state, json_integer(count + 1));
}

json_t *templates_info(const struct api *api)
{
    json_t *counts = json_object();
    exec_templates_each(api->exec, template_count, counts);
    return counts;
}

/* ---- changing ------------------------------------------------------------------------------- */

void template_remove(struct call *call)
{
    struct error *error = NULL;
    const char *name = name_wanted(call, &error);
    if (!name || exec_template_remove(call->api->exec, name, &error) < 0)
        call_fail(call, error);
    else
        http_reply(call->r, 204, NULL, NULL);
}

static void build_say(struct template_build *build, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    buf_printf(&build->out, "%s\n", text ? text : "{}");
    free(text);
}

static void build_say_error(struct template_build *build, const char *message)
{
    build->over = true;
    build_say(build,
              json_pack("{s:s, s:{s:s}}", "error", message, "errorDetail", "message", message));
}

/* Tells what is new. */
static void build_look(struct template_build *build)
{
    const struct exec *exec = build->call->api->exec;
    struct template_info info;
    if (build->over)
        return;
    if (exec_template_get(exec, build->id, &info, NULL) < 0) {
        build_say_error(build, "what the template depends on has changed meanwhile");
        return;
    }
    bool zygote = str_eq(info.state, "ready") && info.zygote_coming;
    const char *status = zygote ? "zygote" : *info.step ? info.step : info.state;
    if (str_eq(info.state, "bad")) {
        build_say_error(build, info.reason);
        return;
    }
    if (str_eq(info.state, "absent") && !info.wanted) {
        build_say_error(build, "the template was removed meanwhile");
        return;
    }
    build->over = str_eq(info.state, "ready") && !zygote;
    if (str_eq(status, build->told))
        return;
    str_set(&build->told, status);
    build_say(build,
              json_pack("{s:s, s:s, s:{}}", "status",
                        str_eq(status, "absent") ? "waiting until nothing else starts" : status,
                        "id", info.id, "progressDetail"));
}

static ssize_t build_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct template_build *build = call->data;
    build_look(build);
    size_t n = build->out.len < size ? build->out.len : size;
    if (n == 0)
        return build->over ? -1 : 0;
    memcpy(to, build->out.data, n);
    buf_consume(&build->out, n);
    return (ssize_t)n;
}

static void build_free(void *data)
{
    struct template_build *build = data;
    DL_DELETE(build->call->api->builds, build);
    buf_release(&build->out);
    free(build->told);
    free(build);
}

static int build_asked(struct call *call, char *ret_id, struct error **ret_error)
{
    const char *name = call_query(call, "image");
    struct image *image = NULL;
    uint64_t memory_mb;
    if (name && world_find_image(call->api->world, name, &image, ret_error) < 0)
        return -1;
    if (name)
        return exec_template_build_image(call->api->exec, image, ret_id, ret_error);
    if (call_number(call, "memory", UINT32_MAX, 0, &memory_mb, ret_error) < 0)
        return -1;
    return exec_template_build(call->api->exec, memory_mb << 20, ret_id, ret_error);
}

/* It goes on when the client leaves. */
void template_build(struct call *call)
{
    struct error *error = NULL;
    char id[TEMPLATE_ID_MAX + 1];
    if (build_asked(call, id, &error) < 0) {
        call_fail(call, error);
        return;
    }
    struct template_build *build = xcalloc(1, sizeof(*build));
    memcpy(build->id, id, sizeof(id));
    build->call = call;
    DL_APPEND(call->api->builds, build);
    call->data = build;
    call->data_free = build_free;
    http_reply_stream(call->r, 200, "application/json", build_pull);
}

void api_templates_changed(struct api *api)
{
    struct template_build *build;
    if (!api)
        return;
    DL_FOREACH(api->builds, build)
        http_wake(build->call->r);
}
