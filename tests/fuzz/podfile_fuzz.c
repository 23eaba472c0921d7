/* A podfile and an image's config, as a client and an archive send them. What was read must be
 * written as something that reads as the same. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "model/image.h"
#include "model/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *rewrite(const char *text, size_t size)
{
    CLEANUP_POD_SPEC struct pod_spec *spec = NULL;
    CLEANUP_ERROR struct error *error = NULL;
    struct buf out = {0};

    if (pod_spec_parse(text, size, NULL, &spec, &error) < 0)
        return NULL;
    pod_spec_write(spec, true, &out);
    return buf_take_str(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_config config;
    CLEANUP_FREE char *once = rewrite((const char *)data, size);
    CLEANUP_FREE char *twice = once ? rewrite(once, strlen(once)) : NULL;

    if (once && (!twice || strcmp(once, twice) != 0))
        abort();
    if (image_config_parse((const char *)data, size, &config, NULL) == 0)
        image_config_clear(&config);
    return 0;
}
