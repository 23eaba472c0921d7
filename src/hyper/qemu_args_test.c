/* The command line of each shape of a VM is a file in tests/golden, one argument a line. After an
 * intended change: HUSK_GOLDEN_WRITE=1 meson test qemu_args. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"
#include "hyper/qemu_args.h"

static struct hyper_spec shape(const char *machine, const char *accel, unsigned disks)
{
    static const struct hyper_disk two[] = {
        {.path = "image", .fd = 10, .read_only = true, .scsi = false},
        {.path = "layer", .fd = 11, .read_only = false, .scsi = false}};
    return (struct hyper_spec){.vm = "vm-0123456789",
                               .machine = machine,
                               .accel = accel,
                               .cpus = disks ? 1 : 4,
                               .memory_bytes = 128u << 20,
                               .program = "/usr/bin/qemu-system-x86_64",
                               .kernel = "vmlinux",
                               .initrd = "initramfs.cpio",
                               .append = "debug",
                               .user = "",
                               .memory_return = true,
                               .share_fd = -1,
                               .disks = two,
                               .disk_count = disks};
}

/* A template of 64 MiB and one CPU, and a clone of it that has been given an image; each q35 can
 * grow. */
static struct hyper_spec shape_of_template(const char *machine, const char *accel,
                                           enum hyper_origin origin)
{
    static const struct hyper_disk
        empty[] = {{.path = "", .fd = -1, .read_only = true, .scsi = false},
                   {.path = "", .fd = -1, .read_only = true, .scsi = true},
                   {.path = "", .fd = -1, .read_only = false, .scsi = false}},
        filled[] = {{.path = "image", .fd = 10, .read_only = true, .scsi = false},
                    {.path = "", .fd = -1, .read_only = true, .scsi = true},
                    {.path = "layer", .fd = 11, .read_only = false, .scsi = false}};
    struct hyper_spec spec = shape(machine, accel, 3);
    bool grows = str_eq(machine, "q35");
    spec.origin = origin;
    spec.state_fd = origin == HYPER_CLONE ? 12 : -1;
    spec.layout = (struct hyper_layout){.base_bytes = 64u << 20,
                                        .memory_max_bytes = grows ? UINT64_C(8) << 30 : 0,
                                        .cpus_max = grows ? 8 : 0};
    spec.disks = origin == HYPER_CLONE ? filled : empty;
    return spec;
}

static char *text_of(const struct hyper_spec *spec)
{
    CLEANUP_STRV char **args = NULL;
    assert_int_equal(qemu_args_build(spec, 2000000, &args, NULL), 0);
    CLEANUP_FREE char *text = strv_join((const char *const *)args, "\n");
    return str_printf("%s\n", text);
}

static void golden_compare(const char *path, const char *text)
{
    if (getenv("HUSK_GOLDEN_WRITE")) {
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
    }
    CLEANUP_FREE char *want = xcalloc(1, 64 << 10);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t n = fread(want, 1, (64 << 10) - 1, file);
    fclose(file);
    assert_true(n > 0);
    assert_string_equal(text, want);
}

static void every_shape_has_its_golden_command_line(void **state)
{
    const char *dir = getenv("HUSK_GOLDEN");
    static const char *const machines[] = {"q35", "microvm"}, *const accels[] = {"kvm", "tcg"};
    if (!dir)
        skip();
    for (int m = 0; m < 2; m++)
        for (int a = 0; a < 2; a++)
            for (unsigned disks = 0; disks <= 2; disks += 2) {
                struct hyper_spec spec = shape(machines[m], accels[a], disks);
                CLEANUP_FREE char *path =
                    str_printf("%s/qemu-%s-%s-%u-disks", dir, machines[m], accels[a], disks);
                CLEANUP_FREE char *text = text_of(&spec);
                golden_compare(path, text);
            }
}

static void a_vm_with_files_served_shares_its_memory(void **state)
{
    const char *dir = getenv("HUSK_GOLDEN");
    static const char *const machines[] = {"q35", "microvm"};
    if (!dir)
        skip();
    for (int m = 0; m < 2; m++) {
        struct hyper_spec spec = shape(machines[m], "kvm", 0);
        spec.share_fd = 10;
        CLEANUP_FREE char *path = str_printf("%s/qemu-%s-kvm-share", dir, machines[m]);
        CLEANUP_FREE char *text = text_of(&spec);
        golden_compare(path, text);
    }
}

static void templates_and_clones_have_theirs(void **state)
{
    const char *dir = getenv("HUSK_GOLDEN");
    static const char *const machines[] = {"q35", "microvm"}, *const accels[] = {"kvm", "tcg"};
    if (!dir)
        skip();
    for (int m = 0; m < 2; m++)
        for (int a = 0; a < 2; a++)
            for (enum hyper_origin o = HYPER_TEMPLATE; o <= HYPER_CLONE; o++) {
                struct hyper_spec spec = shape_of_template(machines[m], accels[a], o);
                CLEANUP_FREE char *path =
                    str_printf("%s/qemu-%s-%s-%s", dir, machines[m], accels[a],
                               o == HYPER_CLONE ? "clone" : "template");
                CLEANUP_FREE char *text = text_of(&spec);
                golden_compare(path, text);
            }
}

static void a_zygote_is_a_clone_that_may_fork(void **state)
{
    const char *dir = getenv("HUSK_GOLDEN");
    if (!dir)
        skip();
    struct hyper_spec spec = shape_of_template("q35", "tcg", HYPER_CLONE);
    spec.zygote = true;
    CLEANUP_FREE char *path = str_printf("%s/qemu-q35-tcg-zygote", dir);
    CLEANUP_FREE char *text = text_of(&spec);
    golden_compare(path, text);
}

static void memory_is_given_back_only_if_that_is_wanted(void **state)
{
    struct hyper_spec spec = shape("q35", "tcg", 0);
    CLEANUP_FREE char *with = text_of(&spec);
    assert_non_null(strstr(with, "virtio-balloon-pci,free-page-reporting=on"));
    spec.memory_return = false;
    CLEANUP_FREE char *without = text_of(&spec);
    assert_null(strstr(without, "balloon"));
}

static void what_is_not_known_is_refused_by_name(void **state)
{
    struct error *error = NULL;
    char **args = NULL;
    struct hyper_spec spec = shape("pc98", "tcg", 0);
    assert_int_equal(qemu_args_build(&spec, 0, &args, &error), -1);
    assert_string_equal(error->message, "machine 'pc98' is not known");
    error_free(take(error));
    spec = shape("q35", "xen", 0);
    assert_int_equal(qemu_args_build(&spec, 0, &args, &error), -1);
    assert_string_equal(error->message, "accelerator 'xen' is not known");
    error_free(take(error));
    spec = shape("q35", "tcg", 0);
    spec.vm = "vm,process=x";
    assert_int_equal(qemu_args_build(&spec, 0, &args, NULL), -1);
    spec = shape_of_template("microvm", "tcg", HYPER_CLONE);
    spec.layout.cpus_max = 2;
    assert_int_equal(qemu_args_build(&spec, 0, &args, &error), -1);
    assert_string_equal(error->message, "a microvm cannot grow");
    error_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_has_its_golden_command_line),
        cmocka_unit_test(a_vm_with_files_served_shares_its_memory),
        cmocka_unit_test(templates_and_clones_have_theirs),
        cmocka_unit_test(a_zygote_is_a_clone_that_may_fork),
        cmocka_unit_test(memory_is_given_back_only_if_that_is_wanted),
        cmocka_unit_test(what_is_not_known_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
