/* Strings, string vectors and memory that does not run out.
 *
 * The x…() allocators end the process with a message when memory is exhausted: no caller can do
 * better, and every owner of state survives its own death (the store, the keeper's journal).
 * A `strv` is a NULL-terminated array of strings, both owned; NULL is the empty vector.
 */
#ifndef HUSK_BASE_STR_H
#define HUSK_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);
char *xstrdup(const char *s);            /* NULL gives NULL */
char *xstrndup(const char *s, size_t n); /* at most n bytes */
void *xmemdup(const void *data, size_t size);

char *str_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *str_vprintf(const char *format, va_list ap) __attribute__((format(printf, 1, 0)));

/* Replaces *s by a copy of value (NULL allowed); value may be part of *s. */
void str_set(char **s, const char *value);

static inline bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}
static inline bool str_empty(const char *s)
{
    return !s || !*s;
}
static inline const char *str_or(const char *s, const char *otherwise)
{
    return s && *s ? s : otherwise;
}
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* The whole string must be a decimal number in min…max. Returns false otherwise. */
bool str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
/* The length of the UTF-8 character at p, of which there are `left` bytes (one at least); 0 if
 * what is there is none, and for ASCII. */
size_t str_utf8_length(const uint8_t *p, size_t left);
/* Puts '?' for control characters and for what is no UTF-8: fit for JSON and for a terminal. */
void str_make_plain(char *s);

/* "64", "64M", "1G", "1.5GiB" … in bytes; a bare number is multiplied by `unit`. Binary units:
 * k, m, g, t, with an optional "b" or "ib", in either case. */
bool str_to_size(const char *s, uint64_t unit, uint64_t *ret_bytes);

/* "10s", "1m30s", "200ms", or a bare number of seconds. */
bool str_to_duration_ms(const char *s, uint64_t *ret_ms);

/* `count` lower-case letters or digits of `alphabet` from the kernel's random pool. */
void str_random(char *ret, size_t count, const char *alphabet);

/* 2 * size hexadecimal digits and a NUL. */
void str_hex(char *ret, const uint8_t *data, size_t size);

size_t strv_count(const char *const *v);
void strv_free(char **v);
void strv_freep(char ***v);
char **strv_copy(const char *const *v);
void strv_push(char ***v, const char *s); /* appends a copy */
void strv_push_take(char ***v, char *s);  /* appends s itself */
bool strv_contains(const char *const *v, const char *s);
char *strv_join(const char *const *v, const char *separator);
/* Splits at a character; empty parts are kept. */
char **str_split(const char *s, char separator);

#define STRV_FOREACH(s, v) for (char *const *s = (char *const *)(v); s && *s; s++)

void freep(void *p); /* cleanup: frees *(void **)p */
#define CLEANUP_FREE __attribute__((cleanup(freep)))
#define CLEANUP_STRV __attribute__((cleanup(strv_freep)))

/* Moves an owned pointer out of a cleanup variable. */
#define take(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) _taken = (p);                                                                \
        (p) = NULL;                                                                                \
        _taken;                                                                                    \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
