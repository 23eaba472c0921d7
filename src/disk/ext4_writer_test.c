#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scratch.h"
#include "base/str.h"
#include "disk/ext4.h"
#include "disk/ext4_writer.h"
#include "disk/tool.h"

enum { SIZE = 96 << 20, BLOCK = 4096 };

struct world {
    char *directory, *path;
    struct ext4_writer *w;
};

static int world_open(void **state)
{
    struct world *t = calloc(1, sizeof(*t));

    t->directory = scratch_make("ext4");
    t->path = str_printf("%s/file", t->directory);
    int fd = open(t->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, SIZE) < 0 || ext4_format(t->path, true, NULL) < 0)
        return -1;
    close(fd);
    t->w = ext4_writer_new(t->path, 0, NULL);
    *state = t;
    return t->w ? 0 : -1;
}

static int world_close(void **state)
{
    struct world *t = *state;

    ext4_writer_free(t->w);
    unlink(t->path);
    rmdir(t->directory);
    free(t->directory);
    free(t->path);
    free(t);
    return 0;
}

static uint64_t file_add(struct world *t, const struct sink_attr *attr, const void *data,
                         size_t size)
{
    uint64_t nid = 0;

    assert_int_equal(ext4_sink.file_begin(t->w, attr, size, NULL), 0);
    if (size > 0)
        assert_int_equal(ext4_sink.file_data(t->w, 0, data, size, NULL), 0);
    assert_int_equal(ext4_sink.file_end(t->w, &nid, NULL), 0);
    return nid;
}

/* The root with these entries and "." and "..", then the end. */
static int root_write(struct world *t, struct sink_dirent *entries, size_t count,
                      struct error **ret_error)
{
    struct sink_attr attr = {.mode = S_IFDIR | 0755};
    struct sink_dir place;
    uint8_t uuid[16] = {0};
    uint64_t size;

    if (ext4_sink.dir_plan(t->w, &attr, true, entries, count, &place, ret_error) < 0 ||
        ext4_sink.dir_write(t->w, &place, &attr, 2, entries, count, ret_error) < 0)
        return -1;
    return ext4_sink.finish(t->w, uuid, &size, ret_error);
}

static void assert_clean(const struct world *t)
{
    const char *const argv[] = {"e2fsck", "-f", "-n", t->path, NULL};
    struct error *error = NULL;
    int result = tool_run(argv, &error);

    assert_string_equal(result == 0 ? "" : error_text(error), "");
}

/* What debugfs says to a request; the caller frees it. */
static char *ask(const struct world *t, const char *request, size_t size)
{
    CLEANUP_FREE char *command =
        str_printf("/usr/sbin/debugfs -R '%s' %s 2>/dev/null", request, t->path);
    char *text = xcalloc(1, size + 1);
    FILE *out = popen(command, "r");

    assert_non_null(out);
    assert_int_equal(fread(text, 1, size, out) <= size, 1);
    pclose(out);
    return text;
}

static void a_file_of_many_pieces_is_whole(void **state)
{
    enum { BLOCKS = 3000, FILE_SIZE = BLOCKS * BLOCK - 100 };
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644, .uid = 70000, .gid = 80000, .mtime = 1000};
    CLEANUP_FREE uint8_t *data = xcalloc(1, BLOCKS * BLOCK);
    struct sink_dirent entries[] = {{"file", 0, SINK_REG, 1}};

    /* Every second block is a hole: so many extents need a tree of two levels. */
    for (size_t i = 0; i < BLOCKS; i += 2)
        memset(data + i * BLOCK, (int)(i % 251) + 1, BLOCK);
    entries[0].nid = file_add(t, &attr, data, FILE_SIZE);
    assert_int_equal(root_write(t, entries, 1, NULL), 0);
    assert_clean(t);
    CLEANUP_FREE char *read = ask(t, "cat /root/file", FILE_SIZE);
    assert_memory_equal(read, data, FILE_SIZE);
    CLEANUP_FREE char *stat = ask(t, "stat /root/file", 4096);
    assert_non_null(strstr(stat, "User: 70000   Group: 80000"));
    assert_non_null(strstr(stat, "Blockcount: 12"));
}

static void nodes_are_what_they_should_be(void **state)
{
    struct world *t = *state;
    CLEANUP_BUF struct buf xattrs = {0};
    char target[SINK_SYMLINK_MAX + 1] = "";
    struct sink_attr link = {.mode = S_IFLNK | 0777};
    struct sink_attr device = {.mode = S_IFBLK | 0600, .dev_major = 259, .dev_minor = 70000};
    struct sink_attr file = {.mode = S_IFREG | 04755, .mtime = 5000000000, .xattrs = &xattrs};
    struct sink_dirent entries[] = {{"device", 0, SINK_BLK, 1},
                                    {"file", 0, SINK_REG, 1},
                                    {"long", 0, SINK_SYMLINK, 1},
                                    {"short", 0, SINK_SYMLINK, 1}};

    memset(target, 'x', sizeof(target) - 1);
    assert_int_equal(sink_xattr_add(&xattrs, "user.colour", "blue", 4, NULL), 0);
    assert_int_equal(
        sink_xattr_add(&xattrs, "security.capability", "12345678901234567890", 20, NULL), 0);
    entries[1].nid = file_add(t, &file, "", 0);
    assert_int_equal(ext4_sink.node(t->w, &device, NULL, &entries[0].nid, NULL), 0);
    assert_int_equal(ext4_sink.node(t->w, &link, target, &entries[2].nid, NULL), 0);
    assert_int_equal(ext4_sink.node(t->w, &link, "file", &entries[3].nid, NULL), 0);
    assert_int_equal(root_write(t, entries, ARRAY_SIZE(entries), NULL), 0);
    assert_clean(t);
    CLEANUP_FREE char *stat = ask(t, "stat /root/file", 4096);
    assert_non_null(strstr(stat, "user.colour (4) = \"blue\""));
    assert_non_null(strstr(stat, "security.capability (20)"));
    assert_non_null(strstr(stat, "Mode:  04755"));
    assert_non_null(strstr(stat, "2128")); /* the year of its time, behind the 32 bits */
    CLEANUP_FREE char *shown = ask(t, "stat /root/short", 4096);
    assert_non_null(strstr(shown, "Fast link dest: \"file\""));
    CLEANUP_FREE char *node = ask(t, "stat /root/device", 4096);
    assert_non_null(strstr(node, "259:70000"));
}

static void a_directory_of_many_blocks_and_more_names_for_a_file(void **state)
{
    enum { COUNT = 5000 };
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644};
    struct sink_dirent entries[COUNT + 2] = {{".", 0, SINK_DIR, 1}, {"..", 0, SINK_DIR, 1}};
    CLEANUP_STRV char **names = NULL;
    uint64_t nid = file_add(t, &attr, "one", 3);

    for (int i = 0; i < COUNT; i++)
        strv_push_take(&names, str_printf("a rather long name of an entry %05d", i));
    for (int i = 0; i < COUNT; i++)
        entries[i + 2] = (struct sink_dirent){names[i], nid, SINK_REG, 1};
    assert_int_equal(ext4_sink.set_links(t->w, nid, COUNT, NULL), 0);
    assert_int_equal(ext4_sink.set_links(t->w, nid, 65001, NULL), -1);
    assert_int_equal(root_write(t, entries, ARRAY_SIZE(entries), NULL), 0);
    assert_clean(t);
    CLEANUP_FREE char *read = ask(t, "cat \"/root/a rather long name of an entry 04999\"", 16);
    assert_string_equal(read, "one");
}

static void what_does_not_fit_is_refused(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644};
    CLEANUP_FREE uint8_t *data = xmalloc(1 << 20);
    CLEANUP_ERROR struct error *error = NULL;
    int result = 0;

    memset(data, 'x', 1 << 20);
    assert_int_equal(ext4_sink.file_begin(t->w, &attr, 1ULL << 40, NULL), 0);
    for (uint64_t at = 0; result == 0 && at < SIZE; at += 1 << 20)
        result = ext4_sink.file_data(t->w, at, data, 1 << 20, &error);
    assert_int_equal(result, -1);
    assert_int_equal(error->kind, ERROR_NO_SPACE);
    assert_non_null(strstr(error_text(error), "does not fit into its file system"));
}

static void more_than_the_pool_has_is_refused_before_it_is_written(void **state)
{
    struct world *t = *state;
    struct sink_attr attr = {.mode = S_IFREG | 0644};
    uint8_t data[4 * BLOCK];
    CLEANUP_ERROR struct error *error = NULL;
    uint64_t nid;

    memset(data, 'x', sizeof(data));
    ext4_writer_free(t->w);
    t->w = ext4_writer_new(t->path, 3 * BLOCK, NULL);
    assert_non_null(t->w);
    assert_int_equal(ext4_sink.file_begin(t->w, &attr, sizeof(data), NULL), 0);
    assert_int_equal(ext4_sink.file_data(t->w, 0, data, sizeof(data), NULL), 0);
    assert_int_equal(ext4_sink.file_end(t->w, &nid, &error), -1);
    assert_int_equal(error->kind, ERROR_NO_SPACE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
    const struct CMUnitTest tests[] = {
        TEST(a_file_of_many_pieces_is_whole),
        TEST(nodes_are_what_they_should_be),
        TEST(a_directory_of_many_blocks_and_more_names_for_a_file),
        TEST(what_does_not_fit_is_refused),
        TEST(more_than_the_pool_has_is_refused_before_it_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
