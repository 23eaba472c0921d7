/* GET /images/save: a worker writes the archive into a pipe, and the answer is what comes out. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "api/hyper/hyper.h"

/* Lives until its client has left and its worker is done, whichever is later. */
struct save {
    struct call *call; /* NULL: the client has left */
    struct job *job;   /* NULL: done */
    int pipe;          /* out of the worker; -1: nobody reads it any more */
    struct watch *watch;
    bool streams; /* the answer has begun */
    bool failed;
};

static void save_pipe_close(struct save *save)
{
    watch_free(take(save->watch));
    if (save->pipe >= 0)
        close(save->pipe);
    save->pipe = -1;
}

static void save_check_end(struct save *save)
{
    if (save->call || save->job)
        return;
    save_pipe_close(save);
    free(save);
}

static ssize_t save_pull(struct http_request *r, char *to, size_t size, void *arg)
{
    struct call *call = http_data(r);
    struct save *save = call->data;
    ssize_t n = read(save->pipe, to, size);

    if (n > 0)
        return n;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        watch_set(save->watch, WATCH_READ);
        return 0;
    }
    if (save->job) /* how it ended is about to be told */
        return 0;
    return save->failed ? HTTP_PULL_BROKEN : -1;
}

static void save_begin(struct save *save)
{
    save->streams = true;
    http_reply_stream(save->call->r, 200, "application/x-tar", save_pull);
}

/* The worker writes nothing before it knows that it can: until then an error has a status. */
static void pipe_ready(int events, void *arg)
{
    struct save *save = arg;
    int size = 0;

    watch_set(save->watch, 0);
    if (!save->call)
        return;
    if (save->streams)
        http_wake(save->call->r);
    else if (ioctl(save->pipe, FIONREAD, &size) == 0 && size > 0)
        save_begin(save);
}

static void save_progress(const struct wire_job_progress *progress, void *arg)
{
    /* None is told. */
}

static void save_image(const struct wire_job_image *image, void *arg)
{
    /* Nothing comes into the store. */
}

static void save_done(const struct error *error, void *arg)
{
    struct save *save = arg;

    save->job = NULL;
    save->failed = error != NULL;
    if (save->call && error && !save->streams) {
        save->streams = true;
        http_reply_error(save->call->r, error);
    } else if (save->call && !save->streams) {
        save_begin(save);
    } else if (save->call) {
        http_wake(save->call->r);
    }
    save_check_end(save);
}

static const struct load_ops save_ops = {
    .progress = save_progress, .image = save_image, .done = save_done};

static void save_left(void *data)
{
    struct save *save = data;

    save->call = NULL;
    save_pipe_close(save); /* the worker has nobody to write for, and ends */
    save_check_end(save);
}

/* A name that was asked for, if it is one of the image's; else all of its tags. */
static void item_names(const struct image *image, const char *asked, char ***items)
{
    CLEANUP_FREE char *full = NULL;

    if (image_name_full(asked, &full, NULL) == 0 && !strchr(full, '@') &&
        strv_contains((const char *const *)image->names, full)) {
        strv_push_take(items, str_printf("name:%s", full));
        return;
    }
    STRV_FOREACH(name, image->names)
        if (!strchr(*name, '@'))
            strv_push_take(items, str_printf("name:%s", *name));
}

static int items_make(const struct call *call, char ***ret, struct error **ret_error)
{
    CLEANUP_STRV char **names = http_query_all(call->r, "names");

    if (!names)
        return error_set(ret_error, ERROR_INVALID, 0, "'names' is missing in the query");
    STRV_FOREACH(name, names) {
        struct image *image = NULL;
        if (world_find_image(call->api->world, *name, &image, ret_error) < 0)
            return -1;
        strv_push_take(ret, str_printf("image:%s", image->id));
        item_names(image, *name, ret);
        STRV_FOREACH(file, image->files)
            strv_push_take(ret, str_printf("file:%s", *file));
    }
    return 0;
}

/* GET /images/save */
void images_save(struct call *call)
{
    CLEANUP_STRV char **items = NULL;
    const char *format = str_or(call_query(call, "format"), "docker");
    struct error *error = NULL;
    int ends[2] = {-1, -1};

    if (!str_eq(format, "docker") && !str_eq(format, "oci"))
        error_set(&error, ERROR_INVALID, 0, "there is no format '%.100s', only docker and oci",
                  format);
    else if (items_make(call, &items, &error) == 0 && pipe2(ends, O_CLOEXEC) < 0)
        error_set(&error, ERROR_IO, errno, "make a pipe");
    if (error) {
        call_fail(call, error);
        return;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    struct save *save = xcalloc(1, sizeof(*save));
    save->call = call;
    save->pipe = ends[0];
    save->watch = watch_new(call->api->loop, ends[0], WATCH_READ, pipe_ready, save);
    call->data = save;
    call->data_free = save_left;
    save->job = exec_save(call->api->exec, ends[1], (const char *const *)items,
                          str_eq(format, "docker"), &save_ops, save);
}
