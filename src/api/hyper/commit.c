/* POST /container/commit: an image of what a container has changed. Whoever leaves before it is
 * made calls it off.
 */
#include <stdlib.h>

#include "api/hyper/hyper.h"
#include "image/reference.h"

/* Lives until its client has left and the core has answered for its image, whichever is later. */
struct committing {
    struct call *call; /* NULL: the client has left */
    struct job *job;   /* NULL: done */
    bool adding;       /* the core is asked to add the image */
    char *id;          /* of the image, once it is there */
};

static void committing_check_end(struct committing *c)
{
    if (c->call || c->adding)
        return;
    free(c->id);
    free(c);
}

static void commit_left(void *data)
{
    struct committing *c = data;
    struct api *api = c->call->api;

    c->call = NULL;
    if (c->job)
        exec_job_cancel(api->exec, take(c->job));
    committing_check_end(c);
}

static void commit_fail(struct committing *c, const struct error *error)
{
    if (c->call)
        http_reply_error(c->call->r, error);
}

static void commit_progress(const struct wire_job_progress *progress, void *arg)
{
    /* The answer is one, at the end. */
}

static void image_added(const struct reply *reply, void *arg)
{
    struct committing *c = arg;

    c->adding = false;
    if (reply->error)
        commit_fail(c, reply->error);
    else if (c->call)
        call_json(c->call, 200, json_pack("{s:s, s:i, s:s}", "ID", c->id, "Code", 0, "Cause", ""));
    committing_check_end(c);
}

static void commit_image(const struct wire_job_image *came, void *arg)
{
    struct committing *c = arg;

    str_set(&c->id, came->id);
    c->adding = true;
    image_add_ask(c->call->api, came, image_added, c);
}

static void commit_done(const struct error *error, void *arg)
{
    struct committing *c = arg;

    c->job = NULL;
    if (error)
        commit_fail(c, error);
}

static const struct load_ops commit_ops = {
    .progress = commit_progress, .image = commit_image, .done = commit_done};

/* *ret: NULL if none was asked for. */
static int name_asked(const struct call *call, char **ret, struct error **ret_error)
{
    const char *repo = call_query(call, "repo"), *tag = call_query(call, "tag");

    *ret = NULL;
    if (!repo && tag)
        return error_set(ret_error, ERROR_INVALID, 0, "a tag without 'repo' is no name");
    if (!repo)
        return 0;
    CLEANUP_FREE char *text = str_printf("%s%s%s", repo, tag ? ":" : "", tag ? tag : "");
    *ret = reference_normalise(text, ret_error);
    if (*ret && strchr(*ret, '@'))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%.200s' is no tag: a digest is not given, it follows from the image",
                         text);
    return *ret ? 0 : -1;
}

/* What an unmodified hyperctl calls "change" and "message", its daemon called otherwise. */
void ctr_commit(struct call *call)
{
    CLEANUP_STRV char **changes = http_query_all(call->r, "changes");
    CLEANUP_STRV char **more = http_query_all(call->r, "change");
    CLEANUP_FREE char *name = NULL;
    const char *comment = call_query(call, "comment");
    struct error *error = NULL;

    STRV_FOREACH(change, more)
        strv_push(&changes, *change);
    struct exec_commit what = {.ctr = call->ctr->object.ref,
                               .author = call_query(call, "author"),
                               .message = comment ? comment : call_query(call, "message"),
                               .changes = (const char *const *)changes};
    struct committing *c = xcalloc(1, sizeof(*c));
    if (name_asked(call, &name, &error) == 0) {
        what.name = name;
        c->job = exec_commit(call->api->exec, &what, &commit_ops, c, &error);
    }
    if (!c->job) {
        free(c);
        call_fail(call, error);
        return;
    }
    c->call = call;
    call->data = c;
    call->data_free = commit_left;
}
