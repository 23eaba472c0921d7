/* Points in time as clients write and read them: RFC 3339 in UTC. */
#ifndef HUSK_API_TIMES_H
#define HUSK_API_TIMES_H

#include <stdbool.h>
#include <stdint.h>

enum { TIME_TEXT_SIZE = 40 };

/* "2026-11-21T19:33:19Z", or with nine digits of a second; "" for 0. */
void time_write(char ret[TIME_TEXT_SIZE], int64_t ns, bool nano);
/* The same, with an offset instead of Z and with or without a fraction; or seconds since 1970,
 * perhaps with a fraction. */
bool time_read(const char *text, int64_t *ret_ns);

#endif
