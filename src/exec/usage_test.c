#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "exec/usage.h"

enum { SIZE = 64 << 20 };

static void memory_that_is_touched_is_counted_as_private(void **state)
{
    struct usage before, after;
    int parent;

    prctl(PR_SET_NAME, "a ) b (S 7");
    assert_int_equal(usage_of_process(getpid(), &before, &parent, NULL), 0);
    assert_int_equal(parent, getppid());
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    memset(memory, 1, SIZE);
    assert_int_equal(usage_of_process(getpid(), &after, &parent, NULL), 0);
    assert_true(after.private_bytes >= before.private_bytes + SIZE * 9 / 10);
    assert_true(after.cpu_ns >= before.cpu_ns);
    munmap(memory, SIZE);
}

static void a_process_that_is_not_there_is_an_error(void **state)
{
    struct error *error = NULL;
    struct usage usage;
    int parent;

    assert_int_equal(usage_of_process(INT32_MAX, &usage, &parent, &error), -1);
    assert_int_equal(error->kind, ERROR_NOT_FOUND);
    error_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_touched_is_counted_as_private),
        cmocka_unit_test(a_process_that_is_not_there_is_an_error),
    };

    return cmocka_run_group_tests_name("usage", tests, NULL, NULL);
}
