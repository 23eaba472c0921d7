/* The frames of standard output and error, in pieces, whatever the bytes. */
#include <assert.h>

#include "husk/stdcopy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte says how large the pieces are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stdcopy copy = {0};
    struct error *error = NULL;
    size_t piece = size ? 1 + data[0] : 1;

    for (size_t at = size > 0; at < size;) {
        size_t used = 0, got = 0, left = size - at;
        int fd = 1;
        if (stdcopy_next(&copy, data + at, left < piece ? left : piece, &used, &got, &fd, &error) <
            0)
            break;
        assert(used > 0 && used <= left && got <= used);
        assert(fd == 1 || fd == 2);
        at += used;
    }
    error_free(error);
    return 0;
}
