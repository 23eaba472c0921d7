#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/jsonout.h"
#include "base/str.h"

static void objects_and_arrays_get_their_commas(void **state)
{
    static const char *const words[] = {"a", "b", NULL};
    struct buf out = {0};
    json_open(&out, NULL, '{');
    json_text(&out, "text", "x");
    json_number(&out, "number", -5);
    json_open(&out, "list", '[');
    json_open(&out, NULL, '{');
    json_close(&out, '}');
    json_bool(&out, NULL, true);
    json_close(&out, ']');
    json_strings(&out, "words", words);
    json_pairs(&out, "pairs", words);
    json_raw(&out, "raw", NULL);
    json_close(&out, '}');
    CLEANUP_FREE char *text = buf_take_str(&out);
    assert_string_equal(text, "{\"text\":\"x\",\"number\":-5,\"list\":[{},true],"
                              "\"words\":[\"a\",\"b\"],\"pairs\":{\"a\":\"b\"},\"raw\":null}");
}

static void text_of_any_bytes_becomes_text(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"quote\" back\\ tab\t nl\n", "\"quote\\\" back\\\\ tab\\u0009 nl\\u000a\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff", "\"\xef\xbf\xbd\""},
        {"\xc3", "\"\xef\xbf\xbd\""},
        {"\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {",", "\",\""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct buf out = {0};
        json_text(&out, NULL, rows[i].in);
        CLEANUP_FREE char *text = buf_take_str(&out);
        assert_string_equal(text, rows[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_and_arrays_get_their_commas),
        cmocka_unit_test(text_of_any_bytes_becomes_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
