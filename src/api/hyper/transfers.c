/* /image/create, /image/push, /auth: what is done with registries.
 *
 * A transfer lives until its worker is done and its images are in the world. Requests listen to
 * it: whoever asks for a pull that is under way shares it, and first hears how far it is. When the
 * last listener has left, the transfer is called off. An answer begins with the first news, so
 * that what fails before has a status of its own.
 */
#include <stdlib.h>
#include <utlist.h>

#include "api/hyper/hyper.h"
#include "base/base64.h"
#include "base/log.h"
#include "image/reference.h"

enum {
    OUT_MAX = 256 << 10, /* of an answer that is not read; progress beyond is left out */
    LATEST_MAX = 1024,   /* things whose latest progress is kept */
    CREDENTIALS_TEXT_MAX = 64 << 10,
};

struct listener {
    struct listener *prev, *next;
    struct transfer *transfer;
    struct call *call;
    struct buf out; /* not sent yet */
    bool streams;   /* the answer has begun */
};

struct transfer {
    struct transfer *prev, *next; /* in api->transfers */
    struct api *api;
    char *name; /* full reference of a pull, which others may share; else NULL */
    struct job *job;
    unsigned adding; /* images that the core has not answered for */
    struct error *error;
    const char *verdict; /* what is answered in the end, where there is no news; else NULL */
    struct listener *listeners;
    char **latest; /* id, line, id, line …: what a newcomer hears first */
};

/* An image that the core is asked to add. */
struct addition {
    struct transfer *transfer;
};

/* ---- the answers ---------------------------------------------------------------------------- */

static void transfer_free(struct transfer *t)
{
    DL_DELETE(t->api->transfers, t);
    free(t->name);
    error_free(t->error);
    strv_free(t->latest);
    free(t);
}

static bool transfer_is_over(const struct transfer *t)
{
    return !t->job && t->adding == 0;
}

static ssize_t listener_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct listener *l = call->data;
    size_t n = l->out.len < size ? l->out.len : size;

    if (n == 0)
        return transfer_is_over(l->transfer) ? -1 : 0;
    memcpy(to, l->out.data, n);
    buf_consume(&l->out, n);
    return (ssize_t)n;
}

static void listener_begin(struct listener *l)
{
    if (l->streams)
        return;
    l->streams = true;
    http_reply_stream(l->call->r, 200, "application/json", listener_pull);
}

static void listener_say(struct listener *l, const char *line)
{
    buf_printf(&l->out, "%s\n", line);
    listener_begin(l);
    http_wake(l->call->r);
}

static void latest_keep(struct transfer *t, const char *id, const char *line)
{
    size_t count = 0;

    for (char **at = t->latest; at && *at; at += 2, count++) {
        if (strcmp(*at, id) != 0)
            continue;
        str_set(&at[1], line);
        return;
    }
    if (count >= LATEST_MAX)
        return;
    strv_push(&t->latest, id);
    strv_push(&t->latest, line);
}

static void listener_left(void *data)
{
    struct listener *l = data;
    struct transfer *t = l->transfer;

    DL_DELETE(t->listeners, l);
    buf_release(&l->out);
    free(l);
    if (t->listeners)
        return;
    if (t->job)
        exec_job_cancel(t->api->exec, take(t->job));
    if (t->adding == 0)
        transfer_free(t);
}

static void listener_add(struct transfer *t, struct call *call)
{
    struct listener *l = xcalloc(1, sizeof(*l));

    l->transfer = t;
    l->call = call;
    call->data = l;
    call->data_free = listener_left;
    DL_APPEND(t->listeners, l);
    for (char **at = t->latest; at && *at; at += 2)
        listener_say(l, at[1]);
}

/* Nothing more will come. */
static void transfer_check_end(struct transfer *t)
{
    struct listener *l, *next;

    if (!transfer_is_over(t))
        return;
    free(take(t->name)); /* whoever comes now begins anew */
    if (!t->listeners) {
        transfer_free(t);
        return;
    }
    DL_FOREACH_SAFE(t->listeners, l, next) {
        if (t->error && !l->streams) {
            l->streams = true;
            http_reply_error(l->call->r, t->error);
            continue;
        }
        if (t->error) {
            const char *message = error_text(t->error);
            json_t *json = json_pack("{s:s, s:{s:s}, s:s}", "error", message, "errorDetail",
                                     "message", message, "kind", error_kind_name(t->error->kind));
            char *line = json_dumps(json, JSON_COMPACT);
            json_decref(json);
            listener_say(l, str_or(line, "{}"));
            free(line);
        }
        if (t->verdict && !l->streams) {
            l->streams = true;
            call_json(l->call, 200, json_pack("{s:s}", "Status", t->verdict));
            continue;
        }
        listener_begin(l);
        http_wake(l->call->r);
    }
}

/* ---- what the worker says ------------------------------------------------------------------- */

static void transfer_progress(const struct wire_job_progress *progress, void *arg)
{
    struct transfer *t = arg;
    struct listener *l, *next;
    json_t *json = json_pack("{s:s}", "status", progress->status);

    if (progress->total)
        json_object_set_new(json, "progressDetail",
                            json_pack("{s:I, s:I}", "current", (json_int_t)progress->done, "total",
                                      (json_int_t)progress->total));
    else if (*progress->id)
        json_object_set_new(json, "progressDetail", json_object());
    if (*progress->id)
        json_object_set_new(json, "id", json_string(progress->id));
    CLEANUP_FREE char *line = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!line)
        return;
    if (*progress->id)
        latest_keep(t, progress->id, line);
    DL_FOREACH_SAFE(t->listeners, l, next)
        if (l->out.len <= OUT_MAX)
            listener_say(l, line);
}

static void transfer_fail(struct transfer *t, const struct error *error)
{
    if (!t->error)
        error_set(&t->error, error->kind, 0, "%s", error->message);
}

static void image_added(const struct reply *reply, void *arg)
{
    struct addition *addition = arg;
    struct transfer *t = addition->transfer;

    free(addition);
    if (reply->error)
        transfer_fail(t, reply->error);
    t->adding--;
    transfer_check_end(t);
}

static void transfer_image(const struct wire_job_image *came, void *arg)
{
    struct transfer *t = arg;
    struct addition *addition = xcalloc(1, sizeof(*addition));

    addition->transfer = t;
    t->adding++;
    image_add_ask(t->api, came, image_added, addition);
}

static void transfer_done(const struct error *error, void *arg)
{
    struct transfer *t = arg;

    t->job = NULL;
    if (error)
        transfer_fail(t, error);
    transfer_check_end(t);
}

static const struct load_ops transfer_ops = {
    .progress = transfer_progress, .image = transfer_image, .done = transfer_done};

static struct transfer *transfer_new(struct api *api, struct call *call)
{
    struct transfer *t = xcalloc(1, sizeof(*t));

    t->api = api;
    DL_APPEND(api->transfers, t);
    listener_add(t, call);
    return t;
}

/* ---- what is asked -------------------------------------------------------------------------- */

/* "name" and "tag" of a query, in one; owned, NULL and *ret_error if that is no reference. */
static char *reference_asked(const struct call *call, const char *query, struct error **ret_error)
{
    const char *name = call_query(call, query), *tag = call_query(call, "tag");
    const char *slash = name ? strrchr(name, '/') : NULL;

    if (!name) {
        error_set(ret_error, ERROR_INVALID, 0, "'%s' is missing in the query", query);
        return NULL;
    }
    bool whole = strpbrk(slash ? slash : name, ":@") || !tag;
    CLEANUP_FREE char *text = str_printf("%s%s%s", name,
                                         whole                                       ? ""
                                         : *tag == 's' && str_starts(tag, "sha256:") ? "@"
                                                                                     : ":",
                                         whole ? "" : tag);
    return reference_normalise(text, ret_error);
}

/* The header of docker's clients: an AuthConfig in base64. Owned, a secret. */
static int credentials_asked(const struct call *call, char **ret, struct error **ret_error)
{
    const char *header = http_header(call->r, "X-Registry-Auth");

    *ret = NULL;
    if (str_empty(header))
        return 0;
    *ret = strlen(header) <= CREDENTIALS_TEXT_MAX ? base64_decode(header) : NULL;
    if (!*ret)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "the header X-Registry-Auth is not an AuthConfig in base64");
    /* What an unmodified client sends that has none: nothing is in it, and ours are used. */
    CLEANUP_FREE char *text = *ret;
    json_t *json = json_loads(text, 0, NULL);
    bool empty = true;
    static const char *const keys[] = {"username", "auth", "identitytoken", "registrytoken"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        empty = empty && str_empty(json_string_value(json_object_get(json, keys[i])));
    json_decref(json);
    *ret = empty ? NULL : take(text);
    if (text)
        explicit_bzero(text, strlen(text));
    return 0;
}

static struct transfer *transfer_find(const struct api *api, const char *name)
{
    struct transfer *t;

    DL_FOREACH(api->transfers, t)
        if (t->name && strcmp(t->name, name) == 0)
            return t;
    return NULL;
}

/* POST /image/create: a pull. */
void image_pull(struct call *call)
{
    struct error *error = NULL;
    struct exec_transfer what = {.kind = TRANSFER_PULL};

    if (call_query(call, "fromSrc"))
        error_set(&error, ERROR_UNSUPPORTED, 0, "images are not imported: 'husk load' loads them");
    else
        what.name = reference_asked(call, "imageName", &error);
    if (error || credentials_asked(call, &what.credentials, &error) < 0) {
        free(what.name);
        call_fail(call, error);
        return;
    }
    struct transfer *t = transfer_find(call->api, what.name);
    if (t) {
        free(what.name);
        if (what.credentials)
            explicit_bzero(what.credentials, strlen(what.credentials));
        free(what.credentials);
        listener_add(t, call);
        return;
    }
    t = transfer_new(call->api, call);
    t->name = xstrdup(what.name);
    t->job = exec_transfer(call->api->exec, &what, &transfer_ops, t);
}

/* POST /image/push */
void image_push(struct call *call)
{
    struct error *error = NULL;
    struct image *image = NULL;
    struct exec_transfer what = {.kind = TRANSFER_PUSH,
                                 .name = reference_asked(call, "remote", &error)};

    if (!what.name || world_find_image(call->api->world, what.name, &image, &error) < 0 ||
        credentials_asked(call, &what.credentials, &error) < 0) {
        free(what.name);
        call_fail(call, error);
        return;
    }
    what.files = strv_copy((const char *const *)image->files);
    what.sources = strv_copy((const char *const *)image->names);
    struct transfer *t = transfer_new(call->api, call);
    t->job = exec_transfer(call->api->exec, &what, &transfer_ops, t);
}

/* ---- login ---------------------------------------------------------------------------------- */

/* The registry that a server's address means: "https://host:5000/v2/" is host:5000, and none and
 * the address of docker's index are docker.io. Owned. */
static char *registry_of(const char *server, struct error **ret_error)
{
    const char *start = server ? strstr(server, "://") : NULL;
    const char *host = start ? start + strlen("://") : str_or(server, "docker.io");
    CLEANUP_FREE char *name = xstrndup(host, strcspn(host, "/"));
    CLEANUP_FREE char *probe = str_printf("%s/x", name);
    CLEANUP_REFERENCE struct reference ref = {0};

    if (reference_parse(probe, &ref, NULL) < 0 || strcmp(ref.path, "x") != 0) {
        if (strcmp(name, "docker.io") == 0 || strcmp(name, "index.docker.io") == 0)
            return xstrdup("docker.io");
        error_set(ret_error, ERROR_INVALID, 0, "'%.200s' is not the name of a registry", server);
        return NULL;
    }
    return take(ref.domain);
}

/* POST /auth: an AuthConfig; with keep=true it becomes the daemon's own. */
void registry_login(struct call *call)
{
    const struct buf *body = http_body(call->r);
    struct error *error = NULL;
    json_t *json = json_loadb((const char *)body->data, body->len, 0, NULL);
    const char *server = json_string_value(json_object_get(json, "serveraddress"));
    struct exec_transfer what = {.kind = TRANSFER_LOGIN, .keep = call_flag(call, "keep")};

    if (!json_is_object(json) ||
        (str_empty(json_string_value(json_object_get(json, "username"))) &&
         str_empty(json_string_value(json_object_get(json, "auth"))) &&
         str_empty(json_string_value(json_object_get(json, "identitytoken")))))
        error_set(&error, ERROR_INVALID, 0, "a login needs a user name and a password");
    else
        what.name = registry_of(str_empty(server) ? NULL : server, &error);
    if (what.name)
        what.credentials = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!what.name) {
        call_fail(call, error);
        return;
    }
    struct transfer *t = transfer_new(call->api, call);
    t->verdict = "Login Succeeded";
    t->job = exec_transfer(call->api->exec, &what, &transfer_ops, t);
}

/* DELETE /auth */
void registry_logout(struct call *call)
{
    struct error *error = NULL;
    struct exec_transfer what = {.kind = TRANSFER_LOGOUT,
                                 .name = registry_of(call_query(call, "server"), &error)};

    if (!what.name) {
        call_fail(call, error);
        return;
    }
    struct transfer *t = transfer_new(call->api, call);
    t->verdict = "Logout Succeeded";
    t->job = exec_transfer(call->api->exec, &what, &transfer_ops, t);
}
