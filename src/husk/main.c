/* husk: the command line of huskd. Also installed as hyperctl, with that program's habits. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"

static const char DEFAULT_SOCKET[] = "/run/husk.sock";

/* --socket, $HUSK_SOCKET, the user's own daemon if there is one, the system's. */
static char *socket_path(const char *given)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR"), *named = getenv("HUSK_SOCKET");
    if (given || !str_empty(named))
        return xstrdup(given ? given : named);
    if (geteuid() != 0 && !str_empty(runtime)) {
        CLEANUP_FREE char *own = str_printf("%s/husk.sock", runtime);
        if (access(own, F_OK) == 0)
            return take(own);
    }
    return xstrdup(DEFAULT_SOCKET);
}

/* Options before the verb: --socket, --help and --version. Moves *argv to the verb; returns false
 * if one of them is not known. */
static bool leading_options(char ***argv, const char **ret_socket)
{
    static char version[] = "version", help[] = "help";
    while (**argv && ***argv == '-') {
        char *text = *(*argv)++;
        if (strcmp(text, "--socket") == 0 && **argv)
            *ret_socket = *(*argv)++;
        else if (str_starts(text, "--socket="))
            *ret_socket = text + strlen("--socket=");
        else if (strcmp(text, "--version") == 0)
            *--*argv = version;
        else if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)
            *--*argv = help;
        else if (strcmp(text, "--socket") == 0) {
            --*argv; /* without its value */
            return true;
        } else {
            --*argv;
            return false;
        }
    }
    return true;
}

static int unknown_verb(const struct cli *cli, const char *typed)
{
    const char *near = verb_nearest(typed);
    fprintf(cli->hyper ? stdout : stderr, "%s: '%s' is not a %s command. See '%s --help'.\n",
            cli->program, typed, cli->program, cli->program);
    if (near && !cli->hyper)
        fprintf(stderr, "Did you mean '%s'?\n", near);
    return cli->hyper ? 1 : EXIT_HUSK_FAILED;
}

static int verb_run(struct cli *cli, const struct verb *verb, char **argv, const char *socket)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_ARGS struct args args = {0};
    int status = args_parse(&args, verb, argv, &error);
    if (status == 0 && args_has(&args, "help")) {
        help_verb(verb);
        return 0;
    }
    if (status == 0) {
        const char *later = args_text(&args, "socket");
        cli->socket = socket_path(later ? later : socket);
        http_init(&cli->http, cli->socket);
        status = verb->run(cli, &args, &error);
        waiting_end(cli);
        http_close(&cli->http);
        free(cli->socket);
    }
    if (status < 0)
        error_print(cli, error);
    return status < 0 ? EXIT_HUSK_FAILED : status;
}

/* What was printed must have arrived: a full disk is a failure. */
static int output_finish(struct cli *cli, int status)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status)
        return status;
    note_print(cli, "cannot write to standard output");
    return EXIT_HUSK_FAILED;
}

/* Descriptors 0 to 2 are open, so that no socket takes the place of one. Standard output is not
 * open for writing then: who has closed it is told that what was printed is lost. */
static void standard_descriptors(void)
{
    static const int modes[] = {O_RDONLY, O_RDONLY, O_WRONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return; /* the lowest one that is free is taken: this cannot be */
}

int main(int argc, char **argv)
{
    struct cli cli = {.http.fd = -1};
    const char *socket = NULL;

    standard_descriptors();
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    cli.program = slash ? slash + 1 : argc > 0 ? argv[0] : "husk";
    cli.hyper = str_starts(cli.program, "hyper");
    argv += argc > 0;
    if (!leading_options(&argv, &socket))
        return unknown_verb(&cli, *argv);
    if (!*argv && socket) {
        note_print(&cli, "there is no verb after '--socket %s'; see '%s help'", socket,
                   cli.program);
        return EXIT_HUSK_FAILED;
    }
    if (!*argv) {
        help_all(&cli);
        return output_finish(&cli, 0);
    }
    if (**argv == '-') {
        note_print(&cli, "option '%s' needs a value: husk --socket PATH VERB …", *argv);
        return EXIT_HUSK_FAILED;
    }
    const struct verb *verb = verb_find(*argv);
    if (!verb)
        return unknown_verb(&cli, *argv);
    return output_finish(&cli, verb_run(&cli, verb, argv + 1, socket));
}
