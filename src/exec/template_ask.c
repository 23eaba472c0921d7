/* What clients ask of templates: to see them, to remove or make one. */
#include <inttypes.h>
#include <stdio.h>
#include <utlist.h>

#include "exec/template.h"

/* ---- looking ----------------------------------------------------------------------------- */

static const char *template_state_name(enum template_state state)
{
    static const char *const names[] = {"absent", "loading", "building", "ready", "bad"};
    _Static_assert(ARRAY_SIZE(names) == TEMPLATE_STATE_COUNT, "a name for each state");
    return names[state];
}

static unsigned vms_of(const struct template *t)
{
    unsigned count = 0;
    WORLD_FOREACH(struct vm, vm, t->exec->world, NOUN_VM)
        count += str_eq(vm->template, t->id);
    return count;
}

static void info_fill(const struct template *t, struct template_info *ret)
{
    *ret = (struct template_info){
        .id = t->id,
        .image = str_or(t->image, ""),
        .state = template_state_name(t->state),
        .step = t->make ? template_make_step(t) : "",
        .reason = str_or(t->reason, ""),
        .memory_bytes = t->base_bytes,
        .disk_bytes = t->disk_bytes,
        .created_ns = t->created_ns,
        .used_ns = t->used_ns,
        .clones = t->clones,
        .vms = vms_of(t),
        .wanted = t->wanted,
        .inputs = (const char *const *)t->inputs,
    };
    zygote_info(t->zygote, ret);
}

void exec_templates_each(const struct exec *exec,
                         void (*each)(const struct template_info *info, void *arg), void *arg)
{
    struct template *t;
    struct template_info info;
    DL_FOREACH(exec->templates->list, t) {
        info_fill(t, &info);
        each(&info, arg);
    }
}

static int template_named(const struct exec *exec, const char *name, struct template **ret,
                          struct error **ret_error)
{
    struct template *t;
    struct image *image = NULL;
    bool is_id = false;
    *ret = NULL;
    DL_FOREACH(exec->templates->list, t)
        is_id |= str_starts(t->id, name);
    if (!is_id)
        world_find_image(exec->world, name, &image, NULL);
    DL_FOREACH(exec->templates->list, t) {
        if (is_id ? !str_starts(t->id, name) : !image || !str_eq(t->image, image->id))
            continue;
        if (*ret)
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' may be template '%s' or '%s'", name,
                             (*ret)->id, t->id);
        *ret = t;
    }
    if (!*ret)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "there is no template '%s'", name);
    return 0;
}

int exec_template_get(const struct exec *exec, const char *name, struct template_info *ret,
                      struct error **ret_error)
{
    struct template *t;
    if (template_named(exec, name, &t, ret_error) < 0)
        return -1;
    info_fill(t, ret);
    return 0;
}

/* ---- changing ------------------------------------------------------------------------------- */

int exec_template_remove(struct exec *exec, const char *name, struct error **ret_error)
{
    struct template *t;
    if (template_named(exec, name, &t, ret_error) < 0)
        return -1;
    if (t->state == TEMPLATE_ABSENT && !t->wanted)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "template '%s' is not made", t->id);
    template_drop(t);
    templates_look(exec->templates);
    boot_line_look(exec);
    return 0;
}

static int build_check(const struct exec *exec, struct error **ret_error)
{
    if (!exec->config.templates)
        return error_set(ret_error, ERROR_STATE, 0, "templates are switched off: set templates=on");
    if (exec->templates->unusable)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "%s", exec->templates->unusable);
    if (!exec->templates->begun)
        return error_set(ret_error, ERROR_BUSY, 0, "the daemon is starting: try again");
    return 0;
}

static void build(struct template *t, char *ret_id)
{
    snprintf(ret_id, TEMPLATE_ID_MAX + 1, "%s", t->id);
    if (t->state != TEMPLATE_BUILDING)
        template_drop(t);
    t->wanted = t->state == TEMPLATE_ABSENT;
    t->built_by_request = true;
    t->turn = 0;
    zygote_ask_for(t->zygote);
    templates_look(t->exec->templates);
}

int exec_template_build(struct exec *exec, uint64_t memory_bytes, char *ret_id,
                        struct error **ret_error)
{
    const struct exec_config *config = &exec->config;
    if (build_check(exec, ret_error) < 0)
        return -1;
    if (memory_bytes < TEMPLATE_MEMORY_MIN || memory_bytes > config->memory_max_bytes ||
        memory_bytes % TEMPLATE_MEMORY_STEP)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "a template of %" PRIu64 " MiB: it must have from %d to %" PRIu64
                         " MiB, in steps of %d",
                         memory_bytes >> 20, TEMPLATE_MEMORY_MIN >> 20,
                         config->memory_max_bytes >> 20, TEMPLATE_MEMORY_STEP >> 20);
    templates_check(exec->templates);
    build(template_of_base(exec, memory_bytes), ret_id);
    return 0;
}

int exec_template_build_image(struct exec *exec, const struct image *image, char *ret_id,
                              struct error **ret_error)
{
    const struct exec_config *config = &exec->config;
    if (build_check(exec, ret_error) < 0)
        return -1;
    if (!config->template_images || storage_attaches(exec))
        return error_set(ret_error, ERROR_STATE, 0,
                         "templates of images are not made: they need template_images=on and "
                         "storage=block");
    if (!config->template_size_count)
        return error_set(ret_error, ERROR_STATE, 0,
                         "there is no memory for it: set template_sizes");
    templates_check(exec->templates);
    struct template *of = template_of_base(exec, config->template_sizes[0]);
    if (of->state == TEMPLATE_ABSENT)
        of->wanted = true; /* it is made first */
    build(template_of_image(of, image), ret_id);
    return 0;
}
