#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "store/store_int.h"

static struct world *world;
static struct store *store;

static struct pod *add_pod(const char *id)
{
    struct pod *pod = xcalloc(1, sizeof(*pod));

    snprintf(pod->uid, sizeof(pod->uid), "%016x", world->tables[NOUN_POD].used);
    pod->spec.id = xstrdup(id);
    pod->spec.vcpu = 1;
    pod->spec.memory_mb = 128;
    pod->spec.storage_mb = 1024;
    pod->spec.ttl = (struct seconds){true, 0};
    pod->expires_ns = 99;
    pod->state = POD_CREATED;
    world_add_pod(world, pod);
    return pod;
}

static struct image *add_image(void)
{
    struct image *image = xcalloc(1, sizeof(*image));

    snprintf(image->id, sizeof(image->id), "sha256:%064d", 1);
    image->config_text = xstrdup("{}");
    strv_push(&image->files, "images/1.erofs");
    world_add_image(world, image);
    world_name_image(world, image, "docker.io/library/busybox:latest");
    return image;
}

static void add_ctr(struct pod *pod, const struct image *image)
{
    struct container *ctr = xcalloc(1, sizeof(*ctr));

    snprintf(ctr->id, sizeof(ctr->id), "%064x", world->tables[NOUN_CTR].used);
    ctr->spec.name = str_printf("c%u", pod->container_count);
    ctr->spec.image = xstrdup("busybox");
    ctr->image = image->object.ref;
    memcpy(ctr->image_id, image->id, sizeof(ctr->image_id));
    ctr->state = CTR_ENDED;
    ctr->run = 3;
    ctr->exit_code = 137;
    ctr->exit_signal = 9;
    ctr->finished_ns = 5;
    ctr->reason = xstrdup("out of memory");
    world_add_ctr(world, pod, ctr);
}

static int begin(void **state)
{
    world = world_new();
    assert_int_equal(store_open(":memory:", &store, NULL), 0);
    struct pod *pod = add_pod("web");
    struct image *image = add_image();

    add_ctr(pod, image);
    add_ctr(pod, image);
    world_tell(world, 77, &pod->object, "Created", "%s", "it was made");
    assert_int_equal(store_commit(store, world, NULL), 0);
    return 0;
}

static int end(void **state)
{
    store_close(store);
    world_free(world);
    return 0;
}

static void what_was_committed_is_loaded(void **state)
{
    world_clear(world);
    assert_int_equal(store_load(store, world, NULL), 0);
    struct pod *pod = world_pod_by_id(world, "web");

    assert_non_null(pod);
    assert_true(pod->spec.ttl.given);
    assert_int_equal(pod->expires_ns, 99);
    assert_int_equal(pod->container_count, 2);
    assert_string_equal(pod->containers->spec.name, "c0");
    assert_string_equal(pod->containers->next->spec.name, "c1");
    assert_int_equal(pod->containers->exit_code, 137);
    assert_int_equal(pod->containers->run, 3);
    assert_string_equal(pod->containers->reason, "out of memory");
    struct image *image = world_image(world, pod->containers->image);

    assert_int_equal(image->users, 2);
    assert_string_equal(image->names[0], "docker.io/library/busybox:latest");
    assert_string_equal(image->files[0], "images/1.erofs");
    assert_false(world_is_dirty(world));
}

static void a_damaged_row_is_named_and_nothing_is_dropped(void **state)
{
    static const struct {
        const char *sql, *sentence;
    } rows[] = {
        {"UPDATE pods SET state = 'dreaming'",
         "store ':memory:': pod '0000000000000000' is damaged: state"},
        {"UPDATE pods SET spec = '{\"id\":'",
         "store ':memory:': pod '0000000000000000' is damaged: podfile is not JSON: line 1, column "
         "6: unexpected token near end of file"},
        {"UPDATE pods SET vm = 'vm-AAAAAAAAAA'",
         "store ':memory:': pod '0000000000000000' is damaged: its vm is missing"},
        {"UPDATE pods SET id = 'other'",
         "store ':memory:': pod '0000000000000000' is damaged: it has two names"},
        {"UPDATE pods SET state = 'running', want = 'running'", "pod 'web' runs in no vm"},
        {"UPDATE names SET image = 'x'",
         "store ':memory:': image name 'docker.io/library/busybox:latest' is damaged: its image is "
         "missing"},
        {"UPDATE images SET files = '3'", NULL},
        {"UPDATE containers SET pod = 'x'", NULL},
        {"UPDATE containers SET run = -1", NULL},
        {"UPDATE containers SET run = 'many'", NULL},
        {"UPDATE containers SET id = 'short' WHERE id LIKE '%1'", NULL},
        {"DELETE FROM images", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        CLEANUP_ERROR struct error *error = NULL;

        sqlite3_exec(store->db, "SAVEPOINT before", NULL, NULL, NULL);
        assert_int_equal(sqlite3_exec(store->db, rows[i].sql, NULL, NULL, NULL), SQLITE_OK);
        world_clear(world);
        assert_int_equal(store_load(store, world, &error), -1);
        assert_int_equal(error->kind, ERROR_CORRUPT);
        if (rows[i].sentence)
            assert_string_equal(error->message, rows[i].sentence);
        assert_int_equal(world->tables[NOUN_POD].count, 0);
        sqlite3_exec(store->db, "ROLLBACK TO before; RELEASE before", NULL, NULL, NULL);
    }
}

static bool count_event(const struct feed_event *event, void *arg)
{
    ++*(int *)arg;
    return true;
}

static void the_feed_goes_on_after_a_reload_and_is_bounded(void **state)
{
    int count = 0;
    struct pod *pod = world_pod_by_id(world, "web");

    assert_int_equal(store_revision(store), 1);
    for (int i = 0; i < STORE_FEED_KEEP + 5; i++)
        world_tell(world, i, &pod->object, "Again", "%d", i);
    assert_int_equal(store_commit(store, world, NULL), 0);
    assert_int_equal(store_revision(store), STORE_FEED_KEEP + 6);
    assert_int_equal(store_feed_each(store, 0, 0, 0, count_event, &count, NULL), 0);
    assert_int_equal(count, STORE_FEED_KEEP);
    count = 0;
    store_feed_each(store, STORE_FEED_KEEP + 4, 0, 0, count_event, &count, NULL);
    assert_int_equal(count, 2);
}

static void as_many_events_are_kept_as_was_said(void **state)
{
    int count = 0;
    struct pod *pod = world_pod_by_id(world, "web");

    for (int i = 0; i < 200; i++)
        world_tell(world, i, &pod->object, "Again", "%d", i);
    assert_int_equal(store_commit(store, world, NULL), 0);
    store_keep_events(store, 100);
    world_tell(world, 200, &pod->object, "Again", "200");
    assert_int_equal(store_commit(store, world, NULL), 0);
    assert_int_equal(store_feed_each(store, 0, 0, 0, count_event, &count, NULL), 0);
    assert_int_equal(count, 100);
}

static void a_commit_on_a_full_disk_changes_nothing(void **state)
{
    CLEANUP_ERROR struct error *error = NULL;
    char name[32];

    store_limit_pages(store, 1);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "pod-%d", i);
        add_pod(name);
    }
    assert_int_equal(store_commit(store, world, &error), -1);
    assert_int_equal(error->kind, ERROR_NO_SPACE);
    assert_true(world_is_dirty(world));
    world_clear(world);
    assert_int_equal(store_load(store, world, NULL), 0);
    assert_int_equal(world->tables[NOUN_POD].count, 1);
    store_limit_pages(store, 0);
    add_pod("later");
    assert_int_equal(store_commit(store, world, NULL), 0);
}

static void small_values_are_kept_by_name(void **state)
{
    assert_null(store_meta_get(store, "accel"));
    assert_int_equal(store_meta_set(store, "accel", "tcg", NULL), 0);
    char *value = store_meta_get(store, "accel");

    assert_string_equal(value, "tcg");
    free(value);
    assert_int_equal(store_meta_set(store, "accel", NULL, NULL), 0);
    assert_null(store_meta_get(store, "accel"));
}

/* A store's file, in a directory of its own. */
struct place {
    char *directory, *path, *reserve, *log;
};

static struct place place_make(void)
{
    char *directory = scratch_make("store");
    return (struct place){directory, str_printf("%s/store", directory),
                          str_printf("%s/store.reserve", directory),
                          str_printf("%s/store-wal", directory)};
}

static void place_remove(struct place *place)
{
    unlink(place->path);
    unlink(place->reserve);
    assert_int_equal(unlink(place->log), 0); /* closing did not wait for it to be copied */
    assert_int_equal(rmdir(place->directory), 0);
    free(place->directory);
    free(place->path);
    free(place->reserve);
    free(place->log);
}

static void a_second_daemon_and_a_newer_file_are_refused(void **state)
{
    struct place place = place_make();
    const char *path = place.path;
    struct store *first = NULL, *second = NULL;
    struct error *error = NULL;

    assert_int_equal(store_open(path, &first, NULL), 0);
    assert_int_equal(store_open(path, &second, &error), -1);
    assert_int_equal(error->kind, ERROR_BUSY);
    error_free(take(error));
    sqlite3_exec(first->db, "PRAGMA user_version = 99", NULL, NULL, NULL);
    store_close(first);
    assert_int_equal(store_open(path, &second, &error), -1);
    assert_int_equal(error->kind, ERROR_UNSUPPORTED);
    error_free(error);
    place_remove(&place);
}

/* What husk 0.1.0 wrote: its schema, and a pod in its VM. Never to be changed. */
static const char VERSION_1[] =
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE images (id TEXT PRIMARY KEY, state TEXT NOT NULL, config TEXT NOT NULL,"
    " size_bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL, files TEXT NOT NULL);"
    "CREATE TABLE names (name TEXT PRIMARY KEY, image TEXT NOT NULL, place INTEGER NOT NULL);"
    "CREATE INDEX names_image ON names (image);"
    "CREATE TABLE vms (id TEXT PRIMARY KEY, state TEXT NOT NULL, cpus INTEGER NOT NULL,"
    " memory_mb INTEGER NOT NULL, accel TEXT, machine TEXT, qemu_pid INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, paused INTEGER NOT NULL, dead INTEGER NOT NULL, reason TEXT);"
    "CREATE TABLE pods (uid TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,"
    " created_ns INTEGER NOT NULL, started_ns INTEGER NOT NULL, want TEXT NOT NULL,"
    " state TEXT NOT NULL, step INTEGER NOT NULL, vm TEXT, target_vm TEXT,"
    " placed INTEGER NOT NULL, keep_vm INTEGER NOT NULL, failed INTEGER NOT NULL, reason TEXT,"
    " backoff INTEGER NOT NULL, restart_ns INTEGER NOT NULL, grace_ms INTEGER NOT NULL);"
    "CREATE TABLE containers (id TEXT PRIMARY KEY, pod TEXT NOT NULL, place INTEGER NOT NULL,"
    " spec TEXT NOT NULL, image TEXT NOT NULL, want TEXT NOT NULL, state TEXT NOT NULL,"
    " run INTEGER NOT NULL, restarts INTEGER NOT NULL, backoff INTEGER NOT NULL,"
    " restart_ns INTEGER NOT NULL, stop_asked INTEGER NOT NULL, held INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, started_ns INTEGER NOT NULL, finished_ns INTEGER NOT NULL,"
    " exit_code INTEGER NOT NULL, exit_signal INTEGER NOT NULL, oom INTEGER NOT NULL,"
    " succeeded INTEGER NOT NULL, reason TEXT, grace_ms INTEGER NOT NULL);"
    "CREATE TABLE feed (revision INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL,"
    " noun TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL,"
    " message TEXT NOT NULL);"
    "INSERT INTO vms VALUES ('vm-ABCDEFGHIJ','associated',2,512,'tcg','q35',4242,7,0,0,NULL);"
    "INSERT INTO pods VALUES ('0123456789abcdef','web','{\"id\":\"web\",\"resource\":{\"vcpu\":2,"
    "\"memory\":512}}',7,8,'running','running',0,'vm-ABCDEFGHIJ',NULL,1,0,0,NULL,0,0,0);"
    "INSERT INTO feed VALUES (3,8,'pod','web','web','Started','');"
    "PRAGMA user_version = 1;";

static void a_store_of_version_1_is_read_and_written(void **state)
{
    struct place place = place_make();
    const char *path = place.path;
    struct store *old = NULL;
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, VERSION_1, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    for (int round = 0; round < 2; round++) { /* as it was, and as it is after our commit */
        CLEANUP_ERROR struct error *error = NULL;

        world_clear(world);
        assert_int_equal(store_open(path, &old, &error), 0);
        assert_int_equal(store_load(old, world, &error), 0);
        struct pod *pod = world_pod_by_id(world, "web");
        struct vm *vm = world_vm_by_id(world, "vm-ABCDEFGHIJ");

        assert_non_null(pod);
        assert_ptr_equal(world_vm(world, pod->vm), vm);
        assert_int_equal(pod->expires_ns, 0);
        assert_int_equal(vm->memory_mb, 512);
        assert_int_equal(vm->qemu_pid, 4242);
        assert_false(vm->pooled);
        assert_null(vm->template);
        assert_null(vm->image_id);
        assert_int_equal(store_revision(old), 3);
        world_touch(world, &vm->object);
        world_touch(world, &pod->object);
        assert_int_equal(store_commit(old, world, &error), 0);
        store_close(old);
    }
    place_remove(&place);
}

static void what_a_vm_is_is_kept(void **state)
{
    struct vm *vm = xcalloc(1, sizeof(*vm));

    memcpy(vm->id, "vm-ABCDEFGHIJ", VM_ID_LEN + 1);
    vm->state = VM_IDLE;
    vm->pooled = true;
    vm->template = xstrdup("128-0123456789abcdef");
    uint32_t at = 0;
    const struct image *image = (void *)world_next(world, NOUN_IMAGE, &at);

    vm->image_id = xstrdup(image->id);
    vm->layer_mb = 10240;
    world_add_vm(world, vm);
    assert_int_equal(store_commit(store, world, NULL), 0);
    world_clear(world);
    assert_int_equal(store_load(store, world, NULL), 0);
    assert_true(world_vm_by_id(world, "vm-ABCDEFGHIJ")->pooled);
    vm = world_vm_by_id(world, "vm-ABCDEFGHIJ");
    assert_string_equal(vm->template, "128-0123456789abcdef");
    assert_non_null(world_image_by_id(world, vm->image_id));
    assert_int_equal(vm->layer_mb, 10240);
}

/* Instead of libc's, which SQLite would call. */
static int syncs;

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

static void a_commit_waits_for_the_disk_only_if_asked(void **state)
{
    struct place place = place_make();
    struct store *file = NULL;

    assert_int_equal(store_open(place.path, &file, NULL), 0);
    add_pod("first");
    assert_int_equal(store_commit(file, world, NULL), 0);
    syncs = 0;
    add_pod("second");
    assert_int_equal(store_commit(file, world, NULL), 0);
    assert_int_equal(syncs, 0);
    assert_int_equal(store_sync(file, NULL), 0);
    assert_int_equal(syncs, 1);
    assert_int_equal(store_sync(file, NULL), 0);
    assert_int_equal(syncs, 1);
    store_close(file);
    place_remove(&place);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(what_was_committed_is_loaded),
        TEST(a_damaged_row_is_named_and_nothing_is_dropped),
        TEST(the_feed_goes_on_after_a_reload_and_is_bounded),
        TEST(as_many_events_are_kept_as_was_said),
        TEST(a_commit_on_a_full_disk_changes_nothing),
        TEST(small_values_are_kept_by_name),
        TEST(a_second_daemon_and_a_newer_file_are_refused),
        TEST(a_store_of_version_1_is_read_and_written),
        TEST(what_a_vm_is_is_kept),
        TEST(a_commit_waits_for_the_disk_only_if_asked),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
