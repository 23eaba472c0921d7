/* The JSON that huskd is asked to make, from options or from a podfile. */
#ifndef HUSK_HUSK_SPEC_H
#define HUSK_HUSK_SPEC_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"
#include "husk/args.h"

enum {
    PODFILE_MAX = 4 << 20,  /* bytes of a podfile */
    ENV_FILE_MAX = 1 << 20, /* bytes of a file of environment variables */
};

struct cli;

/* A pod with one container: words are IMAGE [COMMAND [ARG…]]. */
int spec_pod(const struct cli *cli, const struct args *args, char *const *words, json_t **ret,
             struct error **ret_error);
/* That container alone. */
int spec_container(const struct cli *cli, const struct args *args, char *const *words, json_t **ret,
                   struct error **ret_error);
/* A podfile, read as it is, but with the id of --name; "-" is standard input. */
int spec_podfile(const struct args *args, const char *path, json_t **ret, struct error **ret_error);

/* "busybox:1.2" → "busybox-1.2-0123456789", by chance. Owned by the caller. */
char *spec_name(const char *image);

/* Appends to *env what the lines of a file say: KEY=VALUE, KEY (ours is passed on), blank lines
 * and lines that begin with '#'. `path` is for messages. */
int env_file_parse(const char *path, const char *text, size_t size, char ***env,
                   struct error **ret_error);
/* "K=V" as it is; "K" as "K=" and our value; NULL if we have none. Owned by the caller. */
char *env_value(const char *text);
/* The variables of --env-file and --env, in that order; of one that is given twice the last value.
 */
int env_all(const struct args *args, char ***ret, struct error **ret_error);

/* As a JSON list. UTF-8 is all that JSON can carry: others are refused. */
int words_json(char *const *words, json_t **ret, struct error **ret_error);

/* The same of the values of all options that are sent. */
int options_check_utf8(const struct args *args, struct error **ret_error);

#endif
