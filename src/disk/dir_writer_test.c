/* What the storage drivers' suite cannot see: how names are given, and what a failure leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/dir_writer.h"
#include "disk/disk.h"

static char home[4096];
static struct dir_writer *writer;

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(home, sizeof(home), "%s/husk-dir-writer.XXXXXX", str_or(tmp, "/tmp"));
    assert_non_null(mkdtemp(home));
    writer = dir_writer_new(home, NULL);
    assert_non_null(writer);
    return 0;
}

static int teardown(void **state)
{
    dir_writer_free(writer);
    return disk_remove("/", home, NULL);
}

static struct sink_attr attr_of(mode_t mode)
{
    return (struct sink_attr){.mode = mode, .uid = getuid(), .gid = getgid(), .mtime = 86400};
}

static uint64_t file(const char *text)
{
    struct sink_attr attr = attr_of(S_IFREG | 0640);
    uint64_t nid;

    assert_int_equal(dir_sink.file_begin(writer, &attr, strlen(text), NULL), 0);
    assert_int_equal(dir_sink.file_data(writer, 0, text, strlen(text), NULL), 0);
    assert_int_equal(dir_sink.file_end(writer, &nid, NULL), 0);
    return nid;
}

static void at(char ret[8192], const char *path)
{
    snprintf(ret, 8192, "%s/%s", home, path);
}

static void names_and_attributes_are_given(void **state)
{
    struct sink_attr link = attr_of(S_IFLNK | 0777), dir = attr_of(S_IFDIR | 0711);
    struct sink_dir top, below;
    uint64_t text = file("text"), out, size;
    char path[8192];
    struct stat one, other;

    assert_int_equal(dir_sink.node(writer, &link, "/etc", &out, NULL), 0);
    assert_int_equal(dir_sink.dir_plan(writer, &dir, true, NULL, 0, &top, NULL), 0);
    assert_int_equal(dir_sink.dir_plan(writer, &dir, false, NULL, 0, &below, NULL), 0);
    const struct sink_dirent in_top[] = {{".", top.nid, SINK_DIR, 0},
                                         {"..", top.nid, SINK_DIR, 0},
                                         {"below", below.nid, SINK_DIR, 0},
                                         {"one", text, SINK_REG, 2},
                                         {"out", out, SINK_SYMLINK, 1}};
    const struct sink_dirent in_below[] = {
        {".", below.nid, SINK_DIR, 1}, {"..", top.nid, SINK_DIR, 0}, {"passwd", text, SINK_REG, 1}};
    assert_int_equal(dir_sink.dir_write(writer, &top, &dir, 3, in_top, 5, NULL), 0);
    assert_int_equal(dir_sink.set_links(writer, text, 2, NULL), 0);
    assert_int_equal(dir_sink.dir_write(writer, &below, &dir, 2, in_below, 3, NULL), 0);
    assert_int_equal(dir_sink.finish(writer, (const uint8_t[16]){0}, &size, NULL), 0);
    at(path, "root/one");
    assert_int_equal(lstat(path, &one), 0);
    assert_int_equal(one.st_mode, S_IFREG | 0640);
    assert_int_equal(one.st_mtime, 86400);
    at(path, "root/below/passwd");
    assert_int_equal(lstat(path, &other), 0);
    assert_true(one.st_ino == other.st_ino && one.st_size == 4);
    at(path, "root/out");
    assert_true(lstat(path, &one) == 0 && S_ISLNK(one.st_mode));
    at(path, "root/below");
    assert_true(lstat(path, &one) == 0 && one.st_mode == (S_IFDIR | 0711));
    assert_int_equal(one.st_mtime, 86400);
}

static void data_outside_of_its_file_is_refused(void **state)
{
    struct sink_attr attr = attr_of(S_IFREG | 0600);
    struct error *error = NULL;

    assert_int_equal(dir_sink.file_begin(writer, &attr, 10, NULL), 0);
    assert_int_equal(dir_sink.file_data(writer, 8, "abc", 3, &error), -1);
    assert_int_equal(error->kind, ERROR_CORRUPT);
    error_free(error);
    error = NULL;
    assert_int_equal(dir_sink.file_data(writer, UINT64_MAX, "abc", 3, &error), -1);
    assert_int_equal(error->kind, ERROR_CORRUPT);
    error_free(error);
}

static void holes_stay_holes(void **state)
{
    struct sink_attr attr = attr_of(S_IFREG | 0600);
    uint8_t *zeros = xcalloc(1, 1 << 20);
    char path[8192];
    struct stat st;
    uint64_t nid;

    assert_int_equal(dir_sink.file_begin(writer, &attr, 1 << 30, NULL), 0);
    assert_int_equal(dir_sink.file_data(writer, 4096, zeros, 1 << 20, NULL), 0);
    assert_int_equal(dir_sink.file_data(writer, (1 << 30) - 1, "x", 1, NULL), 0);
    assert_int_equal(dir_sink.file_end(writer, &nid, NULL), 0);
    at(path, "stage/0");
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size == 1 << 30 && st.st_blocks <= 64);
    free(zeros);
}

/* A tree that is deeper than a process has descriptors, as a guest can make one. */
static void what_is_very_deep_is_removed(void **state)
{
    char path[8192];
    int levels = 3000;

    at(path, "deep");
    assert_int_equal(mkdir(path, 0700), 0);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < levels; i++) {
        assert_int_equal(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    close(fd);
    assert_int_equal(disk_remove("/", path, NULL), 0);
    assert_true(access(path, F_OK) < 0 && errno == ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_and_attributes_are_given, setup, teardown),
        cmocka_unit_test_setup_teardown(data_outside_of_its_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(holes_stay_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_very_deep_is_removed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
