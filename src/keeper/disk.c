/* The VM's disks: those that it booted with, and those plugged in since. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "base/str.h"
#include "keeper/container.h"
#include "keeper/share.h"

/*  PLUGGING ──► READY ──► UNPLUGGING ──► (freed, or PLUGGING again if it is wanted meanwhile) */
enum disk_state { DISK_PLUGGING, DISK_READY, DISK_UNPLUGGING };

enum disk_place {
    PLACE_NONE,
    PLACE_BOOT, /* there from the start; cannot be unplugged: if it is writable its file is let go
                 * of instead, and its place is lost */
    PLACE_SLOT, /* of a clone: its file is let go of, and another can come */
    PLACE_SCSI,
    PLACE_SHARE, /* directories, served by virtiofsd */
};

struct waiter {
    struct waiter *next;
    struct disk **slot; /* emptied if the disk does not come; NULL: waits for the unplugging */
    disk_done *done;
    void *arg;
};

struct disk {
    struct disk *prev, *next;
    struct keeper *keeper;
    char *path;
    char *lower; /* of PLACE_SHARE: the directory below it; else NULL */
    char *top;   /* of PLACE_SHARE: its name among what is served; else NULL */
    int fd;      /* open already, for the plugging; -1 */
    char *address;
    bool read_only;
    enum disk_place place;
    unsigned number; /* of its kind */
    unsigned refs;
    enum disk_state state;
    struct waiter *waiters;
};

const char *disk_address(const struct disk *disk)
{
    return disk->address;
}

const char *disk_top(const struct disk *disk)
{
    return disk->top;
}

static struct disk *disk_find(struct keeper *k, const char *path)
{
    struct disk *d;
    DL_FOREACH(k->disks, d)
        if (str_eq(d->path, path))
            return d;
    return NULL;
}

const char *disk_address_of(struct keeper *k, const char *path)
{
    const struct disk *d = disk_find(k, path);
    return d ? d->address : NULL;
}

int disk_rename(struct keeper *k, const char *from, const char *to, struct error **ret_error)
{
    struct disk *d = disk_find(k, from);
    if (!d)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "the VM has no disk '%s'", from);
    str_set(&d->path, to);
    return 0;
}

static struct disk *disk_new(struct keeper *k, const char *path, bool read_only)
{
    struct disk *d = xcalloc(1, sizeof(*d));
    d->keeper = k;
    d->path = xstrdup(path);
    d->read_only = read_only;
    d->fd = -1;
    DL_APPEND(k->disks, d);
    return d;
}

static void descriptor_drop(struct disk *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

static void disk_free(struct disk *d)
{
    assert(!d->waiters);
    DL_DELETE(d->keeper->disks, d);
    descriptor_drop(d);
    free(d->path);
    free(d->lower);
    free(d->top);
    free(d->address);
    free(d);
}

void disks_free(struct keeper *k)
{
    struct disk *d, *next;
    DL_FOREACH_SAFE(k->disks, d, next)
        disk_free(d);
}

static int file_open(const char *path, bool read_only, int *ret, struct error **ret_error)
{
    *ret = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    return *ret >= 0 ? 0 : error_set(ret_error, ERROR_IO, errno, "disk '%s'", path);
}

/* A place that no disk has; -1 if there is none. */
static int place_find(const struct keeper *k, enum disk_place place, unsigned from, unsigned to)
{
    const struct disk *d;
    for (unsigned i = from; i < to; i++) {
        bool taken = false;
        DL_FOREACH(k->disks, d)
            taken |= d->place == place && d->number == i;
        if (!taken)
            return (int)i;
    }
    return -1;
}

static bool slot_is_scsi(unsigned slot)
{
    return slot != 0 && slot != HYPER_SLOTS_READ_ONLY;
}

/* Gives the disk a slot if one is free. */
static bool slot_take(struct disk *d)
{
    struct keeper *k = d->keeper;
    int slot = k->mode == WIRE_BOOT_COLD ? -1
               : d->read_only            ? place_find(k, PLACE_SLOT, 0, HYPER_SLOTS_READ_ONLY)
                              : place_find(k, PLACE_SLOT, HYPER_SLOTS_READ_ONLY, HYPER_SLOTS);
    if (slot < 0)
        return false;
    d->place = PLACE_SLOT;
    d->number = (unsigned)slot;
    d->address = slot_is_scsi(d->number) ? str_printf("scsi:%d", HYPER_HOT_DISKS_MAX + slot)
                                         : str_printf("virtio:d%d", slot);
    return true;
}

/* ---- at boot -------------------------------------------------------------------------------- */

static int spec_parse(struct keeper *k, const char *spec, const char **ret_path,
                      bool *ret_read_only, struct error **ret_error)
{
    *ret_read_only = str_starts(spec, "ro:");
    *ret_path = spec + strlen("ro:");
    if (!*ret_read_only && !str_starts(spec, "rw:"))
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not a disk", spec);
    if (disk_find(k, *ret_path))
        return error_set(ret_error, ERROR_INVALID, 0, "disk '%s' is there twice", *ret_path);
    return 0;
}

static void slots_begin(struct hyper_disk *ret, unsigned *ret_count)
{
    for (unsigned i = 0; i < HYPER_SLOTS; i++)
        ret[i] = (struct hyper_disk){
            .fd = -1, .read_only = i < HYPER_SLOTS_READ_ONLY, .scsi = slot_is_scsi(i)};
    *ret_count = HYPER_SLOTS;
}

int disks_boot(struct keeper *k, const char *const *disks, struct hyper_disk *ret,
               unsigned *ret_count, struct error **ret_error)
{
    bool slots = k->mode != WIRE_BOOT_COLD;
    if (slots)
        slots_begin(ret, ret_count);
    STRV_FOREACH(spec, disks) {
        const char *path = NULL;
        bool read_only;
        int fd;
        if (spec_parse(k, *spec, &path, &read_only, ret_error) < 0)
            return -1;
        if (!slots && *ret_count == HYPER_BOOT_DISKS_MAX)
            return error_set(ret_error, ERROR_LIMIT, 0, "more than %d disks", HYPER_BOOT_DISKS_MAX);
        if (file_open(path, read_only, &fd, ret_error) < 0)
            return -1;
        struct disk *d = disk_new(k, path, read_only);
        d->state = DISK_READY;
        if (slots && !slot_take(d)) {
            close(fd);
            disk_free(d);
            continue;
        }
        if (!slots) {
            d->place = PLACE_BOOT;
            d->number = (*ret_count)++;
            d->address = str_printf("virtio:d%u", d->number);
        }
        ret[d->number] = (struct hyper_disk){.path = d->path,
                                             .fd = fd,
                                             .read_only = read_only,
                                             .scsi = slots && slot_is_scsi(d->number)};
    }
    return 0;
}

/* ---- plugging ------------------------------------------------------------------------------- */

static void waiter_add(struct disk *d, struct disk **slot, disk_done *done, void *arg)
{
    struct waiter *w = xcalloc(1, sizeof(*w));
    w->slot = slot;
    w->done = done;
    w->arg = arg;
    LL_APPEND(d->waiters, w);
}

/* Answers those who wait for the plugging, or those who wait for the unplugging. */
static struct waiter *waiters_take(struct disk *d, bool for_plugging)
{
    struct waiter *taken = NULL, *w, *next;
    LL_FOREACH_SAFE(d->waiters, w, next)
    if ((w->slot != NULL) == for_plugging) {
        LL_DELETE(d->waiters, w);
        LL_APPEND(taken, w);
    }
    return taken;
}

static void waiters_answer(struct keeper *k, struct waiter *list, const struct error *error)
{
    while (list) {
        struct waiter *w = list;
        list = w->next;
        if (error && w->slot)
            *w->slot = NULL;
        if (w->done)
            w->done(k, error, w->arg);
        free(w);
    }
}

static void disk_plugged(const struct error *error, void *arg)
{
    struct disk *d = arg;
    struct keeper *k = d->keeper;
    struct waiter *list = waiters_take(d, true);
    CLEANUP_ERROR struct error *wrapped = NULL;

    d->state = DISK_READY;
    descriptor_drop(d);
    if (error) {
        error_set(&wrapped, error->kind, 0, "disk '%s': %s", d->path, error->message);
        disk_free(d);
    }
    waiters_answer(k, list, wrapped);
}

static int place_take(struct disk *d, struct error **ret_error)
{
    if (slot_take(d))
        return 0;
    int lun = place_find(d->keeper, PLACE_SCSI, 0, HYPER_HOT_DISKS_MAX);
    if (lun < 0)
        return error_set(ret_error, ERROR_LIMIT, 0, "more than %d disks plugged in",
                         HYPER_HOT_DISKS_MAX);
    d->place = PLACE_SCSI;
    d->number = (unsigned)lun;
    d->address = str_printf("scsi:%d", lun);
    return 0;
}

static void share_insert(struct disk *d)
{
    struct keeper *k = d->keeper;
    CLEANUP_ERROR struct error *error = NULL;
    d->state = DISK_PLUGGING;
    d->place = PLACE_SHARE;
    if (!k->hyper || k->hyper_reason)
        error_set(&error, ERROR_STATE, 0, "the VM does not run");
    else if (!k->share)
        error_set(&error, ERROR_STATE, 0, "no files are served to the VM");
    if (error) {
        disk_plugged(error, d);
        return;
    }
    d->number = share_number(k->share);
    d->address = xstrdup("virtiofs:" HYPER_SHARE_TAG);
    str_set(&d->top, NULL);
    d->top = str_printf("%u", d->number);
    share_mount(k->share, d->number, d->lower, d->path, disk_plugged, d);
}

/* Needs a new place each time it is called. */
static void disk_insert(struct disk *d)
{
    struct keeper *k = d->keeper;
    CLEANUP_ERROR struct error *error = NULL;
    int fd = d->fd;

    if (d->lower) {
        share_insert(d);
        return;
    }
    d->fd = -1;
    d->state = DISK_PLUGGING;
    if (!k->hyper || k->hyper_reason)
        error_set(&error, ERROR_STATE, 0, "the VM does not run");
    else if (fd >= 0 || file_open(d->path, d->read_only, &fd, &error) == 0)
        place_take(d, &error);
    if (error) {
        if (fd >= 0)
            close(fd);
        disk_plugged(error, d);
        return;
    }
    struct hyper_disk spec = {.path = d->path, .fd = fd, .read_only = d->read_only};
    if (d->place == PLACE_SLOT)
        k->ops->disk_put(k->hyper, d->number, &spec, disk_plugged, d);
    else
        k->ops->disk_add(k->hyper, d->number, &spec, disk_plugged, d);
    close(fd);
}

void disk_plug(struct keeper *k, const struct disk_file *file, struct disk **ret, disk_done *done,
               void *arg)
{
    struct disk *d = disk_find(k, file->path);
    if (d && d->read_only != file->read_only) {
        CLEANUP_ERROR struct error *error = NULL;
        error_set(&error, ERROR_BUSY, 0, "disk '%s' is plugged in as %s", file->path,
                  d->read_only ? "read-only" : "writable");
        if (file->fd >= 0)
            close(file->fd);
        done(k, error, arg);
        return;
    }
    bool is_new = !d;
    if (is_new)
        d = disk_new(k, file->path, file->read_only);
    if (is_new && file->lower)
        d->lower = xstrdup(file->lower);
    d->refs++;
    descriptor_drop(d);
    d->fd = file->fd; /* one that is on its way out needs it when it comes back */

    *ret = d;
    if (!is_new && d->state == DISK_READY) {
        descriptor_drop(d);
        done(k, NULL, arg);
        return;
    }
    waiter_add(d, ret, done, arg);
    if (is_new)
        disk_insert(d);
}

/* ---- unplugging ----------------------------------------------------------------------------- */

static void disk_unplugged(const struct error *error, void *arg)
{
    struct disk *d = arg;
    struct keeper *k = d->keeper;
    struct waiter *list = waiters_take(d, false);
    bool wanted = d->refs > 0;

    d->state = DISK_READY; /* if it did not go, it can be used again */
    if (error && wanted) {
        disk_plugged(NULL, d);
    } else if (wanted) {
        str_set(&d->address, NULL);
        d->place = PLACE_NONE;
        disk_insert(d);
    } else if (!error) {
        disk_free(d);
    }
    waiters_answer(k, list, error);
    vm_left(k, error);
}

bool disks_leaving(const struct keeper *k)
{
    const struct disk *d;
    DL_FOREACH(k->disks, d)
        if (d->state == DISK_UNPLUGGING)
            return true;
    return false;
}

void disk_release(struct keeper *k, struct disk *d, disk_done *done, void *arg)
{
    bool vm_runs = k->hyper && !k->hyper_reason;
    assert(d->refs > 0);
    d->refs--;
    if (d->refs || (d->place == PLACE_BOOT && d->read_only) || !vm_runs) {
        if (done)
            done(k, NULL, arg);
        return;
    }
    waiter_add(d, NULL, done, arg);
    d->state = DISK_UNPLUGGING;
    if (d->place == PLACE_SHARE)
        share_unmount(k->share, d->number, disk_unplugged, d);
    else if (d->place == PLACE_SCSI)
        k->ops->disk_del(k->hyper, d->number, disk_unplugged, d);
    else
        k->ops->disk_forget(k->hyper, d->number, disk_unplugged, d);
}
