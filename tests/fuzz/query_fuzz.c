/* What a client's request carries beside podfiles: an exec's command, a container to add, points in
 * time, names of signals. */
#include <stdlib.h>
#include <string.h>

#include "api/query.h"
#include "api/times.h"
#include "base/str.h"
#include "model/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read is within the limit, and a point in time is written as one that reads as the same.
 */
static void read_words(const char *text)
{
    CLEANUP_STRV char **strings = NULL;
    char written[TIME_TEXT_SIZE];
    int64_t ns, again;

    if (query_strings("command", text, &strings, NULL) == 0 &&
        strv_count((const char *const *)strings) > QUERY_STRINGS_MAX)
        abort();
    if (time_read(text, &ns) && ns > 0) {
        time_write(written, ns, true);
        if (!time_read(written, &again) || again != ns)
            abort();
    }
    signal_from_name(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    struct ctr_spec *spec = NULL;

    read_words(text);
    if (ctr_spec_parse((const char *)data, size, &spec, NULL) == 0)
        ctr_spec_free(spec);
    return 0;
}
