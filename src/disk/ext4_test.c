#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "disk/ext4.h"

enum { SIZE = 32 << 20, AT = 1 << 20 };

/* The root of a daemon, and beside it the layer of a template. */
struct world {
    char *root, *like;
};

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
    assert_int_equal(pwrite(fd, text, strlen(text), AT), strlen(text));
    assert_int_equal(ftruncate(fd, SIZE), 0);
    close(fd);
}

static int world_open(void **state)
{
    static const char *const names[] = {"tmp", "cache", "pods", "templates", "templates/image-1"};
    struct world *w = calloc(1, sizeof(*w));
    w->root = scratch_make("ext4");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        CLEANUP_FREE char *path = str_printf("%s/%s", w->root, names[i]);
        if (mkdir(path, 0700) < 0)
            return -1;
    }
    w->like = str_printf("%s/templates/image-1/layer", w->root);
    put(w->like, "first");
    *state = w;
    return 0;
}

static int world_close(void **state)
{
    struct world *w = *state;
    int result = disk_remove("/", w->root, NULL);
    free(w->root);
    free(w->like);
    free(w);
    return result;
}

static void assert_begins(const struct world *w, const char *path, const char *text)
{
    CLEANUP_FREE char *full = str_printf("%s/%s", w->root, path);
    char found[2][8] = {""};
    struct stat st;
    int fd = open(full, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_int_equal(pread(fd, found[0], strlen(text), 0), strlen(text));
    assert_int_equal(pread(fd, found[1], strlen(text), AT), strlen(text));
    assert_string_equal(found[0], text);
    assert_string_equal(found[1], text);
    close(fd);
}

static bool is_spare(const struct world *w, const char *name)
{
    CLEANUP_FREE char *path = str_printf("%s/cache/%s", w->root, name);
    return access(path, F_OK) == 0;
}

static void make(const struct world *w, const char *path, const char *like, uint64_t size)
{
    const struct disk_layer_spec layer = {.path = path, .size_bytes = size, .like = like};
    assert_int_equal(ext4_make(w->root, &layer, NULL), 0);
}

static void a_layer_is_a_copy_of_what_it_is_to_be_like(void **state)
{
    struct world *w = *state;
    make(w, "pods/one", w->like, SIZE);
    assert_begins(w, "pods/one", "first");
}

static void one_of_another_size_or_that_is_gone_is_made_empty(void **state)
{
    struct world *w = *state;
    struct stat st;
    CLEANUP_FREE char *other = str_printf("%s/pods/other", w->root);
    make(w, "pods/other", w->like, SIZE / 2);
    assert_int_equal(stat(other, &st), 0);
    assert_int_equal(st.st_size, SIZE / 2);
    unlink(w->like);
    make(w, "pods/one", w->like, SIZE);
    assert_begins(w, "pods/one", "");
}

static void spares_are_taken_unless_their_layer_was_made_anew(void **state)
{
    struct world *w = *state;
    const char *const likes[] = {w->like, NULL};
    assert_int_equal(ext4_spares(w->root, SIZE, 1, likes, NULL), 0);
    assert_true(is_spare(w, "spare-image-1-0.img"));
    make(w, "pods/one", w->like, SIZE);
    assert_false(is_spare(w, "spare-image-1-0.img"));
    assert_begins(w, "pods/one", "first");
    assert_int_equal(ext4_spares(w->root, SIZE, 1, likes, NULL), 0);
    put(w->like, "other");
    make(w, "pods/two", w->like, SIZE);
    assert_begins(w, "pods/two", "other");
    assert_true(is_spare(w, "spare-image-1-0.img"));
    assert_int_equal(ext4_spares(w->root, SIZE, 1, likes, NULL), 0);
    make(w, "pods/three", w->like, SIZE);
    assert_false(is_spare(w, "spare-image-1-0.img"));
    assert_begins(w, "pods/three", "other");
    assert_int_equal(ext4_spares(w->root, SIZE, 1, likes, NULL), 0);
    assert_int_equal(ext4_spares(w->root, SIZE, 1, NULL, NULL), 0);
    assert_false(is_spare(w, "spare-image-1-0.img"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
    const struct CMUnitTest tests[] = {
        TEST(a_layer_is_a_copy_of_what_it_is_to_be_like),
        TEST(one_of_another_size_or_that_is_gone_is_made_empty),
        TEST(spares_are_taken_unless_their_layer_was_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
