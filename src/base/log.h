/* One line a message, to standard error, with the syslog priority prefix that journald reads
 * ("<6>…", sd-daemon(3)) when standard error is the journal, and a timestamp when it is not.
 * Secrets never come here.
 */
#ifndef HUSK_BASE_LOG_H
#define HUSK_BASE_LOG_H

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* `who` names the process in each line ("huskd", "keeper vm-…"); it is copied. */
void log_open(const char *who, enum log_level max);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
