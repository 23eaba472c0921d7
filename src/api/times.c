#include "api/times.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"

enum { NS = 1000000000 };

void time_write(char ret[TIME_TEXT_SIZE], int64_t ns, bool nano)
{
    time_t seconds = (time_t)(ns / NS);
    struct tm tm;
    *ret = '\0';
    if (ns <= 0 || !gmtime_r(&seconds, &tm))
        return;
    size_t len = strftime(ret, TIME_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    if (nano)
        len += (size_t)snprintf(ret + len, TIME_TEXT_SIZE - len, ".%09d", (int)(ns % NS));
    snprintf(ret + len, TIME_TEXT_SIZE - len, "Z");
}

/* ".25" → 250000000; returns what follows. */
static const char *fraction_read(const char *text, int64_t *ret_ns)
{
    int64_t unit = NS / 10;
    *ret_ns = 0;
    if (*text != '.')
        return text;
    for (text++; isdigit((unsigned char)*text); text++, unit /= 10)
        *ret_ns += (*text - '0') * unit;
    return text;
}

/* "Z", "+01:00", "-0530"; the whole rest must be that. */
static bool offset_read(const char *text, int64_t *ret_seconds)
{
    unsigned hours, minutes;
    char rest;
    *ret_seconds = 0;
    if (str_eq(text, "Z") || str_eq(text, "z"))
        return true;
    if ((*text != '+' && *text != '-') ||
        sscanf(text + 1, "%2u:%2u%c", &hours, &minutes, &rest) != 2)
        return false;
    *ret_seconds = (int64_t)(hours * 3600 + minutes * 60) * (*text == '-' ? -1 : 1);
    return hours < 24 && minutes < 60;
}

static bool unix_read(const char *text, int64_t *ret_ns)
{
    char *end;
    int64_t fraction;
    if (!isdigit((unsigned char)*text))
        return false;
    unsigned long long seconds = strtoull(text, &end, 10);
    if (seconds >= INT64_MAX / NS || *fraction_read(end, &fraction))
        return false;
    *ret_ns = (int64_t)seconds * NS + fraction;
    return true;
}

bool time_read(const char *text, int64_t *ret_ns)
{
    struct tm tm = {0};
    int64_t fraction, offset;
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return unix_read(text, ret_ns);
    rest = fraction_read(rest, &fraction);
    if (!offset_read(rest, &offset))
        return false;
    int64_t seconds = (int64_t)timegm(&tm) - offset;
    if (seconds < 0 || seconds >= INT64_MAX / NS)
        return false;
    *ret_ns = seconds * NS + fraction;
    return true;
}
