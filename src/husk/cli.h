/* What every verb of husk works with: the way to the daemon, and how to speak to the user.
 *
 * A verb is a function `cmd_…()` that returns the exit status of husk, or -1 with an error, which
 * main prints: `husk: <sentence>` on standard error, or, under the name hyperctl, as the original
 * does: `hyperctl ERROR: <sentence>` on standard output.
 */
#ifndef HUSK_HUSK_CLI_H
#define HUSK_HUSK_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"
#include "husk/args.h"
#include "husk/http.h"

enum { EXIT_HUSK_FAILED = 255 }; /* husk itself failed; as hyperctl */

struct cli {
    const char *program; /* the name that husk was called by, for messages */
    bool hyper;          /* that name is hyperctl: keep to its habits */
    char *socket;        /* owned */
    struct http http;    /* the connection for short requests */
};

/* ---- the daemon ----------------------------------------------------------------------------- */

/* A request and its whole answer. An answer of 400 or more is an error in the daemon's words. The
 * body (NULL: none) is sent as JSON; `ret` (may be NULL) is the answer's body. */
int daemon_call(struct cli *cli, const char *method, const char *target, const json_t *body,
                struct buf *ret, struct error **ret_error);
/* The same with the answer read as JSON; a reference that the caller drops. */
int daemon_json(struct cli *cli, const char *method, const char *target, const json_t *body,
                json_t **ret, struct error **ret_error);
/* GET /exitcode: waits for the end of a process. `exec` is NULL for a container's first. A daemon
 * that was there and is away now is waited for, some minutes, with a remark. */
int daemon_exit_code(struct cli *cli, const char *container, const char *exec, int *ret_code,
                     struct error **ret_error);
/* Asks for a container's exit code on a connection of its own, before the end: so the answer is
 * there however late it is read, and if the container has been removed by then. */
int exit_code_begin(struct http *wait, const char *container, struct error **ret_error);
/* Waits for that answer; asks again if the daemon has died over it. */
int exit_code_end(struct cli *cli, struct http *wait, const char *container, int *ret_code,
                  struct error **ret_error);
/* After a container has ended with this code: why, on standard error, if the code means that it was
 * not run or was lost. `relay` (may be NULL) may have told it already. */
struct relay;
void reason_print(struct cli *cli, const char *container, int code, const struct relay *relay);
/* Refuses a terminal for a process whose input does not come from one: an end of file would not
 * reach it. Not of hyperctl, which always asks for one. */
int terminal_check(const struct cli *cli, const struct args *args, struct error **ret_error);
/* Turns the response on this connection, whose head has been read, into an error if its status
 * is 400 or more. */
int daemon_check(struct http *http, struct error **ret_error);
/* After a failed request: true if the daemon said that the object (an image) is not there. */
bool error_is(const struct error *error, enum error_kind kind);

void json_freep(json_t **json);
#define CLEANUP_JSON __attribute__((cleanup(json_freep)))
/* Text of a string field, "" if it is missing or something else. */
const char *json_text(const json_t *object, const char *name);

/* ---- the user ------------------------------------------------------------------------------- */

/* Runs `one` on each word. Each failure is printed with the program's name in front, and makes
 * the status EXIT_HUSK_FAILED; the others are done all the same. Returns 0 or that status. */
int each_word(struct cli *cli, const struct args *args,
              int (*one)(struct cli *cli, const struct args *args, const char *word,
                         struct error **ret_error));
/* An error of the program itself, as said above. */
void error_print(const struct cli *cli, const struct error *error);
/* A remark on standard error, with the program's name in front. */
void note_print(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "2026-11-21T20:00:00Z", Unix seconds, or an age such as "10m": in Unix seconds, as text. NULL
 * stays NULL. */
int time_argument(const char *text, char **ret, struct error **ret_error);
/* "1.11 MB", as Go's units.HumanSize: decimal units, four digits. */
void size_format(char *ret, size_t size, double bytes);

/* ---- images --------------------------------------------------------------------------------- */

/* Has the daemon get an image, with the user's credentials, and shows how it goes. */
int image_pull(struct cli *cli, const char *image, bool quiet, FILE *out, struct error **ret_error);

/* ---- status line ---------------------------------------------------------------------------- */

/* While this is set, a wait of more than WAITING_AFTER_MS shows "TEXT… 3 s" on standard error
 * if that is a terminal, with the last event of `object` if the daemon tells one. */
enum { WAITING_AFTER_MS = 300 };
void waiting_begin(struct cli *cli, const char *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Redraws if it is time; for loops that wait by themselves. */
void waiting_tick(void *cli);
/* Erases the line. Calling it without a line does nothing. */
void waiting_end(struct cli *cli);

/* ---- verbs ---------------------------------------------------------------------------------- */

int cmd_run(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_run_pod(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_create(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_create_pod(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_start(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_stop(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_rm(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_kill(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_pause(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_unpause(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_replace(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_vm(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_exec(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_attach(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_wait(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_logs(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_list(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_inspect(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_events(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_stats(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_info(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_version(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_template(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_images(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_load(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_pull(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_commit(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_save(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_image(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_push(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_tag(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_history(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_login(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_logout(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_rmi(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_completion(struct cli *cli, const struct args *args, struct error **ret_error);
int cmd_help(struct cli *cli, const struct args *args, struct error **ret_error);

/* Usage, options, description and examples of a verb. */
void help_verb(const struct verb *verb);
/* All verbs. */
void help_all(const struct cli *cli);

#endif
