#include "worker/storage.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

static struct {
    const struct disk_ops *ops;
    char **options;
    struct error *refused; /* why jobs with storage cannot be done */
} storage = {.ops = &disk_block};

int storage_take(const struct wire_frame *frame, struct error **ret_error)
{
    struct wire_storage message = {0};
    int result = wire_get(frame, &message, ret_error);

    if (result == 0) {
        strv_freep(&storage.options);
        error_freep(&storage.refused);
        storage.refused = NULL;
        storage.options = strv_copy(message.options);
        storage.ops = disk_driver(message.driver, &storage.refused);
        if (storage.ops)
            storage.ops->check(message.options, &storage.refused);
    }
    wire_clear(frame->type, &message);
    return result;
}

int storage_check(const char *const *words)
{
    CLEANUP_ERROR struct error *error = NULL;
    const struct disk_ops *ops = disk_driver(words[0], &error);

    if (ops && ops->check(words + 1, &error) == 0)
        return EXIT_SUCCESS;
    puts(error_text(error));
    return EXIT_FAILURE;
}

int storage_open(const char *root, struct disk *ret, struct error **ret_error)
{
    *ret = (struct disk){storage.ops, root, (const char *const *)storage.options};
    if (!storage.refused)
        return 0;
    return error_set(ret_error, storage.refused->kind, 0, "%s", error_text(storage.refused));
}
