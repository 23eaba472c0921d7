#include "husk/cli.h"

#include <poll.h>
#include <stdlib.h>

#include "base/str.h"

void json_freep(json_t **json)
{
    json_decref(*json);
}

const char *json_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

bool error_is(const struct error *error, enum error_kind kind)
{
    return error && error->kind == kind;
}

/* The kind that fits a status, for a daemon that speaks only text. */
static enum error_kind kind_from_status(int status)
{
    for (int kind = 0; kind < ERROR_KIND_COUNT; kind++)
        if (error_kind_http((enum error_kind)kind) == status)
            return (enum error_kind)kind;
    return ERROR_INTERNAL;
}

/* RFC 9110 and RFC 6585: what the HTTP library answers by itself, as a page for people. */
enum { STATUS_URI_TOO_LONG = 414, STATUS_HEAD_TOO_LARGE = 431 };

/* `{"kind":"not_found","message":"…"}`, or one line of text. */
static int error_from_answer(int status, struct buf *body, struct error **ret_error)
{
    enum error_kind kind = kind_from_status(status);
    CLEANUP_JSON json_t *json = json_loadb((const char *)body->data, body->len, 0, NULL);
    const char *message = json_text(json, "message");
    int named = error_kind_from_name(json_text(json, "kind"));
    if (*message)
        return error_set(ret_error, named < 0 ? kind : (enum error_kind)named, 0, "%s", message);
    CLEANUP_FREE char *text = buf_take_str(body);
    text[strcspn(text, "\n")] = 0;
    /* A page of the HTTP library's own: the request never reached the daemon's tables. */
    if (status == STATUS_URI_TOO_LONG || status == STATUS_HEAD_TOO_LARGE)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the command with its arguments and variables is too long; put it into a "
                         "file of the container");
    if (*text)
        return error_set(ret_error, kind, 0, "%s", text);
    return error_set(ret_error, kind, 0, "huskd answered with status %d and no reason", status);
}

int daemon_check(struct http *http, struct error **ret_error)
{
    CLEANUP_BUF struct buf body = {0};
    if (http->head.status < 400)
        return 0;
    if (http_read_all(http, &body, ret_error) < 0)
        return -1;
    return error_from_answer(http->head.status, &body, ret_error);
}

/* The rest of an answer whose head is there. */
static int answer_json(struct http *http, json_t **ret, struct error **ret_error)
{
    CLEANUP_BUF struct buf text = {0};
    json_error_t why;
    if (daemon_check(http, ret_error) < 0 || http_read_all(http, &text, ret_error) < 0)
        return -1;
    *ret = json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY, &why);
    if (!*ret)
        return error_set(ret_error, ERROR_CORRUPT, 0, "huskd's answer is not JSON: %s", why.text);
    return 0;
}

/* Sends a request; the head of its answer is there then. */
static int daemon_ask(struct cli *cli, const char *method, const char *target, const json_t *body,
                      struct error **ret_error)
{
    CLEANUP_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct http_request request = {
        .method = method,
        .target = target,
        .type = text ? "application/json" : NULL,
        .body = text,
        .size = text ? strlen(text) : 0,
    };
    return http_begin(&cli->http, &request, ret_error);
}

int daemon_call(struct cli *cli, const char *method, const char *target, const json_t *body,
                struct buf *ret, struct error **ret_error)
{
    CLEANUP_BUF struct buf ignored = {0};
    if (daemon_ask(cli, method, target, body, ret_error) < 0 ||
        daemon_check(&cli->http, ret_error) < 0)
        return -1;
    return http_read_all(&cli->http, ret ? ret : &ignored, ret_error);
}

int daemon_json(struct cli *cli, const char *method, const char *target, const json_t *body,
                json_t **ret, struct error **ret_error)
{
    if (daemon_ask(cli, method, target, body, ret_error) < 0)
        return -1;
    return answer_json(&cli->http, ret, ret_error);
}

/* The process has its exit code whether the daemon runs or not: the keeper writes it down. */
enum { AWAY_MAX_MS = 300000, AWAY_SAID_MS = 2000, AWAY_STEP_MS = 50 };

static int exit_code_ask(struct cli *cli, const char *target, json_t **ret,
                         struct error **ret_error)
{
    for (int away_ms = 0;; away_ms += AWAY_STEP_MS) {
        CLEANUP_ERROR struct error *error = NULL;
        if (daemon_json(cli, "GET", target, NULL, ret, &error) == 0)
            return 0;
        if (!cli->http.reached || !error_is(error, ERROR_UNAVAILABLE) || away_ms >= AWAY_MAX_MS) {
            if (away_ms)
                error_wrap(&error, "the exit code is not known");
            return error_move(ret_error, &error);
        }
        if (away_ms == AWAY_SAID_MS)
            note_print(cli, "huskd is away; waiting for it, to ask for the exit code");
        http_close(&cli->http);
        poll(NULL, 0, AWAY_STEP_MS);
    }
}

static int exit_code_read(const json_t *code, int *ret_code, struct error **ret_error)
{
    if (!json_is_integer(code))
        return error_set(ret_error, ERROR_CORRUPT, 0, "huskd's exit code is not a number");
    *ret_code = (int)json_integer_value(code) & 0xff;
    return 0;
}

int daemon_exit_code(struct cli *cli, const char *container, const char *exec, int *ret_code,
                     struct error **ret_error)
{
    CLEANUP_JSON json_t *code = NULL;
    CLEANUP_FREE char *target =
        http_target("/exitcode", "container", container, "exec", exec, NULL);
    if (exit_code_ask(cli, target, &code, ret_error) < 0)
        return -1;
    return exit_code_read(code, ret_code, ret_error);
}

int exit_code_begin(struct http *wait, const char *container, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/exitcode", "container", container, NULL);
    struct http_request request = {.method = "GET", .target = target, .no_wait = true};
    return http_begin(wait, &request, ret_error);
}

int exit_code_end(struct cli *cli, struct http *wait, const char *container, int *ret_code,
                  struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_JSON json_t *code = NULL;
    wait->idle = cli->http.idle;
    wait->idle_arg = cli;
    if (http_read_head(wait, &error) == 0 && answer_json(wait, &code, &error) == 0)
        return exit_code_read(code, ret_code, ret_error);
    if (error_is(error, ERROR_UNAVAILABLE))
        return daemon_exit_code(cli, container, NULL, ret_code, ret_error);
    return error_move(ret_error, &error);
}
