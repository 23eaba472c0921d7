/* Which holes are punched, and which only seem to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, SIZE = 16 * PAGE, HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };

static void fill(int fd)
{
    uint8_t page[PAGE];
    memset(page, 'x', sizeof(page));
    for (int i = 0; i < SIZE / PAGE; i++)
        assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
}

static int memory(unsigned seals)
{
    int fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    fill(fd);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static uint8_t byte_at(int fd, off_t at)
{
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    return byte;
}

static blkcnt_t blocks(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_blocks;
}

static void a_hole_in_a_sealed_file_succeeds_and_changes_nothing(void **state)
{
    int fd = memory(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    blkcnt_t before = blocks(fd);
    assert_int_equal(fallocate64(fd, HOLE, PAGE, PAGE), 0);
    assert_int_equal(byte_at(fd, PAGE), 'x');
    assert_int_equal(blocks(fd), before);
    close(fd);
}

static void the_kernel_itself_refuses_it(void **state)
{
    int fd = memory(F_SEAL_WRITE);
    assert_int_equal(syscall(SYS_fallocate, fd, HOLE, (off_t)PAGE, (off_t)PAGE), -1);
    assert_int_equal(errno, EPERM);
    close(fd);
}

static void other_memory_gets_its_hole(void **state)
{
    int fd = memory(F_SEAL_SHRINK | F_SEAL_GROW);
    assert_int_equal(fallocate64(fd, HOLE, PAGE, PAGE), 0);
    assert_int_equal(byte_at(fd, PAGE), 0);
    assert_int_equal(byte_at(fd, 0), 'x');
    close(fd);
}

static void a_file_of_a_disk_gets_its_hole(void **state)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int fd = fileno(file);
    fill(fd);
    fsync(fd);
    blkcnt_t before = blocks(fd);
    assert_int_equal(fallocate64(fd, HOLE, PAGE, 4 * PAGE), 0);
    assert_int_equal(byte_at(fd, PAGE), 0);
    assert_int_equal(byte_at(fd, (off_t)5 * PAGE), 'x');
    assert_true(blocks(fd) < before);
    fclose(file);
}

static void what_is_no_hole_is_left_to_the_kernel(void **state)
{
    int fd = memory(F_SEAL_WRITE | F_SEAL_GROW);
    assert_int_equal(fallocate64(fd, 0, 0, (off_t)2 * SIZE), -1);
    assert_int_equal(errno, EPERM);
    close(fd);
    assert_int_equal(fallocate64(-1, HOLE, 0, PAGE), -1);
    assert_int_equal(errno, EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hole_in_a_sealed_file_succeeds_and_changes_nothing),
        cmocka_unit_test(the_kernel_itself_refuses_it),
        cmocka_unit_test(other_memory_gets_its_hole),
        cmocka_unit_test(a_file_of_a_disk_gets_its_hole),
        cmocka_unit_test(what_is_no_hole_is_left_to_the_kernel),
    };
    return cmocka_run_group_tests_name("discard", tests, NULL, NULL);
}
