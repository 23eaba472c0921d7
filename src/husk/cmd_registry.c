/* pull, push, tag, history, login, logout: images from and to registries. */
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/credentials.h"
#include "husk/progress.h"
#include "husk/table.h"
#include "image/reference.h"

/* Sends a request with the user's credentials for that image's registry, and shows the stream of
 * messages that answers it. */
static int stream_call(struct cli *cli, const char *target, const char *image,
                       struct progress *progress, struct error **ret_error)
{
    CLEANUP_FREE char *credentials = NULL;
    if (credentials_header(image, &credentials, ret_error) < 0)
        return -1;
    struct http_request request = {
        .method = "POST", .target = target, .type = "text/plain", .header = credentials};
    int rc = http_begin(&cli->http, &request, ret_error);
    if (credentials)
        explicit_bzero(credentials, strlen(credentials));
    if (rc < 0 || daemon_check(&cli->http, ret_error) < 0)
        return -1;
    for (;;) {
        char *data;
        size_t size;
        if (http_read(&cli->http, &data, &size, ret_error) < 0 ||
            progress_feed(progress, size ? data : "\n", size ? size : 1, ret_error) < 0)
            return -1;
        if (size == 0)
            return 0;
    }
}

int image_pull(struct cli *cli, const char *image, bool quiet, FILE *out, struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/image/create", "imageName", image, NULL);
    struct progress progress = {
        .out = out, .terminal = isatty(fileno(out)), .several = true, .quiet = quiet};
    int rc = stream_call(cli, target, image, &progress, ret_error);
    progress_done(&progress);
    return rc;
}

static bool has_tag(const char *image)
{
    const char *slash = strrchr(image, '/');
    return strpbrk(slash ? slash : image, ":@") != NULL;
}

int cmd_pull(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *image = args->words[0];
    bool quiet = args_has(args, "quiet");
    CLEANUP_FREE char *full = reference_normalise(image, ret_error);
    if (!full)
        return -1;
    if (!quiet && !has_tag(image))
        printf("Using default tag: latest\n");
    if (image_pull(cli, image, quiet, stdout, ret_error) < 0)
        return -1;
    if (quiet)
        printf("%s\n", full);
    return 0;
}

int cmd_push(struct cli *cli, const struct args *args, struct error **ret_error)
{
    bool quiet = args_has(args, "quiet");
    CLEANUP_FREE char *full = reference_normalise(args->words[0], ret_error);
    if (!full)
        return -1;
    CLEANUP_FREE char *target = http_target("/image/push", "remote", full, NULL);
    struct progress progress = {
        .out = stdout, .terminal = isatty(STDOUT_FILENO), .several = true, .quiet = quiet};
    int rc = stream_call(cli, target, args->words[0], &progress, ret_error);
    progress_done(&progress);
    if (rc == 0 && quiet)
        printf("%s\n", full);
    return rc;
}

int cmd_tag(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *target =
        http_target("/image/tag", "imageId", args->words[0], "name", args->words[1], NULL);
    return daemon_call(cli, "POST", target, NULL, NULL, ret_error);
}

/* ---- history -------------------------------------------------------------------------------- */

/* "2023-11-14 22:13:20" of what the image says, which may be anything. */
static char *step_time(const char *created)
{
    struct tm tm = {0};
    char text[32];
    if (!strptime(created, "%Y-%m-%dT%H:%M:%S", &tm))
        return xstrdup("-");
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    return xstrdup(text);
}

int cmd_history(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *image = NULL;
    CLEANUP_FREE char *target =
        http_target("/inspect", "name", args->words[0], "kind", "image", NULL);
    static const char *const titles[] = {"CREATED", "LAYER", "CREATED BY"};
    CLEANUP_TABLE struct table table = {.columns = ARRAY_SIZE(titles)};
    if (daemon_json(cli, "GET", target, NULL, &image, ret_error) < 0)
        return -1;
    const json_t *steps = json_object_get(json_object_get(image, "config"), "history");
    table_row(&table, titles);
    for (size_t i = json_array_size(steps); i-- > 0;) {
        const json_t *step = json_array_get(steps, i);
        CLEANUP_FREE char *time = step_time(json_text(step, "created"));
        CLEANUP_FREE char *by = xstrdup(json_text(step, "created_by"));
        str_make_plain(by);
        const char *cells[] = {
            time, json_is_true(json_object_get(step, "empty_layer")) ? "none" : "one", by};
        table_row(&table, cells);
    }
    table_print(&table, stdout);
    return 0;
}

/* ---- login ---------------------------------------------------------------------------------- */

/* A line of standard input, without its end; owned, NULL at the end of the input. */
static char *line_read(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n = getline(&line, &room, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}

/* Asks on the terminal; `hidden`: what is typed is not shown. */
static char *ask(const char *question, bool hidden)
{
    struct termios before, quiet;
    bool changed = hidden && tcgetattr(STDIN_FILENO, &before) == 0;
    fputs(question, stdout);
    fflush(stdout);
    if (changed) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    char *line = line_read();
    if (changed) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        putchar('\n');
    }
    return line;
}

static int login_read(const struct args *args, char **ret_user, char **ret_password,
                      struct error **ret_error)
{
    bool terminal = isatty(STDIN_FILENO);
    *ret_user = xstrdup(args_text(args, "username"));
    *ret_password = xstrdup(args_text(args, "password"));
    if (!*ret_user && terminal && !args_has(args, "password-stdin"))
        *ret_user = ask("Username: ", false);
    if (!*ret_password && args_has(args, "password-stdin"))
        *ret_password = line_read();
    else if (!*ret_password && terminal)
        *ret_password = ask("Password: ", true);
    if (str_empty(*ret_user) || !*ret_password)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'login' needs a user name and a password: give -u and --password-stdin");
    return 0;
}

static void secret_free(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

int cmd_login(struct cli *cli, const struct args *args, struct error **ret_error)
{
    char *user, *password;
    int rc = login_read(args, &user, &password, ret_error);
    if (rc == 0) {
        CLEANUP_JSON json_t *auth =
            json_pack("{s:s, s:s, s:s}", "username", user, "password", password, "serveraddress",
                      str_or(args->words[0], "docker.io"));
        rc = auth ? daemon_call(cli, "POST", "/auth?keep=true", auth, NULL, ret_error)
                  : error_set(ret_error, ERROR_INVALID, 0, "name and password must be UTF-8");
    }
    free(user);
    secret_free(password);
    if (rc == 0)
        printf("Login Succeeded\n");
    return rc;
}

int cmd_logout(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *server = str_or(args->words[0], "docker.io");
    CLEANUP_FREE char *target = http_target("/auth", "server", server, NULL);
    CLEANUP_ERROR struct error *error = NULL;
    if (daemon_call(cli, "DELETE", target, NULL, NULL, &error) == 0) {
        printf("Remove login credentials for %s\n", server);
        return 0;
    }
    if (!error_is(error, ERROR_NOT_FOUND))
        return error_move(ret_error, &error);
    printf("Not logged in to %s\n", server);
    return 0;
}
