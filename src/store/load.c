/* Rows back into a world, each checked: what is damaged is named, and nothing is dropped. */
#include <jansson.h>
#include <stdlib.h>

#include "base/str.h"
#include "store/store_int.h"

/* One row while it is read, from the left. What is wrong with it is noted and told at its end. */
struct row {
    struct store *store;
    sqlite3_stmt *statement;
    const char *table;
    int column;
    const char *wrong; /* what is wrong with it, NULL: nothing */
};

static int64_t get_int(struct row *row, int64_t min, int64_t max)
{
    int column = row->column++;
    int64_t value = sqlite3_column_int64(row->statement, column);

    if (sqlite3_column_type(row->statement, column) != SQLITE_INTEGER || value < min || value > max)
        row->wrong = sqlite3_column_name(row->statement, column);
    return value;
}

static bool get_bool(struct row *row)
{
    return get_int(row, 0, 1) != 0;
}

static uint32_t get_u32(struct row *row)
{
    return (uint32_t)get_int(row, 0, UINT32_MAX);
}

static int64_t get_time(struct row *row)
{
    return get_int(row, INT64_MIN, INT64_MAX);
}

/* In SQLite's hands until the next row; "" if there is none where there must be one. */
static const char *get_text(struct row *row, bool optional)
{
    int column = row->column++;
    const char *text = (const char *)sqlite3_column_text(row->statement, column);

    if (!text && !optional)
        row->wrong = sqlite3_column_name(row->statement, column);
    return text || optional ? text : "";
}

static void get_exact(struct row *row, char *ret, size_t length)
{
    int column = row->column;
    const char *text = get_text(row, false);

    if (strlen(text) != length) {
        row->wrong = sqlite3_column_name(row->statement, column);
        return;
    }
    memcpy(ret, text, length + 1);
}

static unsigned get_word(struct row *row, int (*from_name)(const char *))
{
    int column = row->column;
    int value = from_name(get_text(row, false));

    if (value < 0)
        row->wrong = sqlite3_column_name(row->statement, column);
    return value < 0 ? 0 : (unsigned)value;
}

static int row_check(const struct row *row, struct error **ret_error)
{
    const char *key = (const char *)sqlite3_column_text(row->statement, 0);

    if (!row->wrong)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0, "store '%s': %s '%.80s' is damaged: %s",
                     row->store->path, row->table, key ? key : "", row->wrong);
}

static int row_wrap(const struct row *row, struct error **ret_error, struct error *error)
{
    const char *key = (const char *)sqlite3_column_text(row->statement, 0);

    error_set(ret_error, ERROR_CORRUPT, 0, "store '%s': %s '%.80s' is damaged: %s",
              row->store->path, row->table, key ? key : "", error_text(error));
    error_free(error);
    return -1;
}

/* ---- images --------------------------------------------------------------------------------- */

static int get_list(struct row *row, char ***ret)
{
    json_error_t why;
    json_t *array = json_loads(get_text(row, false), 0, &why);
    const json_t *item;
    size_t i;

    if (!json_is_array(array))
        row->wrong = "its list is no list";
    json_array_foreach(array, i, item) {
        if (json_is_string(item))
            strv_push(ret, json_string_value(item));
        else
            row->wrong = "its list is not of strings";
    }
    json_decref(array);
    return 0;
}

static int load_image(struct row *row, struct world *world, struct error **ret_error)
{
    struct image *image = xcalloc(1, sizeof(*image));
    struct error *error = NULL;

    get_exact(row, image->id, IMAGE_ID_LEN);
    image->state = get_word(row, image_state_from_name);
    image->config_text = xstrdup(get_text(row, false));
    image->size_bytes = (uint64_t)get_int(row, 0, INT64_MAX);
    image->created_ns = get_time(row);
    get_list(row, &image->files);
    if (!row->wrong && image_config_parse(image->config_text, strlen(image->config_text),
                                          &image->config, &error) == 0) {
        world_add_image(world, image);
        return 0;
    }
    image_free(image);
    return row->wrong ? row_check(row, ret_error) : row_wrap(row, ret_error, error);
}

static int load_name(struct row *row, struct world *world, struct error **ret_error)
{
    const char *name = get_text(row, false);
    struct image *image = world_image_by_id(world, get_text(row, false));

    if (!image)
        row->wrong = "its image is missing";
    if (row_check(row, ret_error) < 0)
        return -1;
    world_name_image(world, image, name);
    return 0;
}

/* ---- VMs and pods --------------------------------------------------------------------------- */

static int load_vm(struct row *row, struct world *world, struct error **ret_error)
{
    struct vm *vm = xcalloc(1, sizeof(*vm));

    get_exact(row, vm->id, VM_ID_LEN);
    vm->state = get_word(row, vm_state_from_name);
    vm->cpus = get_u32(row);
    vm->memory_mb = (uint64_t)get_int(row, 0, INT64_MAX);
    vm->accel = xstrdup(get_text(row, true));
    vm->machine = xstrdup(get_text(row, true));
    vm->qemu_pid = (int32_t)get_int(row, 0, INT32_MAX);
    vm->created_ns = get_time(row);
    vm->paused = get_bool(row);
    vm->dead = get_bool(row);
    vm->reason = xstrdup(get_text(row, true));
    vm->pooled = get_bool(row);
    vm->template = xstrdup(get_text(row, true));
    vm->image_id = xstrdup(get_text(row, true));
    vm->layer_mb = (uint64_t)get_int(row, 0, INT64_MAX);
    if (row_check(row, ret_error) < 0) {
        vm_free(vm);
        return -1;
    }
    world_add_vm(world, vm);
    return 0;
}

static void pod_get_spec(struct row *row, struct pod *pod, struct error **ret_error)
{
    static const struct spec_limits limits = {.memory_min_mb = 1}; /* settings may have changed */
    struct pod_spec *spec = NULL;
    const char *text = get_text(row, false);

    if (pod_spec_parse(text, strlen(text), &limits, &spec, ret_error) < 0)
        return;
    pod->spec = *spec;
    *spec = (struct pod_spec){0};
    pod_spec_free(spec);
}

static void pod_get_state(struct row *row, struct world *world, struct pod *pod)
{
    pod->created_ns = get_time(row);
    pod->started_ns = get_time(row);
    pod->want = get_word(row, pod_want_from_name);
    pod->state = get_word(row, pod_state_from_name);
    pod->step = (uint32_t)get_int(row, 0, 8);
    const char *vm_id = get_text(row, true);
    struct vm *vm = vm_id ? world_vm_by_id(world, vm_id) : NULL;

    if (vm_id && !vm)
        row->wrong = "its vm is missing";
    if (vm)
        pod->vm = vm->object.ref;
    pod->target_vm = xstrdup(get_text(row, true));
    pod->placed = get_bool(row);
    pod->keep_vm = get_bool(row);
    pod->failed = get_bool(row);
    pod->reason = xstrdup(get_text(row, true));
    pod->backoff = get_u32(row);
    pod->restart_ns = get_time(row);
    pod->grace_ms = get_u32(row);
    pod->expires_ns = get_time(row);
}

static int load_pod(struct row *row, struct world *world, struct error **ret_error)
{
    struct pod *pod = xcalloc(1, sizeof(*pod));
    struct error *error = NULL;

    get_exact(row, pod->uid, POD_UID_LEN);
    const char *id = get_text(row, false);

    pod_get_spec(row, pod, &error);
    pod_get_state(row, world, pod);
    if (!error && !str_eq(id, pod->spec.id))
        row->wrong = "it has two names";
    if (error || row->wrong) {
        pod_free(pod);
        return error ? row_wrap(row, ret_error, error) : row_check(row, ret_error);
    }
    world_add_pod(world, pod);
    struct vm *vm = world_vm(world, pod->vm);

    if (vm)
        vm->pod = pod->object.ref;
    return 0;
}

/* ---- containers ----------------------------------------------------------------------------- */

static void ctr_get_spec(struct row *row, struct container *ctr, struct error **ret_error)
{
    struct ctr_spec *spec = NULL;
    const char *text = get_text(row, false);

    if (ctr_spec_parse(text, strlen(text), &spec, ret_error) < 0)
        return;
    ctr->spec = *spec;
    *spec = (struct ctr_spec){0};
    ctr_spec_free(spec);
}

static void ctr_get_state(struct row *row, struct world *world, struct container *ctr)
{
    const struct image *image = world_image_by_id(world, get_text(row, false));

    if (image) {
        ctr->image = image->object.ref;
        memcpy(ctr->image_id, image->id, sizeof(ctr->image_id));
    } else {
        row->wrong = "its image is missing";
    }
    ctr->want = get_word(row, ctr_want_from_name);
    ctr->state = get_word(row, ctr_state_from_name);
    ctr->run = (uint64_t)get_int(row, 0, INT64_MAX);
    ctr->restarts = get_u32(row);
    ctr->backoff = get_u32(row);
    ctr->restart_ns = get_time(row);
    ctr->stop_asked = get_bool(row);
    ctr->held = get_bool(row);
    ctr->created_ns = get_time(row);
    ctr->started_ns = get_time(row);
    ctr->finished_ns = get_time(row);
    ctr->exit_code = get_u32(row);
    ctr->exit_signal = get_u32(row);
    ctr->oom = get_bool(row);
    ctr->succeeded = get_bool(row);
    ctr->reason = xstrdup(get_text(row, true));
    ctr->grace_ms = get_u32(row);
}

static int load_ctr(struct row *row, struct world *world, struct error **ret_error)
{
    struct container *ctr = xcalloc(1, sizeof(*ctr));
    struct error *error = NULL;

    get_exact(row, ctr->id, CTR_ID_LEN);
    struct pod *pod = world_pod_by_uid(world, get_text(row, false));

    ctr->place = get_u32(row);
    ctr_get_spec(row, ctr, &error);
    ctr_get_state(row, world, ctr);
    if (!pod)
        row->wrong = "its pod is missing";
    else if (!ctr->spec.name || world_ctr_in_pod(pod, ctr->spec.name))
        row->wrong = "it has no name of its own";
    if (error || row->wrong) {
        ctr_free(ctr);
        return error ? row_wrap(row, ret_error, error) : row_check(row, ret_error);
    }
    world_add_ctr(world, pod, ctr);
    return 0;
}

/* ---- all ------------------------------------------------------------------------------------ */

/* In the order in which they refer to each other. */
static const struct table_row {
    const char *table;
    const char *sql;
    int (*load)(struct row *, struct world *, struct error **);
} table_rows[] = {
    {"image", "SELECT * FROM images", load_image},
    {"image name", "SELECT * FROM names ORDER BY image, place", load_name},
    {"vm", "SELECT * FROM vms", load_vm},
    {"pod", "SELECT * FROM pods", load_pod},
    {"container", "SELECT * FROM containers ORDER BY pod, place, created_ns", load_ctr},
};

static int load_table(struct store *store, const struct table_row *table, struct world *world,
                      struct error **ret_error)
{
    sqlite3_stmt *s = NULL;
    int code, result = 0;

    if (sqlite3_prepare_v2(store->db, table->sql, -1, &s, NULL) != SQLITE_OK)
        return store_error(store, "cannot be read", ret_error);
    while (result == 0 && (code = sqlite3_step(s)) != SQLITE_DONE) {
        struct row row = {store, s, table->table, 0, NULL};

        result = code == SQLITE_ROW ? table->load(&row, world, ret_error)
                                    : store_error(store, "cannot be read", ret_error);
    }
    sqlite3_finalize(s);
    return result;
}

int store_load(struct store *store, struct world *world, struct error **ret_error)
{
    int result = 0;

    for (size_t i = 0; i < ARRAY_SIZE(table_rows) && result == 0; i++)
        result = load_table(store, &table_rows[i], world, ret_error);
    if (result == 0)
        result = world_verify(world, ret_error);
    if (result < 0)
        world_clear(world);
    else
        world_clean(world);
    return result;
}
