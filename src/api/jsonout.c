#include "api/jsonout.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* The bytes of the UTF-8 sequence that begins here; 0 if it is none (RFC 3629). */
static size_t sequence_length(const unsigned char *s)
{
    static const struct {
        unsigned char mask, lead;
        size_t length;
        uint32_t least;
    } forms[] = {
        {0x80, 0x00, 1, 0},
        {0xe0, 0xc0, 2, 0x80},
        {0xf0, 0xe0, 3, 0x800},
        {0xf8, 0xf0, 4, 0x10000},
    };
    for (size_t f = 0; f < ARRAY_SIZE(forms); f++) {
        uint32_t code = s[0] & (unsigned char)~forms[f].mask;
        if ((s[0] & forms[f].mask) != forms[f].lead)
            continue;
        for (size_t i = 1; i < forms[f].length; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (s[i] & 0x3f);
        }
        bool surrogate = code >= 0xd800 && code < 0xe000;
        return code < forms[f].least || code > 0x10ffff || surrogate ? 0 : forms[f].length;
    }
    return 0;
}

/* One character, as JSON has it inside quotes. Returns how many bytes of the input it was. */
static size_t put_character(struct buf *out, const unsigned char *s)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char escape[8];
    size_t length = sequence_length(s);
    if (*s == '"' || *s == '\\') {
        escape[0] = '\\';
        escape[1] = (char)*s;
        buf_append(out, escape, 2);
    } else if (*s < 0x20) {
        snprintf(escape, sizeof(escape), "\\u%04x", *s);
        buf_append(out, escape, 6);
    } else {
        buf_append(out, length ? (const char *)s : replacement, length ? length : 3);
    }
    return length ? length : 1;
}

static void put_quoted(struct buf *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    buf_append(out, "\"", 1);
    while (*s) {
        /* Plain letters go together. */
        size_t plain = 0;
        while (s[plain] >= 0x20 && s[plain] < 0x80 && s[plain] != '"' && s[plain] != '\\')
            plain++;
        buf_append(out, s, plain);
        s += plain;
        if (*s)
            s += put_character(out, s);
    }
    buf_append(out, "\"", 1);
}

static void put_key(struct buf *out, const char *key)
{
    char last = out->len ? (char)out->data[out->len - 1] : '{';
    if (last != '{' && last != '[' && last != '\n')
        buf_append(out, ",", 1);
    if (!key)
        return;
    put_quoted(out, key);
    buf_append(out, ":", 1);
}

void json_open(struct buf *out, const char *key, char bracket)
{
    put_key(out, key);
    buf_append(out, &bracket, 1);
}

void json_close(struct buf *out, char bracket)
{
    buf_append(out, &bracket, 1);
}

void json_text(struct buf *out, const char *key, const char *value)
{
    put_key(out, key);
    put_quoted(out, value ? value : "");
}

void json_number(struct buf *out, const char *key, int64_t value)
{
    char digits[24];
    put_key(out, key);
    buf_append(out, digits, (size_t)snprintf(digits, sizeof(digits), "%lld", (long long)value));
}

void json_bool(struct buf *out, const char *key, bool value)
{
    put_key(out, key);
    buf_append_str(out, value ? "true" : "false");
}

void json_raw(struct buf *out, const char *key, const char *json)
{
    put_key(out, key);
    buf_append_str(out, str_or(json, "null"));
}

void json_strings(struct buf *out, const char *key, const char *const *strings)
{
    json_open(out, key, '[');
    STRV_FOREACH(s, strings)
        json_text(out, NULL, *s);
    json_close(out, ']');
}

void json_pairs(struct buf *out, const char *key, const char *const *pairs)
{
    json_open(out, key, '{');
    for (; pairs && pairs[0] && pairs[1]; pairs += 2)
        json_text(out, pairs[0], pairs[1]);
    json_close(out, '}');
}
