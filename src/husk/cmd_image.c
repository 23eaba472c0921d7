/* load, commit, save, rmi: images come and go. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/progress.h"

enum { LOAD_PIECE = 256 << 10 };

struct load {
    struct cli *cli;
    int fd;
    const char *name; /* of the archive, for messages */
    bool chunked;     /* the size is not known before */
    uint64_t sent, size;
    char *piece; /* LOAD_PIECE bytes */
    struct progress progress;
};

/* A whole chunk with one call would need a copy: three small writes are cheaper. */
static int piece_send(struct load *load, size_t size, struct error **ret_error)
{
    struct http *http = &load->cli->http;
    char head[32];
    int head_size = snprintf(head, sizeof(head), "%zx\r\n", size);
    if (!load->chunked)
        return http_send(http, load->piece, size, ret_error);
    if (http_send(http, head, (size_t)head_size, ret_error) < 0 ||
        http_send(http, load->piece, size, ret_error) < 0)
        return -1;
    return http_send(http, "\r\n", 2, ret_error);
}

/* huskd may refuse before it has all: then there is something to read, and no more is sent. */
static bool answer_is_there(const struct load *load)
{
    struct pollfd poller = {.fd = load->cli->http.fd, .events = POLLIN};
    return poll(&poller, 1, 0) > 0;
}

static int body_send(struct load *load, struct error **ret_error)
{
    for (;;) {
        ssize_t n = read(load->fd, load->piece, LOAD_PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "read '%s'", load->name);
        if (!load->chunked && load->sent + (uint64_t)n > load->size)
            n = (ssize_t)(load->size - load->sent); /* it grew: what was there is sent */
        if (n == 0 && !load->chunked && load->sent < load->size)
            return error_set(ret_error, ERROR_IO, 0, "'%s' became shorter while it was read",
                             load->name);
        if (n == 0 || answer_is_there(load))
            return 0;
        if (piece_send(load, (size_t)n, NULL) < 0)
            return 0; /* the reason is in the answer */
        load->sent += (uint64_t)n;
        if (load->progress.terminal)
            progress_show(&load->progress, "Sending", load->sent, load->size);
    }
}

static int answer_show(struct load *load, struct error **ret_error)
{
    struct http *http = &load->cli->http;
    CLEANUP_ERROR struct error *error = NULL;
    if (http_read_head(http, ret_error) < 0 || daemon_check(http, ret_error) < 0)
        return -1;
    for (;;) {
        char *data;
        size_t size;
        if (http_read(http, &data, &size, ret_error) < 0)
            return -1;
        /* The daemon knows no names of our files. */
        if (progress_feed(&load->progress, size ? data : "\n", size ? size : 1, &error) < 0) {
            error_wrap(&error, "'%s'", load->name);
            return error_move(ret_error, &error);
        }
        if (size == 0)
            return 0;
    }
}

/* The request's head by hand of http_begin(); a known size is said, so that huskd can refuse what
 * will not fit before it has come. */
static int load_run(struct load *load, struct error **ret_error)
{
    struct http_request request = {.method = "POST",
                                   .target = "/image/load",
                                   .type = "application/x-tar",
                                   .size = load->size,
                                   .chunked = load->chunked,
                                   .no_wait = true};
    if (http_begin(&load->cli->http, &request, ret_error) < 0 || body_send(load, ret_error) < 0)
        return -1;
    if (load->chunked)
        http_send(&load->cli->http, "0\r\n\r\n", 5, NULL);
    return answer_show(load, ret_error);
}

static int input_open(struct load *load, const char *path, struct error **ret_error)
{
    struct stat st;
    load->name = path ? path : "standard input";
    if (!path && isatty(STDIN_FILENO))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "an archive is not read from a terminal; name it with -i");
    load->fd =
        path && strcmp(path, "-") != 0 ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    if (load->fd < 0 || fstat(load->fd, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", load->name);
    if (S_ISDIR(st.st_mode))
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is a directory, not an archive",
                         load->name);
    off_t at = S_ISREG(st.st_mode) ? lseek(load->fd, 0, SEEK_CUR) : -1;
    load->chunked = at < 0 || at > st.st_size;
    load->size = load->chunked ? 0 : (uint64_t)(st.st_size - at);
    return 0;
}

int cmd_load(struct cli *cli, const struct args *args, struct error **ret_error)
{
    struct load load = {.cli = cli,
                        .fd = -1,
                        .piece = xmalloc(LOAD_PIECE),
                        .progress = {.out = stdout, .terminal = isatty(STDOUT_FILENO)}};
    int rc = input_open(&load, args_text(args, "input"), ret_error);
    if (rc == 0)
        rc = load_run(&load, ret_error);
    progress_done(&load.progress);
    free(load.piece);
    if (load.fd >= 0)
        close(load.fd);
    return rc;
}

/* ---- save ----------------------------------------------------------------------------------- */

/* "/images/save?names=A&names=B"; owned. */
static char *save_target(const struct args *args)
{
    struct buf target = {0};
    CLEANUP_FREE char *start =
        http_target("/images/save", "format", args_text(args, "format"), NULL);
    buf_append_str(&target, start);
    STRV_FOREACH(name, args->words) {
        CLEANUP_FREE char *pair = http_target("", "names", *name, NULL);
        buf_printf(&target, "%c%s", target.data[target.len - 1] == 'e' ? '?' : '&', pair + 1);
    }
    return buf_take_str(&target);
}

static int archive_write(struct cli *cli, int fd, const char *name, struct error **ret_error)
{
    for (;;) {
        char *data;
        size_t size;
        if (http_read(&cli->http, &data, &size, ret_error) < 0)
            return -1;
        if (size == 0)
            return 0;
        for (size_t done = 0; done < size;) {
            ssize_t n = write(fd, data + done, size - done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return error_set(ret_error, ERROR_IO, errno, "write '%s'", name);
            done += (size_t)n;
        }
    }
}

static const int ENDING[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static char *archive_part; /* the file that a signal removes */

static void on_signal(int signal)
{
    unlink(archive_part);
    raise(signal); /* SA_RESETHAND: now it kills */
}

static void signals_catch(void)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction before;
    for (size_t i = 0; i < ARRAY_SIZE(ENDING); i++)
        if (sigaction(ENDING[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(ENDING[i], &action, NULL);
}

/* A file comes to be under another name, so that there is none that is not whole. */
static int archive_file(struct cli *cli, const char *path, struct error **ret_error)
{
    archive_part = str_printf("%s.part-%d", path, (int)getpid());
    signals_catch();
    int fd = open(archive_part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", archive_part);
    int rc = archive_write(cli, fd, path, ret_error);
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set(ret_error, ERROR_IO, errno, "write '%s'", path);
    if (close(fd) < 0 && rc == 0)
        rc = error_set(ret_error, ERROR_IO, errno, "write '%s'", path);
    if (rc == 0 && rename(archive_part, path) < 0)
        rc = error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    if (rc < 0)
        unlink(archive_part);
    return rc;
}

int cmd_save(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *path = args_text(args, "output");
    CLEANUP_FREE char *target = save_target(args);
    struct http_request request = {.method = "GET", .target = target};
    if (!path && isatty(STDOUT_FILENO))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "Cowardly refusing to save to a terminal. Use the -o flag or redirect.");
    if (http_begin(&cli->http, &request, ret_error) < 0 || daemon_check(&cli->http, ret_error) < 0)
        return -1;
    if (path && strcmp(path, "-") != 0)
        return archive_file(cli, path, ret_error);
    return archive_write(cli, STDOUT_FILENO, "standard output", ret_error);
}

/* ---- commit --------------------------------------------------------------------------------- */

/* "/container/commit?container=C&…&changes=A&changes=B"; owned. */
static char *commit_target(const struct args *args)
{
    struct buf target = {0};
    CLEANUP_STRV char **changes = args_all(args, "change");
    CLEANUP_FREE char *start = http_target("/container/commit", "container", args->words[0], "repo",
                                           args->words[1], "author", args_text(args, "author"),
                                           "comment", args_text(args, "message"), NULL);
    buf_append_str(&target, start);
    STRV_FOREACH(change, changes) {
        CLEANUP_FREE char *pair = http_target("", "changes", *change, NULL);
        buf_printf(&target, "&%s", pair + 1);
    }
    return buf_take_str(&target);
}

int cmd_commit(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_FREE char *target = commit_target(args);
    CLEANUP_JSON json_t *answer = NULL;
    if (daemon_json(cli, "POST", target, NULL, &answer, ret_error) < 0)
        return -1;
    printf("%s\n", json_text(answer, "ID"));
    return 0;
}

/* ---- rmi ------------------------------------------------------------------------------------ */

static int rmi_one(struct cli *cli, const struct args *args, const char *name,
                   struct error **ret_error)
{
    CLEANUP_FREE char *target = http_target("/image", "imageId", name, "force",
                                            args_has(args, "force") ? "yes" : "no", NULL);
    CLEANUP_ERROR struct error *error = NULL;
    if (daemon_call(cli, "DELETE", target, NULL, NULL, &error) < 0) {
        if (cli->hyper)
            error_wrap(&error, "Error remove the image(%s)", name);
        return error_move(ret_error, &error);
    }
    printf("Image(%s) is successful to be deleted!\n", name);
    return 0;
}

int cmd_rmi(struct cli *cli, const struct args *args, struct error **ret_error)
{
    return each_word(cli, args, rmi_one);
}
