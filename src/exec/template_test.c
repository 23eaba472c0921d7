#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "exec/template.h"

enum { MIB = 1 << 20 };

/* A host with a kernel in a file of our own. */
static char *directory, *kernel;
static struct exec_config usual = {
    .qemu = "/bin/true",
    .initrd = "/dev/null",
    .keeper = "/bin/sh",
    .module = "/bin/sh",
    .busybox = "/dev/null",
    .kernel_append = "",
    .machine = "q35",
    .cpus_max = 1,
    .memory_max_bytes = 8ULL << 30,
};

static int host_open(void **state)
{
    directory = scratch_make("template");
    kernel = str_printf("%s/kernel", directory);
    usual.kernel = kernel;
    int fd = open(kernel, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    close(fd);
    return fd < 0 ? -1 : 0;
}

static int host_close(void **state)
{
    int result = unlink(kernel) | rmdir(directory);
    free(kernel);
    free(directory);
    return result;
}

static char *id_of(const struct exec_config *config, const char *accel, uint64_t base)
{
    CLEANUP_STRV char **inputs = template_inputs(config, accel, base);
    char id[TEMPLATE_ID_MAX + 1];
    template_id_make((const char *const *)inputs, base, id);
    return xstrdup(id);
}

static void the_same_host_gives_the_same_id(void **state)
{
    CLEANUP_FREE char *one = id_of(&usual, "tcg", 128 * MIB);
    CLEANUP_FREE char *two = id_of(&usual, "tcg", 128 * MIB);
    assert_string_equal(one, two);
    assert_true(str_starts(one, "128-"));
}

static void whatever_changes_gives_another_id(void **state)
{
    struct exec_config configs[] = {usual, usual, usual, usual, usual,
                                    usual, usual, usual, usual, usual};
    configs[0].qemu = "/bin/false";
    configs[1].initrd = "/dev/zero";
    configs[2].keeper = "/bin/false";
    configs[3].machine = "microvm";
    configs[4].kernel_append = "quiet";
    configs[5].cpus_max = 2;
    configs[6].memory_max_bytes = 9ULL << 30;
    configs[7].busybox = "/dev/zero";
    configs[8].module = "/bin/false";
    configs[9].memory_return = true;
    CLEANUP_FREE char *before = id_of(&usual, "tcg", 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        CLEANUP_FREE char *after = id_of(&configs[i], "tcg", 128 * MIB);
        assert_string_not_equal(before, after);
    }
    CLEANUP_FREE char *kvm = id_of(&usual, "kvm", 128 * MIB);
    CLEANUP_FREE char *small = id_of(&usual, "tcg", 64 * MIB);
    assert_string_not_equal(before, kvm);
    assert_string_not_equal(before + strlen("128"), small + strlen("64"));
}

static void a_file_that_was_touched_is_another_one(void **state)
{
    const struct timespec times[] = {{1, 0}, {1, 0}};
    CLEANUP_FREE char *before = id_of(&usual, "tcg", 128 * MIB);
    assert_int_equal(utimensat(AT_FDCWD, kernel, times, 0), 0);
    CLEANUP_FREE char *touched = id_of(&usual, "tcg", 128 * MIB);
    assert_string_not_equal(before, touched);
    unlink(kernel);
    CLEANUP_FREE char *missing = id_of(&usual, "tcg", 128 * MIB);
    assert_string_not_equal(touched, missing);
    close(open(kernel, O_WRONLY | O_CREAT, 0600));
}

static char *image_id_of(const struct exec_config *config, char *file)
{
    CLEANUP_STRV char **generic = template_inputs(config, "tcg", 128 * MIB);
    char *files[] = {file, NULL};
    struct image image = {.id = "sha256:0123456789abcdef0123", .files = files};
    CLEANUP_STRV char **inputs =
        template_image_inputs(config, (const char *const *)generic, &image);
    char id[TEMPLATE_ID_MAX + 1];
    template_image_id_make((const char *const *)inputs, &image, id);
    return xstrdup(id);
}

static void an_image_gives_an_id_of_its_own(void **state)
{
    char one[] = "null", other[] = "zero";
    uint64_t bytes;
    struct exec_config config = usual, smaller;
    config.root = "/dev";
    config.layer_size = 10ULL << 30;
    smaller = config;
    smaller.layer_size = 1 << 30;
    CLEANUP_FREE char *id = image_id_of(&config, one);
    CLEANUP_FREE char *again = image_id_of(&config, one);
    CLEANUP_FREE char *of_another_file = image_id_of(&config, other);
    CLEANUP_FREE char *of_another_size = image_id_of(&smaller, one);
    assert_true(str_starts(id, "image-0123456789ab-"));
    assert_int_equal(strlen(id), strlen("image-0123456789ab-01234567"));
    assert_string_equal(id, again);
    assert_string_not_equal(id, of_another_file);
    assert_string_not_equal(id, of_another_size);
    assert_false(template_id_read(id, &bytes));
}

static void an_id_tells_the_memory(void **state)
{
    static const char *const others[] = {"",
                                         "128",
                                         "128-",
                                         "-0123456789abcdef",
                                         "0-0123456789abcdef",
                                         "128-0123456789abcde",
                                         "128-0123456789abcdef0",
                                         "128-0123456789ABCDEF",
                                         "lost+found",
                                         "x128-0123456789abcdef"};
    uint64_t bytes = 0;
    assert_true(template_id_read("128-0123456789abcdef", &bytes));
    assert_int_equal(bytes, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        assert_false(template_id_read(others[i], &bytes));
}

/* What a QEMU does with the file of a private mapping, and one that was broken into would try. */
static void a_sealed_memory_cannot_be_changed_by_anybody(void **state)
{
    struct exec exec = {.config = usual};
    struct template t = {.exec = &exec, .base_bytes = 2 * MIB};
    char path[64], byte = 0;
    int fd;
    assert_int_equal(template_memory_make(&t, &fd, NULL), 0);
    assert_int_equal(pwrite(fd, "guest", 5, 4096), 5);
    assert_int_equal(template_memory_seal(fd, NULL), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int qemu = open(path, O_RDWR | O_CLOEXEC);
    assert_true(qemu >= 0);
    char *private = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, qemu, 0);
    assert_ptr_not_equal(private, MAP_FAILED);
    private[4096] = 'G';
    assert_ptr_equal(mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, qemu, 0), MAP_FAILED);
    assert_int_equal(pwrite(qemu, "x", 1, 4096), -1);
    assert_int_equal(fallocate(qemu, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * MIB), -1);
    assert_int_equal(ftruncate(qemu, 0), -1);
    assert_int_equal(pread(fd, &byte, 1, 4096), 1);
    assert_int_equal(byte, 'g');
    munmap(private, 2 * MIB);
    close(qemu);
    close(fd);
}

static void a_host_without_memory_says_so(void **state)
{
    struct exec exec = {.config = usual};
    struct template t = {.exec = &exec, .base_bytes = 1ULL << 50};
    CLEANUP_ERROR struct error *error = NULL;
    int fd = -1;
    assert_int_equal(template_memory_make(&t, &fd, &error), -1);
    assert_int_equal(error->kind, ERROR_NO_SPACE);
    assert_non_null(strstr(error_text(error), "there is no memory for it"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_host_gives_the_same_id),
        cmocka_unit_test(whatever_changes_gives_another_id),
        cmocka_unit_test(a_file_that_was_touched_is_another_one),
        cmocka_unit_test(an_image_gives_an_id_of_its_own),
        cmocka_unit_test(an_id_tells_the_memory),
        cmocka_unit_test(a_sealed_memory_cannot_be_changed_by_anybody),
        cmocka_unit_test(a_host_without_memory_says_so),
    };
    return cmocka_run_group_tests(tests, host_open, host_close);
}
