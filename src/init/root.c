#include "init/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "init/identity.h"
#include "init/util.h"

/* Mount points that the initramfs has, used by each container in its own namespace. */
#define IMAGE_DIR   "/rootfs/image"
#define LAYER_DIR   "/rootfs/layer"
#define ROOT_DIR    "/rootfs/root"
#define SCRATCH_DIR "/tmp"

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

/* Files that the pod gives: written to a scratch tmpfs, where the device nodes are too, bound over
 * those of the image, which stay as they are. */
#define MACHINE_ID "/etc/machine-id"
#define BOOT_ID    "/proc/sys/kernel/random/boot_id"
enum { GIVEN_HOSTS, GIVEN_HOSTNAME, GIVEN_RESOLV, GIVEN_COUNT };
static const char *const given[GIVEN_COUNT] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"};

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

static int layers_mount(const struct root *root, struct error **ret_error)
{
    if (mount(root->image_device, IMAGE_DIR, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the image's disk '%s'",
                         root->image_device);
    if (mount(root->layer_device, LAYER_DIR, "ext4", MS_NODEV | MS_NOATIME, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the writable layer's disk '%s'",
                         root->layer_device);
    if (layer_prepare(ret_error) < 0)
        return -1;
    if (mount("overlay", ROOT_DIR, "overlay", MS_NODEV,
              "lowerdir=" IMAGE_DIR ",upperdir=" LAYER_DIR "/upper,workdir=" LAYER_DIR "/work") < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of the root");
    return 0;
}

/* ---- things of the guest that are taken along ----------------------------------------------- */

/* A copy of a mount that is nowhere yet, so that it can be put inside after the change of root,
 * where the image's symbolic links cannot lead out any more. */
static int tree_pick(const char *path)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/* Puts it on a file, which is made if it is missing. */
static int tree_place(int tree, const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd >= 0)
        close(fd);
    return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

static int lines_write(const char *path, const char *const *lines, const char *otherwise)
{
    CLEANUP_BUF struct buf text = {0};
    CLEANUP_FD int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    STRV_FOREACH(line, lines)
        buf_printf(&text, "%s\n", *line);
    if (!text.len)
        buf_append_str(&text, otherwise);
    return fd >= 0 && write(fd, text.data, text.len) == (ssize_t)text.len ? 0 : -1;
}

static int given_write(const struct root *root, int trees[GIVEN_COUNT], struct error **ret_error)
{
    const char *const hostname[] = {root->hostname, NULL};
    const char *const *const lines[GIVEN_COUNT] = {root->hosts, hostname, root->resolv};

    if (mount("tmpfs", SCRATCH_DIR, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=4m") < 0)
        return error_set(ret_error, ERROR_IO, errno, "mount of a scratch directory");
    for (int i = 0; i < GIVEN_COUNT; i++) {
        CLEANUP_FREE char *path = str_printf(SCRATCH_DIR "/%d", i);
        trees[i] = -1;
        if (i == GIVEN_RESOLV && !lines[i])
            continue;
        if (lines_write(path, lines[i], i == GIVEN_HOSTS ? usual_hosts : "") < 0 ||
            (trees[i] = tree_pick(path)) < 0)
            return error_set(ret_error, ERROR_IO, errno, "file '%s'", given[i]);
    }
    return 0;
}

static int devices_make(int trees[], struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        CLEANUP_FREE char *path = str_printf(SCRATCH_DIR "/device-%zu", i);
        if (mknod(path, S_IFCHR, makedev(devices[i].major, devices[i].minor)) < 0 ||
            chmod(path, 0666) < 0 || (trees[i] = tree_pick(path)) < 0)
            return error_set(ret_error, ERROR_IO, errno, "device '%s'", devices[i].path);
    }
    return 0;
}

/* An image may make it impossible to have such a file (/etc may be a file): that is its affair. */
static void given_place(int trees[GIVEN_COUNT])
{
    for (int i = 0; i < GIVEN_COUNT; i++)
        if (trees[i] >= 0) {
            mkdir("/etc", 0755);
            tree_place(trees[i], given[i]);
            close(trees[i]);
        }
}

/* The guest's ids, to be bound where a container looks for them. */
enum { ID_MACHINE, ID_BOOT, ID_COUNT };

static int ids_pick(int trees[ID_COUNT], struct error **ret_error)
{
    static const char *const paths[ID_COUNT] = {IDENTITY_MACHINE_ID, IDENTITY_BOOT_ID};
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};

    for (int i = 0; i < ID_COUNT; i++)
        if ((trees[i] = tree_pick(paths[i])) < 0 ||
            syscall(SYS_mount_setattr, trees[i], "", AT_EMPTY_PATH, &attributes,
                    sizeof(attributes)) < 0)
            return error_set(ret_error, ERROR_IO, errno, "file '%s'", paths[i]);
    return 0;
}

/* An image that has a machine id of its own keeps it; what has none, or an empty one (which asks
 * for one, says machine-id(5)), is given that of the guest. */
static int ids_place(const int trees[ID_COUNT], struct error **ret_error)
{
    struct stat st;

    if (stat(MACHINE_ID, &st) < 0 || (S_ISREG(st.st_mode) && st.st_size == 0))
        tree_place(trees[ID_MACHINE], MACHINE_ID);
    if (syscall(SYS_move_mount, trees[ID_BOOT], "", AT_FDCWD, BOOT_ID, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", BOOT_ID);
    close(trees[ID_MACHINE]);
    close(trees[ID_BOOT]);
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

static int inside_mount(struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        mkdir(mounts[i].path, 0755);
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, mounts[i].flags,
                  mounts[i].options) < 0)
            return error_set(ret_error, ERROR_IO, errno, "mount of '%s'", mounts[i].path);
    }
    return 0;
}

static int inside_devices(const int trees[], struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        if (tree_place(trees[i], devices[i].path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "device '%s'", devices[i].path);
        close(trees[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(links); i++)
        if (symlink(links[i].target, links[i].path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "link '%s'", links[i].path);
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
    return mount("/dev/null", path, NULL, MS_BIND, NULL);
}

static int path_freeze(const char *path)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    if (access(path, F_OK) < 0)
        return 0;
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
        return -1;
    return mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | flags, NULL);
}

static int inside_protect(struct error **ret_error)
{
    for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
        if (path_mask(masked[i]) < 0)
            return error_set(ret_error, ERROR_IO, errno, "masking of '%s'", masked[i]);
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++)
        if (path_freeze(read_only[i]) < 0)
            return error_set(ret_error, ERROR_IO, errno, "protection of '%s'", read_only[i]);
    return 0;
}

int root_enter(const struct root *root, struct error **ret_error)
{
    int files[GIVEN_COUNT], ids[ID_COUNT] = {-1, -1}, trees[ARRAY_SIZE(devices)];

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "a private mount namespace");
    if (layers_mount(root, ret_error) < 0 || given_write(root, files, ret_error) < 0 ||
        ids_pick(ids, ret_error) < 0 || devices_make(trees, ret_error) < 0)
        return -1;
    if (root_pivot(ret_error) < 0 || inside_mount(ret_error) < 0 ||
        inside_devices(trees, ret_error) < 0)
        return -1;
    given_place(files);
    if (inside_protect(ret_error) < 0)
        return -1;
    return ids_place(ids, ret_error);
}

int root_console(const char *slave_path, struct error **ret_error)
{
    CLEANUP_FD int tree = tree_pick(slave_path);
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
