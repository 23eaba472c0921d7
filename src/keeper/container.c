#include "keeper/container.h"

#include <signal.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/exits.h"

static void stop_begin(struct container *c);
static void stop_late(void *arg);
static void start_failed(struct container *c, const struct error *error);
static void container_advance(struct container *c);
static void drop_advance(struct container *c);

struct container *container_find(struct keeper *k, const char *id)
{
    struct container *c;
    DL_FOREACH(k->containers, c)
        if (str_eq(c->id, id))
            return c;
    return NULL;
}

static int container_get(struct keeper *k, const char *id, struct container **ret,
                         struct error **ret_error)
{
    struct container *c = container_find(k, id);
    size_t count = 0;
    *ret = c;
    if (c)
        return 0;
    DL_COUNT(k->containers, c, count);
    if (count >= CONTAINERS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "more than %d containers in one VM",
                         CONTAINERS_MAX);
    c = xcalloc(1, sizeof(*c));
    c->keeper = k;
    c->layer_fd = -1;
    c->id = xstrdup(id);
    c->name = xstrdup(id);
    c->reason = xstrdup("");
    c->stop = timer_new(k->loop, stop_late, c);
    DL_APPEND(k->containers, c);
    *ret = c;
    return 0;
}

/* Clients that waited for a start that does not come. */
static void waiting_refuse(struct container *c, const char *why)
{
    struct client *client, *next;
    DL_FOREACH_SAFE(c->waiting, client, next) {
        DL_DELETE(c->waiting, client);
        client_refuse(client, why);
    }
    c->waiting_count = 0;
}

void container_free(struct container *c)
{
    struct keeper *k = c->keeper;
    waiting_refuse(c, "the container is gone");
    guest_cancel(k, c);
    stream_free(c->stream);
    timer_free(c->stop);
    ask_answer(k, &c->run_asks, NULL);
    ask_answer(k, &c->stop_asks, NULL);
    ask_answer(k, &c->drop_asks, NULL);
    ask_answer(k, &c->clear_asks, NULL);
    DL_DELETE(k->containers, c);
    free(c->id);
    free(c->name);
    free(c->request);
    if (c->layer_fd >= 0)
        close(c->layer_fd);
    free(c->reason);
    strv_free(c->marks);
    error_free(c->drop_error);
    free(c);
}

bool containers_any_runs(const struct keeper *k)
{
    struct container *c;
    DL_FOREACH(k->containers, c)
        if (c->state == CONTAINER_STARTING || c->state == CONTAINER_RUNNING)
            return true;
    return false;
}

void container_tell(struct container *c)
{
    if (c->rehearsal)
        return;
    struct wire_ctr_state state = {.ctr = c->id,
                                   .run = c->run,
                                   .ended = c->state == CONTAINER_ENDED,
                                   .code = c->code,
                                   .signal = c->signal,
                                   .oom = c->oom,
                                   .reason = c->reason,
                                   .started_ns = c->started_ns,
                                   .finished_ns = c->finished_ns};
    if (c->state == CONTAINER_RUNNING || c->state == CONTAINER_ENDED)
        control_send(c->keeper, WIRE_CTR_STATE, &state);
}

/* ---- start ---------------------------------------------------------------------------------- */

/* The guest lets go of its disks; also after a start that failed half-way. */
static void cleared(struct keeper *k, const struct error *error, void *arg)
{
    struct container *c = arg;
    CLEANUP_ERROR struct error *named = NULL;
    c->clearing = false;
    c->clear_failed = error && error->kind != ERROR_NOT_FOUND;
    if (error)
        error_set(&named, error->kind, 0, "container '%s': %s", c->name, error->message);
    if (error && !k->broken && k->guest)
        log_warning("%s", named->message);
    ask_answer(k, &c->clear_asks, named);
    if (c->rehearsal)
        rehearsal_go_on(k, error);
    else if (c->dropping)
        drop_advance(c);
    else if (c->state == CONTAINER_STARTING && c->clear_failed)
        start_failed(c, error);
    else if (c->state == CONTAINER_STARTING)
        container_advance(c);
}

static void container_clear(struct container *c)
{
    struct wire_ctr_clear m = {.ctr = c->id};
    c->uncleared = false;
    c->clearing = true;
    guest_request(c->keeper, WIRE_CTR_CLEAR, 0, &m, cleared, c);
}

/* False if it has to be waited for: cleared() goes on. It may have done so already, when there is
 * no guest to ask, and a container that is dropped is gone by that. */
static bool container_is_clear(struct container *c)
{
    if (c->uncleared) {
        container_clear(c);
        return false;
    }
    return !c->clearing;
}

/* The guest could not let go of its disks when it was asked last: perhaps it can now. */
static void container_clear_again(struct container *c)
{
    if (c->clear_failed && !c->clearing)
        c->uncleared = true;
}

int container_clear_ask(struct container *c, uint32_t seq, struct error **ret_error)
{
    if (ask_add(c->keeper, &c->clear_asks, seq, ret_error) < 0)
        return -1;
    container_clear_again(c);
    if (container_is_clear(c))
        ask_answer(c->keeper, &c->clear_asks, NULL);
    return 0;
}

static void start_failed(struct container *c, const struct error *error)
{
    CLEANUP_FREE char *text =
        str_printf("container '%s': cannot be started: %s", c->name, error->message);
    CLEANUP_ERROR struct error *wrapped = NULL;

    c->state = CONTAINER_EXPECTED;
    free(take(c->request));
    waiting_refuse(c, text);
    if (c->stream) {
        stream_remark(c->stream, text);
        stream_free(take(c->stream));
        container_clear(c);
    }
    error_set(&wrapped, error->kind, 0, "%s", text);
    ask_answer(c->keeper, &c->run_asks, wrapped);
    ask_answer(c->keeper, &c->stop_asks, NULL);
    if (c->rehearsal)
        rehearsal_go_on(c->keeper, wrapped);
}

/* They belong to the state that is told next. */
static void container_tell_marks(struct container *c)
{
    if (!c->rehearsal)
        marks_tell(c->keeper, c->id, &c->marks);
}

void container_heard(struct container *c)
{
    c->was_heard = true;
    mark_add(&c->marks, "output");
    if (c->state == CONTAINER_RUNNING)
        container_tell_marks(c);
}

static void container_is_running(struct container *c)
{
    c->state = CONTAINER_RUNNING;
    c->started_ns = realtime_ns();
    free(take(c->request));
    mark_add(&c->marks, "started");
    container_tell_marks(c);
    container_tell(c);
    ask_answer(c->keeper, &c->run_asks, NULL);
    if (c->stop_asks)
        stop_begin(c);
    if (c->rehearsal)
        rehearsal_go_on(c->keeper, NULL);
}

static void started(struct keeper *k, const struct error *error, void *arg)
{
    struct container *c = arg;
    if (c->state != CONTAINER_STARTING)
        return; /* it has even ended since */
    if (error)
        start_failed(c, error);
    else
        container_is_running(c);
}

static void log_open_for(struct container *c, const struct wire_run *m)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (str_empty(m->log_path) ||
        log_file_open(m->log_path, m->log_max_bytes, &c->stream->log, &error) == 0)
        return;
    CLEANUP_FREE char *text =
        str_printf("container '%s': no log is kept: %s", c->name, error->message);
    control_event(c->keeper, LOG_LEVEL_WARNING, "LogFailed", text);
}

static void waiting_join(struct container *c)
{
    struct client *client, *next;
    DL_FOREACH_SAFE(c->waiting, client, next) {
        CLEANUP_ERROR struct error *error = NULL;
        DL_DELETE(c->waiting, client);
        if (client_join(client, c->stream, &error) < 0)
            client_refuse(client, error->message);
    }
    c->waiting_count = 0;
}

static void container_launch(struct container *c, const struct wire_run *m)
{
    struct keeper *k = c->keeper;
    struct wire_ctr_start start = {.ctr = c->id,
                                   .image_disk = c->image ? disk_address(c->image) : "",
                                   .layer_disk = disk_address(c->layer),
                                   .argv = m->argv,
                                   .env = m->env,
                                   .cwd = m->cwd,
                                   .user = m->user,
                                   .groups = m->groups,
                                   .flags = m->flags,
                                   .rows = m->rows,
                                   .cols = m->cols,
                                   .memory_max_bytes = m->memory_max_bytes,
                                   .pids_max = m->pids_max,
                                   .layer_top = str_or(disk_top(c->layer), m->layer_top)};
    c->stream = stream_new(k, m->flags);
    c->stream->ctr = c;
    log_open_for(c, m);
    waiting_join(c);
    mark_add(&c->marks, "disks");
    guest_request(k, WIRE_CTR_START, c->stream->id, &start, started, c);
    if (c->stream) /* it has not failed at once */
        stream_open(c->stream);
}

static void plugged(struct keeper *k, const struct error *error, void *arg)
{
    struct container *c = arg;
    if (error)
        start_failed(c, error);
    else
        container_advance(c);
}

static void layer_plug(struct container *c, const struct wire_run *m)
{
    struct disk_file file = {.path = m->layer_path,
                             .fd = c->layer_fd,
                             .lower = m->flags & WIRE_SHARED ? m->image_path : NULL};
    c->layer_fd = -1;
    disk_plug(c->keeper, &file, &c->layer, plugged, c);
}

/* Does the next thing that a start needs. */
static void container_advance(struct container *c)
{
    struct keeper *k = c->keeper;
    struct wire_frame frame = {.type = WIRE_RUN, .payload = c->request, .length = c->request_size};
    struct wire_run m;
    CLEANUP_FREE uint8_t *request = NULL; /* a start that fails now frees c->request */

    if (!container_is_clear(c))
        return;
    request = xmemdup(c->request, c->request_size);
    frame.payload = request;
    if (wire_get(&frame, &m, NULL) == 0) {
        if (!c->image && !str_empty(m.image_path) && !(m.flags & WIRE_SHARED))
            disk_plug(k, &(struct disk_file){m.image_path, true, -1, NULL}, &c->image, plugged, c);
        else if (!c->layer)
            layer_plug(c, &m);
        else
            container_launch(c, &m);
    }
    wire_clear(WIRE_RUN, &m);
}

static void container_begin(struct container *c, const struct wire_frame *frame,
                            const struct wire_run *m)
{
    strv_free(take(c->marks));
    mark_add(&c->marks, "run");
    str_set(&c->name, str_or(m->name, m->ctr));
    str_set(&c->reason, "");
    c->run = m->run;
    c->code = c->signal = c->oom = 0;
    c->finished_ns = 0;
    c->was_heard = c->vm_ends = false;
    c->request = xmemdup(frame->payload, frame->length);
    c->request_size = frame->length;
    c->state = CONTAINER_STARTING;
    stream_free(take(c->stream));
    container_clear_again(c);
    container_advance(c);
}

static int run_check(const struct container *c, const struct wire_run *m, bool *ret_known,
                     struct error **ret_error)
{
    bool same = c->run == m->run && c->state != CONTAINER_EXPECTED;
    *ret_known = same;
    if (c->dropping)
        return error_set(ret_error, ERROR_BUSY, 0, "container '%s' is being removed", c->name);
    if (!same && (c->state == CONTAINER_STARTING || c->state == CONTAINER_RUNNING))
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' runs already", c->name);
    return 0;
}

int container_run(struct keeper *k, const struct wire_frame *frame, const struct wire_run *m,
                  int *fd, struct error **ret_error)
{
    struct container *c;
    bool known; /* huskd says again what was done, or is being done */
    if (vm_check_usable(k, ret_error) < 0 || container_get(k, m->ctr, &c, ret_error) < 0 ||
        run_check(c, m, &known, ret_error) < 0 || ask_add(k, &c->run_asks, m->seq, ret_error) < 0)
        return -1;
    if (known) {
        if (c->state != CONTAINER_STARTING)
            ask_answer(k, &c->run_asks, NULL);
        return 0;
    }
    if (!c->layer && *fd >= 0) { /* a layer that it has is as good */
        if (c->layer_fd >= 0)
            close(c->layer_fd); /* of a start that did not come so far */
        c->layer_fd = *fd;
        *fd = -1;
    }
    container_begin(c, frame, m);
    return 0;
}

struct container *container_rehearse(struct keeper *k, const struct wire_frame *frame,
                                     const struct wire_run *m, struct error **ret_error)
{
    struct container *c;
    if (container_get(k, m->ctr, &c, ret_error) < 0)
        return NULL;
    c->rehearsal = true;
    container_begin(c, frame, m);
    return c;
}

/* ---- end ------------------------------------------------------------------------------------ */

static char *reason_of(const struct wire_exited *m)
{
    if (*m->reason)
        return guest_text(m->reason);
    if (m->oom)
        return xstrdup("out of memory");
    if (m->signal)
        return str_printf("killed by signal %u", m->signal);
    return xstrdup("");
}

/* Log, journal, huskd, clients: whoever hears of the end finds all that was before it. */
static void container_end(struct container *c)
{
    struct keeper *k = c->keeper;
    CLEANUP_ERROR struct error *error = NULL;
    struct exit_record record = {.ctr = c->id,
                                 .exec = "",
                                 .run = c->run,
                                 .code = c->code,
                                 .signal = c->signal,
                                 .oom = c->oom,
                                 .reason = c->reason,
                                 .started_ns = c->started_ns,
                                 .finished_ns = c->finished_ns = realtime_ns()};
    c->state = CONTAINER_ENDED;
    if (c->stream)
        stream_close_log(c->stream);
    if (!c->rehearsal && exits_append(k->exits_fd, &record, &error) < 0)
        log_error("%s", error_text(error));
    mark_add(&c->marks, "exited");
    container_tell_marks(c);
    container_tell(c);
    if (c->stream)
        stream_finish(c->stream);
    timer_unset(c->stop);
    ask_answer(k, &c->stop_asks, NULL);
}

void container_exited(struct container *c, const struct wire_exited *m)
{
    if (c->state == CONTAINER_STARTING)
        container_is_running(c);
    guest_cancel(c->keeper, c); /* the answer to this start must not pass for that of the next */
    free(c->reason);
    c->reason = reason_of(m);
    c->code = m->code & 0xff;
    c->signal = m->signal & 0x7f;
    c->oom = m->oom != 0;
    if (*m->reason) {
        CLEANUP_FREE char *line = str_printf("container '%s': %s", c->name, c->reason);
        stream_remark(c->stream, line);
    }
    container_end(c);
    c->uncleared = true;
    if (!c->vm_ends)
        container_clear(c);
}

void containers_lost(struct keeper *k, const char *why)
{
    struct container *c, *next;
    DL_FOREACH_SAFE(k->containers, c, next) {
        waiting_refuse(c, why);
        if (c->state != CONTAINER_RUNNING)
            continue;
        CLEANUP_FREE char *line = str_printf("container '%s': %s", c->name, why);
        stream_remark(c->stream, line);
        str_set(&c->reason, why);
        c->code = CODE_VM_ENDED;
        container_end(c);
    }
}

/* ---- stop ----------------------------------------------------------------------------------- */

static void stop_signal(struct container *c, uint32_t number, bool all)
{
    struct wire_signal m = {.signal = number, .all = all};
    guest_request(c->keeper, WIRE_SIGNAL, c->stream->id, &m, NULL, NULL);
    if (number == SIGKILL)
        stream_killed(c->stream);
}

static void stop_begin(struct container *c)
{
    c->stop_killed = false;
    stop_signal(c, c->stop_signal, false);
    timer_set(c->stop, c->stop_grace_ms);
}

static void stop_late(void *arg)
{
    struct container *c = arg;
    CLEANUP_ERROR struct error *error = NULL;
    if (!c->stop_killed) {
        c->stop_killed = true;
        stop_signal(c, SIGKILL, true);
        timer_set(c->stop, KILL_DEADLINE_MS);
        return;
    }
    error_set(&error, ERROR_TIMEOUT, 0, "container '%s' does not end, not even by SIGKILL",
              c->name);
    ask_answer(c->keeper, &c->stop_asks, error);
}

int container_stop(struct keeper *k, const struct wire_stop *m, struct error **ret_error)
{
    struct container *c = container_find(k, m->ctr);
    if (!c)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "container '%s' is not in this VM", m->ctr);
    if (c->state == CONTAINER_EXPECTED || c->state == CONTAINER_ENDED) {
        control_reply(k, m->seq, NULL);
        return 0;
    }
    if (vm_check_usable(k, ret_error) < 0 || ask_add(k, &c->stop_asks, m->seq, ret_error) < 0)
        return -1;
    c->stop_signal = m->signal;
    c->stop_grace_ms = m->grace_ms;
    c->vm_ends = m->vm_ends != 0;
    if (c->state == CONTAINER_RUNNING)
        stop_begin(c);
    return 0;
}

/* ---- attach --------------------------------------------------------------------------------- */

int container_attach(struct keeper *k, const char *id, const struct client_spec *spec,
                     struct error **ret_error)
{
    struct client *client = client_new(k, spec);
    struct container *c = NULL;
    struct error *error = NULL;

    if (container_get(k, id, &c, &error) == 0 && c->stream &&
        client_join(client, c->stream, &error) == 0)
        return 0;
    if (!error && c->waiting_count >= STREAM_CLIENTS_MAX)
        error_set(&error, ERROR_LIMIT, 0, "%d clients wait for it already", STREAM_CLIENTS_MAX);
    if (!error) {
        DL_APPEND(c->waiting, client);
        c->waiting_count++;
        return 0;
    }
    error_wrap(&error, "container '%s'", c ? c->name : id);
    client_refuse(client, error->message);
    return error_move(ret_error, &error);
}

/* ---- drop ----------------------------------------------------------------------------------- */

static void drop_released(struct keeper *k, const struct error *error, void *arg)
{
    struct container *c = arg;
    if (error && !c->drop_error)
        error_set(&c->drop_error, error->kind, 0, "container '%s': %s", c->name, error->message);
    drop_advance(c);
}

static void drop_advance(struct container *c)
{
    struct keeper *k = c->keeper;
    if (!container_is_clear(c))
        return;
    struct disk *disk = c->layer ? take(c->layer) : take(c->image);
    if (disk) {
        disk_release(k, disk, drop_released, c);
        return;
    }
    ask_answer(k, &c->drop_asks, c->drop_error);
    container_free(c);
}

int container_drop(struct keeper *k, const struct wire_drop *m, struct error **ret_error)
{
    struct container *c = container_find(k, m->ctr);
    if (!c) {
        control_reply(k, m->seq, NULL);
        return 0;
    }
    if (c->state == CONTAINER_STARTING || c->state == CONTAINER_RUNNING)
        return error_set(ret_error, ERROR_STATE, 0, "container '%s' runs", c->name);
    if (ask_add(k, &c->drop_asks, m->seq, ret_error) < 0)
        return -1;
    if (c->dropping)
        return 0;
    c->dropping = true;
    container_clear_again(c);
    drop_advance(c);
    return 0;
}

/* The guest holds none of their disks any more. */
void containers_forget(struct keeper *k)
{
    struct container *c, *next;
    DL_FOREACH_SAFE(k->containers, c, next) {
        if (c->dropping)
            continue;
        if (c->layer)
            disk_release(k, take(c->layer), NULL, NULL);
        if (c->image)
            disk_release(k, take(c->image), NULL, NULL);
        container_free(c);
    }
}
