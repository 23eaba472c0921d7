/* How husk speaks: errors, remarks, times and sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"
#include "husk/cli.h"

void note_print(const struct cli *cli, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    CLEANUP_FREE char *text = str_vprintf(format, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", cli->program, text);
}

void error_print(const struct cli *cli, const struct error *error)
{
    fflush(stdout);
    if (cli->hyper)
        printf("%s ERROR: %s\n", cli->program, error_text(error));
    else
        note_print(cli, "%s", error_text(error));
}

int each_word(struct cli *cli, const struct args *args,
              int (*one)(struct cli *cli, const struct args *args, const char *word,
                         struct error **ret_error))
{
    int status = 0;
    STRV_FOREACH(word, args->words) {
        CLEANUP_ERROR struct error *error = NULL;
        int rc = one(cli, args, *word, &error);
        waiting_end(cli);
        if (rc >= 0)
            continue;
        fflush(stdout);
        note_print(cli, "%s", error_text(error));
        status = EXIT_HUSK_FAILED;
        if (error_is(error, ERROR_UNAVAILABLE)) /* the others would say the same */
            break;
    }
    return status;
}

int time_argument(const char *text, char **ret, struct error **ret_error)
{
    struct tm tm = {0};
    uint64_t seconds, age_ms;
    *ret = NULL;
    if (!text)
        return 0;
    if (str_to_u64(text, 0, INT64_MAX, &seconds))
        return (*ret = xstrdup(text)), 0;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (end && *end == '.') /* a fraction is let go */
        end += 1 + strspn(end + 1, "0123456789");
    if (end && strcmp(end, "Z") == 0)
        return (*ret = str_printf("%lld", (long long)timegm(&tm))), 0;
    if (str_to_duration_ms(text, &age_ms))
        return (*ret = str_printf("%lld", (long long)time(NULL) - (long long)(age_ms / 1000))), 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "'%s' is not a time such as 2026-01-31T08:00:00Z, Unix seconds or 10m", text);
}

void size_format(char *ret, size_t size, double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
        bytes /= 1000;
        unit++;
    }
    snprintf(ret, size, "%.4g %s", bytes, units[unit]);
}
