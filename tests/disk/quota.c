/* Of the driver overlay, where the file system of its root has project quotas. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "suite.h"

enum {
    PROJECT_OURS = 1 << 30,
    PROJECT_ROOTS = 1 << 14,
    PROJECT_COUNT = 1 << 16,
    KILLS = 12,
    KILL_STEP_US = 700,
    SETTLE_TRIES = 400
};

static int small_image(const struct rig *rig, const char *name, struct image *image,
                       struct error **ret_error)
{
    struct tar tar = tar_open(rig, name);

    tar_add(&tar, (struct entry){.path = "file", .text = "of the image"});
    tar_close(&tar);
    int result = image_make(rig, &tar, 1, name, image, ret_error);
    tar_free(&tar);
    return result;
}

/* The project of a directory of the layer; 0: it has none of ours that is inherited. */
static uint32_t project_of(const struct rig *rig, const char *name, const char *part)
{
    CLEANUP_FREE char *layer = layer_path(rig, name);
    CLEANUP_FREE char *path = str_printf("%s/%s/%s", rig->root, layer, part);
    struct fsxattr attributes = {0};
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool known = fd >= 0 && ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0;

    if (fd >= 0)
        close(fd);
    return known && attributes.fsx_xflags & FS_XFLAG_PROJINHERIT &&
                   attributes.fsx_projid >= PROJECT_OURS
               ? attributes.fsx_projid
               : 0;
}

/* How many projects of the rig's root have a limit; those of another one, which is gone, may have
 * kept theirs. The numbers are those of disk/quota.c. */
static int limits(const struct rig *rig)
{
    struct if_nextdqblk next = {0};
    struct stat st;
    int count = 0, fd = open(rig->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    const uint32_t first =
        PROJECT_OURS + (uint32_t)(st.st_ino % PROJECT_ROOTS) * (uint32_t)PROJECT_COUNT;
    for (uint32_t project = first;
         syscall(SYS_quotactl_fd, fd, QCMD(Q_GETNEXTQUOTA, PRJQUOTA), project, &next) == 0 &&
         next.dqb_id < first + PROJECT_COUNT;
         project = next.dqb_id + 1)
        count += next.dqb_bhardlimit || next.dqb_ihardlimit;
    close(fd);
    return count;
}

/* xfs gives back what a removed file had soon after, and a later collect() finds it. */
static bool limits_become(const struct rig *rig, int wanted)
{
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    bool good = false;

    for (int i = 0; i < SETTLE_TRIES && !good; i++) {
        if (i)
            nanosleep(&pause, NULL);
        good = rig->disk.ops->collect(&rig->disk, NULL) == 0 && limits(rig) == wanted;
    }
    return good;
}

static void a_project_is_one_layers_while_it_lives(const struct rig *rig)
{
    struct image image;

    MUST_DO(small_image(rig, "projects", &image, &error));
    MUST_DO(layer_make(rig, "one", &image, rig->layer_bytes, &error));
    MUST_DO(layer_make(rig, "two", &image, rig->layer_bytes, &error));
    MUST_DO(layer_make(rig, "free", &image, 0, &error));
    uint32_t one = project_of(rig, "one", "upper"), two = project_of(rig, "two", "upper");
    CHECK(one && two && one != two && !project_of(rig, "free", "upper"));
    CHECK(project_of(rig, "one", "work") == one && project_of(rig, "one", ".") == one);
    MUST_DO(rig->disk.ops->collect(&rig->disk, &error));
    CHECK(limits(rig) == 2);
    MUST_DO(layer_remove(rig, "one", &error));
    CHECK(limits_become(rig, 1));
    MUST_DO(layer_make(rig, "three", &image, rig->layer_bytes, &error));
    CHECK(project_of(rig, "three", "upper") == one);
    MUST_DO(layer_remove(rig, "two", &error));
    MUST_DO(layer_remove(rig, "three", &error));
    MUST_DO(layer_remove(rig, "free", &error));
    MUST_DO(image_remove(rig, &image, &error));
    CHECK(limits_become(rig, 0));
    image_done(&image);
}

static void small_files_are_limited_too(const struct rig *rig)
{
    struct image image;
    struct view view, sister;
    int made = 0, failed = 0;

    MUST_DO(small_image(rig, "files", &image, &error));
    MUST_DO(layer_make(rig, "files", &image, rig->layer_bytes, &error));
    MUST_DO(layer_make(rig, "sister", &image, rig->layer_bytes, &error));
    MUST_DO(view_open(rig, &image, "files", &view, &error));
    MUST_DO(view_open(rig, &image, "sister", &sister, &error));
    for (; !failed && made < 100000; made++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", made);
        CLEANUP_FREE char *path = view_path(&view, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        failed = fd < 0 ? errno : 0;
        if (fd >= 0)
            close(fd);
    }
    printf("# %d files: %s\n", made, strerror(failed));
    CHECK(full_says(failed) && made > 1000);
    CHECK(view_write(&sister, "new", "there is room") == 0);
    MUST_DO(view_close(&view, &error));
    MUST_DO(view_close(&sister, &error));
    MUST_DO(layer_remove(rig, "files", &error));
    MUST_DO(layer_remove(rig, "sister", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

/* Makes layers until it is killed; says so by closing the pipe's end. */
_Noreturn static void layers_make(const struct rig *rig, const struct image *image, int begun)
{
    close(begun);
    for (int i = 0;; i++) {
        char name[16];
        snprintf(name, sizeof(name), "kill-%d", i);
        if (layer_make(rig, name, image, rig->layer_bytes, NULL) < 0)
            pause();
    }
}

static void a_kill_at_any_moment_leaks_no_project(const struct rig *rig)
{
    CLEANUP_FREE char *pods = str_printf("%s/pods", rig->root);
    struct image image;
    int begun[2];
    char byte;

    MUST_DO(small_image(rig, "killed", &image, &error));
    for (int i = 0; i < KILLS; i++) {
        const struct timespec pause = {.tv_nsec = (long)i * KILL_STEP_US * 1000};
        MUST(pipe2(begun, O_CLOEXEC) == 0);
        pid_t child = fork();
        if (child == 0) {
            close(begun[0]);
            layers_make(rig, &image, begun[1]);
        }
        close(begun[1]);
        CHECK(read(begun[0], &byte, 1) == 0);
        close(begun[0]);
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        CHECK(waitpid(child, NULL, 0) == child);
        MUST_DO(disk_remove(rig->root, pods, &error));
        MUST(mkdir(pods, 0700) == 0);
        CHECK(limits_become(rig, 0));
    }
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

static void a_layer_for_which_no_size_is_asked_has_the_usual_one(const struct rig *rig)
{
    struct image image;
    struct statvfs fs;
    struct view view;

    MUST_DO(small_image(rig, "usual", &image, &error));
    MUST_DO(layer_make(rig, "usual", &image, 0, &error));
    MUST_DO(view_open(rig, &image, "usual", &view, &error));
    CHECK(statvfs(view.top, &fs) == 0 && (uint64_t)fs.f_blocks * fs.f_frsize == 1ULL << 30);
    MUST_DO(view_close(&view, &error));
    MUST_DO(layer_remove(rig, "usual", &error));
    MUST_DO(image_remove(rig, &image, &error));
    image_done(&image);
}

const struct test tests_quota_usual[] = {
    {"a layer for which no size is asked has that of overlay.size",
     a_layer_for_which_no_size_is_asked_has_the_usual_one},
    {NULL, NULL},
};

const struct test tests_quota[] = {
    {"a project is one layer's while it lives", a_project_is_one_layers_while_it_lives},
    {"small files are limited, too", small_files_are_limited_too},
    {"a kill at any moment leaks no project", a_kill_at_any_moment_leaks_no_project},
    {NULL, NULL},
};
