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

#include "base/str.h"
#include "disk/erofs.h"

/* Positions in the format, written here once more so that a slip in the writer shows. */
enum { SUPER = 1024, ROOT = 1152, SLOT = 32 };

struct world {
    struct erofs_writer w;
    int fd;
};

static int world_open(void **state)
{
    struct world *t = calloc(1, sizeof(*t));

    t->fd = memfd_create("erofs", MFD_CLOEXEC);
    erofs_open(&t->w, t->fd);
    *state = t;
    return t->fd < 0 ? -1 : 0;
}

static int world_close(void **state)
{
    struct world *t = *state;

    erofs_done(&t->w);
    close(t->fd);
    free(t);
    return 0;
}

static uint64_t number_at(const struct world *t, uint64_t offset, size_t size)
{
    uint8_t bytes[8] = {0};
    uint64_t value = 0;

    assert_int_equal(pread(t->fd, bytes, size, (off_t)offset), size);
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static uint64_t file_add(struct world *t, const void *data, size_t size)
{
    struct sink_attr attr = {.mode = S_IFREG | 0644};
    uint64_t nid;

    erofs_file_begin(&t->w, &attr, size);
    assert_int_equal(erofs_file_data(&t->w, 0, data, size, NULL), 0);
    assert_int_equal(erofs_file_end(&t->w, &nid, NULL), 0);
    return nid;
}

static void an_empty_root_makes_a_whole_filesystem(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFDIR | 0755, .mtime = 7};
    struct sink_dirent dots[] = {{".", 36, SINK_DIR, 1}, {"..", 36, SINK_DIR, 1}};
    struct sink_dir dir;
    const uint8_t uuid[16] = {1, 2, 3};
    uint64_t size;

    assert_int_equal(erofs_dir_plan(&t->w, &attr, true, dots, 2, &dir, NULL), 0);
    assert_int_equal(erofs_dir_write(&t->w, &dir, &attr, 2, dots, 2, NULL), 0);
    assert_int_equal(erofs_finish(&t->w, uuid, &size, NULL), 0);
    assert_int_equal(size, EROFS_BLOCK);
    assert_int_equal(number_at(t, SUPER, 4), 0xE0F5E1E2);
    assert_int_equal(number_at(t, SUPER + 14, 2), ROOT / SLOT);
    assert_int_equal(number_at(t, SUPER + 16, 8), 1);
    assert_int_equal(number_at(t, SUPER + 48, 4), 0x00030201);
    assert_int_equal(number_at(t, ROOT + 4, 2), S_IFDIR | 0755);
    assert_int_equal(number_at(t, ROOT + 8, 8), 2 * 12 + 3);
    assert_int_equal(number_at(t, ROOT + 32, 8), 7);
    assert_int_equal(number_at(t, ROOT + 64 + 8, 2), 2 * 12); /* where the names begin */
}

static void a_short_file_lies_behind_its_inode(void **state)
{
    struct world *t = *state;
    uint64_t at = file_add(t, "hello", 5) * SLOT;
    char data[6] = "";

    assert_int_equal(number_at(t, at, 2), 1 | 2 << 1);
    assert_int_equal(number_at(t, at + 8, 8), 5);
    assert_int_equal(pread(t->fd, data, 5, (off_t)at + 64), 5);
    assert_string_equal(data, "hello");
}

static void a_long_tail_gets_a_block(void **state)
{
    struct world *t = *state;
    static const uint8_t data[EROFS_INLINE_MAX + 1] = {1};
    uint64_t at = file_add(t, data, sizeof(data)) * SLOT;

    assert_int_equal(number_at(t, at, 2), 1);
    assert_int_equal(number_at(t, number_at(t, at + 16, 4) * EROFS_BLOCK, 1), 1);
}

static void inline_data_never_crosses_the_end_of_a_block(void **state)
{
    struct world *t = *state;
    static const uint8_t data[EROFS_INLINE_MAX] = {0};

    for (size_t size = 1; size <= sizeof(data); size += 37) {
        uint64_t first = file_add(t, data, size) * SLOT;
        uint64_t last = first + 64 + size - 1;
        assert_int_equal(first / EROFS_BLOCK, last / EROFS_BLOCK);
    }
}

static void blocks_of_zeros_are_holes(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644};
    uint64_t nid, size = 1ULL << 33;
    struct stat st;

    erofs_file_begin(&t->w, &attr, size);
    assert_int_equal(erofs_file_data(&t->w, size - 4, "end", 4, NULL), 0);
    assert_int_equal(erofs_file_end(&t->w, &nid, NULL), 0);
    assert_int_equal(number_at(t, nid * SLOT + 8, 8), size);
    assert_int_equal(fstat(t->fd, &st), 0);
    assert_true(st.st_blocks < 64);
}

static void data_outside_of_a_file_is_refused(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644};

    erofs_file_begin(&t->w, &attr, 10);
    assert_int_equal(erofs_file_data(&t->w, 8, "abc", 3, NULL), -1);
    assert_int_equal(erofs_file_data(&t->w, 5, "abc", 3, NULL), 0);
    assert_int_equal(erofs_file_data(&t->w, 5, "abc", 3, NULL), -1);
    assert_int_equal(erofs_file_data(&t->w, UINT64_MAX, "abc", 3, NULL), -1);
}

static void device_numbers_are_coded_as_the_kernel_does(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFBLK, .dev_major = 259, .dev_minor = 0xabcde};
    uint64_t nid;

    assert_int_equal(erofs_node(&t->w, &attr, NULL, &nid, NULL), 0);
    assert_int_equal(number_at(t, nid * SLOT + 16, 4), 0xde | 259 << 8 | 0xabc00ULL << 12);
}

static void attributes_of_unknown_kinds_are_left_out_and_too_many_refused(void **state)
{
    CLEANUP_BUF struct buf xattrs = {0};
    CLEANUP_ERROR struct error *error = NULL;
    static const char value[60000];

    assert_int_equal(sink_xattr_add(&xattrs, "com.apple.quarantine", "x", 1, NULL), 1);
    assert_int_equal(sink_xattr_add(&xattrs, "system.posix_acl_access_x", "x", 1, NULL), 1);
    assert_int_equal(sink_xattr_add(&xattrs, "user.", "x", 1, NULL), 1);
    assert_int_equal(sink_xattr_add(&xattrs, "user.abcd", "x", 1, NULL), 0);
    assert_int_equal(xattrs.len, 12 + 4 + 4 + 4);
    assert_int_equal(sink_xattr_add(&xattrs, "system.posix_acl_access", "x", 1, NULL), 0);
    assert_int_equal(sink_xattr_add(&xattrs, "user.big", value, sizeof(value), NULL), 0);
    assert_int_equal(sink_xattr_add(&xattrs, "user.more", value, sizeof(value), &error), -1);
    assert_int_equal(error->kind, ERROR_TOO_LARGE);
}

static void a_directory_of_many_names_is_cut_into_blocks(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFDIR | 0755};
    struct sink_dirent entries[1000];
    char names[1000][8];
    struct sink_dir dir;

    for (int i = 0; i < 1000; i++) {
        snprintf(names[i], sizeof(names[i]), "n%06d", i);
        entries[i] = (struct sink_dirent){names[i], 99, SINK_REG, 1};
    }
    assert_int_equal(erofs_dir_plan(&t->w, &attr, false, entries, 1000, &dir, NULL), 0);
    assert_int_equal(erofs_dir_write(&t->w, &dir, &attr, 2, entries, 1000, NULL), 0);
    size_t in_block = EROFS_BLOCK / (12 + 7);
    size_t last = 1000 - 4 * in_block;
    assert_int_equal(dir.size, 4 * EROFS_BLOCK + last * (12 + 7));
    assert_int_equal(number_at(t, dir.block * EROFS_BLOCK + 8, 2), in_block * 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_open, world_close)
        TEST(an_empty_root_makes_a_whole_filesystem),
        TEST(a_short_file_lies_behind_its_inode),
        TEST(a_long_tail_gets_a_block),
        TEST(inline_data_never_crosses_the_end_of_a_block),
        TEST(blocks_of_zeros_are_holes),
        TEST(data_outside_of_a_file_is_refused),
        TEST(device_numbers_are_coded_as_the_kernel_does),
        TEST(attributes_of_unknown_kinds_are_left_out_and_too_many_refused),
        TEST(a_directory_of_many_names_is_cut_into_blocks),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
