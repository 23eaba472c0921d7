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

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/scratch.h"
#include "base/str.h"
#include "disk/ext4.h"
#include "disk/ext4_changes.h"
#include "disk/tool.h"

enum { SIZE = 32 << 20, TAR_MAX = 16 << 20 };

/* The clock of debugfs, which makes what a container's kernel would make. */
#define THEN  "1000000000"
#define LATER "1500000000"

/* An image, and what became of a copy of it. */
struct world {
    char *directory, *before, *now, *script, *text;
};

static void file_put(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Requests of debugfs, a line each; "TEXT" in them is a file with "text". */
static void change_at(const struct world *t, const char *path, const char *time, const char *lines)
{
    const char *const argv[] = {"debugfs", "-w", "-f", t->script, path, NULL};
    CLEANUP_STRV char **parts = str_split(lines, '@');
    CLEANUP_FREE char *whole = strv_join((const char *const *)parts, t->text);
    struct error *error = NULL;

    file_put(t->script, whole);
    setenv("E2FSPROGS_FAKE_TIME", time, true);
    int result = tool_run(argv, &error);
    assert_string_equal(result == 0 ? "" : error_text(error), "");
    unsetenv("E2FSPROGS_FAKE_TIME");
}

static void change(const struct world *t, const char *lines)
{
    change_at(t, t->now, LATER, lines);
}

static void copy_make(const struct world *t)
{
    int from = open(t->before, O_RDONLY | O_CLOEXEC);
    int to = open(t->now, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(disk_copy(from, to), 0);
    close(from);
    close(to);
}

static int world_open(void **state)
{
    struct world *t = xcalloc(1, sizeof(*t));

    t->directory = scratch_make("changes");
    t->before = str_printf("%s/before", t->directory);
    t->now = str_printf("%s/now", t->directory);
    t->script = str_printf("%s/script", t->directory);
    t->text = str_printf("%s/text", t->directory);
    file_put(t->before, "");
    file_put(t->text, "text");
    if (truncate(t->before, SIZE) < 0 || ext4_format(t->before, true, NULL) < 0)
        return -1;
    change_at(t, t->before, THEN,
              "mkdir root\ncd root\n"
              "mkdir etc\nwrite @ etc/kept\nwrite @ etc/changed\nwrite @ etc/gone\n"
              "mkdir whole\nwrite @ whole/one\nmkdir whole/deep\nwrite @ whole/deep/two\n"
              "mkdir moved\nwrite @ moved/a\nln moved/a b\nsif b links_count 2\n"
              "write @ file\nsymlink link target\n");
    copy_make(t);
    *state = t;
    return 0;
}

static int world_close(void **state)
{
    struct world *t = *state;
    int result = disk_remove("/", t->directory, NULL);

    free(t->directory);
    free(t->before);
    free(t->now);
    free(t->script);
    free(t->text);
    free(t);
    return result;
}

static int tar_append(void *arg, const void *data, size_t size, struct error **ret_error)
{
    buf_append(arg, data, size);
    return 0;
}

/* "PATH TYPE+MODE SIZE [TARGET] [ATTRIBUTES];" for each entry of the layer. */
static void entry_say(struct archive_entry *entry, struct buf *out)
{
    const char *target = archive_entry_symlink(entry), *link = archive_entry_hardlink(entry);
    const char *name;
    const void *value;
    size_t size;

    buf_printf(out, "%s", archive_entry_pathname(entry));
    if (link)
        buf_printf(out, " = %s", link);
    else
        buf_printf(out, " %o", archive_entry_mode(entry));
    if (!link && archive_entry_filetype(entry) == AE_IFREG)
        buf_printf(out, " %lld", (long long)archive_entry_size(entry));
    if (target)
        buf_printf(out, " -> %s", target);
    if (archive_entry_filetype(entry) == AE_IFCHR)
        buf_printf(out, " %d:%d", (int)archive_entry_rdevmajor(entry),
                   (int)archive_entry_rdevminor(entry));
    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK)
        buf_printf(out, " %s=%.*s", name, (int)size, (const char *)value);
    buf_append_str(out, ";");
}

static char *tar_say(const struct buf *tar)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    struct buf out = {0};

    archive_read_support_format_tar(archive);
    assert_int_equal(archive_read_open_memory(archive, tar->data, tar->len), ARCHIVE_OK);
    while (archive_read_next_header(archive, &entry) == ARCHIVE_OK)
        entry_say(entry, &out);
    archive_read_free(archive);
    return buf_take_str(&out);
}

/* What the layer has, or why there is none; the caller frees it. */
static char *changes_of(const struct world *t, bool careful)
{
    struct ext4_changes_spec spec = {.before = t->before, .now = t->now, .careful = careful};
    CLEANUP_BUF struct buf tar = {0};
    CLEANUP_ERROR struct error *error = NULL;
    const struct disk_output out = {tar_append, &tar, TAR_MAX};

    if (ext4_changes(&spec, &out, &error) < 0)
        return xstrdup(error_text(error));
    assert_int_equal(tar.len % 512, 0);
    return tar_say(&tar);
}

static void assert_changes(const struct world *t, bool careful, const char *wanted)
{
    CLEANUP_FREE char *found = changes_of(t, careful);

    assert_string_equal(found, wanted);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void what_was_not_changed_is_not_in_the_layer(void **state)
{
    assert_changes(*state, false, "");
    assert_changes(*state, true, "");
}

static void what_is_new_or_changed_is_written_and_what_is_gone_is_marked(void **state)
{
    struct world *t = *state;

    change(t, "cd root/etc\nrm gone\nwrite @ new\nsif . ctime " LATER "\n"
              "sif changed ctime " LATER "\nsif changed mode 0104755\nsif changed uid 70000\n"
              "ea_set changed user.colour blue\nea_set changed trusted.overlay.opaque y\n"
              "mknod null c 1 3\n");
    assert_changes(t, false,
                   "etc/ 40755;etc/changed 104755 4 user.colour=blue;etc/.wh.gone 100600 0;"
                   "etc/new 100644 4;etc/null 20000 1:3;");
}

static void a_directory_of_which_only_the_time_was_changed_is_alone(void **state)
{
    struct world *t = *state;

    change(t, "sif root/whole ctime " LATER "\n");
    assert_changes(t, false, "whole/ 40755;");
}

static void what_changed_its_type_takes_the_place_of_what_was_there(void **state)
{
    struct world *t = *state;

    change(t, "cd root\nrm file\nmkdir file\nwrite @ file/in\n"
              "rm whole/deep/two\nrmdir whole/deep\nwrite @ whole/deep\n"
              "rm link\nmknod link p\n");
    assert_changes(t, false,
                   "file/ 40755;file/in 100644 4;link 10000;"
                   "whole/deep 100644 4;");
}

static void a_directory_in_the_place_of_another_loses_what_that_had(void **state)
{
    struct world *t = *state;

    change(t, "cd root\nrm whole/deep/two\nrmdir whole/deep\nrm whole/one\nrmdir whole\n"
              "mkdir whole\nwrite @ whole/new\n");
    assert_changes(t, false,
                   "whole/ 40755;whole/.wh.deep 100600 0;whole/new 100644 4;"
                   "whole/.wh.one 100600 0;");
}

static void all_names_of_a_file_go_into_the_layer_or_none(void **state)
{
    struct world *t = *state;

    /* One more name changes the inode, and so all of them. */
    change(t, "cd root\nln b c\nsif b links_count 3\nsif b ctime " LATER "\n");
    assert_changes(t, false, "b 100644 4;c = b;moved/a = b;");
    /* A directory that is renamed changes nothing of what is in it. */
    copy_make(t);
    change(t, "cd root\nln moved renamed\nunlink moved\n");
    assert_changes(t, false, "b 100644 4;.wh.moved 100600 0;renamed/ 40755;renamed/a = b;");
}

static void a_file_whose_time_was_lost_is_found_by_its_bytes(void **state)
{
    struct world *t = *state;

    change(t, "zap_block -f /root/etc/kept -p 120 0\n");
    assert_changes(t, false, "");
    assert_changes(t, true, "etc/kept 100644 4;");
}

static void what_no_image_can_have_is_not_in_the_layer(void **state)
{
    struct world *t = *state;

    change(t, "cd root\nmknod whiteout c 0 0\nwrite @ socket\nsif socket mode 0140755\n"
              "rm file\nmknod file c 0 0\n");
    assert_changes(t, false, ".wh.file 100600 0;");
    copy_make(t);
    change(t, "cd root\nwrite @ .wh.file\n");
    assert_changes(t, false,
                   "'/.wh.file': a name that begins with '.wh.' means in a layer that something "
                   "was removed: rename it");
}

static void a_file_system_that_was_made_anew_is_all_in_the_layer(void **state)
{
    struct world *t = *state;

    const char *const argv[] = {"tune2fs", "-f", "-U", "00000000-0000-4000-8000-000000000001",
                                t->now,    NULL};

    assert_int_equal(tool_run(argv, NULL), 0);
    change(t, "rm root/file\n");
    assert_changes(t, false,
                   "./ 40755;b 100644 4;etc/ 40755;etc/changed 100644 4;etc/gone 100644 4;"
                   "etc/kept 100644 4;.wh.file 100600 0;link 120777 -> target;moved/ 40755;"
                   "moved/a = b;whole/ 40755;whole/deep/ 40755;whole/deep/two 100644 4;"
                   "whole/one 100644 4;");
}

static void holes_and_long_names_are_kept(void **state)
{
    struct world *t = *state;
    CLEANUP_FREE char *name = xcalloc(1, 256);

    memset(name, 'n', 255);
    CLEANUP_FREE char *lines =
        str_printf("cd root\nwrite @ %s\nsif %s size 5000000\nmkdir d\nwrite @ d/x\n", name, name);
    change(t, lines);
    CLEANUP_FREE char *wanted = str_printf("d/ 40755;d/x 100644 4;%s 100644 5000000;", name);
    assert_changes(t, false, wanted);
}

static void what_would_do_harm_is_refused(void **state)
{
    struct world *t = *state;
    struct buf deep = {0};

    buf_append_str(&deep, "cd root\n");
    change(t, "cd root\nmkdir loop\nln etc loop/etc\n");
    assert_changes(t, false, "'/loop/etc': the directory is there twice");
    copy_make(t);
    for (int i = 0; i <= DISK_PATH_DEPTH_MAX; i++)
        buf_append_str(&deep, "mkdir d\ncd d\n");
    CLEANUP_FREE char *lines = buf_take_str(&deep);
    change(t, lines);
    CLEANUP_FREE char *refused = changes_of(t, false);
    assert_non_null(strstr(refused, "': directories lie more than 256 deep"));
    copy_make(t);
    change(t, "ssv blocks_count 4000000000\n");
    assert_changes(t, false, "the layer is damaged: its file system is larger than its file");
    copy_make(t);
    change(t, "ssv state 0\n");
    assert_changes(t, false, "the layer was not closed");
    copy_make(t);
    change(t, "rm root/file\nunlink root\n");
    assert_changes(t, false, "the layer has no directory 'root'");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
    const struct CMUnitTest tests[] = {
        TEST(what_was_not_changed_is_not_in_the_layer),
        TEST(what_is_new_or_changed_is_written_and_what_is_gone_is_marked),
        TEST(a_directory_of_which_only_the_time_was_changed_is_alone),
        TEST(what_changed_its_type_takes_the_place_of_what_was_there),
        TEST(a_directory_in_the_place_of_another_loses_what_that_had),
        TEST(all_names_of_a_file_go_into_the_layer_or_none),
        TEST(a_file_whose_time_was_lost_is_found_by_its_bytes),
        TEST(what_no_image_can_have_is_not_in_the_layer),
        TEST(a_file_system_that_was_made_anew_is_all_in_the_layer),
        TEST(holes_and_long_names_are_kept),
        TEST(what_would_do_harm_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
