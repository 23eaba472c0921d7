#include "init/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "init/disk.h"
#include "init/identity.h"
#include "init/util.h"

/* Mount points that the initramfs has, used by each container in its own namespace. */
#define IMAGE_DIR "/rootfs/image"
#define LAYER_DIR "/rootfs/layer"
#define ROOT_DIR  "/rootfs/root"
#define STAGE_DIR "/tmp"
/* The lowest layer of every container. */
#define POINTS_DIR "/run/points"

/* ---- tables --------------------------------------------------------------------------------- */

/* As the OCI runtime specification and docker have them. Devices are bind mounts of nodes in a
 * file system of their own, so that all that a container can write to can be nodev: a node that it
 * makes with mknod(2) opens nothing. They are each container's own: it may change their mode. */
static const struct {
    const char *type, *path;
    unsigned long flags;
    const char *options;
} mounts[] = {
    {"proc", "/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL},
    {"tmpfs", "/dev", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=755,size=65536k"},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"},
    {"mqueue", "/dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL},
    {"sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL},
    {"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL},
};

static const struct {
    const char *path;
    unsigned major, minor; /* Documentation/admin-guide/devices.txt of Linux */
} devices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
               {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

static const struct {
    const char *path, *target;
} links[] = {
    {"/dev/ptmx", "pts/ptmx"},          {"/dev/fd", "/proc/self/fd"},
    {"/dev/stdin", "/proc/self/fd/0"},  {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"},
};

static const char *const masked[] = {
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
};

static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                        "/proc/sysrq-trigger"};

static const char usual_hosts[] = "127.0.0.1\tlocalhost\n"
                                  "::1\tlocalhost ip6-localhost ip6-loopback\n"
                                  "fe00::0\tip6-localnet\n"
                                  "ff00::0\tip6-mcastprefix\n"
                                  "ff02::1\tip6-allnodes\n"
                                  "ff02::2\tip6-allrouters\n";

/* What is put into the root when that is there. Until then each is a tree of mounts that is
 * nowhere: no path leads out of it, and after the change of root the image's symbolic links lead
 * nowhere else either. */
enum { TREE_PROC, TREE_DEV, TREE_SYS, TREE_COUNT };
static const char *const tops[TREE_COUNT] = {"/proc", "/dev", "/sys"};

/* Files that the pod gives, bound over those of the image, which stay as they are. */
enum { GIVEN_HOSTS, GIVEN_HOSTNAME, GIVEN_RESOLV, GIVEN_COUNT };
static const char *const given[GIVEN_COUNT] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"};

enum { HOSTNAME_ROOM = 128 }; /* more than a hostname has, and its end of line */

#define MACHINE_ID "/etc/machine-id"
#define BOOT_ID    "/proc/sys/kernel/random/boot_id"

static struct {
    int trees[TREE_COUNT];
    int given[GIVEN_COUNT];       /* trees of a file */
    int given_write[GIVEN_COUNT]; /* to write them */
    int machine_id;               /* a tree of a file */
    char *hostname;               /* HOSTNAME_ROOM bytes of its file */
} stage;

/* Where an image lacks a place to mount on, the lowest layer has one: to make it in the writable
 * layer would be most of what is written there by a start. */
static const char *const points[] = {POINTS_DIR "/proc", POINTS_DIR "/dev", POINTS_DIR "/sys",
                                     POINTS_DIR "/etc"};
static const char *const point_files[] = {POINTS_DIR "/etc/hosts", POINTS_DIR "/etc/hostname",
                                          POINTS_DIR "/etc/machine-id"};

void root_open(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(points); i++)
        if (mkdir_all(points[i], 0755) < 0)
            say(LOG_WARNING, "directory '%s': %s", points[i], strerror(errno));
    for (size_t i = 0; i < ARRAY_SIZE(point_files); i++)
        if (mknod(point_files[i], S_IFREG | 0644, 0) < 0)
            say(LOG_WARNING, "file '%s': %s", point_files[i], strerror(errno));
}

/* ---- the layers ----------------------------------------------------------------------------- */

/* The upper directory starts as the image's root is: its mode and owner are what one sees. */
static int layer_prepare(struct error **ret_error)
{
    struct stat st;
    if (mkdir(LAYER_DIR "/work", 0700) < 0 && errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "writable layer: directory 'work'");
    if (mkdir(LAYER_DIR "/upper", 0755) < 0)
        return errno == EEXIST
                   ? 0
                   : error_set(ret_error, ERROR_IO, errno, "writable layer: directory 'upper'");
    if (stat(IMAGE_DIR, &st) < 0 || chown(LAYER_DIR "/upper", st.st_uid, st.st_gid) < 0 ||
        chmod(LAYER_DIR "/upper", st.st_mode & 07777) < 0)
        return error_set(ret_error, ERROR_IO, errno, "writable layer: directory 'upper'");
    return 0;
}

/* A layer that has its image in itself, and is the root as it is. */
static int top_mount(const struct root *root, struct error **ret_error)
{
    CLEANUP_FREE char *top = str_printf(LAYER_DIR "/%s", root->layer_top);
    const char *source = root->layer_device, *type = "ext4";
    if (disk_is_shared(source)) {
        source = strchr(source, ':') + 1;
        type = "virtiofs";
    }
    if (mount(source, LAYER_DIR, type, MS_NODEV | MS_NOATIME, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the writable layer's disk '%s'",
                         root->layer_device);
    if (mount(top, ROOT_DIR, NULL, MS_BIND, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of directory '%s' of disk '%s'",
                         root->layer_top, root->layer_device);
    return 0;
}

static int layers_mount(const struct root *root, struct error **ret_error)
{
    if (str_empty(root->image_device))
        return top_mount(root, ret_error);
    if (mount(root->image_device, IMAGE_DIR, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the image's disk '%s'",
                         root->image_device);
    /* Without a thread that would read all bitmaps ahead and write zeros into inode tables, which
     * are holes of a file of the host. */
    if (mount(root->layer_device, LAYER_DIR, "ext4", MS_NODEV | MS_NOATIME,
              "noinit_itable,no_prefetch_block_bitmaps") < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the writable layer's disk '%s'",
                         root->layer_device);
    if (layer_prepare(ret_error) < 0)
        return -1;
    if (mount("overlay", ROOT_DIR, "overlay", MS_NODEV,
              "lowerdir=" IMAGE_DIR ":" POINTS_DIR ",upperdir=" LAYER_DIR
              "/upper,workdir=" LAYER_DIR "/work") < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the root");
    return 0;
}

/* ---- the stage ------------------------------------------------------------------------------ */

static int tree_pick(const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

static int tree_move(int tree, const char *path)
{
    return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

/* Puts it on a file, which is made if it is missing. */
static int tree_place(int tree, const char *path)
{
    if (tree_move(tree, path) == 0)
        return 0;
    int fd = open(path, O_CREAT | O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd >= 0)
        close(fd);
    return tree_move(tree, path);
}

static int stage_mount(struct error **ret_error)
{
    if (mount("tmpfs", STAGE_DIR, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=4m") < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of a scratch directory");
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", mounts[i].path);
        mkdir(path, 0755);
        if (mount(mounts[i].type, path, mounts[i].type, mounts[i].flags, mounts[i].options) < 0)
            return error_set(ret_error, ERROR_IO, errno, "mount of '%s'", mounts[i].path);
    }
    return 0;
}

static int stage_device(size_t i)
{
    CLEANUP_FREE char *node = str_printf(STAGE_DIR "/device-%zu", i);
    CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", devices[i].path);

    if (mknod(node, S_IFCHR, makedev(devices[i].major, devices[i].minor)) < 0 ||
        chmod(node, 0666) < 0 || mknod(path, S_IFREG | 0644, 0) < 0)
        return -1;
    return mount(node, path, NULL, MS_BIND, NULL);
}

static int stage_devices(struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
        if (stage_device(i) < 0)
            return error_set(ret_error, ERROR_IO, errno, "device '%s'", devices[i].path);
    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", links[i].path);
        if (symlink(links[i].target, path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "link '%s'", links[i].path);
    }
    return 0;
}

static int path_mask(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return 0;
    if (S_ISDIR(st.st_mode))
        return mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                     "size=0");
    return mount(STAGE_DIR "/dev/null", path, NULL, MS_BIND, NULL);
}

/* Binds what `from` is on a path, for reading only. */
static int path_freeze(const char *from, const char *path)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    if (access(path, F_OK) < 0)
        return 0;
    if (mount(from, path, NULL, MS_BIND | MS_REC, NULL) < 0)
        return -1;
    return mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | flags, NULL);
}

static int stage_protect(struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(masked); i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", masked[i]);
        if (path_mask(path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "masking of '%s'", masked[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", read_only[i]);
        if (path_freeze(path, path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "protection of '%s'", read_only[i]);
    }
    if (path_freeze(IDENTITY_BOOT_ID, STAGE_DIR BOOT_ID) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", BOOT_ID);
    return 0;
}

/* The usual hosts are in their file already. The hostname's file is mapped: to write a name there
 * and to cut the file to its length takes less than a write. */
static int given_begin(int i)
{
    if (i == GIVEN_HOSTS)
        return write(stage.given_write[i], usual_hosts, strlen(usual_hosts)) < 0 ? -1 : 0;
    if (i != GIVEN_HOSTNAME)
        return 0;
    if (ftruncate(stage.given_write[i], HOSTNAME_ROOM) < 0)
        return -1;
    stage.hostname = mmap(NULL, HOSTNAME_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                          stage.given_write[i], 0);
    return stage.hostname == MAP_FAILED ? -1 : 0;
}

/* Written when the pod is known. */
static int stage_files(struct error **ret_error)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    for (int i = 0; i < GIVEN_COUNT; i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "/given-%d", i);
        stage.given_write[i] = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (stage.given_write[i] < 0 || given_begin(i) < 0 ||
            (stage.given[i] = tree_pick(path, 0)) < 0)
            return error_set(ret_error, ERROR_IO, errno, "file '%s'", given[i]);
    }
    stage.machine_id = tree_pick(IDENTITY_MACHINE_ID, 0);
    if (stage.machine_id < 0 || syscall(SYS_mount_setattr, stage.machine_id, "", AT_EMPTY_PATH,
                                        &attributes, sizeof(attributes)) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", MACHINE_ID);
    return 0;
}

int root_prepare(struct error **ret_error)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a private mount namespace");
    if (stage_mount(ret_error) < 0 || stage_devices(ret_error) < 0 ||
        stage_protect(ret_error) < 0 || stage_files(ret_error) < 0)
        return -1;
    for (int i = 0; i < TREE_COUNT; i++) {
        CLEANUP_FREE char *path = str_printf(STAGE_DIR "%s", tops[i]);
        stage.trees[i] = tree_pick(path, AT_RECURSIVE);
        if (stage.trees[i] < 0)
            return error_set(ret_error, ERROR_IO, errno, "a copy of '%s'", tops[i]);
    }
    if (umount2(STAGE_DIR, MNT_DETACH) < 0)
        return error_set(ret_error, ERROR_IO, errno, "unmount of a scratch directory");
    return 0;
}

/* ---- inside --------------------------------------------------------------------------------- */

static int root_pivot(struct error **ret_error)
{
    /* The old root ends up on top of the new one, and is taken off (pivot_root(2)). */
    if (chdir(ROOT_DIR) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_set(ret_error, ERROR_IO, errno, "change of root");
    return 0;
}

static int trees_place(struct error **ret_error)
{
    for (int i = 0; i < TREE_COUNT; i++) {
        bool placed = tree_move(stage.trees[i], tops[i]) == 0;
        if (!placed && errno == ENOENT)
            placed = mkdir(tops[i], 0755) == 0 && tree_move(stage.trees[i], tops[i]) == 0;
        if (!placed)
            return error_set(ret_error, ERROR_IO, errno, "mount of '%s'", tops[i]);
        fd_closep(&stage.trees[i]);
    }
    return 0;
}

/* An image that has a machine id of its own keeps it; what has none, or an empty one (which asks
 * for one, says machine-id(5)), is given that of the guest. */
static bool machine_id_wanted(void)
{
    struct stat st;
    return stat(MACHINE_ID, &st) < 0 || (S_ISREG(st.st_mode) && st.st_size == 0);
}

/* An image may make it impossible to have such a file (/etc may be a file): that is its affair. */
static void given_place(int i)
{
    tree_place(stage.given[i], given[i]);
    fd_closep(&stage.given[i]);
}

int root_enter(const struct root *root, int *ret_layer, struct error **ret_error)
{
    if (layers_mount(root, ret_error) < 0)
        return -1;
    if (ret_layer && (*ret_layer = open(LAYER_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return error_set(ret_error, ERROR_IO, errno, "open the writable layer");
    if (root_pivot(ret_error) < 0 || trees_place(ret_error) < 0)
        return -1;
    given_place(GIVEN_HOSTS);
    given_place(GIVEN_HOSTNAME);
    if (machine_id_wanted())
        tree_place(stage.machine_id, MACHINE_ID);
    fd_closep(&stage.machine_id);
    return 0;
}

static int lines_write(int i, const char *const *lines)
{
    CLEANUP_BUF struct buf text = {0};
    STRV_FOREACH(line, lines)
        buf_printf(&text, "%s\n", *line);
    if (ftruncate(stage.given_write[i], 0) < 0)
        return -1;
    return pwrite(stage.given_write[i], text.data, text.len, 0) == (ssize_t)text.len ? 0 : -1;
}

/* What has no room there sethostname(2) has refused. */
static int hostname_write(const char *hostname)
{
    size_t size = strnlen(hostname, HOSTNAME_ROOM - 1);
    memcpy(stage.hostname, hostname, size);
    stage.hostname[size] = '\n';
    return ftruncate(stage.given_write[GIVEN_HOSTNAME], (off_t)size + 1);
}

static int given_write(const struct root_gifts *gifts, struct error **ret_error)
{
    if (hostname_write(gifts->hostname) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", given[GIVEN_HOSTNAME]);
    if (gifts->hosts && *gifts->hosts && lines_write(GIVEN_HOSTS, gifts->hosts) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", given[GIVEN_HOSTS]);
    if (gifts->resolv && *gifts->resolv && lines_write(GIVEN_RESOLV, gifts->resolv) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", given[GIVEN_RESOLV]);
    return 0;
}

int root_give(const struct root_gifts *gifts, struct error **ret_error)
{
    if (given_write(gifts, ret_error) < 0)
        return -1;
    if (gifts->resolv && *gifts->resolv)
        given_place(GIVEN_RESOLV);
    fd_closep(&stage.given[GIVEN_RESOLV]);
    for (int i = 0; i < GIVEN_COUNT; i++)
        fd_closep(&stage.given_write[i]);
    return 0;
}

int root_console(const char *slave_path, struct error **ret_error)
{
    CLEANUP_FD int tree = tree_pick(slave_path, 0);
    if (tree < 0 || tree_place(tree, "/dev/console") < 0)
        return error_set(ret_error, ERROR_IO, errno, "terminal '%s'", slave_path);
    return 0;
}

int root_seal(struct error **ret_error)
{
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a read-only root");
    return 0;
}
