/* What was typed after a verb, checked against the table of options.
 *
 * Options may stand anywhere among the words, except for verbs whose words end in a command
 * (run, create, exec): there the first word ends the options, so that the command's own are left
 * alone. "--" ends them everywhere. "-abc" is "-a -b -c"; "-eK=V", "-e K=V", "--env K=V" and
 * "--env=K=V" are the same. An option that is not known is an error that names it.
 */
#ifndef HUSK_HUSK_ARGS_H
#define HUSK_HUSK_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "husk/verb.h"

struct args {
    const struct verb *verb;
    struct args_value {
        const struct option *option;
        const char *text; /* NULL for a flag */
    } * values;
    size_t value_count;
    char **words; /* the strings are argv's */
};

enum { ARGS_MAX = 1 << 16 }; /* options that are looked at */

/* `argv` are the strings after the verb, NULL-terminated; they must outlive the result. */
int args_parse(struct args *ret, const struct verb *verb, char **argv, struct error **ret_error);
void args_done(struct args *args);
#define CLEANUP_ARGS __attribute__((cleanup(args_done)))

bool args_has(const struct args *args, const char *name);
/* The last value, NULL if not given. */
const char *args_text(const struct args *args, const char *name);
/* The values of an option that adds up: copies. */
char **args_all(const struct args *args, const char *name);
uint64_t args_number(const struct args *args, const char *name, uint64_t otherwise);
/* In megabytes, rounded up. */
uint64_t args_memory_mb(const struct args *args, const char *name, uint64_t otherwise);
size_t args_word_count(const struct args *args);

/* The candidate nearest to `typed` by edit distance, NULL if none is near enough to suggest. */
const char *nearest(const char *typed, const char *(*candidate)(size_t index, void *arg),
                    void *arg);

/* "KILL", "sigkill" or "9" → 9; 0 if there is no such signal. */
int signal_number(const char *text);

#endif
