/* What only the driver devicemapper promises: a pool that is never torn, full or leaking. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk/dm.h"
#include "suite.h"

enum { KILLS = 16 };

static size_t count_of(const char *pattern)
{
    glob_t found = {0};
    size_t count = glob(pattern, GLOB_NOSORT, NULL, &found) == 0 ? found.gl_pathc : 0;

    globfree(&found);
    return count;
}

static size_t entries(const struct rig *rig)
{
    CLEANUP_FREE char *pattern = str_printf("%s/devicemapper/devices/*", rig->root);

    return count_of(pattern);
}

/* What of the pool is in use, by the pool itself. */
static int pool_used(const struct rig *rig, struct dm_space *ret, struct error **ret_error)
{
    struct dm_pool pool;
    int result = dm_pool_enter(&pool, &rig->disk, ret_error);

    if (result == 0)
        result = dm_pool_space(&pool, ret, ret_error);
    dm_pool_leave(&pool);
    return result;
}

static struct tar tar_small(const struct rig *rig, const char *name)
{
    struct tar tar = tar_open(rig, name);

    tar_add(&tar, (struct entry){.path = "file", .text = "of the image"});
    tar_add_noise(&tar, "noise", 4 << 20, 4096);
    tar_close(&tar);
    return tar;
}

static void what_is_created_has_no_node(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "node");
    struct image image;
    struct view view;

    MUST_DO(image_make(rig, &tar, 1, "node", &image, &error));
    MUST_DO(layer_make(rig, "node", &image, rig->layer_bytes, &error));
    CHECK(count_of("/dev/mapper/husk-*") == 0);
    CHECK(count_of("/sys/block/loop*/loop") == 0);
    CHECK(entries(rig) == 2);
    MUST_DO(view_open(rig, &image, "node", &view, &error));
    CHECK(count_of("/dev/mapper/husk-*") == 2); /* the pool, and the layer */
    MUST_DO(view_close(&view, &error));
    CHECK(count_of("/dev/mapper/husk-*") == 0);
    CHECK(count_of("/sys/block/loop*/loop") == 0);
    MUST_DO(layer_remove(rig, "node", &error));
    MUST_DO(image_remove(rig, &image, &error));
    CHECK(entries(rig) == 0);
    image_done(&image);
    tar_free(&tar);
}

static void removal_gives_all_of_the_pool_back(const struct rig *rig)
{
    CLEANUP_FREE char *data = str_printf("%s/devicemapper/data", rig->root);
    struct tar tar = tar_small(rig, "back");
    struct dm_space before, with, after;
    struct stat first, last;
    struct image image;

    MUST_DO(pool_used(rig, &before, &error));
    MUST(stat(data, &first) == 0);
    MUST_DO(image_make(rig, &tar, 1, "back", &image, &error));
    MUST_DO(layer_make(rig, "back", &image, rig->layer_bytes, &error));
    MUST_DO(pool_used(rig, &with, &error));
    CHECK(with.data_used >= before.data_used + (4 << 20));
    MUST_DO(image_remove(rig, &image, &error)); /* its snapshot keeps what it needs */
    MUST_DO(layer_remove(rig, "back", &error));
    MUST_DO(pool_used(rig, &after, &error));
    CHECK(after.data_used == before.data_used);
    CHECK(after.meta_used <= before.meta_used + 4);
    MUST(stat(data, &last) == 0);
    CHECK(last.st_blocks <= first.st_blocks + 256);
    image_done(&image);
    tar_free(&tar);
}

static void an_image_that_is_removed_leaves_its_containers_whole(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "orphan");
    struct image image;
    struct view view;

    MUST_DO(image_make(rig, &tar, 1, "orphan", &image, &error));
    MUST_DO(layer_make(rig, "orphan", &image, rig->layer_bytes, &error));
    MUST_DO(image_remove(rig, &image, &error));
    MUST_DO(view_open(rig, &image, "orphan", &view, &error));
    CLEANUP_FREE char *text = view_read(&view, "file");
    CHECK(strcmp(text, "of the image") == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "orphan", &error));
    image_done(&image);
    tar_free(&tar);
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* What a worker does for a first container. */
static void container_make(const struct rig *rig, void *arg)
{
    const struct tar *tar = arg;
    struct image image;

    if (image_make(rig, tar, 1, "killed", &image, NULL) == 0)
        layer_make(rig, "killed", &image, 2 * rig->layer_bytes, NULL);
    image_done(&image);
}

/* One worker's life; ended after so long, or, with -1, by itself. Returns how long it was. */
static int64_t worker_live(const struct rig *rig, void (*work)(const struct rig *rig, void *arg),
                           void *arg, int64_t after_ms)
{
    struct timespec ts = {after_ms / 1000, after_ms % 1000 * 1000000};
    int64_t start = now_ms();
    pid_t pid = fork();

    if (pid == 0) {
        work(rig, arg);
        _exit(0);
    }
    if (after_ms >= 0) {
        nanosleep(&ts, NULL);
        kill(pid, SIGKILL);
    }
    waitpid(pid, NULL, 0);
    return now_ms() - start;
}

/* As the next daemon's sweep does. */
static int start_up(const struct rig *rig, const char *const *keep, struct error **ret_error)
{
    if (disk_sweep(rig->root, keep, 0, ret_error) < 0)
        return -1;
    return rig->disk.ops->collect(&rig->disk, ret_error);
}

static void a_kill_at_any_moment_leaves_nothing(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "killed");
    struct dm_space before, after;
    struct image image;

    MUST_DO(pool_used(rig, &before, &error));
    int64_t whole_ms = worker_live(rig, container_make, &tar, -1);
    CHECK(entries(rig) == 2);
    printf("# %lld ms from the archive to the layer\n", (long long)whole_ms);
    for (int i = 0; i < KILLS; i++) {
        worker_live(rig, container_make, &tar, whole_ms * i / KILLS);
        MUST_DO(start_up(rig, NULL, &error));
        CHECK(entries(rig) == 0);
    }
    MUST_DO(pool_used(rig, &after, &error));
    CHECK(after.data_used == before.data_used);
    CHECK(count_of("/dev/mapper/husk-*") == 0);
    CHECK(count_of("/sys/block/loop*/loop") == 0);
    MUST_DO(image_make(rig, &tar, 1, "killed", &image, &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tar);
}

/* ---- images of containers ------------------------------------------------------------------- */

/* A container, and a worker that makes an image of it. */
struct box {
    struct tar tar;
    struct image image;
    struct view view;
    bool worker_dies; /* when it has read something */
};

static int box_open(const struct rig *rig, struct box *box, struct error **ret_error)
{
    box->tar = tar_small(rig, "box");
    if (image_make(rig, &box->tar, 1, "box", &box->image, ret_error) < 0 ||
        layer_make(rig, "box", &box->image, rig->layer_bytes, ret_error) < 0)
        return -1;
    return view_open(rig, &box->image, "box", &box->view, ret_error);
}

static int box_close(const struct rig *rig, struct box *box, struct error **ret_error)
{
    if (view_close(&box->view, ret_error) < 0 || layer_remove(rig, "box", ret_error) < 0 ||
        image_remove(rig, &box->image, ret_error) < 0)
        return -1;
    image_done(&box->image);
    tar_free(&box->tar);
    return 0;
}

/* What is left of its worker is removed; the container stays. A child of the worker that has not
 * begun to be e2fsck when that is killed has its locks for a moment more. */
static bool box_sweep(const struct rig *rig, const struct box *box)
{
    CLEANUP_FREE char *layer = layer_path(rig, "box");
    const char *const keep[] = {box->image.file, layer, NULL};
    struct timespec moment = {0, 50000000};

    for (int i = 0; i < 200; i++) {
        if (start_up(rig, keep, NULL) == 0 && entries(rig) == 2)
            return true;
        nanosleep(&moment, NULL);
    }
    return false;
}

static int piece_read(void *arg, const void *data, size_t size, struct error **ret_error)
{
    const struct box *box = arg;

    if (box->worker_dies)
        raise(SIGKILL);
    return 0;
}

static void changes_read(const struct rig *rig, void *arg)
{
    const struct disk_output out = {piece_read, arg, 1 << 30};
    const struct box *box = arg;
    CLEANUP_FREE char *layer = layer_path(rig, "box");
    CLEANUP_FREE char *scratch = NULL;
    int lock;

    if (disk_scratch(rig->root, &scratch, &lock, NULL) < 0)
        return;
    CLEANUP_FREE char *copy = str_printf("%s/copy", scratch);
    if (rig->disk.ops->layer_copy(&rig->disk, layer, copy, NULL) == 0)
        rig->disk.ops->layer_diff(&rig->disk, box->image.file, copy, &out, NULL);
}

/* Active devices, whether they have nodes or not: the pool and the container's are always. */
static bool active_are(size_t wanted)
{
    struct timespec moment = {0, 50000000};

    /* The kernel removes them a moment after they are closed. */
    for (int i = 0; i < 200 && count_of("/sys/block/dm-*") != wanted; i++)
        nanosleep(&moment, NULL);
    return count_of("/sys/block/dm-*") == wanted;
}

static void what_a_dead_worker_read_has_no_node(const struct rig *rig)
{
    struct box box = {.worker_dies = true};

    MUST_DO(box_open(rig, &box, &error));
    CHECK(active_are(2));
    worker_live(rig, changes_read, &box, -1);
    CHECK(active_are(2));
    CHECK(entries(rig) == 4);
    CHECK(box_sweep(rig, &box));
    CHECK(count_of("/dev/mapper/husk-*") == 2);
    box.worker_dies = false;
    worker_live(rig, changes_read, &box, -1);
    CHECK(active_are(2));
    CHECK(entries(rig) == 3); /* the copy, which is its caller's */
    CHECK(box_sweep(rig, &box));
    MUST_DO(box_close(rig, &box, &error));
    CHECK(entries(rig) == 0);
}

static void an_image_of_a_container_is_whole_or_not_there(const struct rig *rig)
{
    struct dm_space before, after;
    struct box box = {0};

    MUST_DO(box_open(rig, &box, &error));
    int64_t whole_ms = worker_live(rig, changes_read, &box, -1);
    printf("# %lld ms to read what has changed\n", (long long)whole_ms);
    CHECK(box_sweep(rig, &box));
    MUST_DO(pool_used(rig, &before, &error));
    for (int i = 0; i < KILLS; i++) {
        worker_live(rig, changes_read, &box, whole_ms * i / KILLS);
        CHECK(box_sweep(rig, &box));
        CHECK(active_are(2));
        /* If its device still stood still, this would not return. */
        CHECK(view_write(&box.view, "file", "goes on") == 0);
    }
    MUST_DO(pool_used(rig, &after, &error));
    CHECK(after.data_used <= before.data_used + (1 << 20));
    MUST_DO(box_close(rig, &box, &error));
}

/* A worker that died between the two messages that make a snapshot. */
static void what_stands_still_goes_on_with_the_next_who_asks(const struct rig *rig)
{
    CLEANUP_FREE char *note = str_printf("%s/devicemapper/suspended", rig->root);
    CLEANUP_FREE char *path = layer_path(rig, "box");
    CLEANUP_FREE char *full = str_printf("%s/%s", rig->root, path);
    char name[DM_NAME_MAX];
    struct dm_record record;
    struct dm_pool pool;
    struct box box = {0};

    MUST_DO(box_open(rig, &box, &error));
    MUST_DO(dm_record_read(full, &record, &error));
    MUST_DO(dm_pool_enter(&pool, &rig->disk, &error));
    dm_thin_name(&pool, record.thin, name);
    int fd = open(note, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(write(fd, name, strlen(name)) == (ssize_t)strlen(name));
    close(fd);
    MUST_DO(dm_device_suspend(name, &error));
    dm_pool_leave(&pool);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(view_write(&box.view, "file", "goes on") == 0);
    CHECK(access(note, F_OK) < 0);
    MUST_DO(box_close(rig, &box, &error));
}

static void what_another_works_on_is_not_collected(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "busy");
    struct dm_book_spec spec = {.sectors = 1 << 17, .owner = "/nowhere"};
    struct dm_pool pool;
    uint64_t thin = 0;
    int lock = -1;

    MUST_DO(dm_pool_enter(&pool, &rig->disk, &error));
    MUST_DO(dm_book_make(&pool, &spec, &thin, &lock, &error));
    dm_pool_leave(&pool);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(entries(rig) == 1);
    close(lock);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(entries(rig) == 0);
    tar_free(&tar);
}

static void the_files_of_an_image_are_a_clean_ext4(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "clean");
    struct image image;
    struct disk_root root = {0};
    CLEANUP_FREE char *layer = layer_path(rig, "clean");

    MUST_DO(image_make(rig, &tar, 1, "clean", &image, &error));
    MUST_DO(layer_make(rig, "clean", &image, 2 * rig->layer_bytes, &error));
    MUST_DO(rig->disk.ops->attach(&rig->disk, image.file, layer, &root, &error));
    CLEANUP_FREE char *command = str_printf("e2fsck -f -n %s >/dev/null 2>&1", root.layer);
    CHECK(system(command) == 0);
    disk_root_done(&root);
    MUST_DO(rig->disk.ops->detach(&rig->disk, layer, &error));
    MUST_DO(layer_remove(rig, "clean", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tar);
}

/* What an image has, and how else each of it can be. */
static const struct entry tree[] = {
    {.path = "./", .mode = S_IFDIR | 0755, .mtime = 1},
    {.path = "dir", .mode = S_IFDIR | 0755, .mtime = 1},
    {.path = "dir/file", .text = "x", .xattr = "user.a", .value = "b", .mtime = 1},
    {.path = "twin", .hardlink = "dir/file"},
};
static const struct {
    const char *what;
    size_t place; /* in the tree; behind its end: one entry more */
    struct entry entry;
} others[] = {
    {"nothing", 0, {.path = "./", .mode = S_IFDIR | 0755, .mtime = 1}},
    {"content", 2, {.path = "dir/file", .text = "y", .xattr = "user.a", .value = "b", .mtime = 1}},
    {"value", 2, {.path = "dir/file", .text = "x", .xattr = "user.a", .value = "c", .mtime = 1}},
    {"time", 2, {.path = "dir/file", .text = "x", .xattr = "user.a", .value = "b", .mtime = 2}},
    {"owner", 1, {.path = "dir", .mode = S_IFDIR | 0755, .uid = 7, .mtime = 1}},
    {"twin", 3, {.path = "twin", .text = "x", .xattr = "user.a", .value = "b", .mtime = 1}},
    {"name", ARRAY_SIZE(tree), {.path = "more", .text = "", .mtime = 1}},
};

static int tree_make(const struct rig *rig, const char *name, size_t other, struct image *ret,
                     struct error **ret_error)
{
    struct tar tar = tar_open(rig, name);

    for (size_t i = 0; i < ARRAY_SIZE(tree); i++)
        tar_add(&tar, i == others[other].place ? others[other].entry : tree[i]);
    if (others[other].place == ARRAY_SIZE(tree))
        tar_add(&tar, others[other].entry);
    tar_close(&tar);
    int result = image_make(rig, &tar, 1, name, ret, ret_error);
    tar_free(&tar);
    return result;
}

static void an_image_that_is_another_in_anything_is_not_the_same(const struct rig *rig)
{
    struct image image, twin;

    MUST_DO(tree_make(rig, "tree", 0, &image, &error));
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        bool same = i != 0;
        MUST_DO(tree_make(rig, others[i].what, i, &twin, &error));
        MUST_DO(rig->disk.ops->image_same(&rig->disk, image.file, twin.file, &same, &error));
        if (!CHECK(same == (i == 0)))
            printf("# %s\n", others[i].what);
        MUST_DO(image_remove(rig, &twin, &error));
        image_done(&twin);
    }
    CHECK(count_of("/dev/mapper/husk-*") == 0);
    CHECK(entries(rig) == 1);
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

const struct test tests_dm[] = {
    {"what is Created has no node in /dev, and no loop device", what_is_created_has_no_node},
    {"removal gives all of the pool back, and its file shrinks",
     removal_gives_all_of_the_pool_back},
    {"containers outlive the removal of their image",
     an_image_that_is_removed_leaves_its_containers_whole},
    {"an image, and a layer grown from it, are clean for e2fsck",
     the_files_of_an_image_are_a_clean_ext4},
    {"what another process works on is not collected", what_another_works_on_is_not_collected},
    {"a worker killed at any moment leaves nothing", a_kill_at_any_moment_leaves_nothing},
    {"what a worker read that was killed has no node any more",
     what_a_dead_worker_read_has_no_node},
    {"a worker killed while it reads what has changed leaves nothing, and the container goes on",
     an_image_of_a_container_is_whole_or_not_there},
    {"what a killed worker left suspended goes on with the next who asks",
     what_stands_still_goes_on_with_the_next_who_asks},
    {NULL, NULL},
};

/* ---- a pool that is soon full --------------------------------------------------------------- */

static void a_full_pool_says_so_and_loses_nothing(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "first");
    struct tar large = tar_open(rig, "large");
    struct image image, refused;
    struct error *failed = NULL;
    struct dm_space before, after;
    struct view view;

    tar_add_noise(&large, "noise", 120 << 20, 4096);
    tar_close(&large);
    MUST_DO(image_make(rig, &tar, 1, "first", &image, &error));
    MUST_DO(layer_make(rig, "first", &image, rig->layer_bytes, &error));
    MUST_DO(pool_used(rig, &before, &error));
    CHECK(image_make(rig, &large, 1, "large", &refused, &failed) < 0);
    CHECK(failed && failed->kind == ERROR_NO_SPACE);
    printf("# %s\n", error_text(failed));
    error_freep(&failed);
    MUST_DO(pool_used(rig, &after, &error));
    CHECK(after.data_used == before.data_used);
    MUST_DO(view_open(rig, &image, "first", &view, &error));
    CHECK(view_write(&view, "new", "there is room") == 0);
    MUST_DO(view_close(&view, &error));
    image_done(&refused);
    MUST_DO(layer_remove(rig, "first", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tar);
    tar_free(&large);
}

enum { CHUNK = 1 << 20, GUESTS = 3, GUEST_CHUNKS = 40 };

/* What a guest's disk is to its QEMU. */
struct guest {
    char name[16];
    int fd;
    uint8_t *chunk; /* aligned, as direct input and output want it */
};

static int guest_open(const struct rig *rig, const struct image *image, struct guest *g,
                      struct error **ret_error)
{
    CLEANUP_FREE char *layer = layer_path(rig, g->name);
    struct disk_root root = {0};

    if (rig->disk.ops->attach(&rig->disk, image->file, layer, &root, ret_error) < 0)
        return -1;
    g->fd = open(root.layer, O_RDWR | O_DIRECT | O_CLOEXEC);
    disk_root_done(&root);
    return g->fd < 0 ? error_set(ret_error, ERROR_IO, errno, "open the layer of '%s'", g->name) : 0;
}

static int guest_close(const struct rig *rig, struct guest *g, struct error **ret_error)
{
    CLEANUP_FREE char *layer = layer_path(rig, g->name);

    close(g->fd);
    return rig->disk.ops->detach(&rig->disk, layer, ret_error);
}

/* Behind what the image has. */
static off_t chunk_at(const struct rig *rig, int number)
{
    return (off_t)(rig->layer_bytes - (uint64_t)(GUEST_CHUNKS - number) * CHUNK);
}

static bool chunk_write(const struct rig *rig, struct guest *g, int number)
{
    memset(g->chunk, number + 1, CHUNK);
    return pwrite(g->fd, g->chunk, CHUNK, chunk_at(rig, number)) == CHUNK;
}

static bool chunk_is(const struct rig *rig, struct guest *g, int number)
{
    return pread(g->fd, g->chunk, CHUNK, chunk_at(rig, number)) == CHUNK &&
           g->chunk[0] == number + 1 && memcmp(g->chunk, g->chunk + 1, CHUNK - 1) == 0;
}

/* Containers may together have more than the pool has: then a write says so, what was written
 * stays, and the same write is good as soon as there is room. */
static void an_overcommitted_pool_fails_writes_and_loses_none(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "little");
    struct guest guests[GUESTS] = {0};
    struct error *failed = NULL;
    struct image image;
    int written[GUESTS] = {0}, last = GUESTS - 1;

    MUST_DO(image_make(rig, &tar, 1, "little", &image, &error));
    for (int i = 0; i < GUESTS; i++) {
        snprintf(guests[i].name, sizeof(guests[i].name), "little-%d", i);
        MUST(posix_memalign((void **)&guests[i].chunk, 4096, CHUNK) == 0);
        MUST_DO(layer_make(rig, guests[i].name, &image, rig->layer_bytes, &error));
        MUST_DO(guest_open(rig, &image, &guests[i], &error));
    }
    for (int i = 0; i < GUESTS; i++)
        while (written[i] < GUEST_CHUNKS && chunk_write(rig, &guests[i], written[i]))
            written[i]++;
    CHECK(written[0] == GUEST_CHUNKS && written[last] < GUEST_CHUNKS);
    CHECK(!chunk_write(rig, &guests[last], written[last]) && errno == ENOSPC);
    CHECK(layer_make(rig, "refused", &image, rig->layer_bytes, &failed) < 0);
    CHECK(failed && failed->kind == ERROR_NO_SPACE);
    printf("# %s\n", error_text(failed));
    error_freep(&failed);
    CHECK(chunk_write(rig, &guests[last], 0)); /* what it has it may write again */
    MUST_DO(guest_close(rig, &guests[0], &error));
    MUST_DO(layer_remove(rig, guests[0].name, &error));
    CHECK(chunk_write(rig, &guests[last], written[last]));
    for (int i = 1; i < GUESTS; i++) {
        MUST_DO(guest_close(rig, &guests[i], &error));
        MUST_DO(guest_open(rig, &image, &guests[i], &error));
        for (int chunk = 0; chunk < written[i]; chunk++)
            CHECK(chunk_is(rig, &guests[i], chunk));
        MUST_DO(guest_close(rig, &guests[i], &error));
        MUST_DO(layer_remove(rig, guests[i].name, &error));
    }
    for (int i = 0; i < GUESTS; i++)
        free(guests[i].chunk);
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
    tar_free(&tar);
}

static void a_layer_smaller_than_its_image_is_refused(const struct rig *rig)
{
    struct tar tar = tar_small(rig, "smaller");
    struct image image;
    struct error *failed = NULL;

    MUST_DO(image_make(rig, &tar, 1, "smaller", &image, &error));
    CHECK(layer_make(rig, "smaller", &image, rig->layer_bytes / 2, &failed) < 0);
    CHECK(failed && failed->kind == ERROR_INVALID && strstr(error_text(failed), "dm.basesize"));
    error_freep(&failed);
    MUST_DO(image_remove(rig, &image, &error));
    CHECK(entries(rig) == 0);
    image_done(&image);
    tar_free(&tar);
}

const struct test tests_dm_small[] = {
    {"an image that is another in anything is not the same",
     an_image_that_is_another_in_anything_is_not_the_same},
    {"an image that does not fit into the pool is refused, and nothing is lost",
     a_full_pool_says_so_and_loses_nothing},
    {"when the pool is full writes fail, nothing new is made, and nothing is lost",
     an_overcommitted_pool_fails_writes_and_loses_none},
    {"a layer smaller than its image is refused", a_layer_smaller_than_its_image_is_refused},
    {NULL, NULL},
};
