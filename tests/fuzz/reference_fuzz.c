/* Any text: whatever is taken as a reference must come back from both of its forms unchanged. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "image/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_FREE char *full = reference_normalise(text, NULL);

    if (!full)
        return 0;
    CLEANUP_FREE char *familiar = reference_shorten(full);
    CLEANUP_FREE char *again = reference_normalise(familiar, NULL);
    if (!again || strcmp(full, again) != 0)
        abort();
    return 0;
}
