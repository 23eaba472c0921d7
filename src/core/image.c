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

/* What came from a registry has a name with the digest of its manifest there, and the blobs that
 * this names: they count more than those of an archive, which may be packed in another way. */
static void image_take_files(struct core *core, struct image *image, const struct image *facts)
{
    bool from_registry = false;

    STRV_FOREACH(name, facts->names)
        from_registry = from_registry || strchr(*name, '@');
    if (!from_registry)
        return;
    strv_free(image->files);
    image->files = strv_copy((const char *const *)facts->files);
    core_changed(core, &image->object);
}

/* The same image again only gains names, and perhaps files. */
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
    image_take_files(core, image, facts);
    STRV_FOREACH(name, facts->names)
        world_name_image(core->world, image, *name);
    core_wake(core, &image->object);
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
    core_wake(core, &image->object);
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

/* Names by digest come with a pull; they are not counted where people give names. */
static size_t tags_count(const struct image *image)
{
    size_t count = 0;

    STRV_FOREACH(name, image->names)
        count += !strchr(*name, '@');
    return count;
}

static int image_may_go(const struct image *image, bool by_name, bool force,
                        struct error **ret_error)
{
    size_t names = tags_count(image);

    if (image->users)
        return error_set(ret_error, ERROR_BUSY, 0, "image '%s' is used by %u container%s",
                         object_name(&image->object), image->users, image->users > 1 ? "s" : "");
    if (!by_name && names > 1 && !force)
        return error_set(ret_error, ERROR_BUSY, 0,
                         "image '%s' has %zu names: 'rmi -f' removes them all", image->id, names);
    return 0;
}

/* The length of a name's repository: what is before its tag or digest. */
static size_t repository_length(const char *name)
{
    const char *at = strchr(name, '@'), *slash = strrchr(name, '/');
    const char *colon = at ? NULL : strchr(slash ? slash : name, ':');

    return at ? (size_t)(at - name) : colon ? (size_t)(colon - name) : strlen(name);
}

static bool same_repository(const char *a, const char *b)
{
    size_t length = repository_length(a);

    return length == repository_length(b) && strncmp(a, b, length) == 0;
}

/* Takes one name off; with the last tag of a repository go its digests. */
static void image_untag(struct core *core, struct image *image, const char *gone)
{
    bool tagged = strchr(gone, '@') != NULL;

    world_unname_image(core->world, image, gone);
    core_wake(core, &image->object);
    STRV_FOREACH(name, image->names)
        tagged = tagged || (!strchr(*name, '@') && same_repository(*name, gone));
    for (size_t i = 0; !tagged && image->names && image->names[i];) {
        CLEANUP_FREE char *name = xstrdup(image->names[i]);
        if (same_repository(name, gone))
            world_unname_image(core->world, image, name);
        else
            i++;
    }
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
    size_t others = name ? tags_count(image) - !strchr(name, '@') : 0;
    if (others > 0) {
        image_untag(core, image, name);
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

void image_wake(struct core *core, const char *id)
{
    struct image *image = id ? world_image_by_id(core->world, id) : NULL;

    if (image)
        core_wake(core, &image->object);
}

/* VMs of the pool are not users: they end, since it has no name any more, and are waited for. */
static bool vms_have(const struct core *core, const struct image *image)
{
    WORLD_FOREACH(struct vm, vm, core->world, NOUN_VM)
        if (str_eq(vm->image_id, image->id))
            return true;
    return false;
}

void image_advance(struct core *core, struct image *image)
{
    if (image->state == IMAGE_REMOVING && !image->effect && !image->timer && !vms_have(core, image))
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
