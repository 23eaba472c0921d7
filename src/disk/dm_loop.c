/* Loop devices under the files of a pool. They stay when a process dies, and are found again by the
 * file that they are on. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/loop.h>

#include "base/str.h"
#include "disk/dm.h"

enum {
    LOOPS_MAX = 4096,   /* that are looked at */
    ATTEMPTS_MAX = 64,  /* another may take a free one before us */
    LOOP_GAP_MAX = 256, /* numbers in a row without a device */
};

static void device_path(int number, char ret[DM_PATH_MAX])
{
    snprintf(ret, DM_PATH_MAX, "/dev/loop%d", number);
}

/* Opens loop device `number` if it is on that file, else returns -1. */
static int loop_open_on(int number, const struct stat *file)
{
    char path[DM_PATH_MAX];
    struct loop_info64 info;

    device_path(number, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == file->st_ino &&
        info.lo_device == file->st_dev)
        return fd;
    close(fd);
    return -1;
}

/* The first loop device from `number` on that is on the file; -1. */
static int loop_find(int number, const struct stat *file, int *ret_fd)
{
    char path[DM_PATH_MAX];

    for (int missing = 0; number < LOOPS_MAX && missing < LOOP_GAP_MAX; number++) {
        device_path(number, path);
        missing = access(path, F_OK) < 0 ? missing + 1 : 0;
        *ret_fd = missing ? -1 : loop_open_on(number, file);
        if (*ret_fd >= 0)
            return number;
    }
    return -1;
}

static int loop_configure(int control, int file, char ret_device[DM_PATH_MAX])
{
    struct loop_config config = {.fd = (uint32_t)file, .block_size = DM_SECTOR};

    for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return -1;
        device_path(number, ret_device);
        int fd = open(ret_device, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return -1;
        int result = ioctl(fd, LOOP_CONFIGURE, &config);
        int err = errno;
        close(fd);
        errno = err;
        if (result == 0 || err != EBUSY)
            return result;
    }
    errno = EBUSY;
    return -1;
}

int dm_loop_attach(const char *path, char ret_device[DM_PATH_MAX], struct error **ret_error)
{
    struct stat st;
    int control = -1, found, result = -1;
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (file < 0 || fstat(file, &st) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    else if ((found = loop_find(0, &st, &control)) >= 0) {
        device_path(found, ret_device);
        if ((result = ioctl(control, LOOP_SET_CAPACITY)) < 0) /* the file may have grown */
            error_set(ret_error, ERROR_IO, errno, "tell '%s' the size of '%s'", ret_device, path);
    } else if ((control = open("/dev/loop-control", O_RDWR | O_CLOEXEC)) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "open '/dev/loop-control'");
    else if (loop_configure(control, file, ret_device) < 0)
        result = error_set(ret_error, ERROR_IO, errno, "put a loop device on '%s'", path);
    else
        result = 0;
    if (control >= 0)
        close(control);
    if (file >= 0)
        close(file);
    return result;
}

void dm_loop_detach(const char *path)
{
    struct stat st;
    int fd, number = 0;

    if (lstat(path, &st) < 0)
        return;
    while ((number = loop_find(number, &st, &fd)) >= 0) {
        ioctl(fd, LOOP_CLR_FD);
        close(fd);
        number++;
    }
}
