#include "init/user.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "broken\n"
                             "alice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
                             "42:x:77:78::/digits:/bin/sh\n"
                             "homeless:x:5:6::";
static const char group[] = "root:x:0:\nwheel:x:10:root,alice\nalice:x:1001:\nmusic:x:20:bob,alice";

static void a_name_gives_ids_home_and_groups(void **state)
{
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "alice", NULL, NULL), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1001);
    assert_string_equal(u.home, "/home/alice");
    assert_int_equal(u.group_count, 3);
    assert_int_equal(u.groups[1], 10);
    assert_int_equal(u.groups[2], 20);
    user_done(&u);
}

static void nothing_is_root(void **state)
{
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "", NULL, NULL), 0);
    assert_int_equal(u.uid, 0);
    assert_string_equal(u.home, "/root");
    user_done(&u);
    assert_int_equal(user_resolve(&u, NULL, NULL, "", NULL, NULL), 0);
    assert_int_equal(u.uid, 0);
    assert_string_equal(u.home, "/");
    user_done(&u);
}

static void a_number_need_not_exist(void **state)
{
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "4711:99", NULL, NULL), 0);
    assert_int_equal(u.uid, 4711);
    assert_int_equal(u.gid, 99);
    assert_int_equal(u.group_count, 1);
    user_done(&u);
}

static void a_name_of_digits_comes_before_the_number(void **state)
{
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "42", NULL, NULL), 0);
    assert_int_equal(u.uid, 77);
    user_done(&u);
}

static void a_group_of_the_request_replaces_those_of_the_file(void **state)
{
    const char *const extra[] = {"wheel", "7", "7", NULL};
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "alice:music", extra, NULL), 0);
    assert_int_equal(u.gid, 20);
    assert_int_equal(u.group_count, 3);
    assert_int_equal(u.groups[1], 10);
    assert_int_equal(u.groups[2], 7);
    user_done(&u);
}

static void what_does_not_exist_is_refused_by_name(void **state)
{
    const char *const extra[] = {"nogroup", NULL};
    struct error *error = NULL;
    struct user u;
    assert_int_equal(user_resolve(&u, passwd, group, "bob", NULL, &error), -1);
    assert_string_equal(error->message, "user 'bob' is not in /etc/passwd of the image");
    error_free(error);
    user_done(&u);
    error = NULL;
    assert_int_equal(user_resolve(&u, passwd, group, "alice", extra, &error), -1);
    assert_string_equal(error->message, "group 'nogroup' is not in /etc/group of the image");
    error_free(error);
    user_done(&u);
    assert_int_equal(user_resolve(&u, passwd, group, "4294967295", NULL, NULL), -1);
    user_done(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_gives_ids_home_and_groups),
        cmocka_unit_test(nothing_is_root),
        cmocka_unit_test(a_number_need_not_exist),
        cmocka_unit_test(a_name_of_digits_comes_before_the_number),
        cmocka_unit_test(a_group_of_the_request_replaces_those_of_the_file),
        cmocka_unit_test(what_does_not_exist_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
