/* Strings, buffers and errors. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

/* ---- strings -------------------------------------------------------------------------------- */

static void a_number_is_the_whole_string_and_in_range(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t value;
    } cases[] = {
        {"0", true, 0},     {"42", true, 42}, {"100", true, 100},
        {"101", false, 0},  {"", false, 0},   {" 1", false, 0},
        {"1 ", false, 0},   {"-1", false, 0}, {"+1", false, 0},
        {"0x10", false, 0}, {NULL, false, 0}, {"99999999999999999999", false, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t n = 0;
        assert_int_equal(str_to_u64(cases[i].text, 0, 100, &n), cases[i].good);
        assert_int_equal(n, cases[i].value);
    }
}

static void a_size_has_binary_units(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t bytes;
    } cases[] = {
        {"64", true, 64 << 20},
        {"64M", true, 64 << 20},
        {"64mb", true, 64 << 20},
        {"64MiB", true, 64 << 20},
        {"1.5g", true, 3ULL << 29},
        {"7b", true, 7},
        {"2t", true, 2ULL << 40},
        {"1k", true, 1024},
        {"", false, 0},
        {"M", false, 0},
        {"64X", false, 0},
        {"64Mx", false, 0},
        {"-1", false, 0},
        {"1e3", false, 0},
        {"0x10", false, 0},
        {"99999999999t", false, 0},
        {NULL, false, 0},
        {"1.2.3", false, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t n = 0;
        assert_int_equal(str_to_size(cases[i].text, 1 << 20, &n), cases[i].good);
        assert_int_equal(n, cases[i].bytes);
    }
}

static void a_duration_is_a_sum_of_units_or_seconds(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t ms;
    } cases[] = {
        {"10", true, 10000},  {"10s", true, 10000},  {"1m30s", true, 90000},
        {"200ms", true, 200}, {"2h", true, 7200000}, {"0", true, 0},
        {"", false, 0},       {"s", false, 0},       {"10x", false, 0},
        {"-1s", false, 0},    {NULL, false, 0},      {"9999999999999s", false, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t n = 0;
        assert_int_equal(str_to_duration_ms(cases[i].text, &n), cases[i].good);
        assert_int_equal(n, cases[i].ms);
    }
}

static void splitting_keeps_empty_parts_and_joining_is_its_inverse(void **state)
{
    static const struct {
        const char *text;
        size_t parts;
    } cases[] = {{"", 1}, {":", 2}, {"a", 1}, {"a:b", 2}, {":a::b:", 5}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRV char **v = str_split(cases[i].text, ':');
        CLEANUP_FREE char *whole = strv_join((const char *const *)v, ":");
        assert_int_equal(strv_count((const char *const *)v), cases[i].parts);
        assert_string_equal(whole, cases[i].text);
    }
}

static void a_vector_grows_copies_and_finds(void **state)
{
    CLEANUP_STRV char **v = NULL;
    assert_int_equal(strv_count(NULL), 0);
    assert_false(strv_contains(NULL, "a"));
    strv_push(&v, "a");
    strv_push_take(&v, xstrdup("b"));
    CLEANUP_STRV char **copy = strv_copy((const char *const *)v);
    assert_int_equal(strv_count((const char *const *)copy), 2);
    assert_true(strv_contains((const char *const *)copy, "b"));
    assert_false(strv_contains((const char *const *)copy, "c"));
    assert_null(strv_copy(NULL));
}

static void a_string_is_replaced_by_a_part_of_itself(void **state)
{
    CLEANUP_FREE char *s = xstrdup("abcdef");
    str_set(&s, s + 3);
    assert_string_equal(s, "def");
    str_set(&s, NULL);
    assert_null(s);
}

static void prefixes_and_suffixes_of_null_and_short_strings(void **state)
{
    assert_true(str_starts("abc", "ab"));
    assert_true(str_starts("abc", ""));
    assert_false(str_starts("a", "ab"));
    assert_false(str_starts(NULL, ""));
    assert_true(str_ends("abc", "bc"));
    assert_false(str_ends("c", "bc"));
    assert_false(str_ends(NULL, ""));
    assert_true(str_eq(NULL, NULL));
    assert_false(str_eq("", NULL));
    assert_string_equal(str_or("", "x"), "x");
}

static void random_letters_come_from_the_alphabet(void **state)
{
    char text[65];
    str_random(text, 64, "abc");
    assert_int_equal(strlen(text), 64);
    assert_int_equal(strspn(text, "abc"), 64);
}

static void bytes_as_hexadecimal_digits(void **state)
{
    char text[9];
    str_hex(text, (const uint8_t[]){0x00, 0x0f, 0xa5, 0xff}, 4);
    assert_string_equal(text, "000fa5ff");
}

/* ---- buffers -------------------------------------------------------------------------------- */

static void a_buffer_is_consumed_from_the_front_and_grows_at_the_end(void **state)
{
    CLEANUP_BUF struct buf b = {0};
    uint8_t next_in = 0, next_out = 0;
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < 100; i++)
            buf_append(&b, &(uint8_t){next_in++}, 1);
        for (int i = 0; i < 99; i++, next_out++) {
            assert_int_equal(b.data[0], next_out);
            buf_consume(&b, 1);
        }
    }
    assert_int_equal(b.len, 2000);
    /* What is consumed at the front is used again: it does not grow with what went through. */
    assert_true(b.cap < 16384);
}

static void an_emptied_buffer_starts_at_its_beginning(void **state)
{
    CLEANUP_BUF struct buf b = {0};
    buf_append_str(&b, "hello");
    buf_consume(&b, 5);
    assert_ptr_equal(b.data, b.base);
    buf_append_str(&b, "x");
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    buf_release(&b);
    assert_null(b.base);
}

static void printing_appends_and_taking_ends_with_a_nul(void **state)
{
    struct buf b = {0};
    buf_printf(&b, "%s-%d", "pod", 7);
    buf_printf(&b, "%s", "");
    buf_append(&b, NULL, 0);
    CLEANUP_FREE char *s = buf_take_str(&b);
    assert_string_equal(s, "pod-7");
    CLEANUP_FREE char *empty = buf_take_str(&b);
    assert_string_equal(empty, "");
}

/* ---- errors --------------------------------------------------------------------------------- */

static void an_error_is_a_sentence_that_grows(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    assert_int_equal(error_set(&e, ERROR_IO, ENOENT, "open '%s'", "/dev/kvm"), -1);
    error_wrap(&e, "step '%s'", "vm");
    error_wrap(&e, "pod '%s'", "web");
    assert_string_equal(error_text(e),
                        "pod 'web': step 'vm': open '/dev/kvm': No such file or directory");
    assert_int_equal(e->kind, ERROR_NOT_FOUND);
    assert_int_equal(e->err, ENOENT);
}

static void a_kind_that_was_said_is_not_overruled_by_errno(void **state)
{
    CLEANUP_ERROR struct error *e = NULL;
    error_set(&e, ERROR_UNAVAILABLE, ENOENT, "connect to '%s'", "x.sock");
    assert_int_equal(e->kind, ERROR_UNAVAILABLE);
}

static void a_caller_who_does_not_care_gets_no_error(void **state)
{
    struct error *e = NULL;
    assert_int_equal(error_set(NULL, ERROR_INVALID, 0, "x"), -1);
    error_wrap(NULL, "y");
    error_wrap(&e, "y");
    assert_null(e);
    error_set(&e, ERROR_INVALID, 0, "x");
    assert_int_equal(error_move(NULL, &e), -1);
    assert_null(e);
    assert_string_equal(error_text(NULL), "unknown error");
}

static void every_kind_has_a_name_that_leads_back_and_a_meaning_in_each_dialect(void **state)
{
    for (int k = 0; k < ERROR_KIND_COUNT; k++) {
        enum error_kind kind = (enum error_kind)k;
        assert_int_equal(error_kind_from_name(error_kind_name(kind)), k);
        assert_in_range(error_kind_http(kind), 400, 599);
        assert_true(strlen(error_kind_reason(kind)) > 0);
        assert_in_range(error_kind_exit(kind), 1, 255);
    }
    assert_int_equal(error_kind_from_name("nonsense"), -1);
    assert_string_equal(error_kind_name((enum error_kind)1000), "unknown");
    assert_int_equal(error_kind_http((enum error_kind)1000), 500);
}

static void errnos_become_kinds(void **state)
{
    assert_int_equal(error_kind_from_errno(ENOSPC), ERROR_NO_SPACE);
    assert_int_equal(error_kind_from_errno(EPERM), ERROR_DENIED);
    assert_int_equal(error_kind_from_errno(EMFILE), ERROR_LIMIT);
    assert_int_equal(error_kind_from_errno(EIO), ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_is_the_whole_string_and_in_range),
        cmocka_unit_test(a_size_has_binary_units),
        cmocka_unit_test(a_duration_is_a_sum_of_units_or_seconds),
        cmocka_unit_test(splitting_keeps_empty_parts_and_joining_is_its_inverse),
        cmocka_unit_test(a_vector_grows_copies_and_finds),
        cmocka_unit_test(a_string_is_replaced_by_a_part_of_itself),
        cmocka_unit_test(prefixes_and_suffixes_of_null_and_short_strings),
        cmocka_unit_test(random_letters_come_from_the_alphabet),
        cmocka_unit_test(bytes_as_hexadecimal_digits),
        cmocka_unit_test(a_buffer_is_consumed_from_the_front_and_grows_at_the_end),
        cmocka_unit_test(an_emptied_buffer_starts_at_its_beginning),
        cmocka_unit_test(printing_appends_and_taking_ends_with_a_nul),
        cmocka_unit_test(an_error_is_a_sentence_that_grows),
        cmocka_unit_test(a_kind_that_was_said_is_not_overruled_by_errno),
        cmocka_unit_test(a_caller_who_does_not_care_gets_no_error),
        cmocka_unit_test(every_kind_has_a_name_that_leads_back_and_a_meaning_in_each_dialect),
        cmocka_unit_test(errnos_become_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
