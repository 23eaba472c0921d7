/* Base64, RFC 4648: written with the standard alphabet or the one for URLs, both with padding; read
 * in either, with padding or without.
 */
#ifndef HUSK_BASE_BASE64_H
#define HUSK_BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Owned by the caller. */
char *base64_encode(const void *data, size_t size, bool url);
/* As a text, with a NUL behind it; owned by the caller. NULL for what is not base64, and for what
 * has a NUL in it. */
char *base64_decode(const char *text);

#endif
