/* The making of a template, a step after the other:
 *
 *     disks      a worker makes what the rehearsal needs; or, of an image, its layer
 *     memory     of an image: a worker copies the generic template's
 *     boot       a keeper boots a guest whose memory is our file; or that goes on from there
 *     rehearse   a container is run in it, so that what every pod needs was used once; not of an
 *                image, whose programs nobody asked for
 *     freeze     the guest mounts the image's root; the state of the devices goes into a file, QEMU
 *                ends
 *     save       the memory is sealed; a worker writes it beside the state
 *
 * Its keeper is in vms/tpl-ID-xxxx and in no world: should we die, the next daemon ends it as a stranger
 * and removes what is unfinished.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "exec/template.h"

enum {
    REHEARSALS = 2,
    STEP_DEADLINE_MS = 120 * 1000, /* beside those of the boot and of jobs */
};

struct make {
    struct template *t;
    const char *step;
    struct link *link; /* the keeper's; NULL: none yet, or none any more */
    struct ask *ask;
    struct job *job;
    struct timer *deadline;
    struct error *failed;
    int memory;
    unsigned rehearsals;              /* that are left */
    char *vm, *image, *layer, *stage; /* image and layer: relative to the root */
    char *of, **of_inputs;            /* the generic template's directory; NULL: it is generic */
    uint64_t state_bytes;
};

const char *template_make_step(const struct template *t)
{
    return t->make->step;
}

/* ---- the end -------------------------------------------------------------------------------- */

/* The keeper and all that is its VM's. */
static void make_end_vm(struct make *m)
{
    struct exec *exec = m->t->exec;
    CLEANUP_FREE char *path = path_of_vm(m->vm);
    const char *const paths[] = {path, NULL};
    if (m->ask)
        ask_forget(take(m->ask));
    struct link *link = take(m->link);
    if (link && link->conn && link->gone) {
        link_dismiss(link);
    } else {
        link_kill_leftovers(exec, m->vm);
        if (link)
            link_free(link);
    }
    pool_remove(exec->pool, paths, NULL, NULL);
}

static void make_free(struct make *m)
{
    m->t->make = NULL;
    if (m->job)
        job_forget(m->job);
    make_end_vm(m);
    template_files_remove(m->t->exec, m->stage);
    if (m->memory >= 0)
        close(m->memory);
    timer_free(m->deadline);
    error_free(m->failed);
    free(m->vm);
    free(m->image);
    free(m->layer);
    free(m->stage);
    free(m->of);
    strv_free(m->of_inputs);
    free(m);
}

void template_make_cancel(struct template *t)
{
    make_free(t->make);
}

/* In a later turn: the link may be at its end, and is in use by who calls. */
static void make_fail(struct make *m, const struct error *why)
{
    if (m->failed)
        return;
    error_set(&m->failed, why->kind, 0, "making it failed at step '%s': %s", m->step, why->message);
    timer_set(m->deadline, 0);
}

static void make_over(void *arg)
{
    struct make *m = arg;
    struct template *t = m->t;
    CLEANUP_ERROR struct error *error = take(m->failed);
    if (!error)
        error_set(&error, ERROR_TIMEOUT, 0, "step '%s' took longer than %d s", m->step,
                  STEP_DEADLINE_MS / 1000);
    make_free(m);
    template_made(t, -1, 0, error);
}

static void make_step(struct make *m, const char *step)
{
    m->step = step;
    timer_unset(m->deadline);
    template_changed(m->t);
}

/* ---- save ----------------------------------------------------------------------------------- */

static void saved(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    struct template *t = m->t;
    m->job = NULL;
    if (error) {
        make_fail(m, error);
        return;
    }
    int memory = m->memory;
    m->memory = -1;
    make_free(m);
    template_made(t, memory, value, NULL);
}

static void frozen(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    struct exec *exec = m->t->exec;
    CLEANUP_ERROR struct error *sealing = NULL;
    m->ask = NULL;
    if (!error && template_memory_seal(m->memory, &sealing) < 0)
        error = sealing;
    if (error) {
        make_fail(m, error);
        return;
    }
    make_step(m, "save");
    CLEANUP_FREE char *dir = str_printf("%s/%s", exec->config.template_dir, m->stage);
    CLEANUP_FREE char *path = template_path(m->t);
    CLEANUP_FREE char *layer = m->t->image ? path_full(exec, m->layer) : xstrdup("");
    const struct template_files files = {
        .dir = dir, .path = path, .layer = layer, .inputs = (const char *const *)m->t->inputs};
    m->job = pool_template_save(exec->pool, fcntl(m->memory, F_DUPFD_CLOEXEC, 0), &files, saved, m);
}

/* ---- freeze --------------------------------------------------------------------------------- */

static void freeze(struct make *m)
{
    struct exec *exec = m->t->exec;
    CLEANUP_ERROR struct error *error = NULL;
    make_step(m, "freeze");
    template_files_remove(exec, m->stage); /* of a making that failed before */
    CLEANUP_FREE char *dir = str_printf("%s/%s", exec->config.template_dir, m->stage);
    CLEANUP_FREE char *state = str_printf("%s/state", dir);
    if (mkdir(exec->config.template_dir, 0700) < 0 && errno != EEXIST)
        error_set(&error, ERROR_IO, errno, "mkdir '%s'", exec->config.template_dir);
    else if (mkdir(dir, 0700) < 0)
        error_set(&error, ERROR_IO, errno, "mkdir '%s'", dir);
    if (error) {
        make_fail(m, error);
        return;
    }
    CLEANUP_FREE char *image = path_full(exec, m->image);
    CLEANUP_FREE char *layer = path_full(exec, m->layer);
    struct wire_vm_freeze message = {.state = state};
    if (m->t->image) {
        message.image_path = image;
        message.layer_path = layer;
        image_program(template_image(m->t), &message.program, &message.path);
    }
    timer_set(m->deadline, STEP_DEADLINE_MS);
    m->ask = link_ask(m->link, WIRE_VM_FREEZE, &message, -1, frozen, m);
}

/* ---- rehearse ------------------------------------------------------------------------------- */

static void go_on(struct make *m);

static void rehearsed(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    m->ask = NULL;
    m->rehearsals--;
    if (error)
        make_fail(m, error);
    else
        go_on(m);
}

static void rehearse(struct make *m)
{
    struct exec *exec = m->t->exec;
    CLEANUP_FREE char *image = path_full(exec, m->image);
    CLEANUP_FREE char *layer = path_full(exec, m->layer);
    struct wire_vm_rehearse message = {.image_path = image, .layer_path = layer};
    make_step(m, "rehearse");
    timer_set(m->deadline, STEP_DEADLINE_MS);
    m->ask = link_ask(m->link, WIRE_VM_REHEARSE, &message, -1, rehearsed, m);
}

static void go_on(struct make *m)
{
    if (m->rehearsals)
        rehearse(m);
    else
        freeze(m);
}

/* ---- boot ----------------------------------------------------------------------------------- */

static void booted(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    m->ask = NULL;
    if (error)
        make_fail(m, error);
    else
        go_on(m);
}

static int boot(struct make *m, struct error **ret_error)
{
    struct template *t = m->t;
    struct exec *exec = t->exec;
    struct wire_vm_boot message = {0};
    const char *reason;
    CLEANUP_FREE char *state = m->of ? str_printf("%s/state", m->of) : NULL;
    CLEANUP_FREE char *image = str_printf("ro:%s/%s", exec->config.root, m->image);
    CLEANUP_FREE char *layer = str_printf("rw:%s/%s", exec->config.root, m->layer);
    const char *const disks[] = {image, layer, NULL};
    if (boot_check(&exec->config, ret_error) < 0)
        return -1;
    m->link = link_new(exec, m->vm, REF_NONE);
    m->link->makes_template = true;
    if (link_spawn(m->link, ret_error) < 0)
        return -1;
    boot_message(exec, exec_accel(exec, &reason), &message);
    message.vm = m->vm;
    message.mode = WIRE_BOOT_TEMPLATE;
    message.cpus = 1;
    message.memory_bytes = message.base_bytes = t->base_bytes;
    message.boot_deadline_ms = exec->config.boot_deadline_ms;
    if (m->of) {
        message.state = state;
        message.disks = disks;
    }
    m->ask =
        link_ask(m->link, WIRE_VM_BOOT, &message, fcntl(m->memory, F_DUPFD_CLOEXEC, 0), booted, m);
    return 0;
}

static void memory_made(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    CLEANUP_ERROR struct error *failed = NULL;
    m->job = NULL;
    if (!error) {
        make_step(m, "boot");
        boot(m, &failed);
        error = failed;
    }
    if (error)
        make_fail(m, error);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void disks_made(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    struct exec *exec = m->t->exec;
    CLEANUP_ERROR struct error *failed = NULL;
    m->job = NULL;
    if (!error && template_memory_make(m->t, &m->memory, &failed) < 0)
        error = failed;
    if (error) {
        make_fail(m, error);
    } else if (!m->of) {
        memory_made(NULL, 0, m);
    } else {
        make_step(m, "memory");
        m->job = pool_template_load(exec->pool, fcntl(m->memory, F_DUPFD_CLOEXEC, 0), m->of,
                                    (const char *const *)m->of_inputs, memory_made, m);
    }
}

/* ---- disks ---------------------------------------------------------------------------------- */

static void disks_of_rehearsal(struct make *m, const char *directory)
{
    struct exec *exec = m->t->exec;
    m->rehearsals = REHEARSALS;
    m->image = rehearsal_image(&exec->config);
    m->layer = str_printf("%s/rehearsal.ext4", directory);
    m->job = pool_rehearsal(exec->pool, directory, m->image, m->layer, disks_made, m);
}

/* Its generic one is ready: see may_be_made() of template.c. */
static void disks_of_image(struct make *m, const char *directory)
{
    struct exec *exec = m->t->exec;
    const struct template *of = template_find_base(exec, m->t->base_bytes);
    m->of = template_path(of);
    m->of_inputs = strv_copy((const char *const *)of->inputs);
    m->image = template_image_file(m->t);
    m->layer = str_printf("%s/layer.ext4", directory);
    const struct layer_spec layer = {m->layer, m->image, exec->config.layer_size, ""};
    m->job = pool_layer(exec->pool, directory, &layer, disks_made, m);
}

void template_make(struct template *t)
{
    struct exec *exec = t->exec;
    struct make *m = xcalloc(1, sizeof(*m));
    t->make = m;
    m->t = t;
    m->memory = -1;
    m->vm = template_vm_name(t);
    CLEANUP_FREE char *directory = path_of_vm(m->vm);
    m->stage = template_stage(t);
    m->deadline = timer_new(exec->loop, make_over, m);
    log_info("template '%s' is being made", t->id);
    m->step = "disks";
    if (t->image)
        disks_of_image(m, directory);
    else
        disks_of_rehearsal(m, directory);
}
