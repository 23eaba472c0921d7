/* Templates of images: which there are, and whom they serve.
 *
 * Such a template's memory knows what is on the layer's disk, so the two must fit for ever: a VM
 * may only get it with a layer that nobody has written to since it was copied from the template's.
 * That is so while the layer begins as the template's does. It begins with a mark by chance, which
 * the keeper wipes before a clone sees the disk; any other VM mounts the layer first, and that
 * changes the superblock behind the mark. The bytes are only compared: what a guest has written is
 * not read.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "exec/template.h"

/* ---- the table ------------------------------------------------------------------------------ */

/* The id that the one of this image has, if there is one: of its file as it is now. */
static char **image_inputs(const struct template *generic, const struct image *image,
                           char ret_id[TEMPLATE_ID_MAX + 1])
{
    char **inputs =
        template_image_inputs(&generic->exec->config, (const char *const *)generic->inputs, image);
    template_image_id_make((const char *const *)inputs, image, ret_id);
    return inputs;
}

static bool is_id(const char *id, const struct template *generic, const struct image *image)
{
    char now[TEMPLATE_ID_MAX + 1];
    strv_free(image_inputs(generic, image, now));
    return str_eq(id, now);
}

struct template *template_of_image(const struct template *generic, const struct image *image)
{
    struct exec *exec = generic->exec;
    char id[TEMPLATE_ID_MAX + 1];
    char **inputs = image_inputs(generic, image, id);
    struct template *t = template_find(exec, id);
    if (!t)
        return template_new(exec, generic->base_bytes, image, inputs);
    strv_free(inputs);
    return t;
}

/* The largest generic one that is ready and serves. */
static struct template *generic_for(const struct exec *exec, uint64_t memory_bytes)
{
    struct template *t, *found = NULL;
    DL_FOREACH(exec->templates->list, t) /* in the order of their memory */
        if (!t->image && t->state == TEMPLATE_READY && template_serves(t, memory_bytes))
            found = t;
    return found;
}

static bool are_made(const struct exec *exec)
{
    return exec->templates->begun && exec->config.template_images && !storage_attaches(exec);
}

/* The one that is ready for a container; NULL if there is none. */
static struct template *image_ready(const struct exec *exec, const struct pod *pod,
                                    const struct container *ctr)
{
    const struct image *image = world_image(exec->world, ctr->image);
    struct template *t, *found = NULL;
    if (!are_made(exec) || !image || pod->spec.storage_mb << 20 != exec->config.layer_size)
        return NULL;
    DL_FOREACH(exec->templates->list, t)
        if (t->image && t->state == TEMPLATE_READY && str_eq(t->image, image->id) &&
            template_serves(t, pod->spec.memory_mb << 20))
            found = t;
    const struct template *generic = found ? template_find_base(exec, found->base_bytes) : NULL;
    return generic && is_id(found->id, generic, image) ? found : NULL;
}

const struct image *template_image(const struct template *t)
{
    struct image *image = NULL;
    world_find_image(t->exec->world, t->image, &image, NULL);
    return image;
}

char *template_image_file(const struct template *t)
{
    return xstrdup(image_file(template_image(t)));
}

void image_program(const struct image *image, const char **ret_program, const char **ret_path)
{
    const struct image_config *config = image ? &image->config : NULL;
    char **argv = !config ? NULL : config->entrypoint ? config->entrypoint : config->command;
    *ret_program = argv && *argv ? *argv : "";
    *ret_path = "";
    STRV_FOREACH(variable, config ? config->env : NULL)
        if (str_starts(*variable, "PATH="))
            *ret_path = *variable + strlen("PATH=");
}

void template_images_trim(struct templates *ts)
{
    struct template *t, *next;
    DL_FOREACH_SAFE(ts->list, t, next)
        if (t->image && t->state == TEMPLATE_ABSENT && !t->wanted && !t->starting &&
            !t->files_doomed) {
            DL_DELETE(ts->list, t);
            template_free(t);
        }
}

bool template_image_found(struct templates *ts, const char *name)
{
    struct exec *exec = ts->exec;
    struct template *generic;
    if (!are_made(exec))
        return false;
    WORLD_FOREACH(struct image, image, exec->world, NOUN_IMAGE) {
        DL_FOREACH(ts->list, generic) {
            if (generic->image || image->state != IMAGE_PRESENT || !is_id(name, generic, image))
                continue;
            template_of_image(generic, image)->wanted = true;
            return true;
        }
    }
    return false;
}

/* ---- use ------------------------------------------------------------------------------------ */

static char *layer_path(const struct template *t)
{
    CLEANUP_FREE char *path = template_path(t);
    return str_printf("%s/layer", path);
}

static bool head_read(const char *path, uint8_t ret[LAYER_HEAD_SIZE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : pread(fd, ret, LAYER_HEAD_SIZE, 0);
    if (fd >= 0)
        close(fd);
    return n == LAYER_HEAD_SIZE;
}

int template_head_read(struct template *t, struct error **ret_error)
{
    if (!t->image)
        return 0;
    CLEANUP_FREE char *layer = layer_path(t);
    return head_read(layer, t->head)
               ? 0
               : error_set(ret_error, ERROR_CORRUPT, 0, "'%s' cannot be read", layer);
}

bool template_layer_fits(const struct template *t, const char *layer)
{
    CLEANUP_FREE char *path = path_full(t->exec, layer);
    uint8_t head[LAYER_HEAD_SIZE];
    return head_read(path, head) && memcmp(head, t->head, sizeof(head)) == 0;
}

static bool is_fresh(const struct template *t, const struct pod *pod, const struct container *ctr)
{
    CLEANUP_FREE char *layer = path_of_layer(t->exec, pod, ctr);
    return template_layer_fits(t, layer);
}

struct template *template_choose_rooted(struct template *generic, const struct vm *vm,
                                        struct ref *ret_ctr)
{
    const struct exec *exec = generic->exec;
    const struct pod *pod = world_pod(exec->world, vm->pod);
    *ret_ctr = REF_NONE;
    if (!pod)
        return generic;
    POD_FOREACH_CTR(ctr, pod) {
        struct template *t = image_ready(exec, pod, ctr);
        if (!t || !is_fresh(t, pod, ctr))
            continue;
        /* What it spares is less than what a zygote does. */
        if (zygote_is_ready(generic->zygote) && !zygote_is_ready(t->zygote))
            continue;
        *ret_ctr = ctr->object.ref;
        return t;
    }
    return generic;
}

char **template_layers(const struct exec *exec)
{
    const struct template *t;
    char **layers = NULL;
    DL_FOREACH(exec->templates->list, t)
        if (t->image && t->state == TEMPLATE_READY)
            strv_push_take(&layers, layer_path(t));
    return layers;
}

char *template_layer(struct exec *exec, const struct pod *pod, const struct container *ctr)
{
    const struct template *t = image_ready(exec, pod, ctr);
    return t ? layer_path(t) : xstrdup("");
}

void template_image_used(struct exec *exec, const struct container *ctr)
{
    const struct pod *pod = world_pod(exec->world, ctr->pod);
    const struct image *image = world_image(exec->world, ctr->image);
    const struct template *generic =
        pod && image && are_made(exec) ? generic_for(exec, pod->spec.memory_mb << 20) : NULL;
    if (!generic || pod->spec.storage_mb << 20 != exec->config.layer_size)
        return;
    bool room = template_has_room(exec);
    struct template *t = template_of_image(generic, image);
    if (t->state == TEMPLATE_ABSENT && !t->wanted && room)
        t->wanted = true;
    zygote_want(t->zygote);
    templates_look(exec->templates);
}

void templates_forget_image(struct exec *exec, const struct image *image)
{
    struct template *t;
    DL_FOREACH(exec->templates->list, t)
        if (t->image && str_eq(t->image, image->id))
            template_drop(t);
    templates_look(exec->templates);
}
