/* Who we are, told to a registry that asks: basic credentials, or a token of its token server. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "image/registry_int.h"

enum { AUTH_TRIES = 2 };

char *url_host(const char *url)
{
    const char *start = strstr(url, "://");

    start = start ? start + 3 : url;
    return xstrndup(start, strcspn(start, "/?#"));
}

long easy_status(CURL *easy)
{
    long status = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* ---- tokens --------------------------------------------------------------------------------- */

static size_t token_came(char *data, size_t one, size_t size, void *arg)
{
    struct buf *answer = arg;

    if (answer->len + size > TOKEN_ANSWER_MAX)
        return 0;
    buf_append(answer, data, size);
    return size;
}

/* Asks the token server. The other requests stand still meanwhile: it is one short answer. */
static int token_ask(struct registry *r, const char *url, const char *form, struct buf *answer,
                     struct error **ret_error)
{
    const struct credentials *c = r->credentials;
    char reason[CURL_ERROR_SIZE] = "";
    CURL *easy = curl_easy_init();

    easy_guard(r, easy, url);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)r->settings->stall_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, token_came);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
    if (form) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, form);
    } else if (c->user) {
        curl_easy_setopt(easy, CURLOPT_USERNAME, c->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, str_or(c->password, ""));
    }
    CURLcode code = curl_easy_perform(easy);
    long status = easy_status(easy);
    curl_easy_cleanup(easy);
    CLEANUP_FREE char *host = url_host(url);
    if (code == CURLE_WRITE_ERROR)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the token server '%.200s' answers with more than %d bytes", host,
                         TOKEN_ANSWER_MAX);
    if (code != CURLE_OK)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                         "the token server '%.200s' cannot be asked: %s", host,
                         str_or(reason, curl_easy_strerror(code)));
    if (status == HTTP_UNAUTHORIZED || status == HTTP_FORBIDDEN)
        return error_set(ret_error, ERROR_UNAUTHORIZED, 0, "the token server '%.200s' refuses %s",
                         host, credentials_are_there(c) ? "the credentials" : "anybody unknown");
    if (status >= HTTP_OK_END)
        return error_set(ret_error, ERROR_UNAVAILABLE, 0,
                         "the token server '%.200s' answers with status %ld", host, status);
    return 0;
}

static int token_get(struct registry *r, const struct challenge *challenge,
                     struct error **ret_error)
{
    const struct credentials *c = r->credentials;
    CLEANUP_BUF struct buf answer = {0};
    CLEANUP_FREE char *wanted =
        *r->repository ? str_printf("repository:%s:%s", r->repository, r->actions) : NULL;
    const char *scope = wanted ? wanted : challenge->scope;
    bool refresh = !str_empty(c->identity_token);
    bool plain = r->scheme == SCHEME_HTTP && str_starts(challenge->realm, "http://");

    if (strlen(challenge->realm) > REGISTRY_URL_MAX ||
        (!plain && !str_starts(challenge->realm, "https://")))
        return error_set(ret_error, ERROR_DENIED, 0,
                         "it sends us to '%.200s' for a token, where credentials would not be safe",
                         challenge->realm);
    CLEANUP_FREE char *url =
        refresh ? xstrdup(challenge->realm) : token_url(challenge, scope, c->user);
    char *form = refresh ? token_form(challenge, scope, c->identity_token) : NULL;
    int result = token_ask(r, url, form, &answer, ret_error);
    secret_free(form);
    if (result < 0)
        return -1;
    char *token = token_parse((const char *)answer.data, answer.len, ret_error);
    if (!token)
        return -1;
    secret_free(r->token);
    r->token = token;
    r->token_number++;
    return 0;
}

static int refused(const struct registry *r, struct error **ret_error)
{
    const char *server = credentials_server(r->host);

    if (credentials_are_there(r->credentials))
        return error_set(ret_error, ERROR_UNAUTHORIZED, 0,
                         "it refuses the credentials%s%s: log in again with 'husk login %s'",
                         r->credentials->user ? " of " : "", str_or(r->credentials->user, ""),
                         strcmp(server, r->host) == 0 ? server : "");
    return error_set(ret_error, ERROR_UNAUTHORIZED, 0,
                     "authentication is required, or '%s' does not exist: log in with "
                     "'husk login %s'",
                     str_or(r->repository, r->host), strcmp(server, r->host) == 0 ? server : "");
}

int transfer_authorise(struct transfer *t, struct error **ret_error)
{
    struct registry *r = t->registry;
    struct challenge challenge;

    if (!t->challenge || t->auth_tries++ >= AUTH_TRIES)
        return refused(r, ret_error);
    if (t->token_number != r->token_number) /* another request has got a new one meanwhile */
        return 0;
    if (challenge_parse(t->challenge, &challenge, ret_error) < 0)
        return -1;
    int result = 0;
    if (challenge.scheme == CHALLENGE_BEARER)
        result = token_get(r, &challenge, ret_error);
    else if (challenge.scheme == CHALLENGE_BASIC && !r->basic && r->credentials->user)
        r->basic = true;
    else
        result = refused(r, ret_error);
    challenge_done(&challenge);
    return result;
}
