/* template: what VMs are cloned of. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/progress.h"
#include "husk/table.h"

static void json_print(const json_t *json)
{
    CLEANUP_FREE char *text = json_dumps(json, JSON_INDENT(2) | JSON_ENCODE_ANY);
    puts(text);
}

static int templates_get(struct cli *cli, json_t **ret, struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    if (daemon_json(cli, "GET", "/template/list", NULL, &answer, ret_error) < 0)
        return -1;
    *ret = json_incref(json_object_get(answer, "items"));
    return 0;
}

/* ---- ls ------------------------------------------------------------------------------------- */

static void row_put(struct table *table, const json_t *t)
{
    char size[32] = "";
    CLEANUP_FREE char *memory =
        str_printf("%lld MiB", (long long)json_integer_value(json_object_get(t, "memory")));
    CLEANUP_FREE char *vms =
        str_printf("%lld", (long long)json_integer_value(json_object_get(t, "vms")));
    CLEANUP_FREE char *state = str_printf("%s%s%s", json_text(t, "state"),
                                          *json_text(t, "step") ? ": " : "", json_text(t, "step"));
    double bytes = json_number_value(json_object_get(t, "size"));
    if (bytes > 0)
        size_format(size, sizeof(size), bytes);
    CLEANUP_FREE char *zygote =
        str_printf("%s%s%s", json_text(t, "zygote"), *json_text(t, "zygoteStep") ? ": " : "",
                   json_text(t, "zygoteStep"));
    const char *cells[] = {json_text(t, "id"),
                           json_text(t, "image"),
                           memory,
                           state,
                           zygote,
                           size,
                           vms,
                           str_or(json_text(t, "reason"), json_text(t, "zygoteReason"))};
    table_row(table, cells);
}

static int template_ls(struct cli *cli, const struct args *args, struct error **ret_error)
{
    static const char *const titles[] = {"TEMPLATE", "IMAGE", "MEMORY", "STATE",
                                         "ZYGOTE",   "SIZE",  "VMS",    "REASON"};
    CLEANUP_JSON json_t *list = NULL;
    CLEANUP_TABLE struct table table = {.columns = ARRAY_SIZE(titles)};
    if (args_word_count(args) > 1)
        return error_set(ret_error, ERROR_INVALID, 0, "'template ls' takes no arguments");
    if (templates_get(cli, &list, ret_error) < 0)
        return -1;
    if (str_eq(args_text(args, "output"), "json")) {
        json_print(list);
        return 0;
    }
    if (!args_has(args, "quiet"))
        table_row(&table, titles);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        if (args_has(args, "quiet"))
            puts(json_text(t, "id"));
        else
            row_put(&table, t);
    }
    table_print(&table, stdout);
    return 0;
}

/* ---- inspect, rm, build: each of the words -------------------------------------------------- */

static int words_needed(const struct args *args, struct error **ret_error)
{
    if (args_word_count(args) < 2)
        return error_set(ret_error, ERROR_INVALID, 0, "'template %s': which one? See 'template ls'",
                         args->words[0]);
    return 0;
}

/* Runs `one` on each word but the first; as each_word() otherwise. */
static int each_template(struct cli *cli, const struct args *args,
                         int (*one)(struct cli *cli, const struct args *args, const char *word,
                                    struct error **ret_error))
{
    struct args rest = *args;
    rest.words++;
    return each_word(cli, &rest, one);
}

static int inspect_one(struct cli *cli, const struct args *args, const char *name,
                       struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/template/info", "name", name, NULL);
    CLEANUP_JSON json_t *t = NULL;
    if (daemon_json(cli, "GET", target, NULL, &t, ret_error) < 0)
        return -1;
    json_print(t);
    return 0;
}

static int template_inspect(struct cli *cli, const struct args *args, struct error **ret_error)
{
    return words_needed(args, ret_error) < 0 ? -1 : each_template(cli, args, inspect_one);
}

static int rm_one(struct cli *cli, const struct args *args, const char *name,
                  struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/template", "name", name, NULL);
    return daemon_call(cli, "DELETE", target, NULL, NULL, ret_error);
}

static int template_rm(struct cli *cli, const struct args *args, struct error **ret_error)
{
    return words_needed(args, ret_error) < 0 ? -1 : each_template(cli, args, rm_one);
}

/* The daemon tells how far it is, until it is made. */
static int build_follow(struct cli *cli, const char *target, struct error **ret_error)
{
    struct progress progress = {.out = stdout, .terminal = isatty(STDOUT_FILENO)};
    struct http_request request = {.method = "POST", .target = target};
    struct http *http = &cli->http;
    char *data;
    size_t size = 1;
    int rc = http_begin(http, &request, ret_error);
    if (rc == 0)
        rc = daemon_check(http, ret_error);
    while (rc == 0 && size > 0) {
        rc = http_read(http, &data, &size, ret_error);
        if (rc == 0)
            rc = progress_feed(&progress, size ? data : "\n", size ? size : 1, ret_error);
    }
    progress_done(&progress);
    return rc;
}

static int build_mb(struct cli *cli, uint64_t mb, struct error **ret_error)
{
    CLEANUP_FREE char *memory = str_printf("%llu", (unsigned long long)mb);
    CLEANUP_FREE char *target = http_target("/template/build", "memory", memory, NULL);
    return build_follow(cli, target, ret_error);
}

static int build_image(struct cli *cli, const char *image, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/template/build", "image", image, NULL);
    return build_follow(cli, target, ret_error);
}

static int build_one(struct cli *cli, const struct args *args, const char *word,
                     struct error **ret_error)
{
    uint64_t bytes;
    CLEANUP_ERROR struct error *error = NULL;
    bool memory = str_to_size(word, 1 << 20, &bytes);
    if (memory && bytes & ((1 << 20) - 1))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%s' is not a memory in whole MiB, such as 128 or 1G", word);
    if ((memory ? build_mb(cli, bytes >> 20, &error) : build_image(cli, word, &error)) == 0)
        return 0;
    error_wrap(&error, "template of %s", word);
    return error_move(ret_error, &error);
}

static int template_build(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *list = NULL;
    if (args_word_count(args) > 1)
        return each_template(cli, args, build_one);
    if (templates_get(cli, &list, ret_error) < 0)
        return -1;
    if (json_array_size(list) == 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "no template is listed: name the memory of one, as in 'template build "
                         "128'");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        CLEANUP_ERROR struct error *error = NULL;
        const char *image = json_text(t, "image");
        uint64_t mb = (uint64_t)json_integer_value(json_object_get(t, "memory"));
        if ((*image ? build_image(cli, image, &error) : build_mb(cli, mb, &error)) == 0)
            continue;
        error_wrap(&error, "template '%s'", json_text(t, "id"));
        return error_move(ret_error, &error);
    }
    return 0;
}

int cmd_template(struct cli *cli, const struct args *args, struct error **ret_error)
{
    static const struct {
        const char *name;
        int (*run)(struct cli *cli, const struct args *args, struct error **ret_error);
    } actions[] = {
        {"ls", template_ls},
        {"inspect", template_inspect},
        {"rm", template_rm},
        {"build", template_build},
    };
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
        if (str_eq(args->words[0], actions[i].name))
            return actions[i].run(cli, args, ret_error);
    return error_set(ret_error, ERROR_INVALID, 0,
                     "'template %s' is not known: ls, inspect, rm or build", args->words[0]);
}
