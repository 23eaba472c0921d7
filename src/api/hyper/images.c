/* /image/load: the archive streams through a pipe into a worker, which is as slow as it likes; its
 * images are added to the world as they come; the answer tells how it goes. And DELETE /image.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/hyper/hyper.h"
#include "base/log.h"

enum {
    LOAD_PIPE_SIZE = 1 << 20,
    LOAD_OUT_MAX = 256 << 10, /* of an answer that is not read; progress beyond is left out */
};

/* Lives until its client has left and its worker is done, whichever is later. */
struct load {
    struct api *api;
    struct call *call; /* NULL: the client has left, or there never was one */
    struct job *job;   /* NULL: done */
    int pipe;          /* into the worker; -1: all is in it, or nobody reads it any more */
    bool whole;        /* all of the body has come */
    struct watch *watch;
    unsigned adding;         /* images that the core has not answered for */
    struct buf out;          /* of the answer, not sent yet */
    void (*done)(void *arg); /* of a file; else NULL */
    void *arg;
};

/* An image that the core is asked to add. */
struct load_image {
    struct load *load;
    char **names;
};

/* ---- the answer ----------------------------------------------------------------------------- */

static void load_say(struct load *load, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (load->call && text) {
        buf_printf(&load->out, "%s\n", text);
        http_wake(load->call->r);
    }
    free(text);
}

static void load_say_error(struct load *load, const struct error *error)
{
    const char *message = error_text(error);
    if (!load->call)
        log_error("load images: %s", message);
    load_say(load,
             json_pack("{s:s, s:{s:s}}", "error", message, "errorDetail", "message", message));
}

static bool load_is_over(const struct load *load)
{
    return !load->job && load->adding == 0;
}

static void load_pipe_close(struct load *load)
{
    watch_free(take(load->watch));
    if (load->pipe >= 0)
        close(load->pipe);
    load->pipe = -1;
}

static void load_check_end(struct load *load)
{
    if (!load_is_over(load))
        return;
    if (load->call) {
        http_wake(load->call->r);
        return;
    }
    load_pipe_close(load);
    buf_release(&load->out);
    if (load->done)
        load->done(load->arg);
    free(load);
}

static ssize_t load_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct load *load = call->data;
    size_t n = load->out.len < size ? load->out.len : size;
    if (n == 0)
        return load_is_over(load) ? -1 : 0;
    memcpy(to, load->out.data, n);
    buf_consume(&load->out, n);
    return (ssize_t)n;
}

/* ---- what the worker says ------------------------------------------------------------------- */

static void load_progress(const struct wire_job_progress *progress, void *arg)
{
    struct load *load = arg;
    if (load->out.len > LOAD_OUT_MAX)
        return;
    load_say(load, json_pack("{s:s, s:{s:I, s:I}, s:s}", "status", progress->status,
                             "progressDetail", "current", (json_int_t)progress->done, "total",
                             (json_int_t)progress->total, "id", progress->id));
}

static void image_added(const struct reply *reply, void *arg)
{
    struct load_image *added = arg;
    struct load *load = added->load;
    if (reply->error)
        load_say_error(load, reply->error);
    STRV_FOREACH(name, reply->error ? NULL : added->names) {
        CLEANUP_FREE char *familiar = image_name_short(*name);
        CLEANUP_FREE char *line = str_printf("Loaded image: %s\n", familiar);
        load_say(load, json_pack("{s:s}", "stream", line));
    }
    if (!reply->error && !added->names) {
        CLEANUP_FREE char *line = str_printf("Loaded image ID: %s\n", reply->id);
        load_say(load, json_pack("{s:s}", "stream", line));
    }
    strv_free(added->names);
    free(added);
    load->adding--;
    load_check_end(load);
}

/* An image that is being added. */
struct image_add {
    struct api *api;
    char **files; /* that came */
    bool strays;  /* files of it are nobody's */
    void (*done)(const struct reply *reply, void *arg);
    void *arg;
};

static bool have_all(char **files, char **of)
{
    STRV_FOREACH(file, of)
        if (!strv_contains((const char *const *)files, *file))
            return false;
    return true;
}

/* The core may have refused it, or kept the files that it had, or given them up for these. */
static void add_answered(const struct reply *reply, void *arg)
{
    struct image_add *a = arg;
    struct api *api = a->api;
    const struct image *image = reply->error ? NULL : world_image_by_id(api->world, reply->id);
    bool strays = a->strays || !image || !have_all(image->files, a->files);
    void (*done)(const struct reply *reply, void *arg) = a->done;
    void *done_arg = a->arg;
    strv_free(a->files);
    free(a);
    done(reply, done_arg);
    if (strays)
        exec_sweep(api->exec);
}

void image_add_ask(struct api *api, const struct wire_job_image *came,
                   void (*done)(const struct reply *reply, void *arg), void *arg)
{
    const struct image *old = world_image_by_id(api->world, came->id);
    struct image_add *a = xcalloc(1, sizeof(*a));
    struct image image = {.config_text = (char *)(uintptr_t)came->config,
                          .names = (char **)(uintptr_t)came->names,
                          .size_bytes = came->size_bytes,
                          .created_ns = (int64_t)came->created_ns,
                          .files = (char **)(uintptr_t)came->files};
    struct request request = {.kind = REQ_IMAGE_ADD, .image_new = &image};

    *a = (struct image_add){.api = api, .files = strv_copy(came->files), .done = done, .arg = arg};
    a->strays = old && !have_all(a->files, old->files);
    snprintf(image.id, sizeof(image.id), "%s", came->id);
    ops_ask(api->ops, &request, add_answered, a);
}

static void load_image(const struct wire_job_image *came, void *arg)
{
    struct load *load = arg;
    struct load_image *added = xcalloc(1, sizeof(*added));
    added->load = load;
    added->names = strv_copy(came->names);
    load->adding++;
    image_add_ask(load->api, came, image_added, added);
}

static void load_done(const struct error *error, void *arg)
{
    struct load *load = arg;
    load->job = NULL;
    if (error)
        load_say_error(load, error);
    /* The rest of the body has no reader: it is thrown away as it comes. */
    load_pipe_close(load);
    if (load->call)
        http_more_body(load->call->r);
    load_check_end(load);
}

static const struct load_ops load_ops = {
    .progress = load_progress, .image = load_image, .done = load_done};

/* ---- the body ------------------------------------------------------------------------------- */

static void pipe_ready(int events, void *arg)
{
    struct load *load = arg;
    watch_set(load->watch, 0);
    if (load->call)
        http_more_body(load->call->r);
}

static size_t load_took(struct http_request *r, const void *data, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct load *load = call->data;
    if (load->pipe < 0)
        return size;
    ssize_t n = write(load->pipe, data, size);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        load_pipe_close(load); /* the worker has given up: it says why */
        return size;
    }
    if (n < (ssize_t)size)
        watch_set(load->watch, WATCH_WRITE);
    return n < 0 ? 0 : (size_t)n;
}

static void load_left(void *data)
{
    struct load *load = data;
    load->call = NULL;
    if (load->job && !load->whole) /* the archive may be, but that was not said */
        exec_job_cancel(load->api->exec, take(load->job));
    load_pipe_close(load);
    load_check_end(load);
}

static int load_pipe(int ret[2], struct error **ret_error)
{
    if (pipe2(ret, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a pipe");
    fcntl(ret[1], F_SETFL, O_NONBLOCK);
    fcntl(ret[1], F_SETPIPE_SZ, LOAD_PIPE_SIZE); /* refused above the user's limit: no matter */
    return 0;
}

void load_begin(struct call *call)
{
    struct error *error = NULL;
    int ends[2];
    if (load_pipe(ends, &error) < 0) {
        call_fail(call, error);
        return;
    }
    struct load *load = xcalloc(1, sizeof(*load));
    load->api = call->api;
    load->call = call;
    load->pipe = ends[1];
    load->watch = watch_new(call->api->loop, load->pipe, 0, pipe_ready, load);
    call->data = load;
    call->data_free = load_left;
    http_take_body(call->r, load_took);
    load->job = exec_load(call->api->exec, ends[0], &load_ops, load);
}

/* All of the body is in the pipe. */
void load_end(struct call *call)
{
    struct load *load = call->data;
    load->whole = true;
    load_pipe_close(load);
    http_reply_stream(call->r, 200, "application/json", load_pull);
}

void api_load_file(struct api *api, const char *path, void (*done)(void *arg), void *arg)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        log_warning("no image is loaded from '%s': %s", path, strerror(errno));
        done(arg);
        return;
    }
    struct load *load = xcalloc(1, sizeof(*load));
    load->api = api;
    load->done = done;
    load->arg = arg;
    load->pipe = -1;
    load->job = exec_load(api->exec, fd, &load_ops, load);
}

/* ---- DELETE /image -------------------------------------------------------------------------- */

/* What it was, to say what became of it. */
struct removal {
    struct ref image;
    char **names;
};

static void removal_free(void *data)
{
    struct removal *removal = data;
    strv_free(removal->names);
    free(removal);
}

static void image_removed(const struct reply *reply, void *arg)
{
    struct call *call = arg;
    const struct removal *removal = call->data;
    call->op = 0;
    if (reply->error) {
        http_reply_error(call->r, reply->error);
        return;
    }
    const struct image *image = world_image(call->api->world, removal->image);
    bool deleted = !image || image->state == IMAGE_REMOVING;
    json_t *list = json_array();
    STRV_FOREACH(name, removal->names) {
        CLEANUP_FREE char *familiar = image_name_short(*name);
        if (deleted || !strv_contains((const char *const *)image->names, *name))
            json_array_append_new(list, json_pack("{s:s}", "untagged", familiar));
    }
    if (deleted)
        json_array_append_new(list, json_pack("{s:s}", "deleted", call->id));
    call_json(call, 200, json_pack("{s:o}", "imagesList", list));
}

void image_remove(struct call *call)
{
    struct request request = {.kind = REQ_IMAGE_REMOVE,
                              .image = call->image->object.ref,
                              .name = call_query(call, "imageId"),
                              .force = call_flag(call, "force")};
    struct removal *removal = xcalloc(1, sizeof(*removal));
    removal->image = call->image->object.ref;
    removal->names = strv_copy((const char *const *)call->image->names);
    call->data = removal;
    call->data_free = removal_free;
    call_ask(call, &request, image_removed);
}

/* ---- POST /images/prune --------------------------------------------------------------------- */

static void image_pruned(const struct reply *reply, void *arg)
{
    if (reply->error)
        log_warning("prune: %s", error_text(reply->error));
}

/* Images that no tag and no container needs, and what interrupted pulls have left. The answer names
 * the images; their files go afterwards. */
void images_prune(struct call *call)
{
    struct api *api = call->api;
    json_t *list = json_array();

    WORLD_FOREACH(struct image, image, api->world, NOUN_IMAGE) {
        bool tagged = false;
        STRV_FOREACH(name, image->names)
            tagged = tagged || !strchr(*name, '@');
        if (tagged || image->users || image->state != IMAGE_PRESENT)
            continue;
        json_array_append_new(
            list, json_pack("{s:s, s:I}", "id", image->id, "size", (json_int_t)image->size_bytes));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(list, i), "id"));
        struct image *image = world_image_by_id(api->world, id);
        struct request request = {
            .kind = REQ_IMAGE_REMOVE, .image = image->object.ref, .name = id, .force = true};
        ops_ask(api->ops, &request, image_pruned, NULL);
    }
    exec_sweep_all(api->exec);
    call_json(call, 200, json_pack("{s:o}", "removed", list));
}
