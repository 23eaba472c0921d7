#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "disk/tree.h"
#include "disk/unpack.h"

static void nodes_are_found_by_parent_and_name(void **state)
{
    struct tree tree;

    tree_open(&tree);
    struct tree_node *dir = tree_add(&tree, tree.root, "dir", 3, 0);
    tree_set_dir(&tree, dir);
    struct tree_node *file = tree_add(&tree, dir, "file-and-more", 4, 0);
    assert_ptr_equal(tree_lookup(&tree, ""), tree.root);
    assert_ptr_equal(tree_lookup(&tree, "dir"), dir);
    assert_ptr_equal(tree_lookup(&tree, "dir/file"), file);
    assert_null(tree_lookup(&tree, "file"));
    assert_null(tree_lookup(&tree, "dir/file/x"));
    assert_null(tree_lookup(&tree, "dir/fil"));
    tree_done(&tree);
}

static void many_nodes_stay_findable_when_the_table_grows(void **state)
{
    struct tree tree;
    char name[16];

    tree_open(&tree);
    for (int i = 0; i < 5000; i++) {
        size_t length = (size_t)snprintf(name, sizeof(name), "%d", i);
        tree_add(&tree, tree.root, name, length, 0);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "%d", i);
        assert_non_null(tree_lookup(&tree, name));
    }
    assert_int_equal(tree.root->dir->children, 5000);
    tree_done(&tree);
}

static void a_leaf_counts_its_names(void **state)
{
    struct tree tree;

    tree_open(&tree);
    struct tree_leaf *leaf = tree_leaf(&tree, 7, SINK_REG);
    struct tree_node *a = tree_add(&tree, tree.root, "a", 1, 0);
    struct tree_node *b = tree_add(&tree, tree.root, "b", 1, 0);
    tree_set_leaf(a, leaf);
    tree_set_leaf(b, leaf);
    tree_set_leaf(b, leaf);
    assert_int_equal(leaf->links, 2);
    tree_set_whiteout(a);
    assert_int_equal(leaf->links, 1);
    tree_set_link(&tree, b, "a");
    assert_int_equal(b->kind, TREE_LINK);
    assert_string_equal(b->link, "a");
    assert_int_equal(leaf->links, 0);
    tree_done(&tree);
}

static void the_memory_of_all_that_strangers_name_is_counted(void **state)
{
    struct tree tree;
    char name[] = "file-00000000";
    struct buf xattrs = {0};
    struct sink_attr attr = {.xattrs = &xattrs};

    tree_open(&tree);
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "file-%08d", i);
        tree_set_leaf(tree_add(&tree, tree.root, name, strlen(name), 0),
                      tree_leaf(&tree, 1, SINK_REG));
    }
    assert_in_range(tree.bytes, 100000 * 60, 100000 * 90);
    size_t before = tree.bytes;
    struct tree_node *dir = tree_add(&tree, tree.root, "dir", 3, 0);
    tree_set_dir(&tree, dir);
    memset(buf_reserve(&xattrs, SINK_XATTRS_MAX), 'x', SINK_XATTRS_MAX);
    xattrs.len = SINK_XATTRS_MAX;
    for (int i = 0; i < 100; i++)
        tree_set_attr(&tree, dir, &attr);
    assert_int_equal(dir->dir->attr.xattrs->len, SINK_XATTRS_MAX);
    assert_true(tree.bytes > before + 90 * SINK_XATTRS_MAX);
    buf_release(&xattrs);
    tree_done(&tree);
}

static void a_directory_is_opaque_for_the_layers_below(void **state)
{
    struct tree tree;

    tree_open(&tree);
    assert_false(tree_is_opaque(tree.root, 0));
    tree_make_opaque(tree.root, 3);
    tree_make_opaque(tree.root, 1);
    assert_true(tree_is_opaque(tree.root, 2));
    assert_false(tree_is_opaque(tree.root, 3));
    tree_done(&tree);
}

static void paths_lose_what_means_nothing(void **state)
{
    static const char *const pairs[][2] = {
        {"a/b", "a/b"}, {"./a//b/", "a/b"}, {"/a/./b", "a/b"},  {"./", ""},
        {"/", ""},      {"...", "..."},     {"a/..b", "a/..b"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        CLEANUP_FREE char *path = unpack_path(pairs[i][0], NULL);
        assert_string_equal(path, pairs[i][1]);
    }
}

static void paths_that_lead_out_or_go_too_far_are_refused(void **state)
{
    char name[SINK_NAME_MAX + 2], deep[2 * DISK_PATH_DEPTH_MAX + 4] = "";

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (size_t i = 0; i <= DISK_PATH_DEPTH_MAX; i++)
        memcpy(deep + 2 * i, "d/", 3);
    assert_null(unpack_path("..", NULL));
    assert_null(unpack_path("a/../b", NULL));
    assert_null(unpack_path(name, NULL));
    assert_null(unpack_path(deep, NULL));
    name[SINK_NAME_MAX] = '\0';
    deep[2 * DISK_PATH_DEPTH_MAX] = '\0';
    CLEANUP_FREE char *longest = unpack_path(name, NULL);
    CLEANUP_FREE char *deepest = unpack_path(deep, NULL);
    assert_non_null(longest);
    assert_non_null(deepest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_found_by_parent_and_name),
        cmocka_unit_test(many_nodes_stay_findable_when_the_table_grows),
        cmocka_unit_test(a_leaf_counts_its_names),
        cmocka_unit_test(the_memory_of_all_that_strangers_name_is_counted),
        cmocka_unit_test(a_directory_is_opaque_for_the_layers_below),
        cmocka_unit_test(paths_lose_what_means_nothing),
        cmocka_unit_test(paths_that_lead_out_or_go_too_far_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
