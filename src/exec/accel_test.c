/* When guests run by KVM. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "exec/accel.h"

static char *directory;
static char *cpuinfo; /* path of a file */

static void write_cpuinfo(const char *text)
{
    int fd = open(cpuinfo, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    directory = scratch_make("accel");
    cpuinfo = str_printf("%s/cpuinfo", directory);
    return 0;
}

static int tear_down(void **state)
{
    unlink(cpuinfo);
    rmdir(directory);
    free(cpuinfo);
    free(directory);
    return 0;
}

static void a_device_that_opens_and_a_cpu_that_virtualises_are_kvm(void **state)
{
    static const char *const cpus[] = {"processor\t: 0\nflags\t\t: fpu vmx sse\n",
                                       "processor\t: 0\nflags\t\t: fpu sse svm\n"};
    const char *reason;
    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        write_cpuinfo(cpus[i]);
        assert_string_equal(accel_choose("/dev/null", cpuinfo, "", &reason), "kvm");
        assert_string_equal(reason, "/dev/kvm opens, and the CPU can virtualise");
    }
}

/* As with a hypervisor below that offers a paravirtual KVM only. */
static void a_cpu_without_virtualisation_is_emulation(void **state)
{
    const char *reason;
    write_cpuinfo("processor\t: 0\nflags\t\t: fpu sse\nbugs\t\t: vmx svm\n");
    assert_string_equal(accel_choose("/dev/null", cpuinfo, "", &reason), "tcg");
    assert_string_equal(reason, "the CPU shows neither vmx nor svm");
    assert_string_equal(accel_choose("/dev/null", "/nonexistent", "", &reason), "tcg");
}

static void a_device_that_does_not_open_is_emulation(void **state)
{
    const char *reason;
    write_cpuinfo("flags\t\t: fpu vmx\n");
    assert_string_equal(accel_choose("/nonexistent", cpuinfo, "", &reason), "tcg");
    assert_string_equal(reason, "/dev/kvm cannot be opened");
}

static void a_device_that_qemu_may_not_use_is_emulation(void **state)
{
    const char *reason;
    write_cpuinfo("flags\t\t: fpu vmx\n");
    assert_string_equal(accel_choose("/dev/null", cpuinfo, "nobody", &reason), "kvm");
    assert_string_equal(accel_choose(cpuinfo, cpuinfo, "nobody", &reason),
                        "tcg"); /* of mode 0600 */
    assert_non_null(strstr(reason, "qemu_user"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_opens_and_a_cpu_that_virtualises_are_kvm),
        cmocka_unit_test(a_cpu_without_virtualisation_is_emulation),
        cmocka_unit_test(a_device_that_does_not_open_is_emulation),
        cmocka_unit_test(a_device_that_qemu_may_not_use_is_emulation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
