#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 4096 };

static char log_who[48] = "husk";
static enum log_level log_max = LOG_LEVEL_INFO;
static int log_journal = -1; /* standard error is the journal; -1: not asked yet */

void log_open(const char *who, enum log_level max)
{
    snprintf(log_who, sizeof(log_who), "%s", who);
    log_max = max;
    log_journal = getenv("JOURNAL_STREAM") != NULL;
}

static int log_prefix(char *line, size_t size, enum log_level level)
{
    static const char *const names[] = {"", "", "", "error", "warning", "", "info", "debug"};
    struct timespec now;
    struct tm tm;
    char stamp[32];

    if (log_journal > 0)
        return snprintf(line, size, "<%d>%s: ", level, log_who);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    return snprintf(line, size, "%s.%03ldZ %s: %s: ", stamp, now.tv_nsec / 1000000, log_who,
                    names[level]);
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_MAX];
    if (level > log_max)
        return;
    int n = log_prefix(line, sizeof(line), level);
    va_list ap;
    va_start(ap, format);
    int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, ap);
    va_end(ap);
    n = m < 0 || (size_t)(n + m) > sizeof(line) - 2 ? (int)sizeof(line) - 2 : n + m;
    line[n] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n + 1) < 0)
        return; /* nobody left to tell */
}
