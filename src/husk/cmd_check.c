/* image: what is done with all images, or with several at once. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/progress.h"

/* ---- prune ---------------------------------------------------------------------------------- */

static int image_prune(struct cli *cli, struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    double freed = 0;
    char text[32];
    if (daemon_json(cli, "POST", "/images/prune", NULL, &answer, ret_error) < 0)
        return -1;
    const json_t *removed = json_object_get(answer, "removed");
    for (size_t i = 0; i < json_array_size(removed); i++) {
        const json_t *image = json_array_get(removed, i);
        printf("%s\n", json_text(image, "id"));
        freed += json_number_value(json_object_get(image, "size"));
    }
    size_format(text, sizeof(text), freed);
    printf("Removed %zu images, %s\n", json_array_size(removed), text);
    return 0;
}

/* ---- check ---------------------------------------------------------------------------------- */

struct check {
    struct cli *cli;
    bool repair, json;
    json_t *problems;
    int images;
    struct progress progress; /* on standard error, if that is a terminal */
    struct buf pending;       /* of the answer: a line that is not whole */
};

static int line_take(struct check *check, const char *line, size_t size, struct error **ret_error)
{
    CLEANUP_JSON json_t *json = json_loadb(line, size, 0, NULL);
    json_t *problem = json_object_get(json, "problem");
    if (problem) {
        json_array_append(check->problems, problem);
        return 0;
    }
    if (json_object_get(json, "images")) {
        check->images = (int)json_integer_value(json_object_get(json, "images"));
        return 0;
    }
    return progress_feed(&check->progress, line, size, ret_error);
}

static int answer_read(struct check *check, struct error **ret_error)
{
    for (;;) {
        char *data;
        size_t size;
        if (http_read(&check->cli->http, &data, &size, ret_error) < 0)
            return -1;
        buf_append(&check->pending, data, size);
        const char *end;
        while (check->pending.len &&
               (end = memchr(check->pending.data, '\n', check->pending.len))) {
            size_t length = (size_t)(end - (char *)check->pending.data) + 1;
            if (line_take(check, (char *)check->pending.data, length, ret_error) < 0)
                return -1;
            buf_consume(&check->pending, length);
        }
        if (size == 0)
            return 0;
    }
}

/* Of the images that are named; NULL: of all. */
static int check_run(struct check *check, const char *const *names, struct error **ret_error)
{
    struct buf target = {0};
    buf_printf(&target, "/images/check?repair=%s", check->repair ? "yes" : "no");
    STRV_FOREACH(name, names) {
        CLEANUP_FREE char *pair = http_target("", "names", *name, NULL);
        buf_printf(&target, "&%s", pair + 1);
    }
    CLEANUP_FREE char *text = buf_take_str(&target);
    struct http_request request = {.method = "POST", .target = text, .type = "text/plain"};
    json_decref(check->problems);
    check->problems = json_array();
    int rc = http_begin(&check->cli->http, &request, ret_error);
    if (rc == 0)
        rc = daemon_check(&check->cli->http, ret_error);
    if (rc == 0)
        rc = answer_read(check, ret_error);
    progress_clear(&check->progress);
    return rc;
}

/* By its first tag, else by its id. */
static const char *problem_name(const json_t *problem)
{
    const json_t *names = json_object_get(problem, "names");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name && !strchr(name, '@'))
            return name;
    }
    return json_text(problem, "image");
}

/* A name by digest means just this image at its registry; a tag may mean another one by now. */
static const char *problem_source(const json_t *problem)
{
    const json_t *names = json_object_get(problem, "names");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name && strchr(name, '@'))
            return name;
    }
    return NULL;
}

static bool is_open(const json_t *problem)
{
    return !json_is_true(json_object_get(problem, "repaired"));
}

static bool is_blob(const json_t *problem)
{
    return str_eq(json_text(problem, "kind"), "blob");
}

/* Pulls what has lost a blob, if it came from a registry. Whoever fails is told of, and is still a
 * problem afterwards. Returns the ids of the images; owned. */
static char **blobs_pull(struct check *check)
{
    char **ids = NULL;
    const json_t *problem;
    size_t i;
    json_array_foreach(check->problems, i, problem) {
        CLEANUP_ERROR struct error *error = NULL;
        const char *id = json_text(problem, "image"), *source = problem_source(problem);
        if (!is_open(problem) || strv_contains((const char *const *)ids, id))
            continue;
        strv_push(&ids, id);
        if (source && image_pull(check->cli, source, true, stderr, &error) < 0)
            note_print(check->cli, "'%s' cannot be pulled again: %s", source, error->message);
    }
    return ids;
}

static bool problem_is_in(const json_t *list, const json_t *problem)
{
    const json_t *other;
    size_t i;
    json_array_foreach(list, i, other)
        if (str_eq(json_text(other, "image"), json_text(problem, "image")) &&
            str_eq(json_text(other, "file"), json_text(problem, "file")))
            return true;
    return false;
}

/* What the first look left open is pulled, and looked at again. */
static int check_repair(struct check *check, struct error **ret_error)
{
    CLEANUP_STRV char **ids = blobs_pull(check);
    CLEANUP_JSON json_t *first = json_incref(check->problems);
    json_t *problem;
    size_t i;
    int images = check->images;
    if (!ids || check_run(check, (const char *const *)ids, ret_error) < 0)
        return ids ? -1 : 0;
    check->images = images;
    json_array_foreach(first, i, problem) {
        if (problem_is_in(check->problems, problem))
            continue;
        json_t *copy = json_copy(problem);
        json_object_set_new(copy, "repaired", json_true());
        json_array_append_new(check->problems, copy);
    }
    return 0;
}

/* "busybox:latest: blob 3f4a5b6c7d8e: it is missing". */
static void problem_print(const struct check *check, const json_t *problem)
{
    const char *file = json_text(problem, "file"), *slash = strrchr(file, '/');
    const char *remedy = "";
    if (!is_open(problem))
        remedy = ": repaired";
    else if (check->repair && is_blob(problem) && !problem_source(problem))
        remedy = ": it came from no registry; load its archive again";
    if (is_blob(problem))
        printf("%s: blob %.12s: %s%s\n", problem_name(problem), slash ? slash + 1 : file,
               json_text(problem, "message"), remedy);
    else
        printf("%s: prepared root: %s%s\n", problem_name(problem), json_text(problem, "message"),
               remedy);
}

static int check_tell(const struct check *check, struct error **ret_error)
{
    const json_t *problem;
    size_t i, open = 0;
    json_array_foreach(check->problems, i, problem) {
        open += is_open(problem);
        if (!check->json)
            problem_print(check, problem);
    }
    if (check->json) {
        CLEANUP_JSON json_t *all =
            json_pack("{s:i, s:O}", "images", check->images, "problems", check->problems);
        CLEANUP_FREE char *text = json_dumps(all, JSON_INDENT(2));
        puts(text);
    } else if (json_array_size(check->problems) == 0) {
        printf("%d image%s checked: all is right\n", check->images, check->images == 1 ? "" : "s");
    }
    if (open == 0)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     check->repair
                         ? "not repaired: %zu of the problems"
                         : "problems: %zu; 'husk image check --repair' repairs what it can",
                     open);
}

static int image_check(struct cli *cli, const struct args *args, struct error **ret_error)
{
    struct check check = {.cli = cli,
                          .repair = args_has(args, "repair"),
                          .json = str_eq(args_text(args, "output"), "json"),
                          .progress = {.out = stderr, .terminal = isatty(STDERR_FILENO)}};
    check.progress.quiet = !check.progress.terminal;
    int rc = check_run(&check, (const char *const *)args->words + 1, ret_error);
    if (rc == 0 && check.repair)
        rc = check_repair(&check, ret_error);
    if (rc == 0)
        rc = check_tell(&check, ret_error);
    progress_done(&check.progress);
    buf_release(&check.pending);
    json_decref(check.problems);
    return rc;
}

int cmd_image(struct cli *cli, const struct args *args, struct error **ret_error)
{
    if (strcmp(args->words[0], "check") == 0)
        return image_check(cli, args, ret_error);
    if (strcmp(args->words[0], "prune") != 0 || args->words[1])
        return error_set(ret_error, ERROR_INVALID, 0,
                         "it is 'image prune' or 'image check [IMAGE…]', not 'image %s'",
                         args->words[0]);
    return image_prune(cli, ret_error);
}
