/* From the table of routes to the object and its handler, and from the reply to the answer. */
#include "api/hyper/hyper.h"

#include <ctype.h>
#include <stdlib.h>
#include <utlist.h>

#include "api/query.h"

enum route_object { OBJECT_NONE, OBJECT_POD, OBJECT_CTR, OBJECT_VM, OBJECT_IMAGE };
enum route_answer {
    ANSWER_NOTHING,
    ANSWER_EMPTY,
    ANSWER_ID,
    ANSWER_CODE,
    ANSWER_CREATED,
    ANSWER_EXIT
};

struct route {
    const char *method, *path;
    enum verb verb;
    enum route_object object;
    const char *query;
    unsigned status;
    enum route_answer answer;
    prepare_fn *prepare; /* one of these two */
    look_fn *look;
};

static const struct route routes[] = {
#define ASK(method, path, verb, object, query, status, answer, prepare)                            \
    {method, path, VERB_##verb, OBJECT_##object, query, status, ANSWER_##answer, prepare, NULL},
#define LOOK(method, path, verb, object, query, look)                                              \
    {method, path, VERB_##verb, OBJECT_##object, query, 200, ANSWER_NOTHING, NULL, look},
#include "api/hyper/routes.def"
#undef ASK
#undef LOOK
};

/* ---- what the query says -------------------------------------------------------------------- */

const char *call_query(const struct call *call, const char *name)
{
    const char *value = http_query(call->r, name);
    return str_empty(value) ? NULL : value;
}

bool call_flag(const struct call *call, const char *name)
{
    const char *value = call_query(call, name);
    return value &&
           (strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0 || str_eq(value, "1"));
}

bool call_is_hyperctl(const struct call *call)
{
    const char *agent = http_header(call->r, "User-Agent");
    return agent && str_starts(agent, "Hyper-Client/");
}

int call_number(const struct call *call, const char *name, uint64_t max, uint64_t otherwise,
                uint64_t *ret, struct error **ret_error)
{
    const char *value = call_query(call, name);
    *ret = otherwise;
    if (value && !str_to_u64(value, 0, max, ret))
        return error_set(ret_error, ERROR_INVALID, 0, "%s: '%s' is not a number up to %llu", name,
                         value, (unsigned long long)max);
    return 0;
}

int call_signal(const struct call *call, unsigned *ret, struct error **ret_error)
{
    const char *value = call_query(call, "signal");
    *ret = value ? signal_from_name(value) : 0;
    if (value && !*ret)
        return error_set(ret_error, ERROR_INVALID, 0, "there is no signal '%s'", value);
    return 0;
}

int call_strings(const struct call *call, const char *name, char ***ret, struct error **ret_error)
{
    const char *value = call_query(call, name);
    *ret = NULL;
    return value ? query_strings(name, value, ret, ret_error) : 0;
}

/* ---- answers -------------------------------------------------------------------------------- */

void call_json(struct call *call, unsigned status, json_t *json)
{
    struct buf out = {0};
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(json);
    buf_printf(&out, "%s\n", text ? text : "null");
    free(text);
    http_reply(call->r, status, "application/json", &out);
}

void call_json_text(struct call *call, unsigned status, struct buf *json)
{
    buf_append_str(json, "\n");
    http_reply(call->r, status, "application/json", json);
}

void call_fail(struct call *call, struct error *error)
{
    http_reply_error(call->r, error);
    error_free(error);
}

/* As CODE, and the ids of its containers, which a client asks for next; hyperctl gets what it
 * knows. */
static json_t *created_info(const struct call *call, const struct reply *reply)
{
    const struct pod *pod = world_pod(call->api->world, reply->ref);
    json_t *containers = json_array();
    for (const struct container *ctr = pod ? pod->containers : NULL; ctr; ctr = ctr->next)
        json_array_append_new(containers, json_string(ctr->id));
    json_t *json = json_pack("{s:s, s:i, s:s}", "ID", reply->id, "Code", 0, "Cause", "");
    if (call_is_hyperctl(call))
        json_decref(containers);
    else
        json_object_set_new(json, "Containers", containers);
    return json;
}

static void answer_reply(const struct reply *reply, void *arg)
{
    struct call *call = arg;
    const struct route *route = call->route;
    const char *id = *reply->id ? reply->id : call->id;
    call->op = 0;
    if (reply->error)
        http_reply_error(call->r, reply->error);
    else if (route->answer == ANSWER_NOTHING)
        http_reply(call->r, route->status, NULL, NULL);
    else if (route->answer == ANSWER_EMPTY)
        call_json(call, route->status, json_object());
    else if (route->answer == ANSWER_ID)
        call_json(call, route->status, json_pack("{s:s}", "ID", id));
    else if (route->answer == ANSWER_CREATED)
        call_json(call, route->status, created_info(call, reply));
    else if (route->answer == ANSWER_CODE)
        call_json(call, route->status,
                  json_pack("{s:s, s:i, s:s}", "ID", id, "Code", 0, "Cause", ""));
    else
        call_json(call, route->status, json_integer((json_int_t)reply->value));
}

void call_ask(struct call *call, struct request *request,
              void (*done)(const struct reply *reply, void *call))
{
    call->op = ops_ask(call->api->ops, request, done, call);
}

int call_follow(struct call *call, struct error **ret_error)
{
    struct api *api = call->api;
    if (api->follower_count >= FOLLOWERS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "%d clients follow logs or events already",
                         FOLLOWERS_MAX);
    call->follows = true;
    DL_APPEND(api->followers, call);
    api->follower_count++;
    return 0;
}

/* ---- routes --------------------------------------------------------------------------------- */

/* "/v1.17/list" → "/list": the version is not looked at. */
static const char *path_bare(const char *path)
{
    const char *p = path + 2;
    if (!str_starts(path, "/v") || !isdigit((unsigned char)*p))
        return path;
    p += strspn(p, "0123456789.");
    return *p == '/' ? p : path;
}

static const struct route *route_find(const char *method, const char *path, bool *ret_path_known)
{
    if (str_eq(method, "HEAD")) /* the answer of GET, whose body the library leaves out */
        method = "GET";
    *ret_path_known = false;
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
        if (!str_eq(routes[i].path, path))
            continue;
        *ret_path_known = true;
        if (str_eq(routes[i].method, method))
            return &routes[i];
    }
    return NULL;
}

static int object_find(struct call *call, struct error **ret_error)
{
    const struct route *route = call->route;
    const struct world *world = call->api->world;
    if (route->object == OBJECT_NONE)
        return 0;
    const char *name = call_query(call, route->query);
    if (!name)
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is missing in the query of %s",
                         route->query, route->path);
    if (route->object == OBJECT_POD)
        return world_find_pod(world, name, &call->pod, ret_error);
    if (route->object == OBJECT_CTR)
        return world_find_ctr(world, name, &call->ctr, ret_error);
    if (route->object == OBJECT_VM)
        return world_find_vm(world, name, &call->vm, ret_error);
    return world_find_image(world, name, &call->image, ret_error);
}

static void call_note_id(struct call *call)
{
    const char *id = call->pod     ? call->pod->spec.id
                     : call->ctr   ? call->ctr->id
                     : call->vm    ? call->vm->id
                     : call->image ? call->image->id
                                   : "";
    snprintf(call->id, sizeof(call->id), "%s", id);
}

static void route_run(struct call *call)
{
    const struct route *route = call->route;
    struct error *error = NULL;
    struct request request = {0};
    call->api->calls[route->verb]++;
    if (object_find(call, &error) < 0) {
        call_fail(call, error);
        return;
    }
    call_note_id(call);
    if (route->look)
        route->look(call);
    else if (route->prepare(call, &request, &error) < 0)
        call_fail(call, error);
    else
        call_ask(call, &request, answer_reply);
    call->pod = NULL;
    call->ctr = NULL;
    call->vm = NULL;
    call->image = NULL;
}

/* ---- requests of the HTTP server ------------------------------------------------------------ */

static void request_begin(struct http_request *r, void *arg)
{
    bool path_known;
    struct call *call = xcalloc(1, sizeof(*call));
    call->api = arg;
    call->r = r;
    call->route = route_find(http_method(r), path_bare(http_path(r)), &path_known);
    http_set_data(r, call);
    if (!call->route) {
        CLEANUP_ERROR struct error *error = NULL;
        if (path_known)
            error_set(&error, ERROR_UNSUPPORTED, 0, "%s cannot be used with %s", http_path(r),
                      http_method(r));
        else
            error_set(&error, ERROR_NOT_FOUND, 0, "there is no page '%s'", http_path(r));
        http_reply_error(r, error);
    } else if (call->route->verb == VERB_LOAD) {
        load_begin(call);
    }
}

static void request_run(struct http_request *r, void *arg)
{
    route_run(http_data(r));
}

static void request_gone(struct http_request *r, void *arg)
{
    struct call *call = http_data(r);
    if (call->op)
        ops_forget(call->api->ops, call->op);
    if (call->follows) {
        DL_DELETE(call->api->followers, call);
        call->api->follower_count--;
    }
    if (call->data_free)
        call->data_free(call->data);
    free(call);
}

/* ---- the room ------------------------------------------------------------------------------- */

struct api *api_new(struct loop *loop, struct world *world, struct core *core, struct store *store,
                    const struct api_config *config)
{
    struct api *api = xcalloc(1, sizeof(*api));
    api->loop = loop;
    api->world = world;
    api->core = core;
    api->store = store;
    api->config = *config;
    api->ops = ops_new(core);
    api->revision = store_revision(store);
    return api;
}

void api_set_exec(struct api *api, struct exec *exec)
{
    api->exec = exec;
}

struct ops *api_ops(struct api *api)
{
    return api->ops;
}

int api_listen(struct api *api, int listener, struct error **ret_error)
{
    static const struct http_ops http_ops = {request_begin, request_run, request_gone};
    api->http =
        http_new(api->loop, listener, api->config.connections_max, &http_ops, api, ret_error);
    return api->http ? 0 : -1;
}

void api_stop_listening(struct api *api)
{
    if (api->http)
        http_stop_accepting(api->http);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    http_free(api->http);
    sessions_free(api);
    log_watch_free(api->log_watch);
    ops_free(api->ops);
    free(api);
}

bool api_turn(struct api *api)
{
    uint64_t revision = store_revision(api->store);
    bool any = ops_deliver(api->ops);
    if (revision == api->revision)
        return any;
    /* Whatever happens is an event, the end of a followed container too. */
    api->revision = revision;
    struct call *call;
    DL_FOREACH(api->followers, call)
        http_wake(call->r);
    return any;
}
