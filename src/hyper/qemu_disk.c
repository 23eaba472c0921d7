/* Disks: SCSI disks that are plugged into the running VM, and those that were there from the start.
 *
 * No bus of the machine's root lets go of a device, so the latter stay, and their file is exchanged
 * under them: node "d<n>" has either "f<n>", which is a file, or "e<n>", which is nothing. A slot
 * is one that had no file at the start.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/str.h"
#include "hyper/qemu_args.h"
#include "hyper/qemu_int.h"

enum { UNPLUG_DEADLINE_MS = 20 * 1000 }; /* until the guest has let go of a disk */

static char *name_of(char kind, const struct op *op)
{
    return str_printf("%c%u", kind, op->number);
}

/* QEMU will not have a device for a file, nor the other way round. */
static bool is_device(const struct hyper_disk *disk)
{
    struct stat st;
    return fstat(disk->fd, &st) == 0 && S_ISBLK(st.st_mode);
}

static json_t *fdset_arguments(const struct op *op)
{
    return json_pack("{s:I}", "fdset-id", op->fdset);
}

/* ---- SCSI ----------------------------------------------------------------------------------- */

/* A device may have no room for what is written to it, as a thin pool does. Past the host's cache
 * the write itself says so, and QEMU stops the guest with nothing lost until somebody resumes it;
 * the cache would have taken the write and dropped it. */
static json_t *file_node(const struct op *op, const char *file)
{
    return json_pack("{s:s, s:s, s:b, s:s, s:{s:b}}", "driver", op->device ? "host_device" : "file",
                     "filename", file, "read-only", (int)op->read_only, "discard", "unmap", "cache",
                     "direct", (int)op->device);
}

static json_t *blockdev_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('s', op);
    CLEANUP_FREE char *file = str_printf("/dev/fdset/%lld", (long long)op->fdset);
    return json_pack("{s:s, s:s, s:b, s:s, s:o}", "driver", "raw", "node-name", node, "read-only",
                     (int)op->read_only, "discard", "unmap", "file", file_node(op, file));
}

static json_t *node_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('s', op);
    return json_pack("{s:s}", "node-name", node);
}

static json_t *device_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('s', op);
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i}", "driver", "scsi-hd", "id", node,
                     "drive", node, "bus", "scsi.0", "channel", 0, "scsi-id", 0, "lun",
                     (int)op->number);
}

static json_t *id_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('s', op);
    return json_pack("{s:s}", "id", node);
}

static enum verdict deleted_judge(const struct op *op, const json_t *data, struct error **ret_error)
{
    const char *device = json_string_value(json_object_get(data, "device"));
    CLEANUP_FREE char *node = name_of('s', op);
    return device && str_eq(device, node) ? ARRIVED : NOT_OURS;
}

static void deleted_late(const struct op *op, struct error **ret_error)
{
    error_set(ret_error, ERROR_TIMEOUT, 0, "the guest does not let go of disk %u", op->number);
}

static const struct awaited device_deleted = {"DEVICE_DELETED", deleted_judge, UNPLUG_DEADLINE_MS,
                                              deleted_late};

/* The set is removed once the disk has its own copy: it would keep the file open for ever. */
static const struct step add_steps[] = {
    {.command = "add-fd", .takes_fd = true, .undo = "remove-fd", .undo_arguments = fdset_arguments},
    {.command = "blockdev-add",
     .arguments = blockdev_arguments,
     .undo = "blockdev-del",
     .undo_arguments = node_arguments},
    {.command = "device_add",
     .arguments = device_arguments,
     .undo = "device_del",
     .undo_arguments = id_arguments},
    {.command = "remove-fd", .arguments = fdset_arguments},
};

static const struct step del_steps[] = {
    {.command = "device_del", .arguments = id_arguments},
    {.until = &device_deleted},
    {.command = "blockdev-del", .arguments = node_arguments},
};

void qemu_disk_add(struct hyper *h, unsigned lun, const struct hyper_disk *disk, hyper_done *done,
                   void *arg)
{
    op_start(h, (struct op){.steps = add_steps,
                            .step_count = ARRAY_SIZE(add_steps),
                            .number = lun,
                            .read_only = disk->read_only,
                            .device = is_device(disk),
                            .fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 0),
                            .done = done,
                            .arg = arg});
}

void qemu_disk_del(struct hyper *h, unsigned lun, hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = del_steps,
                            .step_count = ARRAY_SIZE(del_steps),
                            .number = lun,
                            .fd = -1,
                            .done = done,
                            .arg = arg});
}

/* ---- slots ---------------------------------------------------------------------------------- */

/* Slot n has the set of descriptors QEMU_FD_DISK + n, whether its file was there from the start or
 * not. */
static json_t *add_fd_arguments(const struct op *op)
{
    return json_pack("{s:i}", "fdset-id", QEMU_FD_DISK + (int)op->number);
}

static json_t *file_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('f', op);
    CLEANUP_FREE char *file = str_printf("/dev/fdset/%u", QEMU_FD_DISK + op->number);
    json_t *arguments = file_node(op, file);
    json_object_set_new(arguments, "node-name", json_string(node));
    return arguments;
}

static json_t *file_node_arguments(const struct op *op)
{
    CLEANUP_FREE char *node = name_of('f', op);
    return json_pack("{s:s}", "node-name", node);
}

/* Options that are not named go back to their defaults. */
static json_t *reopen_arguments(const struct op *op, char kind)
{
    CLEANUP_FREE char *disk = name_of('d', op);
    CLEANUP_FREE char *node = name_of(kind, op);
    return json_pack("{s:[{s:s, s:s, s:b, s:s, s:s}]}", "options", "driver", "raw", "node-name",
                     disk, "read-only", (int)op->read_only, "discard", "unmap", "file", node);
}

static json_t *fill_arguments(const struct op *op)
{
    return reopen_arguments(op, 'f');
}

static json_t *drain_arguments(const struct op *op)
{
    return reopen_arguments(op, 'e');
}

static const struct step put_steps[] = {
    {.command = "add-fd",
     .arguments = add_fd_arguments,
     .takes_fd = true,
     .undo = "remove-fd",
     .undo_arguments = add_fd_arguments},
    {.command = "blockdev-add",
     .arguments = file_arguments,
     .undo = "blockdev-del",
     .undo_arguments = file_node_arguments},
    {.command = "blockdev-reopen", .arguments = fill_arguments},
};

static const struct step forget_steps[] = {
    {.command = "blockdev-reopen", .arguments = drain_arguments},
    {.command = "blockdev-del", .arguments = file_node_arguments},
    {.command = "remove-fd", .arguments = add_fd_arguments},
};

void qemu_disk_put(struct hyper *h, unsigned number, const struct hyper_disk *disk,
                   hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = put_steps,
                            .step_count = ARRAY_SIZE(put_steps),
                            .number = number,
                            .read_only = disk->read_only,
                            .device = is_device(disk),
                            .fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 0),
                            .done = done,
                            .arg = arg});
}

void qemu_disk_forget(struct hyper *h, unsigned number, hyper_done *done, void *arg)
{
    op_start(h, (struct op){.steps = forget_steps,
                            .step_count = ARRAY_SIZE(forget_steps),
                            .number = number,
                            .read_only = h->read_only & 1u << number,
                            .fd = -1,
                            .done = done,
                            .arg = arg});
}
