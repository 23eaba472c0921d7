#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static void *must(void *p)
{
    if (!p) {
        static const char text[] = "husk: out of memory\n";
        fwrite(text, 1, sizeof(text) - 1, stderr);
        abort();
    }
    return p;
}

void *xmalloc(size_t size)
{
    return must(malloc(size ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1));
}

void *xrealloc(void *old, size_t size)
{
    return must(realloc(old, size ? size : 1));
}

char *xstrdup(const char *s)
{
    return s ? must(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t n)
{
    return must(strndup(s, n));
}

void *xmemdup(const void *data, size_t size)
{
    void *copy = xmalloc(size);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *str_vprintf(const char *format, va_list ap)
{
    char *s = NULL;
    if (vasprintf(&s, format, ap) < 0)
        must(NULL);
    return s;
}

char *str_printf(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *s = str_vprintf(format, ap);
    va_end(ap);
    return s;
}

void str_set(char **s, const char *value)
{
    char *copy = xstrdup(value);
    free(*s);
    *s = copy;
}

bool str_starts(const char *s, const char *prefix)
{
    return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = s ? strlen(s) : 0, m = strlen(suffix);
    return s && n >= m && strcmp(s + n - m, suffix) == 0;
}

bool str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    if (!s || !isdigit((unsigned char)*s))
        return false;
    errno = 0;
    unsigned long long n = strtoull(s, &end, 10);
    if (errno || *end || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

/* The factor of a unit's first letter, and where the text goes on. */
static bool size_unit(const char *s, uint64_t bare, uint64_t *ret_factor)
{
    static const char letters[] = "kmgt";
    if (!*s) {
        *ret_factor = bare;
        return true;
    }
    const char *at = strchr(letters, tolower((unsigned char)*s));
    if (!at)
        return strcasecmp(s, "b") == 0 ? (*ret_factor = 1, true) : false;
    *ret_factor = 1ULL << (10 * (at - letters + 1));
    return !s[1] || strcasecmp(s + 1, "b") == 0 || strcasecmp(s + 1, "ib") == 0;
}

bool str_to_size(const char *s, uint64_t unit, uint64_t *ret_bytes)
{
    char *end;
    uint64_t factor;
    if (!s || !isdigit((unsigned char)*s))
        return false;
    size_t digits = strspn(s, "0123456789.");
    double n = strtod(s, &end);
    if (end != s + digits || !size_unit(end, unit, &factor))
        return false;
    double bytes = n * (double)factor;
    if (!(bytes >= 0 && bytes < 9e18))
        return false;
    *ret_bytes = (uint64_t)bytes;
    return true;
}

bool str_to_duration_ms(const char *s, uint64_t *ret_ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    uint64_t total = 0;

    if (!s || !*s)
        return false;
    while (*s) {
        char *end;
        if (!isdigit((unsigned char)*s))
            return false;
        errno = 0;
        uint64_t n = strtoull(s, &end, 10), factor = 0;
        if (errno || n > 1000000000000ULL)
            return false;
        if (!*end) {
            *ret_ms = total + n * 1000;
            return true;
        }
        for (size_t i = 0; i < ARRAY_SIZE(units) && !factor; i++)
            if (str_starts(end, units[i].name)) {
                factor = units[i].ms;
                end += strlen(units[i].name);
            }
        if (!factor)
            return false;
        total += n * factor;
        s = end;
    }
    *ret_ms = total;
    return true;
}

void str_random(char *ret, size_t count, const char *alphabet)
{
    size_t letters = strlen(alphabet);
    for (size_t i = 0; i < count; i++) {
        uint32_t n;
        if (getrandom(&n, sizeof(n), 0) != sizeof(n))
            abort();
        ret[i] = alphabet[n % letters];
    }
    ret[count] = 0;
}

void str_hex(char *ret, const uint8_t *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        ret[2 * i] = digits[data[i] >> 4];
        ret[2 * i + 1] = digits[data[i] & 15];
    }
    ret[2 * size] = 0;
}

size_t strv_count(const char *const *v)
{
    size_t n = 0;
    while (v && v[n])
        n++;
    return n;
}

void strv_free(char **v)
{
    for (char **s = v; s && *s; s++)
        free(*s);
    free(v);
}

void strv_freep(char ***v)
{
    strv_free(*v);
    *v = NULL;
}

void strv_push_take(char ***v, char *s)
{
    size_t n = strv_count((const char *const *)*v);
    *v = xrealloc(*v, (n + 2) * sizeof(char *));
    (*v)[n] = s;
    (*v)[n + 1] = NULL;
}

void strv_push(char ***v, const char *s)
{
    strv_push_take(v, xstrdup(s));
}

char **strv_copy(const char *const *v)
{
    char **copy = NULL;
    STRV_FOREACH(s, v)
        strv_push(&copy, *s);
    return copy;
}

bool strv_contains(const char *const *v, const char *s)
{
    STRV_FOREACH(p, v)
        if (strcmp(*p, s) == 0)
            return true;
    return false;
}

char *strv_join(const char *const *v, const char *separator)
{
    size_t size = 1;
    STRV_FOREACH(s, v)
        size += strlen(*s) + strlen(separator);
    char *whole = xmalloc(size), *p = whole;
    *p = 0;
    STRV_FOREACH(s, v) {
        if (s != (char *const *)v)
            p = stpcpy(p, separator);
        p = stpcpy(p, *s);
    }
    return whole;
}

char **str_split(const char *s, char separator)
{
    char **v = NULL;
    for (;;) {
        const char *end = strchrnul(s, separator);
        strv_push_take(&v, xstrndup(s, (size_t)(end - s)));
        if (!*end)
            return v;
        s = end + 1;
    }
}

void freep(void *p)
{
    free(*(void **)p);
    *(void **)p = NULL;
}

/* The forms are those of RFC 3629: no surrogates, nothing over-long. */
size_t str_utf8_length(const uint8_t *p, size_t left)
{
    static const struct {
        uint8_t first, last, low, high; /* of the first byte, and of the second */
        size_t length;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        size_t n = forms[i].length;
        if (*p < forms[i].first || *p > forms[i].last)
            continue;
        if (left < n || p[1] < forms[i].low || p[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < n; k++)
            if (p[k] < 0x80 || p[k] > 0xbf)
                return 0;
        return n;
    }
    return 0;
}

void str_make_plain(char *s)
{
    size_t left = strlen(s), size;
    for (; left; s += size, left -= size) {
        bool plain = *s >= ' ' && *s < 0x7f;
        size = plain ? 1 : str_utf8_length((const uint8_t *)s, left);
        /* U+0080 to U+009F are control characters too. */
        if (size == 2 && (uint8_t)s[0] == 0xc2 && (uint8_t)s[1] < 0xa0)
            size = 0;
        if (!size) {
            *s = '?';
            size = 1;
        }
    }
}
