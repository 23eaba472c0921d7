/* How a template is made of a VM that was booted as one: the guest prepares, QEMU writes its state
 * and ends. The memory is then in its file. And how a clone becomes a zygote: the guest prepares in
 * the same way, and QEMU comes to rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "keeper/container.h"

static int freeze_check(const struct keeper *k, struct error **ret_error)
{
    if (k->freeze_asks)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM is being made a template");
    if (vm_check_usable(k, ret_error) < 0)
        return -1;
    if (k->mode != WIRE_BOOT_TEMPLATE && k->mode != WIRE_BOOT_ZYGOTE)
        return error_set(ret_error, ERROR_STATE, 0, "the VM was not booted as a template");
    if (*k->pod || k->placing || k->containers)
        return error_set(ret_error, ERROR_BUSY, 0, "the VM has a pod");
    return 0;
}

/* The guest may have prepared and lives no more: the VM is of no use, and its end answers. */
static void freeze_failed(struct keeper *k, const struct error *error)
{
    CLEANUP_FREE char *why = str_printf("it cannot be made a template: %s", error->message);
    vm_break(k, why);
}

static void state_written(const struct error *error, void *arg)
{
    struct keeper *k = arg;
    if (k->hyper_reason)
        return;
    if (error) {
        freeze_failed(k, error);
        return;
    }
    k->frozen = true;
    k->ops->kill(k->hyper); /* all is written, and what quits in good order takes longer */
}

/* The guest's names of the disks whose root is to be ready; all "" if none was asked for. */
static int freeze_disks(struct keeper *k, const struct wire_vm_freeze *m, struct wire_freeze *ret,
                        struct error **ret_error)
{
    *ret = (struct wire_freeze){.image_disk = "",
                                .layer_disk = "",
                                .program = m->program,
                                .path = m->path,
                                .warm = k->mode == WIRE_BOOT_ZYGOTE};
    if (str_empty(m->layer_path))
        return 0;
    ret->image_disk = disk_address_of(k, m->image_path);
    ret->layer_disk = disk_address_of(k, m->layer_path);
    if (!ret->image_disk || !ret->layer_disk)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "the VM has no disk '%s'",
                         ret->image_disk ? m->layer_path : m->image_path);
    return 0;
}

/* ---- a zygote ------------------------------------------------------------------------------- */

static int layer_look(const struct keeper *k, struct timespec *ret, struct error **ret_error)
{
    struct stat st;
    if (stat(k->layer, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "layer '%s'", k->layer);
    *ret = st.st_mtim;
    return 0;
}

int zygote_watch_layer(struct keeper *k, const struct hyper_disk *disks, unsigned count,
                       struct error **ret_error)
{
    for (unsigned i = 0; i < count && !k->layer; i++)
        if (disks[i].fd >= 0 && !disks[i].read_only)
            k->layer = xstrdup(disks[i].path);
    return k->layer ? layer_look(k, &k->layer_time, ret_error) : 0;
}

/* The layers of its copies are copies of the template's: what the guest had written to its own they
 * would not have. */
static int layer_check(const struct keeper *k, struct error **ret_error)
{
    struct timespec now = {0};
    if (!k->layer)
        return 0;
    if (layer_look(k, &now, ret_error) < 0)
        return -1;
    if (now.tv_sec != k->layer_time.tv_sec || now.tv_nsec != k->layer_time.tv_nsec)
        return error_set(ret_error, ERROR_STATE, 0, "its guest has written to the layer");
    return 0;
}

static void settled(const struct error *error, void *arg)
{
    CLEANUP_ERROR struct error *failed = NULL;
    struct keeper *k = arg;
    if (k->hyper_reason)
        return;
    if (!error && layer_check(k, &failed) < 0)
        error = failed;
    k->settled = !error;
    if (error)
        freeze_failed(k, error);
    else
        ask_answer(k, &k->freeze_asks, NULL);
}

/* ---- both ----------------------------------------------------------------------------------- */

static void guest_froze(struct keeper *k, const struct error *error, void *arg)
{
    if (k->hyper_reason)
        return;
    if (error)
        freeze_failed(k, error);
    else if (k->mode == WIRE_BOOT_ZYGOTE)
        k->ops->settle(k->hyper, settled, k);
    else
        k->ops->freeze(k->hyper, k->state_fd, state_written, k);
}

static int state_make(struct keeper *k, const char *path, struct error **ret_error)
{
    if (k->mode == WIRE_BOOT_ZYGOTE)
        return 0;
    k->state_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return k->state_fd >= 0 ? 0 : error_set(ret_error, ERROR_IO, errno, "state '%s'", path);
}

int template_freeze(struct keeper *k, const struct wire_vm_freeze *m, struct error **ret_error)
{
    struct wire_freeze freeze;
    if (freeze_check(k, ret_error) < 0 || freeze_disks(k, m, &freeze, ret_error) < 0)
        return -1;
    if (state_make(k, m->state, ret_error) < 0)
        return -1;
    ask_add(k, &k->freeze_asks, m->seq, NULL);
    guest_request(k, WIRE_FREEZE, 0, &freeze, guest_froze, k);
    return 0;
}

void template_gone(struct keeper *k, const struct error *why)
{
    struct stat st;
    if (k->frozen && fstat(k->state_fd, &st) == 0)
        ask_answer_value(k, &k->freeze_asks, (uint64_t)st.st_size);
    else
        ask_answer(k, &k->freeze_asks, why);
}
