#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static const struct {
    const char *name;
    int http;
    const char *reason;
    int grpc;
    int exit;
} kinds[] = {
#define ERROR_KIND(upper, name, http, reason, grpc, exit) {name, http, reason, grpc, exit},
#include "base/error.def"
#undef ERROR_KIND
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == ERROR_KIND_COUNT, "one row per kind");

enum error_kind error_kind_from_errno(int err)
{
    switch (err) {
    case ENOENT:
        return ERROR_NOT_FOUND;
    case EEXIST:
        return ERROR_EXISTS;
    case EACCES:
    case EPERM:
        return ERROR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ERROR_NO_SPACE;
    case EBUSY:
        return ERROR_BUSY;
    case ETIMEDOUT:
        return ERROR_TIMEOUT;
    case EMFILE:
    case ENFILE:
        return ERROR_LIMIT;
    default:
        return ERROR_IO;
    }
}

int error_set(struct error **ret_error, enum error_kind kind, int err, const char *format, ...)
{
    if (!ret_error)
        return -1;
    struct error *e = xcalloc(1, sizeof(*e));
    va_list ap;

    e->kind = kind == ERROR_IO && err ? error_kind_from_errno(err) : kind;
    e->err = err;
    va_start(ap, format);
    e->message = str_vprintf(format, ap);
    va_end(ap);
    if (err) {
        char *whole = str_printf("%s: %s", e->message, strerror(err));
        free(e->message);
        e->message = whole;
    }
    *ret_error = e;
    return -1;
}

int error_wrap(struct error **error, const char *format, ...)
{
    if (!error || !*error)
        return -1;
    va_list ap;

    va_start(ap, format);
    char *prefix = str_vprintf(format, ap);
    va_end(ap);
    char *whole = str_printf("%s: %s", prefix, (*error)->message);
    free(prefix);
    free((*error)->message);
    (*error)->message = whole;
    return -1;
}

int error_move(struct error **ret_error, struct error **error)
{
    if (ret_error)
        *ret_error = *error;
    else
        error_free(*error);
    *error = NULL;
    return -1;
}

void error_free(struct error *error)
{
    if (!error)
        return;
    free(error->message);
    free(error);
}

void error_freep(struct error **error)
{
    error_free(*error);
    *error = NULL;
}

const char *error_text(const struct error *error)
{
    return error && error->message ? error->message : "unknown error";
}

const char *error_kind_name(enum error_kind kind)
{
    return (unsigned)kind < ERROR_KIND_COUNT ? kinds[kind].name : "unknown";
}

int error_kind_http(enum error_kind kind)
{
    return (unsigned)kind < ERROR_KIND_COUNT ? kinds[kind].http : 500;
}

const char *error_kind_reason(enum error_kind kind)
{
    return (unsigned)kind < ERROR_KIND_COUNT ? kinds[kind].reason : "InternalError";
}

int error_kind_exit(enum error_kind kind)
{
    return (unsigned)kind < ERROR_KIND_COUNT ? kinds[kind].exit : 255;
}

int error_kind_from_name(const char *name)
{
    for (int i = 0; i < ERROR_KIND_COUNT; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return i;
    return -1;
}
