/* Any lines as changes of a config: what is accepted leaves one that can be written down. */
#include <stdint.h>
#include <stdlib.h>

#include "base/str.h"
#include "image/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_STRV char **changes = str_split(text, '\n');
    json_t *config = json_pack("{s:[s, s], s:[s], s:s}", "Env", "PATH=/bin", "A=b", "Cmd", "sh",
                               "WorkingDir", "/");

    if (changes_apply(config, (const char *const *)changes, NULL) == 0) {
        CLEANUP_FREE char *written = json_dumps(config, JSON_COMPACT);
        if (!written)
            abort();
    }
    json_decref(config);
    return 0;
}
