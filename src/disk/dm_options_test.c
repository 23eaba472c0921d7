#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "disk/dm.h"

static void what_is_not_said_has_its_default(void **state)
{
    struct dm_options o;

    assert_int_equal(dm_options_read(NULL, &o, NULL), 0);
    assert_string_equal(o.thinpooldev, "");
    assert_int_equal(o.basesize, 10ULL << 30);
    assert_int_equal(o.loopdatasize, 100ULL << 30);
    assert_int_equal(o.loopmetadatasize, 2ULL << 30);
    assert_int_equal(o.blocksize, 64 << 10);
    assert_int_equal(o.min_free_space, 10);
    assert_true(o.blkdiscard);
}

static void options_are_read(void **state)
{
    static const char *const options[] = {"dm.basesize=20G",
                                          "dm.loopdatasize=1TiB",
                                          "dm.loopmetadatasize=64M",
                                          "dm.blocksize=512K",
                                          "dm.min_free_space=0%",
                                          "dm.blkdiscard=false",
                                          "dm.fs=ext4",
                                          "dm.thinpooldev=/dev/mapper/vg-pool",
                                          NULL};
    struct dm_options o;

    assert_int_equal(dm_options_read(options, &o, NULL), 0);
    assert_string_equal(o.thinpooldev, "vg-pool");
    assert_int_equal(o.basesize, 20ULL << 30);
    assert_int_equal(o.loopdatasize, 1ULL << 40);
    assert_int_equal(o.loopmetadatasize, 64 << 20);
    assert_int_equal(o.blocksize, 512 << 10);
    assert_int_equal(o.min_free_space, 0);
    assert_false(o.blkdiscard);
}

static void what_makes_no_sense_is_refused_by_name(void **state)
{
    static const struct {
        const char *option, *why;
    } cases[] = {
        {"dm.basesize", "no such option"},
        {"dm.basesiz=1G", "no such option, only dm.thinpooldev, dm.basesize"},
        {"dm.basesize=", "not a size"},
        {"dm.basesize=huge", "not a size"},
        {"dm.basesize=1M", "between 67108864"},
        {"dm.basesize=67108865", "in steps of 1048576"},
        {"dm.blocksize=32K", "between 65536"},
        {"dm.blocksize=96K", "in steps of 65536"},
        {"dm.min_free_space=10", "percentage"},
        {"dm.min_free_space=100%", "percentage"},
        {"dm.min_free_space=%", "percentage"},
        {"dm.blkdiscard=yes", "neither 'true' nor 'false'"},
        {"dm.fs=xfs", "'ext4' and nothing else"},
        {"dm.thinpooldev=/dev/sda", "name of a thin pool"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const options[] = {cases[i].option, NULL};
        CLEANUP_ERROR struct error *error = NULL;
        struct dm_options o;
        assert_int_equal(dm_options_read(options, &o, &error), -1);
        assert_int_equal(error->kind, ERROR_INVALID);
        assert_non_null(strstr(error_text(error), cases[i].option));
        assert_non_null(strstr(error_text(error), cases[i].why));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(what_makes_no_sense_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
