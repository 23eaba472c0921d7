/* What an administrator can set: the table is settings.def.
 *
 * A value comes from the table, then from huskd.conf, then from the command line; the last one
 * counts. huskd.conf is lines of `name = value`; `#` begins a comment line. Sizes are kept in
 * bytes, durations in milliseconds.
 */
#ifndef HUSK_HUSKD_SETTINGS_H
#define HUSK_HUSKD_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum {
    SETTINGS_SIZES_MAX = 16,       /* template_sizes */
    SETTINGS_FILE_MAX = 256 << 10, /* bytes of a huskd.conf */
    SETTINGS_LINE_MAX = 4096,      /* bytes of one of its lines */
};

typedef uint64_t setting_SIZE;
typedef uint64_t setting_DURATION;
typedef uint64_t setting_NUMBER;
typedef char *setting_CHOICE;
typedef char *setting_TEXT;
typedef char *setting_PATH;

struct settings {
#define SETTING(type, name, def, min, max, values, doc) setting_##type name;
#include "huskd/settings.def"
#undef SETTING
};

/* Fills in the defaults of the table, and the places that depend on who runs the daemon. */
void settings_init(struct settings *s);
void settings_done(struct settings *s);

/* Whether there is a setting of this name. */
bool settings_has(const char *name);

/* One value, as written. `-` and `_` in the name are the same. The error names the setting. */
int settings_set(struct settings *s, const char *name, const char *value, struct error **ret_error);

/* All lines of a file's text; errors begin with "FILE:LINE: ". */
int settings_parse(struct settings *s, const char *file, const char *text, size_t size,
                   struct error **ret_error);
/* The same from a file. ERROR_NOT_FOUND if there is none. */
int settings_load(struct settings *s, const char *file, struct error **ret_error);

/* What no single value shows: memory_min above memory_max and the like. */
int settings_check(const struct settings *s, struct error **ret_error);

/* The memories of template_sizes in bytes, at most SETTINGS_SIZES_MAX, no two alike: those that the
 * machine can have. */
int settings_template_sizes(const struct settings *s, uint64_t ret[SETTINGS_SIZES_MAX],
                            size_t *ret_count, struct error **ret_error);

/* The file that is read when none is named; owned by the caller. */
char *settings_default_file(void);

/* A commented huskd.conf with all defaults. */
void settings_print_sample(FILE *out);
/* The flags, for --help. */
void settings_print_help(FILE *out);
/* Every setting as it is and as it could be written: name, value, name, value …; a strv, owned by
 * the caller. */
char **settings_list(const struct settings *s);

#endif
