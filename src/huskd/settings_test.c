#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"
#include "huskd/shapes.h"

static int parse(struct settings *s, const char *text, struct error **ret_error)
{
    return settings_parse(s, "huskd.conf", text, strlen(text), ret_error);
}

static void refused(const char *text, const char *sentence)
{
    struct settings s;
    settings_init(&s);
    CLEANUP_ERROR struct error *error = NULL;
    assert_int_equal(parse(&s, text, &error), -1);
    assert_string_equal(error_text(error), sentence);
    settings_done(&s);
}

static void defaults_keep_the_rules_of_the_table(void **state)
{
    struct settings s;
    settings_init(&s);
    assert_int_equal(s.layer_size, 10ull << 30);
    assert_int_equal(s.stop_grace, 10000);
    assert_string_equal(s.accel, "auto");
    assert_true(s.root[0] == '/' && s.socket[0] == '/');
    assert_int_equal(settings_check(&s, NULL), 0);
    settings_done(&s);
}

static void a_file_sets_values_and_comments_do_nothing(void **state)
{
    struct settings s;
    settings_init(&s);
    assert_int_equal(
        parse(&s, "# a comment\n\n  workers=3\r\nlayer-size = 1G\nroot = /x y\naccel= tcg", NULL),
        0);
    assert_int_equal(s.workers, 3);
    assert_int_equal(s.layer_size, 1 << 30);
    assert_string_equal(s.root, "/x y");
    assert_string_equal(s.accel, "tcg");
    settings_done(&s);
}

static void errors_name_file_line_setting_and_cause(void **state)
{
    refused("\nworkres = 3\n", "huskd.conf:2: there is no setting 'workres'");
    refused("workers = 99\n", "huskd.conf:1: workers: '99' is more than 16");
    refused("workers = -1\n", "huskd.conf:1: workers: '-1' is not a number");
    refused("layer_size = 1\n", "huskd.conf:1: layer_size: '1' is less than 16MiB");
    refused("accel = fast\n", "huskd.conf:1: accel: 'fast' is not one of auto|kvm|tcg");
    refused("stop_grace = soon\n",
            "huskd.conf:1: stop_grace: 'soon' is not a duration such as 10s or 1m30s");
    refused("root =\n", "huskd.conf:1: root: a path is missing");
    refused("workers\n", "huskd.conf:1: 'workers' is not of the form 'name = value'");
}

static void settings_that_contradict_each_other_are_refused(void **state)
{
    struct settings s;
    settings_init(&s);
    assert_int_equal(parse(&s, "memory_min = 256M\n", NULL), 0);
    CLEANUP_ERROR struct error *error = NULL;
    assert_int_equal(settings_check(&s, &error), -1);
    assert_string_equal(error_text(error), "memory_default is less than memory_min");
    settings_done(&s);
}

static void a_microvm_has_the_memory_that_it_needs(void **state)
{
    uint64_t sizes[SETTINGS_SIZES_MAX];
    size_t count;
    struct settings s;
    settings_init(&s);
    assert_int_equal(shape_memory_min(&s), 64 << 20);
    assert_int_equal(parse(&s, "machine = microvm\ntemplate_sizes = 128M,64M,80M\n", NULL), 0);
    assert_int_equal(shape_memory_min(&s), 80 << 20);
    assert_int_equal(settings_template_sizes(&s, sizes, &count, NULL), 0);
    assert_int_equal(count, 2);
    assert_int_equal(sizes[0], 128 << 20);
    assert_int_equal(sizes[1], 80 << 20);
    assert_int_equal(parse(&s, "memory_min = 96M\n", NULL), 0);
    assert_int_equal(shape_memory_min(&s), 96 << 20);
    settings_done(&s);
}

static void the_sample_file_is_a_file_that_is_accepted(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    settings_print_sample(out);
    fclose(out);
    /* Once as it is, and once with every default that is not empty switched on. */
    for (size_t i = 0; i + 1 < size; i++)
        if (text[i] == '#' && text[i + 1] != ' ')
            text[i] = ' ';
    struct settings s;
    settings_init(&s);
    CLEANUP_STRV char **lines = str_split(text, '\n');
    STRV_FOREACH(line, lines) {
        if (!str_ends(*line, "="))
            assert_int_equal(parse(&s, *line, NULL), 0);
    }
    settings_done(&s);
    free(text);
}

static void every_setting_is_listed_with_its_value(void **state)
{
    struct settings s;
    settings_init(&s);
    CLEANUP_STRV char **list = settings_list(&s);
    assert_int_equal(strv_count((const char *const *)list) % 2, 0);
    assert_string_equal(list[0], "root");
    assert_string_equal(list[1], s.root);
    settings_done(&s);
}

static void numbers_are_listed_as_they_could_be_written(void **state)
{
    struct settings s, again;
    settings_init(&s);
    s.layer_size = (3ULL << 30) + (1ULL << 20);
    s.boot_deadline = 90000;
    s.stop_grace = 1001;
    settings_init(&again);
    CLEANUP_STRV char **list = settings_list(&s);
    for (size_t i = 0; list[i]; i += 2) {
        if (str_eq(list[i], "layer_size"))
            assert_string_equal(list[i + 1], "3073MiB");
        if (str_eq(list[i], "boot_deadline"))
            assert_string_equal(list[i + 1], "90s");
        if (str_eq(list[i], "stop_grace"))
            assert_string_equal(list[i + 1], "1001ms");
        if (*list[i + 1])
            assert_int_equal(settings_set(&again, list[i], list[i + 1], NULL), 0);
    }
    assert_int_equal(again.layer_size, s.layer_size);
    assert_int_equal(again.boot_deadline, s.boot_deadline);
    assert_int_equal(again.stop_grace, s.stop_grace);
    settings_done(&again);
    settings_done(&s);
}

static void shapes_of_the_pool_are_read(void **state)
{
    static const struct {
        const char *text, *sentence;
    } refusals[] = {
        {"pool_shapes = 2x1GiB",
         "pool_shapes: '2x1GiB' is not CPUSxMEMORY:NUMBER, such as 2x1GiB:3, or "
         "CPUSxMEMORY:NUMBER:IMAGE"},
        {"pool_shapes = 0x1GiB:1",
         "pool_shapes: '0x1GiB:1' is not CPUSxMEMORY:NUMBER, such as 2x1GiB:3, or "
         "CPUSxMEMORY:NUMBER:IMAGE"},
        {"pool_shapes = 1x8M:1",
         "pool_shapes: no pod can ask for '1x8M:1': see cpu_max, memory_min "
         "and memory_max"},
        {"pool = 1\npool_shapes = 1x128M:1",
         "pool_shapes: 1x128MiB is named twice; 'pool' names the default one"},
        {"pool_shapes = 1x128M:1:a,1x128M:1:docker.io/library/a:latest",
         "pool_shapes: 1x128MiB of docker.io/library/a:latest is named twice"},
        {"pool_shapes = 1x128M:1:a\nstorage = overlay",
         "pool_shapes: an image ('a') needs storage=block"},
        {"pool_shapes = 1x128M:1:", "pool_shapes: '' is not an image name"},
        {"pool = 200\npool_shapes = 2x1G:57", "pool and pool_shapes: more than 256 VMs"},
    };
    struct pool_shape shapes[POOL_SHAPES_MAX];
    struct settings s;
    size_t count;
    settings_init(&s);
    assert_int_equal(shapes_read(&s, shapes, &count, NULL), 0);
    assert_int_equal(count, 0);
    assert_int_equal(
        parse(&s, "pool = 4\npool_shapes = 2x1GiB:3, 1x64M:0,1x512MiB:1 1x128M:2:nginx:alpine\n",
              NULL),
        0);
    assert_int_equal(settings_check(&s, NULL), 0);
    assert_int_equal(shapes_read(&s, shapes, &count, NULL), 0);
    assert_int_equal(count, 4);
    assert_int_equal(shapes[0].cpus, 1);
    assert_int_equal(shapes[0].memory_mb, 128);
    assert_int_equal(shapes[0].count, 4);
    assert_int_equal(shapes[1].cpus, 2);
    assert_int_equal(shapes[1].memory_mb, 1024);
    assert_int_equal(shapes[1].count, 3);
    assert_int_equal(shapes[2].memory_mb, 512);
    assert_string_equal(shapes[2].image, "");
    assert_string_equal(shapes[3].image, "docker.io/library/nginx:alpine");
    assert_int_equal(shapes[3].count, 2);
    assert_int_equal(shapes[3].layer_mb, 10 << 10);
    settings_done(&s);
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        CLEANUP_ERROR struct error *error = NULL;
        settings_init(&s);
        assert_int_equal(parse(&s, refusals[i].text, NULL), 0);
        assert_int_equal(settings_check(&s, &error), -1);
        assert_string_equal(error_text(error), refusals[i].sentence);
        settings_done(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_keep_the_rules_of_the_table),
        cmocka_unit_test(a_file_sets_values_and_comments_do_nothing),
        cmocka_unit_test(errors_name_file_line_setting_and_cause),
        cmocka_unit_test(settings_that_contradict_each_other_are_refused),
        cmocka_unit_test(a_microvm_has_the_memory_that_it_needs),
        cmocka_unit_test(the_sample_file_is_a_file_that_is_accepted),
        cmocka_unit_test(every_setting_is_listed_with_its_value),
        cmocka_unit_test(numbers_are_listed_as_they_could_be_written),
        cmocka_unit_test(shapes_of_the_pool_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
