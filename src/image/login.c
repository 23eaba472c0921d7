#include "image/login.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/base64.h"
#include "base/str.h"

#define FILE_NAME "credentials.json"

enum { FILE_MAX = 1 << 20, FILE_MODE = 0600 };

/* All of the file, a secret; *ret NULL if there is none. */
static int file_read(const char *root, char **ret, size_t *ret_size, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/" FILE_NAME, root);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    *ret = NULL;
    if (fd < 0 && errno == ENOENT)
        return 0;
    char *text = xcalloc(1, FILE_MAX + 1);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, FILE_MAX));
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        free(text);
        return error_set(ret_error, ERROR_IO, err, "read '%s'", path);
    }
    *ret = text;
    *ret_size = (size_t)n;
    return 0;
}

int credentials_load(const char *root, const char *domain, struct credentials *ret,
                     struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    char *text;
    size_t size = 0;

    *ret = (struct credentials){0};
    if (file_read(root, &text, &size, ret_error) < 0)
        return -1;
    int result = text ? credentials_find(text, size, credentials_server(domain), ret, &error) : 0;
    secret_free(text);
    if (result == 0)
        return 0;
    error_wrap(&error, "'%s/" FILE_NAME "'", root);
    return error_move(ret_error, &error);
}

/* ---- changing it ---------------------------------------------------------------------------- */

static json_t *entry_make(const struct credentials *c)
{
    json_t *entry = json_object();

    if (c->user) {
        char *pair = str_printf("%s:%s", c->user, str_or(c->password, ""));
        char *coded = base64_encode(pair, strlen(pair), false);
        json_object_set_new(entry, "auth", json_string(coded));
        secret_free(pair);
        secret_free(coded);
    }
    if (c->identity_token)
        json_object_set_new(entry, "identitytoken", json_string(c->identity_token));
    if (c->registry_token)
        json_object_set_new(entry, "registrytoken", json_string(c->registry_token));
    return entry;
}

static int file_write(const char *root, const json_t *json, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/" FILE_NAME, root);
    CLEANUP_FREE char *fresh = str_printf("%s/" FILE_NAME ".new", root);
    char *text = json_dumps(json, JSON_INDENT(2));
    size_t size = text ? strlen(text) : 0;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    bool good = text && fd >= 0 && TEMP_FAILURE_RETRY(write(fd, text, size)) == (ssize_t)size &&
                fsync(fd) == 0;
    int err = errno;

    if (fd >= 0)
        close(fd);
    secret_free(text);
    if (good && rename(fresh, path) == 0)
        return 0;
    err = good ? errno : err;
    unlink(fresh);
    return error_set(ret_error, ERROR_IO, err, "write '%s'", path);
}

/* The file as JSON, an empty one if there is none. */
static json_t *file_parse(const char *root, struct error **ret_error)
{
    json_error_t why;
    char *text;
    size_t size = 0;

    if (file_read(root, &text, &size, ret_error) < 0)
        return NULL;
    json_t *json = text ? json_loadb(text, size, 0, &why) : json_pack("{s:{}}", "auths");
    secret_free(text);
    if (json && json_is_object(json_object_get(json, "auths")))
        return json;
    json_decref(json);
    error_set(ret_error, ERROR_CORRUPT, 0,
              "'%s/" FILE_NAME "' is not what 'husk login' writes: remove it", root);
    return NULL;
}

int credentials_store(const char *root, const char *domain, const struct credentials *credentials,
                      struct error **ret_error)
{
    const char *server = credentials_server(domain);
    /* Another process may do the same for another registry. */
    int lock = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = 0;

    if (lock < 0 || flock(lock, LOCK_EX) < 0) {
        int err = errno;
        if (lock >= 0)
            close(lock);
        return error_set(ret_error, ERROR_IO, err, "lock '%s'", root);
    }
    json_t *json = file_parse(root, ret_error);
    json_t *auths = json_object_get(json, "auths");
    if (!json)
        result = -1;
    else if (credentials)
        json_object_set_new(auths, server, entry_make(credentials));
    else if (json_object_del(auths, server) < 0)
        result = error_set(ret_error, ERROR_NOT_FOUND, 0, "nobody is logged in to '%s'", domain);
    if (result == 0)
        result = file_write(root, json, ret_error);
    if (result == 0)
        fsync(lock);
    json_decref(json);
    close(lock);
    return result;
}

/* ---- trying --------------------------------------------------------------------------------- */

int registry_login(const struct registry_settings *settings, const char *domain,
                   const struct credentials *credentials, struct error **ret_error)
{
    enum { ANSWER_MAX = 64 << 10 };
    struct registry_request request = {.method = "GET", .path = "/v2/", .body_max = ANSWER_MAX};
    struct registry *r = registry_new(settings, domain, "", "", credentials, ret_error);
    struct response response;

    if (!r)
        return -1;
    int result = registry_call(r, &request, &response, ret_error);
    response_done(&response);
    registry_free(r);
    return result;
}
