/* What we need of libdevmapper. Nodes in /dev are made by udev where it runs, else by the library.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libdevmapper.h>

#include "base/str.h"
#include "disk/dm.h"

enum {
    LOG_WARN_LEVEL = 4, /* as syslog's: the library's own words about what failed */
    WORDS_MAX = 240,
    /* What is in a container's file system is nobody's business on the host. */
    UDEV_FLAGS = DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG |
                 DM_UDEV_DISABLE_OTHER_RULES_FLAG,
};

static char words[WORDS_MAX]; /* the library's last */

__attribute__((format(printf, 5, 6))) static void
words_keep(int level, const char *file, int line, int errno_or_class, const char *format, ...)
{
    va_list ap;

    if ((level & 7) > LOG_WARN_LEVEL)
        return;
    va_start(ap, format);
    vsnprintf(words, sizeof(words), format, ap);
    va_end(ap);
}

static struct dm_task *task_new(int type, const char *name)
{
    static bool ready;

    if (!ready) {
        dm_log_with_errno_init(words_keep);
        dm_udev_set_checking(0);
        ready = true;
    }
    words[0] = '\0';
    struct dm_task *task = dm_task_create(type);
    if (task && !dm_task_set_name(task, name)) {
        dm_task_destroy(task);
        return NULL;
    }
    return task;
}

static int task_failed(struct dm_task *task, const char *what, const char *name,
                       struct error **ret_error)
{
    int err = task ? dm_task_get_errno(task) : 0;

    if (err == 0 && words[0])
        return error_set(ret_error, ERROR_IO, 0, "%s '%s': %s", what, name, words);
    return error_set(ret_error, ERROR_IO, err ? err : EIO, "%s '%s'", what, name);
}

/* Runs and frees. With `nodes`, /dev/mapper is right when it returns. */
static int task_run(struct dm_task *task, bool nodes, const char *what, const char *name,
                    struct error **ret_error)
{
    uint32_t cookie = 0;
    bool sync = nodes && dm_udev_get_sync_support();
    bool done =
        task && (!sync || dm_task_set_cookie(task, &cookie, UDEV_FLAGS)) && dm_task_run(task);

    if (!done)
        task_failed(task, what, name, ret_error);
    if (cookie)
        dm_udev_wait(cookie);
    if (nodes)
        dm_task_update_nodes();
    if (task)
        dm_task_destroy(task);
    return done ? 0 : -1;
}

int dm_device_create(const char *name, const struct dm_target *target, struct error **ret_error)
{
    struct dm_task *task = task_new(DM_DEVICE_CREATE, name);

    if (task && !dm_task_add_target(task, 0, target->sectors, target->type, target->params)) {
        dm_task_destroy(task);
        task = NULL;
    }
    return task_run(task, true, "activate", name, ret_error);
}

int dm_device_resume(const char *name, struct error **ret_error)
{
    return task_run(task_new(DM_DEVICE_RESUME, name), true, "resume", name, ret_error);
}

/* No file system of this host is on it that would have to be frozen. */
int dm_device_suspend(const char *name, struct error **ret_error)
{
    struct dm_task *task = task_new(DM_DEVICE_SUSPEND, name);

    if (task && !dm_task_skip_lockfs(task)) {
        dm_task_destroy(task);
        task = NULL;
    }
    return task_run(task, false, "suspend", name, ret_error);
}

int dm_device_reload(const char *name, const struct dm_target *target, struct error **ret_error)
{
    struct dm_task *task = task_new(DM_DEVICE_RELOAD, name);

    if (task && !dm_task_add_target(task, 0, target->sectors, target->type, target->params)) {
        dm_task_destroy(task);
        task = NULL;
    }
    if (task_run(task, false, "load the table of", name, ret_error) < 0)
        return -1;
    return dm_device_resume(name, ret_error);
}

void dm_device_node(const char *name)
{
    task_run(task_new(DM_DEVICE_MKNODES, name), true, "make the node of", name, NULL);
}

int dm_device_remove(const char *name, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (!dm_device_is_there(name, NULL))
        return 0;
    struct dm_task *task = task_new(DM_DEVICE_REMOVE, name);
    if (task)
        dm_task_retry_remove(task);
    /* ENXIO: it was held by a process that has died, and the kernel has just removed it. */
    if (task_run(task, true, "deactivate", name, &error) == 0 || error->err == ENXIO)
        return 0;
    return error_move(ret_error, &error);
}

int dm_device_hold(const char *name, struct error **ret_error)
{
    CLEANUP_FREE char *node = str_printf("/dev/mapper/%s", name);
    int fd = open(node, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", node);
    struct dm_task *task = task_new(DM_DEVICE_REMOVE, name);
    if (task && !dm_task_deferred_remove(task)) {
        dm_task_destroy(task);
        task = NULL;
    }
    if (task_run(task, true, "deactivate later", name, ret_error) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The kernel would remove it a moment after it is closed, and until then has its pool open. */
int dm_device_release(const char *name, int fd, struct error **ret_error)
{
    int result = dm_device_message(name, "@cancel_deferred_remove", ret_error);

    close(fd);
    return result < 0 ? -1 : dm_device_remove(name, ret_error);
}

int dm_device_message(const char *name, const char *message, struct error **ret_error)
{
    struct dm_task *task = task_new(DM_DEVICE_TARGET_MSG, name);
    CLEANUP_FREE char *what = str_printf("message '%s' to", message);

    if (task && (!dm_task_set_sector(task, 0) || !dm_task_set_message(task, message))) {
        dm_task_destroy(task);
        task = NULL;
    }
    return task_run(task, false, what, name, ret_error);
}

char *dm_device_status(const char *name, struct error **ret_error)
{
    struct dm_task *task = task_new(DM_DEVICE_STATUS, name);
    uint64_t start, length;
    char *type, *params = NULL, *text = NULL;

    if (task && dm_task_run(task)) {
        dm_get_next_target(task, NULL, &start, &length, &type, &params);
        text = xstrdup(str_or(params, ""));
    } else {
        task_failed(task, "ask for the status of", name, ret_error);
    }
    if (task)
        dm_task_destroy(task);
    return text;
}

bool dm_device_is_there(const char *name, int *ret_open)
{
    struct dm_task *task = task_new(DM_DEVICE_INFO, name);
    struct dm_info info = {0};
    bool there = task && dm_task_run(task) && dm_task_get_info(task, &info) && info.exists;

    if (ret_open)
        *ret_open = there ? info.open_count : 0;
    if (task)
        dm_task_destroy(task);
    return there;
}

uint64_t dm_device_sectors(const char *name)
{
    struct dm_task *task = task_new(DM_DEVICE_TABLE, name);
    uint64_t start = 0, length = 0;
    char *type, *params;

    if (task && dm_task_run(task))
        dm_get_next_target(task, NULL, &start, &length, &type, &params);
    if (task)
        dm_task_destroy(task);
    return length;
}
