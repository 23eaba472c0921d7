/* Any bytes as a huskd.conf: accepted or refused, never worse; what is accepted can be shown. */
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "huskd/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct settings settings;
    settings_init(&settings);
    if (settings_parse(&settings, "fuzz", (const char *)data, size, &error) == 0)
        settings_check(&settings, NULL);
    CLEANUP_STRV char **list = settings_list(&settings);
    settings_done(&settings);
    return list ? 0 : 1;
}
