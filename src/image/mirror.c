#include "image/mirror.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "image/reference.h"

void mirror_done(struct mirror *mirror)
{
    free(mirror->registry);
    free(mirror->host);
    free(mirror->prefix);
    *mirror = (struct mirror){0};
}

/* A host and a path are right if an image may be named by them. */
static bool names_image(const char *host, const char *path)
{
    const char *port = strpbrk(host, ".:") ? "" : ":1"; /* else it would be taken for a path */
    CLEANUP_FREE char *whole = str_printf("%s%s", host, port);
    CLEANUP_FREE char *name = str_printf("%s/%simage", whole, path);
    CLEANUP_REFERENCE struct reference ref = {0};

    return !strpbrk(name, "@?#") && reference_parse(name, &ref, NULL) == 0 &&
           strcmp(ref.domain, whole) == 0;
}

static const char *scheme_take(const char *address, struct mirror *ret)
{
    ret->plain = str_starts(address, "http://");
    ret->tls = str_starts(address, "https://");
    return ret->plain ? address + strlen("http://")
           : ret->tls ? address + strlen("https://")
                      : address;
}

/* "hub/" of "/hub", "/hub/" and "/v2/hub". */
static char *prefix_of(const char *path)
{
    path += *path == '/';
    if (str_starts(path, "v2/") || strcmp(path, "v2") == 0)
        path += strlen("v2") + (path[2] == '/');
    return str_printf("%s%s", path, !*path || str_ends(path, "/") ? "" : "/");
}

int mirror_parse(const char *text, struct mirror *ret, struct error **ret_error)
{
    size_t n = strcspn(text, "=");
    const char *address = scheme_take(text[n] ? text + n + 1 : "", ret);
    size_t host = strcspn(address, "/");

    ret->registry = xstrndup(text, n);
    ret->host = xstrndup(address, host);
    ret->prefix = prefix_of(address + host);
    if (n > 0 && host > 0 && names_image(ret->host, ret->prefix) && names_image(ret->registry, ""))
        return 0;
    mirror_done(ret);
    return error_set(ret_error, ERROR_INVALID, 0,
                     "'%.200s' names no mirror of a registry: it must be like "
                     "'docker.io=mirror.example' or 'docker.io=https://mirror.example/hub'",
                     text);
}
