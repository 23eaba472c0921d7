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
 * Its keeper is in vms/tpl-ID-xxxx and in no world: should we die, the next daemon ends it as a
 * stranger and removes what is unfinished.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "exec/making.h"
#include "exec/template.h"

struct make {
    struct making making; /* its image and layer: of the rehearsal, or of the image */
    struct template *t;
    int memory;
    char *stage;
    char *of, **of_inputs; /* the generic template's directory; NULL: it is generic */
};

const char *template_make_step(const struct template *t)
{
    return t->make->making.step;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void make_free(struct make *m)
{
    m->t->make = NULL;
    making_done(&m->making);
    template_files_remove(m->t->exec, m->stage);
    if (m->memory >= 0)
        close(m->memory);
    free(m->stage);
    free(m->of);
    strv_free(m->of_inputs);
    free(m);
}

void template_make_cancel(struct template *t)
{
    make_free(t->make);
}

static void make_over(struct making *making, const struct error *why)
{
    struct make *m = (struct make *)making;
    struct template *t = m->t;
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, why->kind, 0, "making it failed at %s", why->message);
    make_free(m);
    template_made(t, -1, 0, error);
}

static void make_changed(struct making *making)
{
    template_changed(((struct make *)making)->t);
}

static const struct making_ops make_ops = {
    .writes_template = true, .over = make_over, .changed = make_changed};

/* ---- save ----------------------------------------------------------------------------------- */

static void saved(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    struct template *t = m->t;
    m->making.job = NULL;
    if (error) {
        making_fail(&m->making, error);
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
    m->making.ask = NULL;
    if (!error && template_memory_seal(m->memory, &sealing) < 0)
        error = sealing;
    if (error) {
        making_fail(&m->making, error);
        return;
    }
    making_step(&m->making, "save");
    CLEANUP_FREE char *dir = str_printf("%s/%s", exec->config.template_dir, m->stage);
    CLEANUP_FREE char *path = template_path(m->t);
    CLEANUP_FREE char *layer = m->t->image ? path_full(exec, m->making.layer) : xstrdup("");
    const struct template_files files = {
        .dir = dir, .path = path, .layer = layer, .inputs = (const char *const *)m->t->inputs};
    m->making.job =
        pool_template_save(exec->pool, fcntl(m->memory, F_DUPFD_CLOEXEC, 0), &files, saved, m);
}

/* ---- freeze --------------------------------------------------------------------------------- */

static void freeze(struct make *m)
{
    struct exec *exec = m->t->exec;
    CLEANUP_ERROR struct error *error = NULL;
    making_step(&m->making, "freeze");
    template_files_remove(exec, m->stage); /* of a making that failed before */
    CLEANUP_FREE char *dir = str_printf("%s/%s", exec->config.template_dir, m->stage);
    CLEANUP_FREE char *state = str_printf("%s/state", dir);
    if (mkdir(exec->config.template_dir, 0700) < 0 && errno != EEXIST)
        error_set(&error, ERROR_IO, errno, "mkdir '%s'", exec->config.template_dir);
    else if (mkdir(dir, 0700) < 0)
        error_set(&error, ERROR_IO, errno, "mkdir '%s'", dir);
    if (error) {
        making_fail(&m->making, error);
        return;
    }
    CLEANUP_FREE char *image = path_full(exec, m->making.image);
    CLEANUP_FREE char *layer = path_full(exec, m->making.layer);
    struct wire_vm_freeze message = {.state = state};
    if (m->t->image) {
        message.image_path = image;
        message.layer_path = layer;
        image_program(template_image(m->t), &message.program, &message.path);
    }
    timer_set(m->making.deadline, MAKING_DEADLINE_MS);
    m->making.ask = link_ask(m->making.link, WIRE_VM_FREEZE, &message, -1, frozen, m);
}

/* ---- rehearse ------------------------------------------------------------------------------- */

static void go_on(struct make *m);

static void rehearsed(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    m->making.ask = NULL;
    m->making.rehearsals--;
    if (error)
        making_fail(&m->making, error);
    else
        go_on(m);
}

static void go_on(struct make *m)
{
    if (m->making.rehearsals)
        making_rehearse(&m->making, rehearsed, m);
    else
        freeze(m);
}

/* ---- boot ----------------------------------------------------------------------------------- */

static void booted(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    m->making.ask = NULL;
    if (error)
        making_fail(&m->making, error);
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
    CLEANUP_FREE char *image = str_printf("ro:%s/%s", exec->config.root, m->making.image);
    CLEANUP_FREE char *layer = str_printf("rw:%s/%s", exec->config.root, m->making.layer);
    const char *const disks[] = {image, layer, NULL};
    if (boot_check(&exec->config, ret_error) < 0)
        return -1;
    if (making_spawn(&m->making, ret_error) < 0)
        return -1;
    boot_message(exec, exec_accel(exec, &reason), &message);
    message.vm = m->making.vm;
    message.mode = WIRE_BOOT_TEMPLATE;
    message.cpus = 1;
    message.memory_bytes = message.base_bytes = t->base_bytes;
    message.boot_deadline_ms = exec->config.boot_deadline_ms;
    if (m->of) {
        message.state = state;
        message.disks = disks;
    }
    m->making.ask = link_ask(m->making.link, WIRE_VM_BOOT, &message,
                             fcntl(m->memory, F_DUPFD_CLOEXEC, 0), booted, m);
    return 0;
}

static void memory_made(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    CLEANUP_ERROR struct error *failed = NULL;
    m->making.job = NULL;
    if (!error) {
        making_step(&m->making, "boot");
        boot(m, &failed);
        error = failed;
    }
    if (error)
        making_fail(&m->making, error);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void disks_made(const struct error *error, uint64_t value, void *arg)
{
    struct make *m = arg;
    struct exec *exec = m->t->exec;
    CLEANUP_ERROR struct error *failed = NULL;
    m->making.job = NULL;
    if (!error && template_memory_make(m->t, &m->memory, &failed) < 0)
        error = failed;
    if (error) {
        making_fail(&m->making, error);
    } else if (!m->of) {
        memory_made(NULL, 0, m);
    } else {
        making_step(&m->making, "memory");
        m->making.job = pool_template_load(exec->pool, fcntl(m->memory, F_DUPFD_CLOEXEC, 0), m->of,
                                           (const char *const *)m->of_inputs, memory_made, m);
    }
}

/* ---- disks ---------------------------------------------------------------------------------- */

/* Its generic one is ready: see may_be_made() of template.c. */
static void disks_of_image(struct make *m, const char *directory)
{
    struct exec *exec = m->t->exec;
    const struct template *of = template_find_base(exec, m->t->base_bytes);
    m->of = template_path(of);
    m->of_inputs = strv_copy((const char *const *)of->inputs);
    m->making.image = template_image_file(m->t);
    m->making.layer = str_printf("%s/layer.ext4", directory);
    const struct layer_spec layer = {m->making.layer, m->making.image, exec->config.layer_size, ""};
    m->making.job = pool_layer(exec->pool, directory, &layer, disks_made, m);
}

void template_make(struct template *t)
{
    struct exec *exec = t->exec;
    struct make *m = xcalloc(1, sizeof(*m));
    t->make = m;
    m->t = t;
    m->memory = -1;
    making_init(&m->making, exec, template_vm_name(t, TEMPLATE_VM), &make_ops);
    CLEANUP_FREE char *directory = path_of_vm(m->making.vm);
    m->stage = template_stage(t);
    log_info("template '%s' is being made", t->id);
    if (t->image)
        disks_of_image(m, directory);
    else
        making_rehearsal_disks(&m->making, directory, disks_made, m);
}
