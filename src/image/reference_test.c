#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "image/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LONG  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct {
    const char *text;
    const char *full;
    const char *familiar;
} good[] = {
    {"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
    {"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"},
    {"library/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
    {"index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
    {"docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"},
    {"a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x"},
    {"localhost/a", "localhost/a:latest", "localhost/a:latest"},
    {"localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"},
    {"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
    {"Host/a", "Host/a:latest", "Host/a:latest"},
    {"ghcr.io/a/b-c__d.e_f:V1", "ghcr.io/a/b-c__d.e_f:V1", "ghcr.io/a/b-c__d.e_f:V1"},
    {"a---b", "docker.io/library/a---b:latest", "a---b:latest"},
    {"docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
    {"docker.io/localhost/a", "docker.io/localhost/a:latest", "docker.io/localhost/a:latest"},
    {"a@sha256:" HEX64, "docker.io/library/a@sha256:" HEX64, "a@sha256:" HEX64},
    {"a:t@sha256:" HEX64, "docker.io/library/a:t@sha256:" HEX64, "a:t@sha256:" HEX64},
};

static void names_are_normalised_and_shown_in_the_short_form(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        CLEANUP_FREE char *full = reference_normalise(good[i].text, NULL);
        CLEANUP_FREE char *familiar = reference_shorten(good[i].text);
        assert_string_equal(full, good[i].full);
        assert_string_equal(familiar, good[i].familiar);
        CLEANUP_FREE char *again = reference_normalise(familiar, NULL);
        assert_string_equal(again, full);
    }
}

static void what_is_not_a_reference_is_refused_in_a_sentence(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        "a:",
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        "a b",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "a:-t",
        "a:.t",
        "a:b c",
        "a@sha256:12",
        "a@md5:" HEX64,
        "h.x:/a",
        "h.x:123456/a",
        "h..x/a",
        "-h.x/a",
        "[::1/a",
        "[zz]:1/a",
        "a:b:c",
        "a@b@c",
        "a\n",
        "../a",

        "a:" LONG LONG "a",
        LONG LONG LONG LONG,
        "a@",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_ERROR struct error *error = NULL;
        CLEANUP_FREE char *full = reference_normalise(bad[i], &error);
        if (full)
            fail_msg("'%s' was taken as '%s'", bad[i], full);
        assert_int_equal(error->kind, ERROR_INVALID);
        assert_non_null(strstr(error->message, "does not name an image"));
    }
}

static void a_text_that_is_no_reference_is_shown_as_it_is(void **state)
{
    CLEANUP_FREE char *text = reference_shorten("<none>");

    assert_string_equal(text, "<none>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_normalised_and_shown_in_the_short_form),
        cmocka_unit_test(what_is_not_a_reference_is_refused_in_a_sentence),
        cmocka_unit_test(a_text_that_is_no_reference_is_shown_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
