#include "disk/disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static const struct disk_ops *const drivers[] = {&disk_block, &disk_devicemapper, &disk_overlay};

const struct disk_ops *disk_driver(const char *name, struct error **ret_error)
{
    CLEANUP_STRV char **names = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
        if (strcmp(drivers[i]->name, name) == 0)
            return drivers[i];
        strv_push(&names, drivers[i]->name);
    }
    CLEANUP_FREE char *list = strv_join((const char *const *)names, ", ");
    error_set(ret_error, ERROR_INVALID, 0, "there is no storage driver '%s': one of %s", name,
              list);
    return NULL;
}

char *disk_image_file(const struct disk *disk, const char *id)
{
    return str_printf("images/%s.%s", id, disk->ops->image_suffix);
}

void disk_root_done(struct disk_root *root)
{
    free(root->image);
    free(root->layer);
    free(root->top);
    *root = (struct disk_root){0};
}
