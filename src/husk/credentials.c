#include "husk/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/str.h"
#include "husk/cli.h"
#include "image/reference.h"

/* ---- the file ------------------------------------------------------------------------------- */

static char *config_path(void)
{
    const char *directory = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    if (!str_empty(directory))
        return str_printf("%s/config.json", directory);
    return str_empty(home) ? NULL : str_printf("%s/.docker/config.json", home);
}

/* A new reference; NULL without an error if there is no such file. */
static int config_read(json_t **ret, struct error **ret_error)
{
    CLEANUP_FREE char *path = config_path();
    json_error_t why;
    *ret = NULL;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return !path || errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : error_set(ret_error, ERROR_IO, errno, "read '%s'", path);
    CLEANUP_FREE char *text = xmalloc(CREDENTIALS_CONFIG_MAX);
    ssize_t n = TEMP_FAILURE_RETRY(read(fd, text, CREDENTIALS_CONFIG_MAX));
    int err = errno;
    close(fd);
    if (n < 0)
        return error_set(ret_error, ERROR_IO, err, "read '%s'", path);
    *ret = json_loadb(text, (size_t)n, 0, &why);
    explicit_bzero(text, (size_t)n);
    if (!*ret)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not JSON: line %d: %s", path,
                         why.line, why.text);
    return 0;
}

/* ---- helpers -------------------------------------------------------------------------------- */

/* In the child. */
static void helper_exec(const char *program, int in, int out)
{
    char *const argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "get", NULL};
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    execvp(program, argv);
    _exit(127);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* All that comes, within the limits; false if it is too much or too late. */
static bool helper_read(int fd, char *ret, size_t *ret_size)
{
    int64_t end = now_ms() + CREDENTIALS_HELPER_MS;
    for (*ret_size = 0; *ret_size < CREDENTIALS_HELPER_MAX;) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        int64_t left = end - now_ms();
        if (left <= 0 || poll(&poller, 1, (int)left) <= 0)
            return false;
        ssize_t n =
            TEMP_FAILURE_RETRY(read(fd, ret + *ret_size, CREDENTIALS_HELPER_MAX - *ret_size));
        if (n <= 0)
            return n == 0;
        *ret_size += (size_t)n;
    }
    return false;
}

/* What the helper prints; its status 0 or not. */
static int helper_run(const char *program, const char *server, char *ret, size_t *ret_size,
                      struct error **ret_error)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, status = 0;
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a pipe");
    pid_t child = fork();
    if (child == 0)
        helper_exec(program, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    /* Far less than a pipe holds; a helper that is gone does not end us. */
    sighandler_t before = signal(SIGPIPE, SIG_IGN);
    ssize_t sent = child > 0 ? write(in[1], server, strlen(server)) : -1;
    signal(SIGPIPE, before);
    close(in[1]);
    bool good = child > 0 && helper_read(out[0], ret, ret_size);
    close(out[0]);
    if (child > 0 && !good)
        kill(child, SIGKILL);
    if (child > 0)
        waitpid(child, &status, 0);
    if (!good || (sent < 0 && !WIFEXITED(status)))
        return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                         "the credential helper '%s' does not answer", program);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return error_set(ret_error, ERROR_NOT_FOUND, 0,
                         "the credential helper '%s', which docker's config.json names, cannot be "
                         "run",
                         program);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

/* A new AuthConfig; NULL if the helper has none. */
static int helper_ask(const char *name, const char *server, json_t **ret, struct error **ret_error)
{
    CLEANUP_FREE char *program = str_printf("docker-credential-%s", name);
    CLEANUP_FREE char *answer = xmalloc(CREDENTIALS_HELPER_MAX);
    size_t size = 0;
    if (strchr(name, '/'))
        return error_set(ret_error, ERROR_INVALID, 0, "'%.100s' is no credential helper", name);
    int rc = helper_run(program, server, answer, &size, ret_error);
    if (rc < 0)
        return -1;
    CLEANUP_JSON json_t *json = rc == 0 ? json_loadb(answer, size, 0, NULL) : NULL;
    explicit_bzero(answer, size);
    const char *user = json_text(json, "Username"), *secret = json_text(json, "Secret");
    if (!*secret)
        return 0;
    *ret = strcmp(user, "<token>") == 0
               ? json_pack("{s:s}", "identitytoken", secret)
               : json_pack("{s:s, s:s}", "username", user, "password", secret);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int config_find(const json_t *config, const char *server, json_t **ret,
                       struct error **ret_error)
{
    const char *helper = json_text(json_object_get(config, "credHelpers"), server);
    const char *store = json_text(config, "credsStore");
    json_t *auth = json_object_get(json_object_get(config, "auths"), server);
    *ret = NULL;
    if (*helper)
        return helper_ask(helper, server, ret, ret_error);
    if (*store && helper_ask(store, server, ret, ret_error) < 0)
        return -1;
    if (!*ret && json_object_size(auth) > 0)
        *ret = json_incref(auth);
    return 0;
}

static char *header_make(const json_t *auth)
{
    char *text = json_dumps(auth, JSON_COMPACT);
    char *coded = base64_encode(text, strlen(text), true);
    char *line = str_printf("X-Registry-Auth: %s", coded);
    explicit_bzero(text, strlen(text));
    explicit_bzero(coded, strlen(coded));
    free(text);
    free(coded);
    return line;
}

char *credentials_header_of(const char *server, const char *user, const char *password)
{
    CLEANUP_JSON json_t *auth = json_pack("{s:s, s:s, s:s}", "username", user, "password", password,
                                          "serveraddress", server);
    return auth ? header_make(auth) : NULL;
}

int credentials_header(const char *image, char **ret, struct error **ret_error)
{
    CLEANUP_REFERENCE struct reference ref = {0};
    CLEANUP_JSON json_t *config = NULL;
    CLEANUP_JSON json_t *auth = NULL;
    *ret = NULL;
    if (reference_parse(image, &ref, ret_error) < 0 || config_read(&config, ret_error) < 0)
        return -1;
    if (!config)
        return 0;
    const char *server =
        strcmp(ref.domain, "docker.io") == 0 ? "https://index.docker.io/v1/" : ref.domain;
    if (config_find(config, server, &auth, ret_error) < 0)
        return -1;
    if (auth)
        *ret = header_make(auth);
    return 0;
}
