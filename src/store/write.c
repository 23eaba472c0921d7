/* The world into rows. The order of the columns is that of the schema. */
#include <jansson.h>
#include <stdlib.h>

#include "base/str.h"
#include "store/store_int.h"

/* Binds values to the columns of one row, from the left. */
struct row {
    sqlite3_stmt *statement;
    int column;
};

static void put_int(struct row *row, int64_t value)
{
    sqlite3_bind_int64(row->statement, ++row->column, value);
}

/* Bound by reference: it must live until the row is written. NULL is NULL. */
static void put_text(struct row *row, const char *value)
{
    sqlite3_bind_text(row->statement, ++row->column, value, -1, SQLITE_STATIC);
}

/* Taken over. */
static void put_owned(struct row *row, char *value)
{
    sqlite3_bind_text(row->statement, ++row->column, value, -1, free);
}

static char *list_text(char *const *list)
{
    json_t *array = json_array();

    STRV_FOREACH(s, list)
        json_array_append_new(array, json_string(*s));
    char *text = json_dumps(array, JSON_COMPACT);

    json_decref(array);
    return text;
}

static int write_names(struct store *store, const struct image *image, struct error **ret_error)
{
    int place = 0;
    sqlite3_stmt *s = store_statement(store, DELETE_NAMES);

    sqlite3_bind_text(s, 1, image->id, -1, SQLITE_STATIC);
    if (store_step(store, s, ret_error) < 0)
        return -1;
    STRV_FOREACH(name, image->names) {
        struct row row = {store_statement(store, PUT_NAME), 0};

        put_text(&row, *name);
        put_text(&row, image->id);
        put_int(&row, place++);
        if (store_step(store, row.statement, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int write_image(struct store *store, const struct world *world, const void *object,
                       struct error **ret_error)
{
    const struct image *image = object;
    struct row row = {store_statement(store, PUT_IMAGE), 0};

    put_text(&row, image->id);
    put_text(&row, image_state_name(image->state));
    put_text(&row, image->config_text);
    put_int(&row, (int64_t)image->size_bytes);
    put_int(&row, image->created_ns);
    put_owned(&row, list_text(image->files));
    if (store_step(store, row.statement, ret_error) < 0)
        return -1;
    return write_names(store, image, ret_error);
}

static int write_vm(struct store *store, const struct world *world, const void *object,
                    struct error **ret_error)
{
    const struct vm *vm = object;
    struct row row = {store_statement(store, PUT_VM), 0};

    put_text(&row, vm->id);
    put_text(&row, vm_state_name(vm->state));
    put_int(&row, vm->cpus);
    put_int(&row, (int64_t)vm->memory_mb);
    put_text(&row, vm->accel);
    put_text(&row, vm->machine);
    put_int(&row, vm->qemu_pid);
    put_int(&row, vm->created_ns);
    put_int(&row, vm->paused);
    put_int(&row, vm->dead);
    put_text(&row, vm->reason);
    put_int(&row, vm->pooled);
    put_text(&row, vm->template);
    put_text(&row, vm->image_id);
    put_int(&row, (int64_t)vm->layer_mb);
    return store_step(store, row.statement, ret_error);
}

static int write_pod(struct store *store, const struct world *world, const void *object,
                     struct error **ret_error)
{
    const struct pod *pod = object;
    const struct vm *vm = world_vm(world, pod->vm);
    CLEANUP_BUF struct buf spec = {0};
    struct row row = {store_statement(store, PUT_POD), 0};

    pod_spec_write(&pod->spec, false, &spec);
    put_text(&row, pod->uid);
    put_text(&row, pod->spec.id);
    put_owned(&row, buf_take_str(&spec));
    put_int(&row, pod->created_ns);
    put_int(&row, pod->started_ns);
    put_text(&row, pod_want_name(pod->want));
    put_text(&row, pod_state_name(pod->state));
    put_int(&row, pod->step);
    put_text(&row, vm ? vm->id : NULL);
    put_text(&row, pod->target_vm);
    put_int(&row, pod->placed);
    put_int(&row, pod->keep_vm);
    put_int(&row, pod->failed);
    put_text(&row, pod->reason);
    put_int(&row, pod->backoff);
    put_int(&row, pod->restart_ns);
    put_int(&row, pod->grace_ms);
    put_int(&row, pod->expires_ns);
    return store_step(store, row.statement, ret_error);
}

static int write_ctr(struct store *store, const struct world *world, const void *object,
                     struct error **ret_error)
{
    const struct container *ctr = object;
    const struct pod *pod = world_pod(world, ctr->pod);
    CLEANUP_BUF struct buf spec = {0};
    struct row row = {store_statement(store, PUT_CTR), 0};

    ctr_spec_write(&ctr->spec, &spec);
    put_text(&row, ctr->id);
    put_text(&row, pod->uid);
    put_int(&row, ctr->place);
    put_owned(&row, buf_take_str(&spec));
    put_text(&row, ctr->image_id);
    put_text(&row, ctr_want_name(ctr->want));
    put_text(&row, ctr_state_name(ctr->state));
    put_int(&row, (int64_t)ctr->run);
    put_int(&row, ctr->restarts);
    put_int(&row, ctr->backoff);
    put_int(&row, ctr->restart_ns);
    put_int(&row, ctr->stop_asked);
    put_int(&row, ctr->held);
    put_int(&row, ctr->created_ns);
    put_int(&row, ctr->started_ns);
    put_int(&row, ctr->finished_ns);
    put_int(&row, ctr->exit_code);
    put_int(&row, ctr->exit_signal);
    put_int(&row, ctr->oom);
    put_int(&row, ctr->succeeded);
    put_text(&row, ctr->reason);
    put_int(&row, ctr->grace_ms);
    return store_step(store, row.statement, ret_error);
}

/* The feed goes on where it was, and keeps its last store->feed_keep lines. */
static int write_feed(struct store *store, struct world *world, struct error **ret_error)
{
    for (struct feed_event *event = world->feed; event; event = event->next) {
        struct row row = {store_statement(store, PUT_EVENT), 0};

        event->revision = ++store->revision;
        put_int(&row, (int64_t)event->revision);
        put_int(&row, event->time_ns);
        put_text(&row, noun_name(event->noun));
        put_text(&row, event->id);
        put_text(&row, event->name);
        put_text(&row, event->reason);
        put_text(&row, event->message);
        if (store_step(store, row.statement, ret_error) < 0)
            return -1;
    }
    if (!world->feed || store->revision <= store->feed_keep)
        return 0;
    struct row row = {store_statement(store, TRIM_FEED), 0};

    put_int(&row, (int64_t)(store->revision - store->feed_keep));
    return store_step(store, row.statement, ret_error);
}

/* The dead first: a name that was theirs may have a new owner in the same turn. */
static int write_dead(struct store *store, const struct world *world, struct error **ret_error)
{
    static const enum statement deletes[NOUN_COUNT] = {
        [NOUN_POD] = DELETE_POD,
        [NOUN_CTR] = DELETE_CTR,
        [NOUN_VM] = DELETE_VM,
        [NOUN_IMAGE] = DELETE_IMAGE,
    };

    for (const struct tombstone *t = world->buried; t; t = t->next) {
        sqlite3_stmt *s = store_statement(store, deletes[t->noun]);

        sqlite3_bind_text(s, 1, t->key, -1, SQLITE_STATIC);
        if (store_step(store, s, ret_error) < 0)
            return -1;
    }
    return 0;
}

int store_write_world(struct store *store, struct world *world, struct error **ret_error)
{
    static int (*const writers[NOUN_COUNT])(struct store *, const struct world *, const void *,
                                            struct error **) = {
        [NOUN_POD] = write_pod,
        [NOUN_CTR] = write_ctr,
        [NOUN_VM] = write_vm,
        [NOUN_IMAGE] = write_image,
    };

    if (write_dead(store, world, ret_error) < 0)
        return -1;
    for (const struct object *o = world->dirty; o; o = o->next_dirty)
        if (writers[o->noun](store, world, o, ret_error) < 0)
            return -1;
    return write_feed(store, world, ret_error);
}
