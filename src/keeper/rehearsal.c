/* A rehearsal: an idle VM runs a container and an exec in it, as a pod will do first, and forgets
 * them. What it needed for that was then read, allocated and (under emulation) translated once.
 *
 *   SETTING_UP ──► STARTING ──► EXECUTING ──► ENDING ──► CLEARING ──► LEAVING ──► (over)
 *                                                                        └──► PREPARING ──┘
 *
 * A VM that is for an image then prepares the root of its next container: of disks that it booted
 * with, and on which nothing was rehearsed.
 *
 * Nobody is told of it and nothing is left of it: no exit code, no log, no disk.
 */
#include <stdlib.h>

#include "base/buf.h"
#include "base/str.h"
#include "keeper/container.h"

/* A name that no container has. */
#define REHEARSAL_CTR  "0000000000000000000000000000000000000000000000000000000000000000"
#define REHEARSAL_EXEC "rehearsal"
#define REHEARSAL_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum stage { SETTING_UP, STARTING, EXECUTING, ENDING, CLEARING, LEAVING, PREPARING };

struct rehearsal {
    enum stage stage, last;
    struct ask *asks;
    char *image, *layer;           /* paths */
    char *root_image, *root_layer; /* same */
    char *program, *path;          /* as in PREPARE */
    struct container *ctr;
    struct timer *deadline;
};

static void rehearsal_free(struct rehearsal *r)
{
    timer_free(r->deadline);
    free(r->image);
    free(r->layer);
    free(r->root_image);
    free(r->root_layer);
    free(r->program);
    free(r->path);
    free(r);
}

/* It writes, reads to the end of its input, and ends. */
static int container_start(struct keeper *k, struct error **ret_error)
{
    static const char *const argv[] = {"sh", "-c", "echo; cat", NULL};
    static const char *const env[] = {REHEARSAL_PATH, NULL};
    CLEANUP_BUF struct buf out = {0};
    struct rehearsal *r = k->rehearsal;
    struct wire_run run = {.ctr = REHEARSAL_CTR,
                           .name = "rehearsal",
                           .image_path = r->image,
                           .layer_path = r->layer,
                           .argv = argv,
                           .env = env,
                           .flags = WIRE_STDIN_OPEN};
    wire_put(&out, WIRE_RUN, 0, 0, &run);
    struct wire_frame frame = {.type = WIRE_RUN,
                               .payload = out.data + WIRE_HEADER_SIZE,
                               .length = (uint32_t)(out.len - WIRE_HEADER_SIZE)};
    struct container *c = container_rehearse(k, &frame, &run, ret_error);
    if (k->rehearsal) /* it has not failed at once */
        k->rehearsal->ctr = c;
    return c ? 0 : -1;
}

static int exec_run(struct keeper *k, struct error **ret_error)
{
    static const char *const argv[] = {"true", NULL};
    struct wire_exec_start exec = {.exec = REHEARSAL_EXEC, .ctr = REHEARSAL_CTR, .argv = argv};
    return exec_rehearse(k, &exec, ret_error);
}

static void guest_answered(struct keeper *k, const struct error *error, void *arg)
{
    rehearsal_go_on(k, error);
}

static int root_prepare(struct keeper *k, struct error **ret_error)
{
    const struct rehearsal *r = k->rehearsal;
    struct wire_prepare prepare = {.image_disk = disk_address_of(k, r->root_image),
                                   .layer_disk = disk_address_of(k, r->root_layer),
                                   .program = r->program,
                                   .path = r->path};
    if (!prepare.image_disk || !prepare.layer_disk)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "the VM has no disk '%s'",
                         prepare.image_disk ? r->root_layer : r->root_image);
    guest_request(k, WIRE_PREPARE, 0, &prepare, guest_answered, k->rehearsal);
    return 0;
}

static int next_stage(struct keeper *k, struct error **ret_error)
{
    struct rehearsal *r = k->rehearsal;
    switch (r->stage++) {
    case SETTING_UP:
        return container_start(k, ret_error);
    case STARTING:
        return exec_run(k, ret_error);
    case EXECUTING:
        stream_end_input(r->ctr->stream);
        return 0;
    case ENDING:
        if (r->ctr->code)
            return error_set(ret_error, ERROR_UNAVAILABLE, 0, "the container ended with %u",
                             r->ctr->code);
        guest_request(k, WIRE_POD_CLEAR, 0, &(struct wire_pod_clear){.rehearsed = true},
                      guest_answered, r);
        return 0;
    case CLEARING:
        containers_forget(k);
        k->pod_leaves = true;
        vm_left(k, NULL);
        return 0;
    case LEAVING:
        return root_prepare(k, ret_error);
    case PREPARING:
        break;
    }
    return 0;
}

static void rehearsal_end(struct keeper *k, const struct error *error)
{
    struct rehearsal *r = take(k->rehearsal);
    CLEANUP_ERROR struct error *wrapped = NULL;
    if (error)
        error_set(&wrapped, error->kind, 0, "vm '%s': rehearsal: %s", k->vm, error->message);
    guest_cancel(k, r);
    ask_answer(k, &r->asks, wrapped);
    rehearsal_free(r);
}

/* What it has left in the VM is not for a pod: the VM goes with it. */
void rehearsal_go_on(struct keeper *k, const struct error *error)
{
    CLEANUP_ERROR struct error *own = NULL;
    struct rehearsal *r = k->rehearsal;
    if (!r)
        return;
    if (!error && r->stage < r->last) {
        if (next_stage(k, &own) == 0)
            return;
        error = own;
    }
    if (error && k->hyper && !k->hyper_reason) {
        CLEANUP_FREE char *why = str_printf("it cannot rehearse: %s", error->message);
        vm_break(k, why);
    }
    rehearsal_end(k, error);
}

static void rehearsal_late(void *arg)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_TIMEOUT, 0, "it does not end");
    rehearsal_go_on(arg, error);
}

int rehearsal_begin(struct keeper *k, const struct wire_vm_rehearse *m, struct error **ret_error)
{
    struct wire_pod_setup setup = {.hostname = "rehearsal"};
    if (vm_check_usable(k, ret_error) < 0)
        return -1;
    if (*k->pod || k->placing || k->containers)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM has a pod");
    struct rehearsal *r = k->rehearsal = xcalloc(1, sizeof(*r));
    r->image = xstrdup(m->image_path);
    r->layer = xstrdup(m->layer_path);
    r->root_image = xstrdup(m->root_image);
    r->root_layer = xstrdup(m->root_layer);
    r->program = xstrdup(m->program);
    r->path = xstrdup(m->path);
    r->last = str_empty(m->root_layer) ? LEAVING : PREPARING;
    r->deadline = timer_new(k->loop, rehearsal_late, k);
    timer_set(r->deadline, REHEARSAL_DEADLINE_MS);
    ask_add(k, &r->asks, m->seq, NULL);
    guest_request(k, WIRE_POD_SETUP, 0, &setup, guest_answered, r);
    return 0;
}
