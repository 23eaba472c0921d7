#include "api/query.h"

#include <jansson.h>

#include "base/str.h"

int query_strings(const char *name, const char *value, char ***ret, struct error **ret_error)
{
    size_t i;
    json_t *entry, *array = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
    CLEANUP_STRV char **strings = NULL;
    bool good = json_is_array(array) && json_array_size(array) <= QUERY_STRINGS_MAX;
    *ret = NULL;
    json_array_foreach(array, i, entry) {
        good = good && json_is_string(entry);
        if (good)
            strv_push(&strings, json_string_value(entry));
    }
    json_decref(array);
    if (!good)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "%s is not a JSON array of at most %d strings", name, QUERY_STRINGS_MAX);
    *ret = take(strings);
    return 0;
}
