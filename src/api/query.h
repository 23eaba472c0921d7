/* Values of a query that are more than a word. */
#ifndef HUSK_API_QUERY_H
#define HUSK_API_QUERY_H

#include "base/error.h"

enum { QUERY_STRINGS_MAX = 4096 }; /* of one array */

/* A JSON array of strings, as the command of an exec; owned by the caller, NULL if it is empty. The
 * error has the query's name. */
int query_strings(const char *name, const char *value, char ***ret, struct error **ret_error);

#endif
