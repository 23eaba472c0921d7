#include "base/base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char for_urls[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *base64_encode(const void *data, size_t size, bool url)
{
    const char *digits = url ? for_urls : standard;
    const uint8_t *in = data;
    char *text = xmalloc((size + 2) / 3 * 4 + 1), *out = text;

    for (; size > 0; in += 3) {
        size_t n = size < 3 ? size : 3;
        uint32_t group = (uint32_t)in[0] << 16 | (n > 1 ? (uint32_t)in[1] << 8 : 0) |
                         (n > 2 ? (uint32_t)in[2] : 0);
        *out++ = digits[group >> 18 & 63];
        *out++ = digits[group >> 12 & 63];
        *out++ = n > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = n > 2 ? digits[group & 63] : '=';
        size -= n;
    }
    *out = '\0';
    return text;
}

/* In either alphabet; -1 for what is in none. */
static int digit_value(char c)
{
    const char *at = c ? strchr(standard, c) : NULL;

    if (at)
        return (int)(at - standard);
    at = c ? strchr(for_urls, c) : NULL;
    return at ? (int)(at - for_urls) : -1;
}

char *base64_decode(const char *text)
{
    size_t length = strlen(text), padding = 0, count = 0;
    uint32_t group = 0;

    while (padding < 2 && length > 0 && text[length - 1] == '=') {
        length--;
        padding++;
    }
    if (length % 4 == 1 || (padding && (length + padding) % 4))
        return NULL;
    CLEANUP_FREE char *out = xmalloc(length * 3 / 4 + 1);
    for (size_t i = 0; i < length; i++) {
        int value = digit_value(text[i]);
        if (value < 0)
            return NULL;
        group = group << 6 | (uint32_t)value;
        if (i % 4)
            out[count++] = (char)(group >> (6 - 2 * (i % 4)));
    }
    out[count] = '\0';
    return memchr(out, '\0', count) ? NULL : take(out);
}
