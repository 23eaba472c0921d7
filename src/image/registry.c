#include "image/registry_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <jansson.h>
#include <utlist.h>

#include "base/str.h"

enum {
    QUOTE_MAX = 200,
    RECEIVE_BUFFER = 128 << 10,
    HTTP_BAD_REQUEST = 400,
    HTTP_NOT_FOUND = 404,
    HTTP_PROXY_AUTH = 407,
    HTTP_TIMEOUT = 408,
    HTTP_TOO_MANY = 429,
    HTTP_SERVER_ERROR = 500,
};

/* ---- names ---------------------------------------------------------------------------------- */

bool registry_is_loopback(const char *host)
{
    CLEANUP_FREE char *name = xstrdup(host);

    if (name[0] != '[')
        name[strcspn(name, ":")] = '\0';
    if (str_starts(name, "127."))
        return strspn(name, "0123456789.") == strlen(name);
    return strcmp(name, "localhost") == 0 || str_starts(name, "[::1]");
}

static const char *address_of(const char *host)
{
    return strcmp(host, "docker.io") == 0 ? "registry-1.docker.io" : host;
}

/* A file of the administrator's for that host; owned, NULL if there is none. */
static char *certs_file(const struct registry *r, const char *host, const char *file)
{
    if (str_empty(r->settings->certs))
        return NULL;
    char *path = str_printf("%s/%s/%s", r->settings->certs, host, file);
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *url_of(const struct registry *r, const char *path)
{
    const char *scheme = r->scheme == SCHEME_HTTPS ? "https" : "http";

    /* Behind a proxy that speaks TLS for it, a registry may not know that it has TLS. */
    if (str_starts(path, "http://") && r->scheme == SCHEME_HTTPS)
        return str_printf("https://%s", path + strlen("http://"));
    if (str_starts(path, "http://") || str_starts(path, "https://"))
        return xstrdup(path);
    if (path[0] == '/')
        return str_printf("%s://%s%s", scheme, address_of(r->host), path);
    return str_printf("%s://%s/v2/%s%s%s", scheme, address_of(r->host), r->repository,
                      *r->repository ? "/" : "", path);
}

/* ---- the room ------------------------------------------------------------------------------- */

struct registry *registry_new(const struct registry_settings *settings, const char *host,
                              const char *repository, const char *actions,
                              const struct credentials *credentials, struct error **ret_error)
{
    struct registry *r = xcalloc(1, sizeof(*r));
    CLEANUP_FREE char *ca = NULL;

    r->settings = settings;
    r->host = host;
    r->repository = repository;
    r->actions = actions;
    r->credentials = credentials;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    r->multi = curl_multi_init();
    ca = certs_file(r, host, "ca.crt");
    r->plain_allowed =
        !ca && (registry_is_loopback(host) || strv_contains(settings->insecure, host));
    r->scheme = r->plain_allowed ? SCHEME_UNKNOWN : SCHEME_HTTPS;
    r->token = xstrdup(credentials->registry_token);
    if (r->multi)
        return r;
    registry_free(r);
    error_set(ret_error, ERROR_INTERNAL, 0, "libcurl cannot be set up");
    return NULL;
}

int registry_insist(struct registry *r, bool tls, struct error **ret_error)
{
    if (!tls && !r->plain_allowed)
        return error_set(ret_error, ERROR_DENIED, 0,
                         "registry '%s' is not spoken to without TLS: name it in the setting "
                         "insecure_registries, or leave 'http://' out",
                         r->host);
    r->scheme = tls ? SCHEME_HTTPS : SCHEME_HTTP;
    return 0;
}

void response_done(struct response *response)
{
    free(response->content_type);
    free(response->digest);
    free(response->location);
    buf_release(&response->body);
    *response = (struct response){0};
}

static void transfer_free(struct transfer *t)
{
    struct registry *r = t->registry;

    DL_DELETE(r->transfers, t);
    curl_multi_remove_handle(r->multi, t->easy);
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    response_done(&t->response);
    buf_release(&t->refusal);
    free(t->challenge);
    free(t->path);
    error_free(t->error);
    free(t);
}

void registry_abort(struct registry *r)
{
    while (r->transfers)
        transfer_free(r->transfers);
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    registry_abort(r);
    curl_multi_cleanup(r->multi);
    secret_free(r->token);
    free(r);
    curl_global_cleanup();
}

void registry_freep(struct registry **r)
{
    registry_free(*r);
}

/* ---- what comes in -------------------------------------------------------------------------- */

/* The value of a header of that name; owned. */
static char *header_value(const char *line, size_t size, const char *name)
{
    size_t n = strlen(name);

    if (size <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
        return NULL;
    for (n++; n < size && (line[n] == ' ' || line[n] == '\t');)
        n++;
    while (size > n && strchr("\r\n \t", line[size - 1]))
        size--;
    return xstrndup(line + n, size - n);
}

/* "0-N", of which N is the last byte. One byte is told as none: it is only sent again. */
static void upload_range(struct response *response, const char *text)
{
    const char *last = str_starts(text, "bytes=") ? text + strlen("bytes=") : text;
    uint64_t n;

    response->has_range = str_starts(last, "0-") && str_to_u64(last + 2, 0, INT64_MAX - 1, &n);
    response->range_size = response->has_range && n > 0 ? n + 1 : 0;
}

static void header_keep(char **slot, char *value)
{
    if (!value)
        return;
    free(*slot);
    *slot = value;
}

static void head_begins(struct transfer *t)
{
    response_done(&t->response);
    free(take(t->challenge));
}

static size_t header_came(char *line, size_t one, size_t size, void *arg)
{
    struct transfer *t = arg;
    CLEANUP_FREE char *range = header_value(line, size, "content-range");
    CLEANUP_FREE char *challenge = header_value(line, size, "www-authenticate");
    CLEANUP_FREE char *uploaded = header_value(line, size, "range");
    CLEANUP_FREE char *chunk_min = header_value(line, size, "oci-chunk-min-length");

    t->head_size += size;
    if (t->head_size > REGISTRY_HEAD_MAX) {
        error_set(&t->error, ERROR_TOO_LARGE, 0, "the head of its answer has more than %d bytes",
                  REGISTRY_HEAD_MAX);
        return 0;
    }
    if (size > 5 && strncmp(line, "HTTP/", 5) == 0)
        head_begins(t);
    header_keep(&t->response.content_type, header_value(line, size, "content-type"));
    header_keep(&t->response.digest, header_value(line, size, "docker-content-digest"));
    header_keep(&t->response.location, header_value(line, size, "location"));
    if (range && str_starts(range, "bytes "))
        t->response.range_start = strtoull(range + strlen("bytes "), NULL, 10);
    if (uploaded)
        upload_range(&t->response, uploaded);
    if (chunk_min && !str_to_u64(chunk_min, 0, INT64_MAX, &t->response.chunk_min))
        t->response.chunk_min = 0;
    if (challenge) {
        char *all = t->challenge ? str_printf("%s, %s", t->challenge, challenge) : take(challenge);
        header_keep(&t->challenge, all);
    }
    return size;
}

static size_t body_came(char *data, size_t one, size_t size, void *arg)
{
    struct transfer *t = arg;
    const struct registry_request *request = &t->request;
    struct response *response = &t->response;

    response->status = easy_status(t->easy);
    if (response->status >= HTTP_OK_END) {
        if (t->refusal.len + size <= REGISTRY_ERROR_MAX)
            buf_append(&t->refusal, data, size);
        return size;
    }
    if (request->data)
        return request->data(request->arg, response, data, size, &t->error) < 0 ? 0 : size;
    if (response->body.len + size > request->body_max) {
        error_set(&t->error, ERROR_TOO_LARGE, 0, "its answer has more than %llu bytes",
                  (unsigned long long)request->body_max);
        return 0;
    }
    buf_append(&response->body, data, size);
    return size;
}

/* ---- what goes out -------------------------------------------------------------------------- */

static size_t body_goes(char *to, size_t one, size_t size, void *arg)
{
    struct transfer *t = arg;
    const struct registry_request *request = &t->request;
    uint64_t left = request->size - t->sent;
    size_t n = size < left ? size : (size_t)left;

    if (request->body) {
        memcpy(to, request->body + t->sent, n);
    } else {
        ssize_t got =
            TEMP_FAILURE_RETRY(pread(request->fd, to, n, (off_t)(request->offset + t->sent)));
        if (got < 0 || (got == 0 && n > 0)) {
            error_set(&t->error, ERROR_IO, got < 0 ? errno : EIO, "read what is to be sent");
            return CURL_READFUNC_ABORT;
        }
        n = (size_t)got;
    }
    t->sent += n;
    if (request->sent && request->sent(request->sent_arg, t->sent, &t->error) < 0)
        return CURL_READFUNC_ABORT;
    return n;
}

static int body_again(void *arg, curl_off_t offset, int origin)
{
    struct transfer *t = arg;

    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* Everything that a stranger could lead us to is decided here. */
void easy_guard(const struct registry *r, CURL *easy, const char *url)
{
    CLEANUP_FREE char *host = url_host(url);
    CLEANUP_FREE char *ca = certs_file(r, host, "ca.crt");
    CLEANUP_FREE char *cert = certs_file(r, host, "client.cert");
    CLEANUP_FREE char *key = certs_file(r, host, "client.key");
    long stall_s = (long)(r->settings->stall_ms + 999) / 1000;
    bool tls = !str_starts(url, "http://");

    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, tls ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)REGISTRY_REDIRECTS_MAX);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)r->settings->stall_ms);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)REGISTRY_SPEED_MIN);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, stall_s);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "husk/" HUSK_VERSION);
    /* Layers come in parallel: a connection each is faster than streams that share one. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (registry_is_loopback(host))
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (ca)
        curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
    if (cert && key) {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, cert);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, key);
    }
}

/* To the registry itself only: an upload may go to another host, and libcurl does not send these
 * where it is redirected to. */
static void easy_identify(const struct registry *r, CURL *easy, const char *url)
{
    const struct credentials *c = r->credentials;
    CLEANUP_FREE char *host = url_host(url);

    if (r->scheme == SCHEME_UNKNOWN || strcmp(host, address_of(r->host)) != 0)
        return;
    if (r->token) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, r->token);
    } else if (r->basic && c->user) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        curl_easy_setopt(easy, CURLOPT_USERNAME, c->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, str_or(c->password, ""));
    }
}

static void header_add(struct transfer *t, const char *name, const char *value)
{
    CLEANUP_FREE char *line = value ? str_printf("%s: %s", name, value) : NULL;

    if (line)
        t->headers = curl_slist_append(t->headers, line);
}

static void easy_method(struct transfer *t)
{
    const struct registry_request *request = &t->request;

    if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
        return;
    }
    if (strcmp(request->method, "GET") == 0)
        return;
    curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, request->method);
    curl_easy_setopt(t->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->size);
    curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, body_goes);
    curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_SEEKFUNCTION, body_again);
    curl_easy_setopt(t->easy, CURLOPT_SEEKDATA, t);
}

/* Puts a request on its way, for the first time or again. */
static void transfer_start(struct transfer *t)
{
    struct registry *r = t->registry;
    CLEANUP_FREE char *url = url_of(r, t->path);
    CLEANUP_FREE char *range =
        t->request.from ? str_printf("%llu-", (unsigned long long)t->request.from) : NULL;
    CLEANUP_FREE char *piece =
        t->request.chunk ? str_printf("%llu-%llu", (unsigned long long)t->request.offset,
                                      (unsigned long long)(t->request.offset + t->request.size - 1))
                         : NULL;

    curl_multi_remove_handle(r->multi, t->easy);
    curl_easy_reset(t->easy);
    curl_slist_free_all(take(t->headers));
    head_begins(t);
    buf_clear(&t->refusal);
    t->head_size = 0;
    t->sent = 0;
    t->token_number = r->token_number;
    easy_guard(r, t->easy, url);
    easy_identify(r, t->easy, url);
    easy_method(t);
    header_add(t, "Accept", t->request.accept);
    header_add(t, "Content-Type", t->request.type);
    if (piece)
        header_add(t, "Content-Range", piece);
    t->headers = curl_slist_append(t->headers, "Expect:");
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    if (range)
        curl_easy_setopt(t->easy, CURLOPT_RANGE, range);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, header_came);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, body_came);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->reason);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_multi_add_handle(r->multi, t->easy);
}

void registry_send(struct registry *r, const struct registry_request *request)
{
    struct transfer *t = xcalloc(1, sizeof(*t));

    t->registry = r;
    t->request = *request;
    t->path = xstrdup(request->path);
    t->easy = curl_easy_init();
    DL_APPEND(r->transfers, t);
    transfer_start(t);
}

/* ---- the end of a request ------------------------------------------------------------------- */

/* What the registry itself says, {"errors":[{"code":…,"message":…}]}; owned, "" if nothing. */
static char *refusal_text(const struct transfer *t)
{
    json_t *json = json_loadb((const char *)t->refusal.data, t->refusal.len, 0, NULL);
    const json_t *first = json_array_get(json_object_get(json, "errors"), 0);
    const char *message = json_string_value(json_object_get(first, "message"));
    char *text = message ? str_printf(": %.*s", QUOTE_MAX, message) : xstrdup("");

    json_decref(json);
    str_make_plain(text);
    return text;
}

static int status_error(struct transfer *t, struct error **ret_error)
{
    long status = t->response.status;
    CLEANUP_FREE char *text = refusal_text(t);
    enum error_kind kind = status == HTTP_UNAUTHORIZED   ? ERROR_UNAUTHORIZED
                           : status == HTTP_FORBIDDEN    ? ERROR_DENIED
                           : status == HTTP_NOT_FOUND    ? ERROR_NOT_FOUND
                           : status == HTTP_TOO_MANY     ? ERROR_LIMIT
                           : status >= HTTP_SERVER_ERROR ? ERROR_UNAVAILABLE
                                                         : ERROR_CORRUPT;

    t->response.transient =
        status >= HTTP_SERVER_ERROR || status == HTTP_TOO_MANY || status == HTTP_TIMEOUT;
    return error_set(ret_error, kind, 0, "it answers with status %ld%s", status, text);
}

/* A proxy's refusal of a tunnel is no answer of the registry's. */
static bool proxy_refuses(const struct transfer *t)
{
    long status = 0;

    curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &status);
    return status == HTTP_PROXY_AUTH;
}

static int proxy_error(struct error **ret_error)
{
    return error_set(ret_error, ERROR_DENIED, 0,
                     "the proxy refuses the credentials (status %d): put the right ones into "
                     "HTTPS_PROXY or http_proxy of the daemon's environment",
                     HTTP_PROXY_AUTH);
}

/* TLS 1.3 tells of our certificate after the handshake, and libcurl keeps no number of the alert.
 */
static bool wants_certificate(const char *reason)
{
    return strstr(reason, " alert ") &&
           (strstr(reason, "certificate") || strstr(reason, "unknown ca"));
}

static int tls_error(const struct transfer *t, CURLcode code, const char *reason,
                     struct error **ret_error)
{
    const struct registry *r = t->registry;
    const char *certs = str_or(r->settings->certs, "the directory of registries");

    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return error_set(ret_error, ERROR_DENIED, 0,
                         "its certificate is not trusted (%s): if it should be, put its CA into "
                         "'%s/%s/ca.crt'",
                         reason, certs, r->host);
    if (code == CURLE_SSL_CERTPROBLEM)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'%s/%s/client.cert' and 'client.key' are no certificate and its key (%s)",
                         certs, r->host, reason);
    if (wants_certificate(reason))
        return error_set(ret_error, ERROR_DENIED, 0,
                         "it wants a client certificate that it knows (%s): put one into "
                         "'%s/%s/client.cert', its key into 'client.key'",
                         reason, certs, r->host);
    return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                     "TLS cannot be spoken with it (%s): if it has none, name it in the "
                     "setting insecure_registries",
                     reason);
}

static int curl_error(struct transfer *t, CURLcode code, struct error **ret_error)
{
    const char *reason = str_or(t->reason, curl_easy_strerror(code));

    if (t->error)
        return error_move(ret_error, &t->error);
    if (proxy_refuses(t))
        return proxy_error(ret_error);
    if (wants_certificate(reason))
        code = CURLE_SSL_CONNECT_ERROR;
    switch (code) {
    case CURLE_TOO_MANY_REDIRECTS:
        return error_set(ret_error, ERROR_CORRUPT, 0, "it redirects more than %d times",
                         REGISTRY_REDIRECTS_MAX);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return error_set(ret_error, ERROR_DENIED, 0,
                         "it redirects to a protocol that is not allowed");
    case CURLE_OUT_OF_MEMORY: /* what libcurl says of a header that it cannot hold */
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "the head of its answer is too large");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CONNECT_ERROR:
        return tls_error(t, code, reason, ret_error);
    case CURLE_OPERATION_TIMEDOUT:
        t->response.transient = true;
        return error_set(ret_error, ERROR_TIMEOUT, 0, "it made no progress for %u s",
                         t->registry->settings->stall_ms / 1000);
    default:
        t->response.transient = true;
        return error_set(ret_error, ERROR_UNAVAILABLE, 0, "%s", reason);
    }
}

/* A registry that may have no TLS is first asked without, and without credentials. One that has
 * TLS answers 400 or hangs up; and the ports of the two differ if none is named. */
static bool scheme_moves_on(struct transfer *t, CURLcode code)
{
    struct registry *r = t->registry;
    bool hung_up = code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING ||
                   code == CURLE_WEIRD_SERVER_REPLY ||
                   (code == CURLE_COULDNT_CONNECT && !strchr(r->host, ':'));

    if (r->scheme != SCHEME_UNKNOWN)
        return false;
    bool tls = hung_up || (code == CURLE_OK && t->response.status == HTTP_BAD_REQUEST);
    if (tls || t->response.status)
        r->scheme = tls ? SCHEME_HTTPS : SCHEME_HTTP;
    return tls;
}

static void transfer_ended(struct transfer *t, CURLcode code)
{
    struct registry *r = t->registry;
    struct error *error = NULL;

    t->response.status = easy_status(t->easy);
    if (scheme_moves_on(t, code)) {
        transfer_start(t);
        return;
    }
    if (code != CURLE_OK) {
        curl_error(t, code, &error);
    } else if (t->response.status == HTTP_UNAUTHORIZED) {
        if (transfer_authorise(t, &error) == 0) {
            transfer_start(t);
            return;
        }
    } else if (t->response.status == HTTP_PROXY_AUTH) {
        proxy_error(&error);
    } else if (t->response.status >= HTTP_OK_END) {
        status_error(t, &error);
    }
    error_wrap(&error, "registry '%s'", r->host);
    curl_multi_remove_handle(r->multi, t->easy);
    t->request.done(t->request.arg, &t->response, error);
    transfer_free(t);
}

int registry_run(struct registry *r, struct pollfd *others, unsigned count, int timeout_ms,
                 struct error **ret_error)
{
    struct curl_waitfd fds[4] = {{0}};
    int running, left;
    CURLMsg *message;

    for (unsigned i = 0; i < count && i < ARRAY_SIZE(fds); i++)
        fds[i] = (struct curl_waitfd){.fd = others[i].fd, .events = CURL_WAIT_POLLIN};
    if (curl_multi_perform(r->multi, &running) != CURLM_OK ||
        curl_multi_poll(r->multi, fds, count, timeout_ms, NULL) != CURLM_OK ||
        curl_multi_perform(r->multi, &running) != CURLM_OK)
        return error_set(ret_error, ERROR_INTERNAL, 0, "libcurl does not work");
    for (unsigned i = 0; i < count; i++)
        others[i].revents = fds[i].revents;
    while ((message = curl_multi_info_read(r->multi, &left))) {
        struct transfer *t = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
        transfer_ended(t, code);
    }
    return 0;
}

/* ---- one request ---------------------------------------------------------------------------- */

struct waiting {
    bool ended;
    struct response *response;
    struct error *error;
};

static void call_ended(void *arg, struct response *response, struct error *error)
{
    struct waiting *w = arg;

    w->ended = true;
    w->error = error;
    *w->response = *response;
    *response = (struct response){0};
}

int registry_call(struct registry *r, const struct registry_request *request, struct response *ret,
                  struct error **ret_error)
{
    enum { TICK_MS = 1000 };
    struct waiting waiting = {.response = ret};
    struct registry_request copy = *request;

    copy.data = NULL;
    copy.done = call_ended;
    copy.arg = &waiting;
    *ret = (struct response){0};
    registry_send(r, &copy);
    while (!waiting.ended)
        if (registry_run(r, NULL, 0, TICK_MS, ret_error) < 0)
            return -1;
    return waiting.error ? error_move(ret_error, &waiting.error) : 0;
}
