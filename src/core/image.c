/* The life of an image: added with names, tagged, removed when nobody uses it. */
#include <stdlib.h>

#include "base/str.h"
#include "core/core_int.h"

static int image_is_new(const struct world *world, const struct image *facts,
                        struct error **ret_error)
{
    struct image *old = world_image_by_id(world, facts->id);

    if (old && old->state == IMAGE_REMOVING)
        return error_set(ret_error, ERROR_BUSY, 0,
                         "image '%s' is being removed: add it again in a moment", facts->id);
    if (!old && world->tables[NOUN_IMAGE].count >= IMAGES_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "there are %d images already", IMAGES_MAX);
    if (strv_count((const char *const *)facts->names) > IMAGE_NAMES_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "image '%s' has more than %d names", facts->id,
                         IMAGE_NAMES_MAX);
    return 0;
}

static struct image *image_make(struct core *core, const struct image *facts,
                                struct error **ret_error)
{
    struct image *image = xcalloc(1, sizeof(*image));

    if (image_config_parse(facts->config_text, strlen(facts->config_text), &image->config,
                           ret_error) < 0) {
        free(image);
        return NULL;
    }
    memcpy(image->id, facts->id, sizeof(image->id));
    image->config_text = xstrdup(facts->config_text);
    image->size_bytes = facts->size_bytes;
    image->created_ns = facts->created_ns;
    image->files = strv_copy((const char *const *)facts->files);
    world_add_image(core->world, image);
    return image;
}

/* The same image again only gains names. Its files are the same, being named by content. */
void request_image_add(struct core *core, struct request *request)
{
    const struct image *facts = request->image_new;
    struct error *error = NULL;
    struct image *image = world_image_by_id(core->world, facts->id);

    if (image_is_new(core->world, facts, &error) == 0 && !image)
        image = image_make(core, facts, &error);
    if (error) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    STRV_FOREACH(name, facts->names)
        world_name_image(core->world, image, *name);
    world_tell(core->world, core->wall_ns, &image->object, "Added", "%s", "");
    core_answer(core, request->op, NULL, &image->object);
}

void request_image_tag(struct core *core, struct request *request)
{
    struct image *image = world_image(core->world, request->image);
    CLEANUP_FREE char *full = NULL;
    struct error *error = NULL;

    if (image->state != IMAGE_PRESENT)
        error_set(&error, ERROR_BUSY, 0, "image '%s' is being removed", image->id);
    else if (strv_count((const char *const *)image->names) >= IMAGE_NAMES_MAX)
        error_set(&error, ERROR_LIMIT, 0, "image '%s' has %d names already", image->id,
                  IMAGE_NAMES_MAX);
    else if (image_name_full(request->name, &full, &error) == 0)
        world_name_image(core->world, image, full);
    core_answer(core, request->op, error, &image->object);
}

/* What was typed, if it is one of the image's names; else NULL: it was an id. */
static char *name_of_request(const struct image *image, const struct request *request)
{
    CLEANUP_FREE char *full = NULL;

    if (!request->name || image_name_full(request->name, &full, NULL) < 0)
        return NULL;
    return strv_contains((const char *const *)image->names, full) ? take(full) : NULL;
}

static int image_may_go(const struct image *image, bool by_name, bool force,
                        struct error **ret_error)
{
    size_t names = strv_count((const char *const *)image->names);

    if (image->users)
        return error_set(ret_error, ERROR_BUSY, 0, "image '%s' is used by %u container%s",
                         object_name(&image->object), image->users, image->users > 1 ? "s" : "");
    if (!by_name && names > 1 && !force)
        return error_set(ret_error, ERROR_BUSY, 0, "image '%s' has %zu names: remove it with force",
                         image->id, names);
    return 0;
}

void request_image_remove(struct core *core, struct request *request)
{
    struct image *image = world_image(core->world, request->image);
    CLEANUP_FREE char *name = name_of_request(image, request);
    struct error *error = NULL;

    if (image->state == IMAGE_REMOVING) {
        op_add(core, request, &image->object);
        return;
    }
    if (name && image->names[1]) {
        world_unname_image(core->world, image, name);
        core_answer(core, request->op, NULL, &image->object);
        return;
    }
    if (image_may_go(image, name, request->force, &error) < 0) {
        core_answer(core, request->op, error, NULL);
        return;
    }
    world_tell(core->world, core->wall_ns, &image->object, "Removed", "%s", "");
    while (image->names)
        world_unname_image(core->world, image, image->names[0]);
    image->state = IMAGE_REMOVING;
    core_changed(core, &image->object);
    op_add(core, request, &image->object);
}

void image_advance(struct core *core, struct image *image)
{
    if (image->state == IMAGE_REMOVING && !image->effect && !image->timer)
        core_ask(core, EFFECT_IMAGE_FILES, &image->object, &image->effect);
}

void image_effect_done(struct core *core, struct image *image, enum effect_kind kind,
                       const struct error *error)
{
    if (!error) {
        ops_gone(core, &image->object);
        world_remove(core->world, &image->object);
        return;
    }
    while (image->ops)
        op_answer(core, image->ops, error_copy(error), 0);
    core_set_timer(core, &image->object, &image->timer, core_backoff_ms(image->retries++));
    core_wake(core, &image->object);
}
