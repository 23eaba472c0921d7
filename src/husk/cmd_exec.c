/* exec, attach, wait, logs: processes and their streams. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/relay.h"
#include "husk/spec.h"
#include "husk/term.h"

enum {
    COMMAND_NOT_EXECUTABLE = 126,
    COMMAND_NOT_FOUND = 127,
    SIGNAL_STATUS = 128,
    CODE_LOST = 255, /* of a process whose end nobody saw */
};

/* Opens a hijacked stream and carries it to its end. With `code_wait` the exit code is asked for on
 * the way. */
static int stream_carry(struct relay *relay, const char *target, struct http *code_wait,
                        struct error **ret_error)
{
    struct http stream;
    struct http_request request = {
        .method = "POST", .target = target, .type = "text/plain", .upgrade = true};
    http_init(&stream, relay->cli->socket);
    relay->stream = &stream;
    int rc = http_begin(&stream, &request, ret_error);
    if (rc == 0)
        rc = daemon_check(&stream, ret_error);
    if (rc == 0 && code_wait)
        rc = exit_code_begin(code_wait, relay->container, ret_error);
    if (rc == 0)
        rc = relay_run(relay, ret_error);
    http_close(&stream);
    return rc;
}

/* The code says that the process did not end by itself: never run, or nobody saw its end. */
static bool code_needs_reason(int code)
{
    return code == COMMAND_NOT_FOUND || code == COMMAND_NOT_EXECUTABLE || code == CODE_LOST;
}

void reason_print(struct cli *cli, const char *container, int code, const struct relay *relay)
{
    CLEANUP_JSON json_t *info = NULL;
    CLEANUP_FREE char *target = http_target("/container/info", "container", container, NULL);
    if (!code_needs_reason(code) || daemon_json(cli, "GET", target, NULL, &info, NULL) < 0)
        return;
    const json_t *status = json_object_get(info, "status");
    const char *reason = json_text(json_object_get(status, "terminated"), "reason");
    bool sentence = strchr(reason, ' '); /* else a word such as "Failed" */
    if (sentence && !(relay && relay_has_told(relay, reason)))
        note_print(cli, "container '%s': %s", json_text(status, "name"), reason);
}

/* The exit status after a stream: of the signal that ended our part, or of the process, which was
 * asked for on `code_wait` already, or (NULL) is now. */
static int stream_status(struct relay *relay, struct http *code_wait, struct error **ret_error)
{
    struct cli *cli = relay->cli;
    int code, rc;
    if (relay->signal)
        return SIGNAL_STATUS + relay->signal;
    if (relay->detached) {
        note_print(relay->cli, "detached; the process goes on");
        return 0;
    }
    if (code_wait)
        rc = exit_code_end(cli, code_wait, relay->container, &code, ret_error);
    else
        rc = daemon_exit_code(cli, relay->container, relay->exec, &code, ret_error);
    if (rc < 0)
        return -1;
    if (!relay->exec)
        reason_print(cli, relay->container, code, relay);
    return code;
}

/* ---- exec ----------------------------------------------------------------------------------- */

/* As a JSON list; NULL with an error. */
static char *words_text(char *const *words, struct error **ret_error)
{
    CLEANUP_JSON json_t *array = NULL;
    return words_json(words, &array, ret_error) < 0 ? NULL : json_dumps(array, JSON_COMPACT);
}

static char *exec_environment(const struct args *args, struct error **ret_error)
{
    CLEANUP_STRV char **env = NULL;
    return env_all(args, &env, ret_error) < 0 ? NULL : words_text(env, ret_error);
}

/* POST /exec/create; *ret_exec is owned by the caller. */
static int exec_create(struct cli *cli, const struct args *args, bool input, char **ret_exec,
                       struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    CLEANUP_FREE char *command = words_text(args->words + 1, ret_error);
    CLEANUP_FREE char *env = command ? exec_environment(args, ret_error) : NULL;
    CLEANUP_FREE char *h = NULL, *w = NULL;
    bool tty = args_has(args, "tty");

    if (!env || options_check_utf8(args, ret_error) < 0)
        return -1;
    if (tty)
        term_size(&h, &w);
    CLEANUP_FREE char *target =
        http_target("/exec/create", "container", args->words[0], "command", command, "tty",
                    tty ? "true" : "false", "env", args_has(args, "env") ? env : NULL, "workdir",
                    args_text(args, "workdir"), "user", args_text(args, "user"), "stdin",
                    input ? "true" : NULL, "h", h, "w", w, NULL);
    if (daemon_json(cli, "POST", target, NULL, &answer, ret_error) < 0)
        return -1;
    if (!json_is_string(answer))
        return error_set(ret_error, ERROR_CORRUPT, 0, "huskd did not tell the id of the exec");
    *ret_exec = xstrdup(json_string_value(answer));
    return 0;
}

/* `exec -m POD …`: the guest itself has no containers' rules, and tells no exit code. */
static int exec_in_guest(struct cli *cli, const struct args *args, struct error **ret_error)
{
    static const char *const others[] = {"detach", "tty", "env", "workdir", "user"};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (args_has(args, others[i]))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "options '--vm' and '--%s' exclude each other", others[i]);
    CLEANUP_FREE char *command = words_text(args->words + 1, ret_error);
    if (!command)
        return -1;
    CLEANUP_FREE char *target =
        http_target("/execvm", "pod", args->words[0], "command", command, NULL);
    struct relay relay = {.cli = cli,
                          .tty = true, /* no frames */
                          .input = cli->hyper || args_has(args, "interactive"),
                          .no_signals = true};
    if (stream_carry(&relay, target, NULL, ret_error) < 0)
        return -1;
    return relay.signal ? SIGNAL_STATUS + relay.signal : 0;
}

/* What is said of a program that could not be run. */
static bool says_not_run(const struct error *error)
{
    return error_is(error, ERROR_NOT_FOUND) || error_is(error, ERROR_DENIED);
}

/* Returns when the process runs. One that could not be run has an exit code all the same. */
static int exec_detached(struct cli *cli, const char *container, const char *exec,
                         const char *target, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    int code;
    if (daemon_call(cli, "POST", target, NULL, NULL, &error) == 0)
        return 0;
    if (!says_not_run(error) || daemon_exit_code(cli, container, exec, &code, NULL) < 0 ||
        !code_needs_reason(code))
        return error_move(ret_error, &error);
    error_print(cli, error);
    return code;
}

int terminal_check(const struct cli *cli, const struct args *args, struct error **ret_error)
{
    bool both = args_has(args, "tty") && args_has(args, "interactive");
    if (cli->hyper || !both || isatty(STDIN_FILENO))
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "standard input is not a terminal: leave out option '--tty'");
}

int cmd_exec(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *exec = NULL;
    bool detach = args_has(args, "detach") && !cli->hyper; /* the original looks away */
    bool input = !detach && (cli->hyper || args_has(args, "interactive"));
    if (args_has(args, "vm"))
        return exec_in_guest(cli, args, ret_error);
    if (!detach && terminal_check(cli, args, ret_error) < 0)
        return -1;
    if (exec_create(cli, args, input, &exec, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *target = http_target("/exec/start", "container", args->words[0], "exec",
                                            exec, "detach", detach ? "true" : NULL, NULL);
    if (detach)
        return exec_detached(cli, args->words[0], exec, target, ret_error);
    struct relay relay = {.cli = cli,
                          .container = args->words[0],
                          .exec = exec,
                          .tty = args_has(args, "tty"),
                          .input = input,
                          .merge = cli->hyper};
    if (stream_carry(&relay, target, NULL, ret_error) < 0)
        return -1;
    return stream_status(&relay, NULL, ret_error);
}

/* ---- attach, wait --------------------------------------------------------------------------- */

/* Whether the container has a terminal, and (unless NULL) its id, which the caller owns; also says
 * early that it does not exist. */
static int container_look(struct cli *cli, const char *name, bool *ret_tty, char **ret_id,
                          struct error **ret_error)
{
    CLEANUP_JSON json_t *info = NULL;
    CLEANUP_FREE char *target = http_target("/container/info", "container", name, NULL);
    if (daemon_json(cli, "GET", target, NULL, &info, ret_error) < 0)
        return -1;
    const json_t *container = json_object_get(info, "container");
    *ret_tty = json_is_true(json_object_get(container, "tty"));
    if (ret_id)
        *ret_id = xstrdup(json_text(container, "containerID"));
    return 0;
}

/* Refuses a container that nobody has started: to wait for that is of use to whoever starts it. */
static int attach_check(struct cli *cli, const char *id, struct error **ret_error)
{
    CLEANUP_JSON json_t *all = NULL;
    CLEANUP_FREE char *target = http_target("/inspect", "name", id, "kind", "container", NULL);
    if (cli->hyper) /* as the original */
        return 0;
    if (daemon_json(cli, "GET", target, NULL, &all, ret_error) < 0)
        return -1;
    bool never_ran = str_eq(json_text(all, "state"), "pending");
    if (!never_ran || str_eq(json_text(all, "want"), "running"))
        return 0;
    return error_set(ret_error, ERROR_STATE, 0,
                     "container '%s' was not started: 'husk start %s' starts its pod",
                     json_text(all, "name"), json_text(all, "pod"));
}

/* Its stream has ended: then it has run, or it will not. */
static int attach_status(struct relay *relay, const char *id, struct http *code_wait,
                         struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    bool ended = !relay->signal && !relay->detached;
    if (ended && attach_check(relay->cli, id, &error) < 0 && error_is(error, ERROR_STATE))
        return error_move(ret_error, &error);
    return stream_status(relay, code_wait, ret_error);
}

int cmd_attach(struct cli *cli, const struct args *args, struct error **ret_error)
{
    struct relay relay = {.cli = cli, .container = args->words[0], .input = true, .resize = true};
    CLEANUP_FREE char *target = http_target("/attach", "container", args->words[0], NULL);
    CLEANUP_FREE char *id = NULL;
    if (container_look(cli, args->words[0], &relay.tty, &id, ret_error) < 0 ||
        attach_check(cli, id, ret_error) < 0)
        return -1;
    struct http code_wait;
    http_init(&code_wait, cli->socket);
    int status = stream_carry(&relay, target, &code_wait, ret_error);
    if (status == 0)
        status = attach_status(&relay, id, &code_wait, ret_error);
    http_close(&code_wait);
    return status;
}

int cmd_wait(struct cli *cli, const struct args *args, struct error **ret_error)
{
    int status = 0;
    STRV_FOREACH(name, args->words) {
        CLEANUP_ERROR struct error *error = NULL;
        int code;
        waiting_begin(cli, *name, "waiting for '%s' to end", *name);
        int rc = daemon_exit_code(cli, *name, NULL, &code, &error);
        waiting_end(cli);
        if (rc == 0) {
            printf("%d\n", code);
            fflush(stdout);
            reason_print(cli, *name, code, NULL);
        } else {
            note_print(cli, "%s", error_text(error));
        }
        if (status != EXIT_HUSK_FAILED)
            status = rc < 0 ? EXIT_HUSK_FAILED : code;
    }
    return status;
}

/* ---- logs ----------------------------------------------------------------------------------- */

static int tail_check(const char *tail, struct error **ret_error)
{
    uint64_t lines;
    if (!tail || strcmp(tail, "all") == 0 || str_to_u64(tail, 0, UINT64_MAX, &lines))
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "option '--tail': '%s' is not a number of lines or 'all'", tail);
}

static int logs_copy(struct cli *cli, struct relay *relay, struct error **ret_error)
{
    for (;;) {
        char *data;
        size_t size;
        if (http_read(&cli->http, &data, &size, ret_error) < 0)
            return -1;
        if (size == 0 || relay->signal)
            return 0;
        if (relay_output(relay, data, size, ret_error) < 0)
            return -1;
    }
}

int cmd_logs(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *since = NULL;
    const char *tail = args_text(args, "tail");
    struct relay relay = {.cli = cli};
    if (tail_check(tail, ret_error) < 0 ||
        time_argument(args_text(args, "since"), &since, ret_error) < 0 ||
        container_look(cli, args->words[0], &relay.tty, NULL, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *target = http_target(
        "/container/logs", "container", args->words[0], "stdout", "true", "stderr", "true", "since",
        str_or(since, ""), "timestamps", args_has(args, "timestamps") ? "true" : "false", "follow",
        args_has(args, "follow") ? "true" : "false", "tail", str_or(tail, ""), NULL);
    struct http_request request = {.method = "GET", .target = target};
    if (http_begin(&cli->http, &request, ret_error) < 0 || daemon_check(&cli->http, ret_error) < 0)
        return -1;
    return logs_copy(cli, &relay, ret_error);
}
