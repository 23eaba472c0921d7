/* The table of routes against the table of verbs, and against the documentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/str.h"

static const struct {
    const char *method, *path, *verb;
} routes[] = {
#define ASK(method, path, verb, object, query, status, answer, prepare) {method, path, #verb},
#define LOOK(method, path, verb, object, query, look)                   {method, path, #verb},
#include "api/hyper/routes.def"
#undef ASK
#undef LOOK
};

static const char *const verbs[] = {
#define VERB(upper, name, short_name, arguments, object, right, help) #upper,
#include "core/verbs.def"
#undef VERB
};

/* They are made of other verbs by the command line, or need no daemon. */
static const char *const of_the_client[] = {"RUN",        "RUN_POD", "CREATE_POD", "HISTORY",
                                            "COMPLETION", "HELP",    NULL};

static void every_verb_has_a_route(void **state)
{
    for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
        bool found = strv_contains(of_the_client, verbs[v]);
        for (size_t r = 0; r < ARRAY_SIZE(routes); r++)
            found = found || str_eq(routes[r].verb, verbs[v]);
        if (!found)
            fail_msg("verb %s has no route", verbs[v]);
    }
}

static void no_route_is_there_twice(void **state)
{
    for (size_t a = 0; a < ARRAY_SIZE(routes); a++)
        for (size_t b = 0; b < a; b++)
            assert_false(str_eq(routes[a].method, routes[b].method) &&
                         str_eq(routes[a].path, routes[b].path));
}

static char *document_read(void)
{
    struct buf text = {0};
    FILE *f = fopen(DOCUMENT, "re");
    size_t n = 0;
    assert_non_null(f);
    while ((n = fread(buf_reserve(&text, 4096), 1, 4096, f)))
        text.len += n;
    fclose(f);
    return buf_take_str(&text);
}

static void every_route_is_documented(void **state)
{
    CLEANUP_FREE char *text = document_read();
    for (size_t r = 0; r < ARRAY_SIZE(routes); r++) {
        CLEANUP_FREE char *words = str_printf("%s %s", routes[r].method, routes[r].path);
        if (!strstr(text, words) && !strstr(text, routes[r].path))
            fail_msg("docs/api.md says nothing of %s", words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_has_a_route),
        cmocka_unit_test(no_route_is_there_twice),
        cmocka_unit_test(every_route_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
