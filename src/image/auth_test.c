#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/str.h"
#include "image/auth.h"

static const struct {
    const char *header;
    enum challenge_scheme scheme;
    const char *realm, *service, *scope;
} good[] = {
    {"Bearer realm=\"https://a/t\",service=\"reg\",scope=\"repository:x:pull\"", CHALLENGE_BEARER,
     "https://a/t", "reg", "repository:x:pull"},
    {"bearer  realm = \"https://a/t\" , service=reg", CHALLENGE_BEARER, "https://a/t", "reg", NULL},
    {"Basic realm=\"Registry Realm\"", CHALLENGE_BASIC, "Registry Realm", NULL, NULL},
    {"Basic", CHALLENGE_BASIC, NULL, NULL, NULL},
    {"Basic realm=\"b\", Bearer realm=\"https://a/t\",error=\"invalid_token\"", CHALLENGE_BEARER,
     "https://a/t", NULL, NULL},
    {"Bearer realm=\"https://a/t\",service=\"s\", Basic realm=\"b\"", CHALLENGE_BEARER,
     "https://a/t", "s", NULL},
    {"Negotiate, Basic realm=\"a \\\"b\\\"\"", CHALLENGE_BASIC, "a \"b\"", NULL, NULL},
    {"Digest realm=\"x\", nonce=\"y\"", CHALLENGE_NONE, NULL, NULL, NULL},
};

static void challenges_are_read_and_a_bearer_one_is_taken_first(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct challenge c;
        if (challenge_parse(good[i].header, &c, NULL) < 0)
            fail_msg("'%s' was refused", good[i].header);
        assert_int_equal(c.scheme, good[i].scheme);
        if (c.scheme != CHALLENGE_NONE) {
            assert_true(str_eq(c.realm, good[i].realm));
            assert_true(str_eq(c.service, good[i].service));
            assert_true(str_eq(c.scope, good[i].scope));
        }
        challenge_done(&c);
    }
}

static void what_is_no_challenge_is_refused(void **state)
{
    static const char *const bad[] = {
        "",  "Bearer", "Bearer realm=\"open", "Bearer realm=", "=", "Basic realm=\"a\" junk\x01",
        ",",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct challenge c;
        CLEANUP_ERROR struct error *error = NULL;
        if (challenge_parse(bad[i], &c, &error) == 0)
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(error->kind, ERROR_CORRUPT);
    }
    CLEANUP_FREE char *huge = xmalloc(CHALLENGE_MAX + 2);
    struct challenge c;
    memset(huge, 'a', CHALLENGE_MAX + 1);
    huge[CHALLENGE_MAX + 1] = '\0';
    assert_int_equal(challenge_parse(huge, &c, NULL), -1);
}

static void credentials_are_read_as_docker_writes_them(void **state)
{
    struct credentials c;

    assert_int_equal(credentials_parse("", &c, NULL), 0);
    assert_false(credentials_are_there(&c));
    assert_int_equal(credentials_parse("{\"auth\":\"YW5uOnM6dA==\"}", &c, NULL), 0);
    assert_string_equal(c.user, "ann");
    assert_string_equal(c.password, "s:t");
    credentials_done(&c);
    assert_int_equal(
        credentials_parse("{\"username\":\"u\",\"password\":\"p\",\"email\":\"e\"}", &c, NULL), 0);
    assert_string_equal(c.user, "u");
    credentials_done(&c);
    assert_int_equal(credentials_parse("{\"identitytoken\":\"t\"}", &c, NULL), 0);
    assert_true(credentials_are_there(&c));
    credentials_done(&c);
    assert_int_equal(credentials_parse("{\"auth\":\"!\"}", &c, NULL), -1);
    assert_int_equal(credentials_parse("[]", &c, NULL), -1);
}

static void credentials_are_found_by_their_server(void **state)
{
    static const char text[] = "{\"auths\":{\"h:5000\":{\"username\":\"u\",\"password\":\"p\"}}}";
    struct credentials c;

    assert_int_equal(credentials_find(text, strlen(text), "h:5000", &c, NULL), 0);
    assert_string_equal(c.password, "p");
    credentials_done(&c);
    assert_int_equal(credentials_find(text, strlen(text), "h", &c, NULL), 0);
    assert_false(credentials_are_there(&c));
    assert_int_equal(credentials_find("{", 1, "h", &c, NULL), -1);
    assert_string_equal(credentials_server("docker.io"), "https://index.docker.io/v1/");
}

static void a_token_is_what_can_stand_in_a_header(void **state)
{
    static const char old[] = "{\"token\":\"abc.def\",\"expires_in\":60}";
    static const char new[] = "{\"access_token\":\"abc\"}";
    static const char *const bad[] = {
        "{}", "{\"token\":\"\"}", "{\"token\":\"a\\nb\"}", "{\"token\":7}", "", "[]"};
    CLEANUP_FREE char *one = token_parse(old, strlen(old), NULL);
    CLEANUP_FREE char *two = token_parse(new, strlen(new), NULL);

    assert_string_equal(one, "abc.def");
    assert_string_equal(two, "abc");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_null(token_parse(bad[i], strlen(bad[i]), NULL));
}

static void a_token_is_asked_for_with_the_scope_that_is_needed(void **state)
{
    struct challenge c = {.realm = (char[]){"https://a/t?x=1"}, .service = (char[]){"reg ister"}};
    CLEANUP_FREE char *url = token_url(&c, "repository:a/b:pull", "ann");
    CLEANUP_FREE char *form = token_form(&c, NULL, "r&t");

    assert_string_equal(
        url, "https://a/t?x=1&service=reg%20ister&scope=repository%3Aa%2Fb%3Apull&account=ann");
    assert_string_equal(
        form, "grant_type=refresh_token&client_id=husk&service=reg%20ister&refresh_token=r%26t");
}

static void base64_comes_back_from_both_alphabets(void **state)
{
    const char *text = "a?>~~ user:pass";

    for (size_t n = 0; n <= strlen(text); n++) {
        CLEANUP_FREE char *standard = base64_encode(text, n, false);
        CLEANUP_FREE char *url = base64_encode(text, n, true);
        CLEANUP_FREE char *a = base64_decode(standard);
        CLEANUP_FREE char *b = base64_decode(url);
        url[strcspn(url, "=")] = '\0';
        CLEANUP_FREE char *c = base64_decode(url);
        assert_memory_equal(a, text, n);
        assert_int_equal(strlen(a), n);
        assert_string_equal(a, b);
        assert_string_equal(a, c);
    }
    assert_null(base64_decode("a"));
    assert_null(base64_decode("ab=c"));
    assert_null(base64_decode("ab c"));
    assert_null(base64_decode("AA=="));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(challenges_are_read_and_a_bearer_one_is_taken_first),
        cmocka_unit_test(what_is_no_challenge_is_refused),
        cmocka_unit_test(credentials_are_read_as_docker_writes_them),
        cmocka_unit_test(credentials_are_found_by_their_server),
        cmocka_unit_test(a_token_is_what_can_stand_in_a_header),
        cmocka_unit_test(a_token_is_asked_for_with_the_scope_that_is_needed),
        cmocka_unit_test(base64_comes_back_from_both_alphabets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
