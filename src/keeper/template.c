/* How a template is made of a VM that was booted as one: the guest prepares, QEMU writes its state
 * and ends. The memory is then in its file.
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
    if (k->mode != WIRE_BOOT_TEMPLATE)
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
    *ret = (struct wire_freeze){
        .image_disk = "", .layer_disk = "", .program = m->program, .path = m->path};
    if (str_empty(m->layer_path))
        return 0;
    ret->image_disk = disk_address_of(k, m->image_path);
    ret->layer_disk = disk_address_of(k, m->layer_path);
    if (!ret->image_disk || !ret->layer_disk)
        return error_set(ret_error, ERROR_NOT_FOUND, 0, "the VM has no disk '%s'",
                         ret->image_disk ? m->layer_path : m->image_path);
    return 0;
}

static void guest_froze(struct keeper *k, const struct error *error, void *arg)
{
    if (k->hyper_reason)
        return;
    if (error)
        freeze_failed(k, error);
    else
        k->ops->freeze(k->hyper, k->state_fd, state_written, k);
}

int template_freeze(struct keeper *k, const struct wire_vm_freeze *m, struct error **ret_error)
{
    struct wire_freeze freeze;
    if (freeze_check(k, ret_error) < 0 || freeze_disks(k, m, &freeze, ret_error) < 0)
        return -1;
    int fd = open(m->state, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "state '%s'", m->state);
    k->state_fd = fd;
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
