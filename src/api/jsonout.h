/* JSON written straight into a buffer. A list of a thousand pods is written in a tenth of the time
 * that a tree of it would take to build, and text that is not UTF-8 (a guest's reason for its
 * end) becomes text that is.
 *
 * `key` is NULL for an element of an array. Commas come by themselves.
 */
#ifndef HUSK_API_JSONOUT_H
#define HUSK_API_JSONOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

void json_open(struct buf *out, const char *key, char bracket);      /* '{' or '[' */
void json_close(struct buf *out, char bracket);                      /* '}' or ']' */
void json_text(struct buf *out, const char *key, const char *value); /* NULL: "" */
void json_number(struct buf *out, const char *key, int64_t value);
void json_bool(struct buf *out, const char *key, bool value);
/* JSON that is whole already; "" or NULL: null. */
void json_raw(struct buf *out, const char *key, const char *json);
void json_strings(struct buf *out, const char *key, const char *const *strings);
/* name, value, name, value … as an object. */
void json_pairs(struct buf *out, const char *key, const char *const *pairs);

#endif
