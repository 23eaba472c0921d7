#include "init/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/str.h"
#include "init/util.h"

#define VIRTIO "virtio:"
#define SCSI   "scsi:"
#define SHARED "virtiofs:"

enum { SERIAL_MAX = 20, LUN_MAX = 16383, DISKS_KNOWN = 16 }; /* of virtio-blk and virtio-scsi */

int disk_check(const char *name, struct error **ret_error)
{
    uint64_t lun;
    if (str_starts(name, SCSI) && str_to_u64(name + strlen(SCSI), 0, LUN_MAX, &lun))
        return 0;
    if (str_starts(name, VIRTIO) && name[strlen(VIRTIO)] &&
        strlen(name + strlen(VIRTIO)) <= SERIAL_MAX)
        return 0;
    if (disk_is_shared(name) && name[strlen(SHARED)])
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "disk '%s' is neither 'virtio:SERIAL', 'scsi:LUN' nor 'virtiofs:TAG'", name);
}

/* ---- directories of the host ----------------------------------------------------------------
 *
 * A container mounts them for itself. They are mounted here, too, to be able to tell the kernel to
 * forget what it knows of those that no container has any more: until it does the host has to keep
 * them. */

bool disk_is_shared(const char *name)
{
    return str_starts(name, SHARED);
}

static char *shared_find(const char *tag)
{
    static bool mounted;
    if (!mounted) {
        mkdir(SHARED_DIR, 0700);
        mounted = mount(tag, SHARED_DIR, "virtiofs", MS_NODEV | MS_NOSUID, NULL) == 0;
    }
    return mounted ? str_printf(SHARED "%s", tag) : NULL;
}

/* A remount drops all names that nobody uses, and with them the files behind. */
static bool shared_free(void)
{
    if (mount(NULL, SHARED_DIR, NULL, MS_REMOUNT | MS_NODEV | MS_NOSUID, NULL) < 0)
        say(LOG_WARNING, "remount of '%s': %s", SHARED_DIR, strerror(errno));
    return true;
}

/* ---- looking -------------------------------------------------------------------------------- */

/* The first entry of a directory that `matches`; its name is owned. */
static char *entry_find(const char *dir, bool (*matches)(const char *entry, const char *wanted),
                        const char *wanted)
{
    DIR *d = opendir(dir);
    char *found = NULL;
    for (struct dirent *e = d ? readdir(d) : NULL; e && !found; e = readdir(d))
        if (e->d_name[0] != '.' && matches(e->d_name, wanted))
            found = xstrdup(e->d_name);
    if (d)
        closedir(d);
    return found;
}

static bool serial_matches(const char *entry, const char *serial)
{
    if (!str_starts(entry, "vd"))
        return false;
    CLEANUP_FREE char *path = str_printf("/sys/block/%s/serial", entry);
    CLEANUP_FREE char *text = file_read(path, SERIAL_MAX + 2);
    size_t size = text ? strcspn(text, "\n") : 0;
    return text && size == strlen(serial) && memcmp(text, serial, size) == 0;
}

/* Entries of /sys/class/scsi_disk are HOST:CHANNEL:TARGET:LUN. */
static bool lun_matches(const char *entry, const char *lun)
{
    const char *own = strrchr(entry, ':');
    return own && str_eq(own + 1, lun);
}

static bool any(const char *entry, const char *wanted)
{
    return true;
}

/* The kernel makes the node in /dev a little before the disk behind it can be opened (ENXIO). The
 * disk's own uevent comes after that, so whoever waits for the disk looks again in time. */
static bool disk_opens(const char *device)
{
    CLEANUP_FD int fd = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0;
}

/* ---- what is known -------------------------------------------------------------------------- */

static struct {
    char serial[SERIAL_MAX + 1];
    char *path;
} known[DISKS_KNOWN];
static size_t known_count;

static void disks_forget(void)
{
    while (known_count)
        free(known[--known_count].path);
}

void disks_event(const char *event)
{
    if (!event || strstr(event, "/block/vd"))
        disks_forget();
}

/* There is nothing to be gained by sorting the requests to a disk of the host, which does that. */
static void disk_tune(const char *block)
{
    static const char *const settings[][2] = {
        {"scheduler", "none"}, {"wbt_lat_usec", "0"}, {"iostats", "0"}};
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        CLEANUP_FREE char *path = str_printf("/sys/block/%s/queue/%s", block, settings[i][0]);
        file_write(path, settings[i][1]);
    }
}

void disks_remember(void)
{
    disks_forget();
    for (char letter = 'a'; letter <= 'z' && known_count < DISKS_KNOWN; letter++) {
        const char block[] = {'v', 'd', letter, 0};
        CLEANUP_FREE char *path = str_printf("/sys/block/%s/serial", block);
        CLEANUP_FREE char *serial = file_read(path, SERIAL_MAX);
        if (!serial)
            continue;
        disk_tune(block);
        serial[strcspn(serial, "\n")] = 0;
        snprintf(known[known_count].serial, sizeof(known->serial), "%s", serial);
        known[known_count++].path = str_printf("/dev/%s", block);
    }
}

static char *disk_known(const char *name)
{
    if (str_starts(name, VIRTIO))
        for (size_t i = 0; i < known_count; i++)
            if (str_eq(known[i].serial, name + strlen(VIRTIO)))
                return xstrdup(known[i].path);
    return NULL;
}

char *disk_find(const char *name)
{
    CLEANUP_FREE char *block = NULL;
    if (disk_is_shared(name))
        return shared_find(name + strlen(SHARED));
    char *found = disk_known(name);
    if (found)
        return found;
    if (str_starts(name, VIRTIO)) {
        block = entry_find("/sys/block", serial_matches, name + strlen(VIRTIO));
    } else {
        CLEANUP_FREE char *disk =
            entry_find("/sys/class/scsi_disk", lun_matches, name + strlen(SCSI));
        CLEANUP_FREE char *dir =
            disk ? str_printf("/sys/class/scsi_disk/%s/device/block", disk) : NULL;
        block = dir ? entry_find(dir, any, NULL) : NULL;
    }
    char *path = block ? str_printf("/dev/%s", block) : NULL;
    if (path && disk_opens(path))
        return path;
    free(path);
    return NULL;
}

/* The scan waits for the host, so a child does it; nobody asks how it ended. */
void disk_rescan(void)
{
    if (fork() != 0)
        return;
    for (int host = 0; host < 4; host++) {
        char path[64];
        snprintf(path, sizeof(path), "/sys/class/scsi_host/host%d/scan", host);
        file_write(path, "- - -");
    }
    _exit(0);
}

bool disk_free(const char *device)
{
    if (disk_is_shared(device))
        return shared_free();
    CLEANUP_FD int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);
    return fd >= 0 || errno != EBUSY;
}
