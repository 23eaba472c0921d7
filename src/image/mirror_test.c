#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "image/mirror.h"

static const struct {
    const char *text, *registry, *host, *prefix;
    bool plain, tls;
} good[] = {
    {"docker.io=mirror.example", "docker.io", "mirror.example", "", false, false},
    {"docker.io=mirror.example/", "docker.io", "mirror.example", "", false, false},
    {"docker.io=https://mirror.example/hub/", "docker.io", "mirror.example", "hub/", false, true},
    {"docker.io=http://127.0.0.1:5000/a/b-c", "docker.io", "127.0.0.1:5000", "a/b-c/", true, false},
    {"a.b:1=https://m.x/v2/hub", "a.b:1", "m.x", "hub/", false, true},
    {"a.b:1=https://m.x/v2", "a.b:1", "m.x", "", false, true},
    {"a.b=m.x/v2x", "a.b", "m.x", "v2x/", false, false},
    {"localhost=mirror", "localhost", "mirror", "", false, false},
    {"localhost=[::1]:5000/hub", "localhost", "[::1]:5000", "hub/", false, false},
};

static const char *const bad[] = {
    "",
    "docker.io",
    "=mirror",
    "docker.io=",
    "docker.io=https://",
    "docker.io=ftp://mirror/hub",
    "docker.io=mirror/Hub",
    "docker.io=mirror/a//b",
    "docker.io=mirror/../hub",
    "docker.io=mirror/hub?ns=x",
    "docker.io=user@mirror",
    "docker.io=user:secret@mirror/hub",
    "docker.io=mirror/hub#x",
    "docker.io/library=mirror",
};

static void a_mirror_is_a_host_and_perhaps_a_path(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        CLEANUP_MIRROR struct mirror mirror = {0};
        print_message("%s\n", good[i].text);
        assert_int_equal(mirror_parse(good[i].text, &mirror, NULL), 0);
        assert_string_equal(mirror.registry, good[i].registry);
        assert_string_equal(mirror.host, good[i].host);
        assert_string_equal(mirror.prefix, good[i].prefix);
        assert_int_equal(mirror.plain, good[i].plain);
        assert_int_equal(mirror.tls, good[i].tls);
    }
}

static void what_is_none_is_refused(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_ERROR struct error *error = NULL;
        CLEANUP_MIRROR struct mirror mirror = {0};
        print_message("%s\n", bad[i]);
        assert_int_equal(mirror_parse(bad[i], &mirror, &error), -1);
        assert_int_equal(error->kind, ERROR_INVALID);
        assert_null(mirror.host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mirror_is_a_host_and_perhaps_a_path),
        cmocka_unit_test(what_is_none_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
