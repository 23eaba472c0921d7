/* Any bytes as the file system that a guest has left: whatever is read of it is a tar within its
 * limits, and is read to its end. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "disk/ext4_reader.h"

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

static char path[256];

static void clean_up(void)
{
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    uint64_t total = 0;
    const struct disk_output out = {count, &total, TAR_MAX};

    if (fd < 0) {
        snprintf(path, sizeof(path), "%s/layer-fuzz-%d", str_or(getenv("TMPDIR"), "/tmp"),
                 (int)getpid());
        atexit(clean_up);
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    if (ext4_reader_diff(path, &out, NULL) == 0 && total % 512 != 0)
        abort();
    return 0;
}
