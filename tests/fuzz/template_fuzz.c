/* Any bytes as a template.json: refused, or read and written again as the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "worker/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct template_meta meta, again;

    if (template_meta_parse((const char *)data, size, &meta, NULL) < 0)
        return 0;
    CLEANUP_FREE char *text = template_meta_write(&meta);
    assert(text);
    if (strlen(text) <= TEMPLATE_META_MAX) { /* escapes may have made it longer */
        assert(template_meta_parse(text, strlen(text), &again, NULL) == 0);
        assert(again.ram_bytes == meta.ram_bytes && again.state_bytes == meta.state_bytes);
        assert(strv_count((const char *const *)again.inputs) ==
               strv_count((const char *const *)meta.inputs));
        template_meta_done(&again);
    }
    template_meta_done(&meta);
    return 0;
}
