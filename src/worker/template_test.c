#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "disk/disk.h"
#include "proto/wire.h"
#include "worker/template.h"

enum { SIZE = 3 << 20, PAGE = 4096 };

static const char *const inputs[] = {"format=1", "kernel=/boot/vmlinux 1 2 3", NULL};
static const char *const others[] = {"format=1", "kernel=/boot/vmlinux 1 2 4", NULL};

/* A directory to work in, a memory with a few pages, a state that QEMU may have written. */
struct world {
    char *home, *dir, *path;
    int memory;
    uint64_t bytes;
};

static void put(const char *path, const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, text, size), (ssize_t)size);
    close(fd);
}

static int memory_new(void)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    return fd;
}

static void stage(struct world *t)
{
    CLEANUP_FREE char *state = str_printf("%s/state", t->dir);
    assert_int_equal(mkdir(t->dir, 0700), 0);
    put(state, "devices", 7);
}

static int world_open(void **state)
{
    struct world *t = calloc(1, sizeof(*t));
    t->home = scratch_make("template");
    t->dir = str_printf("%s/new", t->home);
    t->path = str_printf("%s/128-key", t->home);
    t->memory = memory_new();
    assert_int_equal(pwrite(t->memory, "first", 5, 0), 5);
    assert_int_equal(pwrite(t->memory, "last", 4, SIZE - 4), 4);
    stage(t);
    *state = t;
    return 0;
}

static int world_close(void **state)
{
    struct world *t = *state;
    assert_int_equal(disk_remove("/", t->home, NULL), 0);
    close(t->memory);
    free(t->home);
    free(t->dir);
    free(t->path);
    free(t);
    return 0;
}

static int save_with(struct world *t, const char *layer, struct error **ret_error)
{
    const struct template_save what = {
        .memory = t->memory, .dir = t->dir, .path = t->path, .inputs = inputs, .layer = layer};
    return template_save(&what, &t->bytes, ret_error);
}

static void save(struct world *t)
{
    struct error *error = NULL;
    int rc = save_with(t, "", &error);
    assert_string_equal(rc == 0 ? "" : error_text(error), "");
}

/* The sentence with which loading fails; "" if it does not. */
static char *load(struct world *t, const char *const *of, int memory)
{
    CLEANUP_ERROR struct error *error = NULL;
    uint64_t bytes = 0;
    if (template_load(memory, t->path, of, &bytes, &error) < 0)
        return xstrdup(error_text(error));
    assert_int_equal(bytes, t->bytes);
    return xstrdup("");
}

static void assert_refused(struct world *t, const char *const *of, const char *why)
{
    int memory = memory_new();
    CLEANUP_FREE char *message = load(t, of, memory);
    close(memory);
    assert_non_null(strstr(message, why));
}

static void what_is_saved_is_loaded(void **state)
{
    struct world *t = *state;
    char wanted[PAGE], got[PAGE];
    save(t);
    int memory = memory_new();
    CLEANUP_FREE char *message = load(t, inputs, memory);
    assert_string_equal(message, "");
    for (off_t at = 0; at < SIZE; at += PAGE) {
        assert_int_equal(pread(t->memory, wanted, PAGE, at), PAGE);
        assert_int_equal(pread(memory, got, PAGE, at), PAGE);
        assert_memory_equal(wanted, got, PAGE);
    }
    close(memory);
}

static void zeroes_take_no_space(void **state)
{
    struct world *t = *state;
    struct stat st;
    save(t);
    CLEANUP_FREE char *ram = str_printf("%s/ram", t->path);
    assert_int_equal(stat(ram, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_true(st.st_blocks * 512 < 64 << 10);
    assert_int_equal(t->bytes, 2 * PAGE + 7);
}

static void a_saved_template_replaces_the_old_one_whole(void **state)
{
    struct world *t = *state;
    save(t);
    stage(t);
    assert_int_equal(pwrite(t->memory, "again", 5, 0), 5);
    save(t);
    assert_int_equal(access(t->dir, F_OK), -1);
    int memory = memory_new();
    char got[6] = "";
    CLEANUP_FREE char *message = load(t, inputs, memory);
    assert_string_equal(message, "");
    assert_int_equal(pread(memory, got, 5, 0), 5);
    assert_string_equal(got, "again");
    close(memory);
}

static void what_was_made_of_something_else_is_refused(void **state)
{
    struct world *t = *state;
    save(t);
    assert_refused(t, others, "it was made of something else");
}

static void what_was_changed_is_refused(void **state)
{
    struct world *t = *state;
    save(t);
    CLEANUP_FREE char *ram = str_printf("%s/ram", t->path);
    CLEANUP_FREE char *devices = str_printf("%s/state", t->path);
    CLEANUP_FREE char *meta = str_printf("%s/template.json", t->path);
    int fd = open(ram, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, PAGE * 5), 1);
    assert_refused(t, inputs, "'ram' is not what was saved");
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_refused(t, inputs, "'ram' has 4096 bytes instead of 3145728");
    close(fd);
    put(devices, "Devices", 7);
    assert_refused(t, inputs, "'state' is not what was saved");
    put(devices, "dev", 3);
    assert_refused(t, inputs, "'state' has 3 bytes instead of 7");
    put(meta, "{\"format\": 1", 12);
    assert_refused(t, inputs, "template.json: line 1");
    unlink(meta);
    assert_refused(t, inputs, "open 'template.json'");
}

static void a_state_that_is_missing_is_told(void **state)
{
    struct world *t = *state;
    CLEANUP_FREE char *devices = str_printf("%s/state", t->dir);
    CLEANUP_ERROR struct error *error = NULL;
    unlink(devices);
    assert_int_equal(save_with(t, "", &error), -1);
    assert_non_null(strstr(error_text(error), "open 'state'"));
    assert_int_equal(access(t->path, F_OK), -1);
}

/* A sparse file of 1 GiB, whose data are in two places. */
static char *layer_make(const struct world *t)
{
    char *path = str_printf("%s/made", t->home);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(ftruncate(fd, 1 << 30), 0);
    assert_int_equal(pwrite(fd, "superblock", 10, LAYER_MARK_SIZE), 10);
    assert_int_equal(pwrite(fd, "far", 3, (1 << 30) - PAGE), 3);
    close(fd);
    return path;
}

static void a_layer_is_saved_with_a_mark_and_checked(void **state)
{
    struct world *t = *state;
    CLEANUP_FREE char *made = layer_make(t);
    CLEANUP_FREE char *path = str_printf("%s/layer", t->path);
    CLEANUP_FREE char *first = NULL;
    char head[2][LAYER_MARK_SIZE + 10];
    struct stat st;
    for (int i = 0; i < 2; i++) {
        if (i > 0)
            stage(t);
        assert_int_equal(save_with(t, made, NULL), 0);
        int fd = open(path, O_RDONLY);
        assert_int_equal(pread(fd, head[i], sizeof(head[i]), 0), sizeof(head[i]));
        close(fd);
        assert_int_equal(strncmp(head[i], "husk template ", 14), 0);
        assert_memory_equal(head[i] + LAYER_MARK_SIZE, "superblock", 10);
    }
    assert_memory_not_equal(head[0], head[1], LAYER_MARK_SIZE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1 << 30);
    assert_true(st.st_blocks * 512 < 1 << 20);
    int memory = memory_new();
    first = load(t, inputs, memory);
    assert_string_equal(first, "");
    close(memory);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "FAR", 3, (1 << 30) - PAGE), 3);
    assert_refused(t, inputs, "'layer' is not what was saved");
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_refused(t, inputs, "'layer' has 4096 bytes instead of");
    close(fd);
    unlink(path);
    assert_refused(t, inputs, "open 'layer'");
}

/* Good, but for one thing each. */
static void a_meta_is_read_strictly(void **state)
{
#define DIGEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define META(format, inputs, size, digest)                                                         \
    "{\"format\":" format ",\"inputs\":" inputs ",\"stateBytes\":" size                            \
    ",\"stateSha256\":\"" digest "\",\"ramBytes\":4096,\"ramSha256\":\"" DIGEST "\"}"
    static const struct {
        const char *text, *why;
    } cases[] = {
        {META("1", "[\"a=b\"]", "1", DIGEST), ""},
        {META("2", "[]", "1", DIGEST), "'format' is not 1"},
        {META("1", "{}", "1", DIGEST), "'inputs' is not an array"},
        {META("1", "[1]", "1", DIGEST), "one of 'inputs' is not a string"},
        {META("1", "[]", "0", DIGEST), "'stateBytes' is not a size"},
        {META("1", "[]", "1.5", DIGEST), "'stateBytes' is not a size"},
        {META("1", "[]", "999999999999", DIGEST), "'stateBytes' is not a size"},
        {META("1", "[]", "1", DIGEST "a"), "'stateSha256' is not a SHA-256"},
        {META("1", "[]", "1", "A"), "'stateSha256' is not a SHA-256"},
        {META("1", "[]", "1", DIGEST "\",\"layerBytes\":4096,\"layerSha256\":\"" DIGEST), ""},
        {META("1", "[]", "1", DIGEST "\",\"layerBytes\":4096,\"layerSha256\":\"x"),
         "'layerSha256' is not a SHA-256"},
        {META("1", "[]", "1", DIGEST "\",\"layerBytes\":-1,\"layerSha256\":\"" DIGEST),
         "'layerBytes' is not a size"},
        {"", "line 1"},
        {"[]", "'format' is not 1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error *error = NULL;
        struct template_meta meta;
        int rc = template_meta_parse(cases[i].text, strlen(cases[i].text), &meta, &error);
        assert_int_equal(rc, *cases[i].why ? -1 : 0);
        if (rc < 0)
            assert_non_null(strstr(error_text(error), cases[i].why));
        else
            template_meta_done(&meta);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
    const struct CMUnitTest tests[] = {
        TEST(what_is_saved_is_loaded),
        TEST(zeroes_take_no_space),
        TEST(a_saved_template_replaces_the_old_one_whole),
        TEST(what_was_made_of_something_else_is_refused),
        TEST(what_was_changed_is_refused),
        TEST(a_state_that_is_missing_is_told),
        TEST(a_layer_is_saved_with_a_mark_and_checked),
        cmocka_unit_test(a_meta_is_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
