/* The verbs and their options, as tables.
 *
 * A verb is a row of core/verbs.def plus what only the command line knows of it: how many words
 * follow it, the function that does it, its long description and its examples. An option is one
 * row of options.def, valid for one or more verbs. Parsing, usage, completion and the manual are
 * read from these tables and from nothing else.
 */
#ifndef HUSK_HUSK_VERB_H
#define HUSK_HUSK_VERB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct cli;
struct args;

enum verb_id {
#define VERB(upper, name, alias, arguments, object, right, help) VERB_##upper,
#include "core/verbs.def"
#undef VERB
    VERB_COUNT
};

/* What the words after a verb name; also what completion offers for them. */
enum verb_object {
    OBJECT_NONE,
    OBJECT_POD,
    OBJECT_CONTAINER,
    OBJECT_VM,
    OBJECT_IMAGE,
    OBJECT_ANY,
};

enum { WORDS_ANY = 1 << 20 }; /* words_max of a verb that takes any number of words */

struct verb {
    enum verb_id id;
    const char *name;
    const char *alias; /* "" if there is none */
    const char *arguments;
    enum verb_object object;
    const char *help; /* one line */
    unsigned words_min, words_max;
    bool command_follows; /* options end at the first word: the rest belongs to a command */
    /* The exit status of husk, or -1 with an error. */
    int (*run)(struct cli *cli, const struct args *args, struct error **ret_error);
    const char *details;  /* paragraphs for help and manual */
    const char *examples; /* a line each: command, two spaces, what it does */
};

enum option_type {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_FILE,
    OPTION_PAIR,    /* KEY=VALUE */
    OPTION_NUMBER,  /* a decimal number, not 0 */
    OPTION_MEMORY,  /* megabytes, or with a unit */
    OPTION_SECONDS, /* a duration, whole seconds if bare */
    OPTION_WORD,    /* one of the words of `argument`, which are separated by '|' */
    OPTION_SIGNAL,  /* a name with or without SIG, or a number */
};

struct option {
    uint64_t verbs; /* bit 1 << verb_id */
    char letter;    /* 0 if there is none */
    const char *name;
    const char *argument; /* NULL for a flag */
    enum option_type type;
    bool many; /* may be given more than once */
    const char *help;
};

extern const struct option OPTIONS[];
extern const size_t OPTION_COUNT;

const struct verb *verb_get(enum verb_id id);
/* By name or alias, in any case; NULL if there is none. */
const struct verb *verb_find(const char *name);
/* The verb whose name is nearest to what was typed; NULL if none is near. */
const char *verb_nearest(const char *name);

static inline bool option_is_of(const struct option *option, enum verb_id verb)
{
    return option->verbs >> verb & 1;
}

#endif
