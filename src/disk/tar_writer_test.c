#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>

#include "base/str.h"
#include "disk/tar_writer.h"

static int append(void *arg, const void *data, size_t size, struct error **ret_error)
{
    buf_append(arg, data, size);
    return 0;
}

struct fixture {
    struct buf bytes;
    struct disk_output out;
    struct tar_writer tar;
    struct archive *reader;
    struct archive_entry *entry;
};

static void begin(struct fixture *f, uint64_t max_bytes)
{
    *f = (struct fixture){.out = {append, NULL, max_bytes}};
    f->out.arg = &f->bytes;
    tar_writer_open(&f->tar, &f->out);
}

/* From now on what was written is read. */
static void turn(struct fixture *f)
{
    assert_int_equal(tar_writer_end(&f->tar, NULL), 0);
    assert_int_equal(f->bytes.len % 512, 0);
    f->reader = archive_read_new();
    archive_read_support_format_tar(f->reader);
    assert_int_equal(archive_read_open_memory(f->reader, f->bytes.data, f->bytes.len), ARCHIVE_OK);
}

static void next(struct fixture *f, const char *path)
{
    assert_int_equal(archive_read_next_header(f->reader, &f->entry), ARCHIVE_OK);
    assert_string_equal(archive_entry_pathname(f->entry), path);
}

static void end(struct fixture *f)
{
    if (f->reader) {
        assert_int_equal(archive_read_next_header(f->reader, &f->entry), ARCHIVE_EOF);
        archive_read_free(f->reader);
    }
    tar_writer_done(&f->tar);
    buf_release(&f->bytes);
}

static void what_does_not_fit_a_header_is_whole(void **state)
{
    struct fixture f;
    struct buf xattrs = {0};
    char path[201], target[301];

    memset(path, 'p', 200);
    memset(target, 't', 300);
    path[200] = target[300] = '\0';
    sink_xattr_add(&xattrs, "user.note", "a\nb\0c", 5, NULL);
    const struct sink_attr attr = {.mode = S_IFLNK | 0777,
                                   .uid = 3000000,
                                   .gid = 4000000000U,
                                   .mtime = 9000000000,
                                   .mtime_nsec = 5,
                                   .xattrs = &xattrs};
    begin(&f, UINT64_MAX);
    assert_int_equal(tar_writer_add(&f.tar, path, &attr, target, 0, NULL), 0);
    turn(&f);
    next(&f, path);
    assert_string_equal(archive_entry_symlink(f.entry), target);
    assert_int_equal(archive_entry_uid(f.entry), 3000000);
    assert_int_equal(archive_entry_gid(f.entry), 4000000000U);
    assert_int_equal(archive_entry_mtime(f.entry), 9000000000);
    assert_int_equal(archive_entry_mtime_nsec(f.entry), 5);
    const char *name;
    const void *value;
    size_t size;
    assert_int_equal(archive_entry_xattr_reset(f.entry), 1);
    assert_int_equal(archive_entry_xattr_next(f.entry, &name, &value, &size), ARCHIVE_OK);
    assert_string_equal(name, "user.note");
    assert_int_equal(size, 5);
    assert_memory_equal(value, "a\nb\0c", 5);
    end(&f);
    buf_release(&xattrs);
}

static void times_before_1970_are_kept(void **state)
{
    static const struct {
        int64_t seconds;
        uint32_t nsec;
        const char *text;
    } times[] = {{-1, 0, "mtime=-1\n"},
                 {-1, 750000000, "mtime=-0.250000000\n"},
                 {-2, 750000000, "mtime=-1.250000000\n"}};
    struct fixture f;

    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        const struct sink_attr attr = {
            .mode = S_IFREG, .mtime = times[i].seconds, .mtime_nsec = times[i].nsec};
        begin(&f, UINT64_MAX);
        assert_int_equal(tar_writer_add(&f.tar, "old", &attr, NULL, 0, NULL), 0);
        assert_non_null(memmem(f.bytes.data, f.bytes.len, times[i].text, strlen(times[i].text)));
        end(&f);
    }
}

static void markers_have_the_names_of_the_specification(void **state)
{
    static const struct sink_attr dir = {.mode = S_IFDIR | 0755};
    struct fixture f;

    begin(&f, UINT64_MAX);
    assert_int_equal(tar_writer_add(&f.tar, "", &dir, NULL, 0, NULL), 0);
    assert_int_equal(tar_writer_whiteout(&f.tar, "gone", NULL), 0);
    assert_int_equal(tar_writer_whiteout(&f.tar, "a/b/gone", NULL), 0);
    assert_int_equal(tar_writer_opaque(&f.tar, "a", NULL), 0);
    turn(&f);
    next(&f, "./");
    next(&f, ".wh.gone");
    next(&f, "a/b/.wh.gone");
    next(&f, "a/.wh..wh..opq");
    end(&f);
}

static void limits_hold(void **state)
{
    static const struct sink_attr attr = {.mode = S_IFREG};
    CLEANUP_ERROR struct error *error = NULL;
    struct fixture f;

    begin(&f, 1024);
    assert_int_equal(tar_writer_add(&f.tar, "file", &attr, NULL, 1 << 20, NULL), 0);
    assert_int_equal(tar_writer_data(&f.tar, NULL, 1 << 20, &error), -1);
    assert_int_equal(error->kind, ERROR_TOO_LARGE);
    assert_int_equal(tar_writer_data(&f.tar, NULL, (1 << 20) + 1, NULL), -1);
    end(&f);
}

static void data_is_filled_up_to_a_block(void **state)
{
    static const struct sink_attr attr = {.mode = S_IFREG};
    struct fixture f;
    char text[600];

    begin(&f, UINT64_MAX);
    assert_int_equal(tar_writer_add(&f.tar, "one", &attr, NULL, 600, NULL), 0);
    assert_int_equal(tar_writer_data(&f.tar, "head", 4, NULL), 0);
    assert_int_equal(tar_writer_data(&f.tar, NULL, 592, NULL), 0);
    assert_int_equal(tar_writer_data(&f.tar, "tail", 4, NULL), 0);
    assert_int_equal(tar_writer_link(&f.tar, "two", &attr, "one", NULL), 0);
    turn(&f);
    next(&f, "one");
    assert_int_equal(archive_read_data(f.reader, text, sizeof(text)), 600);
    assert_memory_equal(text, "head\0\0", 6);
    assert_memory_equal(text + 595, "\0tail", 5);
    next(&f, "two");
    assert_string_equal(archive_entry_hardlink(f.entry), "one");
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_fit_a_header_is_whole),
        cmocka_unit_test(times_before_1970_are_kept),
        cmocka_unit_test(markers_have_the_names_of_the_specification),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(data_is_filled_up_to_a_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
