/* Any bytes as two file systems, that of an image and what a guest has made of it: whatever is
 * found to be changed is a tar within its limits. The first half of the bytes is the image's. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/ext4_changes.h"

enum { TAR_MAX = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *arg, const void *data, size_t size, struct error **ret_error)
{
    uint64_t *total = arg;

    *total += size;
    if (*total > TAR_MAX)
        abort();
    return 0;
}

static char paths[2][256];

static void clean_up(void)
{
    unlink(paths[0]);
    unlink(paths[1]);
}

static void put(int which, const uint8_t *data, size_t size)
{
    static int fds[2] = {-1, -1};

    if (fds[which] < 0) {
        snprintf(paths[which], sizeof(paths[which]), "%s/changes-fuzz-%d-%d",
                 str_or(getenv("TMPDIR"), "/tmp"), (int)getpid(), which);
        fds[which] = open(paths[which], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    if (fds[which] < 0 || ftruncate(fds[which], 0) < 0 ||
        pwrite(fds[which], data, size, 0) != (ssize_t)size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;
    struct ext4_changes_spec spec = {.before = paths[0], .now = paths[1]};

    if (!begun)
        atexit(clean_up);
    begun = true;
    put(0, data, size / 2);
    put(1, data + size / 2, size - size / 2);
    for (int careful = 0; careful < 2; careful++) {
        uint64_t total = 0;
        const struct disk_output out = {count, &total, TAR_MAX};
        spec.careful = careful;
        if (ext4_changes(&spec, &out, NULL) == 0 && total % 512 != 0)
            abort();
    }
    return 0;
}
