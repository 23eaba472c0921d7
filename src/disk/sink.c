/* Extended attributes of a file on its way into an image, coded as erofs has them: a header, then
 * entries {name's length, prefix, value's length, name, value}, each filled up to four bytes. */
#include "disk/sink.h"

#include <endian.h>
#include <string.h>

#include "base/str.h"

enum { XATTR_HEADER = 12, XATTR_ENTRY = 4, XATTR_VALUE_MAX = 65535 };

/* Prefixes have numbers; only the rest of a name is stored. */
static const struct {
    const char *prefix;
    uint8_t index;
    bool whole;
} xattr_kinds[] = {
    {"user.", 1, false},
    {"system.posix_acl_access", 2, true},
    {"system.posix_acl_default", 3, true},
    {"trusted.", 4, false},
    {"security.", 6, false},
};

static const char *xattr_kind(const char *name, uint8_t *ret_index)
{
    for (size_t i = 0; i < ARRAY_SIZE(xattr_kinds); i++) {
        const char *rest = name + strlen(xattr_kinds[i].prefix);
        if (!str_starts(name, xattr_kinds[i].prefix) || (*rest == '\0') != xattr_kinds[i].whole)
            continue;
        *ret_index = xattr_kinds[i].index;
        return rest;
    }
    return NULL;
}

int sink_xattr_add(struct buf *xattrs, const char *name, const void *value, size_t size,
                   struct error **ret_error)
{
    static const uint8_t zeros[XATTR_HEADER] = {0};
    uint8_t entry[XATTR_ENTRY] = {0};
    const char *rest = xattr_kind(name, &entry[1]);

    if (!rest)
        return 1;
    if (strlen(rest) > SINK_NAME_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "extended attribute '%.64s…' has a name "
                         "of more than %d bytes",
                         name, SINK_NAME_MAX);
    if (size > XATTR_VALUE_MAX || xattrs->len + size + 2 * SINK_NAME_MAX > SINK_XATTRS_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "extended attributes of more than %d bytes",
                         SINK_XATTRS_MAX);
    if (xattrs->len == 0)
        buf_append(xattrs, zeros, XATTR_HEADER);
    entry[0] = (uint8_t)strlen(rest);
    uint16_t length = htole16((uint16_t)size);
    memcpy(entry + 2, &length, sizeof(length));
    buf_append(xattrs, entry, sizeof(entry));
    buf_append(xattrs, rest, strlen(rest));
    if (size > 0)
        buf_append(xattrs, value, size);
    buf_append(xattrs, zeros, -xattrs->len % XATTR_ENTRY);
    return 0;
}

bool sink_xattr_next(const struct buf *xattrs, size_t *position, char **ret_name,
                     const void **ret_value, size_t *ret_size)
{
    size_t at = *position ? *position : XATTR_HEADER;

    if (!xattrs || at >= xattrs->len)
        return false;
    const uint8_t *entry = xattrs->data + at;
    const char *prefix = "";
    for (size_t i = 0; i < ARRAY_SIZE(xattr_kinds); i++)
        if (xattr_kinds[i].index == entry[1])
            prefix = xattr_kinds[i].prefix;
    *ret_size = (size_t)(entry[2] | entry[3] << 8);
    *ret_name = str_printf("%s%.*s", prefix, entry[0], (const char *)entry + XATTR_ENTRY);
    *ret_value = entry + XATTR_ENTRY + entry[0];
    size_t size = XATTR_ENTRY + entry[0] + *ret_size;
    *position = at + size + -size % XATTR_ENTRY;
    return true;
}
