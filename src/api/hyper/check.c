/* POST /images/check: a worker looks at images; the answer is a line for each thing that is not
 * right, and for how it gets on. Whoever leaves calls it off.
 */
#include <stdlib.h>

#include "api/hyper/hyper.h"

enum { CHECK_OUT_MAX = 256 << 10 }; /* of an answer that is not read; progress beyond is left out */

struct check {
    struct call *call;
    struct job *job; /* NULL: done */
    unsigned images;
    struct buf out; /* not sent yet */
};

static void check_say(struct check *check, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text)
        buf_printf(&check->out, "%s\n", text);
    free(text);
    http_wake(check->call->r);
}

static ssize_t check_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct check *check = call->data;
    size_t n = check->out.len < size ? check->out.len : size;
    if (n == 0)
        return check->job ? 0 : -1;
    memcpy(to, check->out.data, n);
    buf_consume(&check->out, n);
    return (ssize_t)n;
}

static void check_left(void *data)
{
    struct check *check = data;
    if (check->job)
        exec_job_cancel(check->call->api->exec, check->job);
    buf_release(&check->out);
    free(check);
}

static void check_progress(const struct wire_job_progress *progress, void *arg)
{
    struct check *check = arg;
    if (check->out.len > CHECK_OUT_MAX)
        return;
    check_say(check, json_pack("{s:s, s:{s:I, s:I}, s:s}", "status", progress->status,
                               "progressDetail", "current", (json_int_t)progress->done, "total",
                               (json_int_t)progress->total, "id", progress->id));
}

static void check_image(const struct wire_job_image *image, void *arg)
{
    /* None comes. */
}

/* One that was removed meanwhile has nothing to be right. */
static void check_problem(const struct wire_job_problem *problem, void *arg)
{
    struct check *check = arg;
    const struct image *image = world_image_by_id(check->call->api->world, problem->image);
    json_t *names = json_array();
    if (!image || image->state != IMAGE_PRESENT) {
        json_decref(names);
        return;
    }
    STRV_FOREACH(name, image->names) {
        CLEANUP_FREE char *familiar = image_name_short(*name);
        json_array_append_new(names, json_string(familiar));
    }
    check_say(check, json_pack("{s:{s:s, s:o, s:s, s:s, s:s, s:b}}", "problem", "image",
                               problem->image, "names", names, "kind",
                               problem->blob ? "blob" : "root", "file", problem->file, "message",
                               problem->message, "repaired", problem->repaired != 0));
}

static void check_done(const struct error *error, void *arg)
{
    struct check *check = arg;
    check->job = NULL;
    if (error)
        check_say(check,
                  json_pack("{s:s, s:{s:s}, s:s}", "error", error_text(error), "errorDetail",
                            "message", error_text(error), "kind", error_kind_name(error->kind)));
    else
        check_say(check, json_pack("{s:i}", "images", (int)check->images));
}

static const struct load_ops check_ops = {
    .progress = check_progress, .image = check_image, .done = check_done, .problem = check_problem};

static void item_add(const struct image *image, unsigned *count, char ***items)
{
    strv_push_take(items, str_printf("image:%s", image->id));
    STRV_FOREACH(file, image->files)
        strv_push_take(items, str_printf("file:%s", *file));
    ++*count;
}

/* Those that are named, or all. */
static int items_make(const struct call *call, unsigned *count, char ***ret,
                      struct error **ret_error)
{
    CLEANUP_STRV char **names = http_query_all(call->r, "names");
    STRV_FOREACH(name, names) {
        struct image *image = NULL;
        if (world_find_image(call->api->world, *name, &image, ret_error) < 0)
            return -1;
        item_add(image, count, ret);
    }
    WORLD_FOREACH(struct image, image, call->api->world, NOUN_IMAGE) {
        if (!names && image->state == IMAGE_PRESENT)
            item_add(image, count, ret);
    }
    return 0;
}

void images_check(struct call *call)
{
    CLEANUP_STRV char **items = NULL;
    struct check *check = xcalloc(1, sizeof(*check));
    struct error *error = NULL;
    if (items_make(call, &check->images, &items, &error) < 0) {
        free(check);
        call_fail(call, error);
        return;
    }
    check->call = call;
    call->data = check;
    call->data_free = check_left;
    check->job = exec_check(call->api->exec, (const char *const *)items, call_flag(call, "repair"),
                            &check_ops, check);
    http_reply_stream(call->r, 200, "application/json", check_pull);
}
