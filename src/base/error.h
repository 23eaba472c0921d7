/* Errors are sentences that grow on their way up.
 *
 * A function that can fail returns 0 or a negative number and takes `struct error **ret_error` as
 * its last parameter. The function that meets the failure calls error_set(); each caller that
 * knows an object wraps it: "pod 'web': step 'vm': open '/dev/kvm': Permission denied". Lower
 * case, no full stop, the object in quotes. A function logs an error or returns it, never both.
 *
 * ret_error may be NULL where the caller does not care.
 */
#ifndef HUSK_BASE_ERROR_H
#define HUSK_BASE_ERROR_H

enum error_kind {
#define ERROR_KIND(upper, name, http, reason, grpc, exit) ERROR_##upper,
#include "base/error.def"
#undef ERROR_KIND
    ERROR_KIND_COUNT
};

struct error {
    enum error_kind kind;
    int err;       /* errno that caused it, 0 if none */
    char *message; /* the sentence, owned */
};

/* Makes *ret_error (which must hold NULL) and returns -1, so that a caller can
 * `return error_set(…)`. With `err` not 0, ": strerror(err)" is appended, and if kind is ERROR_IO,
 * the kind is taken from errno where one fits (ENOSPC, EACCES, ENOENT …). */
int error_set(struct error **ret_error, enum error_kind kind, int err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "text: " before the message. Does nothing for NULL. Returns -1. */
int error_wrap(struct error **error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Gives *error to *ret_error, or frees it if ret_error is NULL. Returns -1. */
int error_move(struct error **ret_error, struct error **error);

void error_free(struct error *error);
void error_freep(struct error **error);
#define CLEANUP_ERROR __attribute__((cleanup(error_freep)))

/* Never NULL; "unknown error" for NULL. */
const char *error_text(const struct error *error);

const char *error_kind_name(enum error_kind kind);
int error_kind_http(enum error_kind kind);
const char *error_kind_reason(enum error_kind kind);
int error_kind_exit(enum error_kind kind);

/* -1 if no kind has that name. */
int error_kind_from_name(const char *name);

/* The kind that fits an errno; ERROR_IO if none does. */
enum error_kind error_kind_from_errno(int err);

#endif
