#include "image/auth.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/str.h"

static void json_freep(json_t **json)
{
    json_decref(*json);
}
#define CLEANUP_JSON __attribute__((cleanup(json_freep)))

void secret_free(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* ---- challenges ----------------------------------------------------------------------------- */

void challenge_done(struct challenge *challenge)
{
    free(challenge->realm);
    free(challenge->service);
    free(challenge->scope);
    *challenge = (struct challenge){0};
}

static bool is_token_char(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token_length(const char *s)
{
    size_t n = 0;

    while (is_token_char(s[n]))
        n++;
    return n;
}

static const char *blanks_skip(const char *s)
{
    return s + strspn(s, " \t");
}

/* A quoted string or a token at *at; owned, NULL if there is neither. */
static char *value_take(const char **at)
{
    struct buf value = {0};
    const char *s = *at;

    if (*s != '"') {
        size_t n = token_length(s);
        *at = s + n;
        return n ? xstrndup(s, n) : NULL;
    }
    for (s++; *s && *s != '"'; s++) {
        if (*s == '\\' && s[1])
            s++;
        buf_append(&value, s, 1);
    }
    if (*s != '"') {
        buf_release(&value);
        return NULL;
    }
    *at = s + 1;
    return buf_take_str(&value);
}

static void param_keep(struct challenge *c, const char *name, char *value)
{
    char **slot = strcasecmp(name, "realm") == 0     ? &c->realm
                  : strcasecmp(name, "service") == 0 ? &c->service
                  : strcasecmp(name, "scope") == 0   ? &c->scope
                                                     : NULL;

    if (!slot) {
        free(value);
        return;
    }
    free(*slot);
    *slot = value;
}

/* name=value at *at: 1; something else: 0; a value that is none: -1. */
static int param_take(const char **at, struct challenge *c)
{
    size_t n = token_length(*at);
    const char *s = blanks_skip(*at + n);

    if (n == 0 || *s != '=')
        return 0;
    CLEANUP_FREE char *name = xstrndup(*at, n);
    s = blanks_skip(s + 1);
    char *value = value_take(&s);
    if (!value)
        return -1;
    param_keep(c, name, value);
    *at = s;
    return 1;
}

/* One challenge at *at: a scheme, and its parameters up to the next scheme. */
static int one_take(const char **at, struct challenge *c)
{
    size_t n = token_length(*at);
    const char *s = *at + n;

    if (n == 0)
        return -1;
    c->scheme = n == strlen("bearer") && strncasecmp(*at, "bearer", n) == 0 ? CHALLENGE_BEARER
                : n == strlen("basic") && strncasecmp(*at, "basic", n) == 0 ? CHALLENGE_BASIC
                                                                            : CHALLENGE_NONE;
    for (;;) {
        s = blanks_skip(s);
        int got = param_take(&s, c);
        if (got < 0)
            return -1;
        const char *after = blanks_skip(s);
        if (got == 0 || *after != ',') {
            *at = after;
            return 0;
        }
        *at = after; /* where the next challenge is, if no parameter follows */
        s = blanks_skip(after + 1);
        size_t name = token_length(s);
        if (*blanks_skip(s + name) != '=')
            return 0;
    }
}

int challenge_parse(const char *header, struct challenge *ret, struct error **ret_error)
{
    const char *at = blanks_skip(header);
    bool good = strlen(header) <= CHALLENGE_MAX && *at;

    *ret = (struct challenge){0};
    while (good && *at) {
        struct challenge c = {0};
        good = one_take(&at, &c) == 0;
        if (good && c.scheme > ret->scheme) {
            challenge_done(ret);
            *ret = c;
        } else {
            challenge_done(&c);
        }
        if (good && *at && *at != ',')
            good = false;
        at += strspn(at, " \t,");
    }
    if (good && (ret->scheme != CHALLENGE_BEARER || ret->realm))
        return 0;
    challenge_done(ret);
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "the registry asks for authentication in a way that cannot be understood");
}

/* ---- credentials ---------------------------------------------------------------------------- */

void credentials_done(struct credentials *c)
{
    free(c->user);
    secret_free(c->password);
    secret_free(c->identity_token);
    secret_free(c->registry_token);
    *c = (struct credentials){0};
}

bool credentials_are_there(const struct credentials *c)
{
    return !str_empty(c->user) || !str_empty(c->identity_token) || !str_empty(c->registry_token);
}

const char *credentials_server(const char *domain)
{
    return strcmp(domain, "docker.io") == 0 ? "https://index.docker.io/v1/" : domain;
}

static char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return str_empty(text) ? NULL : xstrdup(text);
}

/* "auth" is user:password in base64; the fields by themselves count more. */
static int credentials_read(const json_t *json, struct credentials *ret, struct error **ret_error)
{
    const char *auth = json_string_value(json_object_get(json, "auth"));
    char *pair = str_empty(auth) ? NULL : base64_decode(auth);
    char *colon = pair ? strchr(pair, ':') : NULL;

    *ret = (struct credentials){
        .user = text_of(json, "username"),
        .password = text_of(json, "password"),
        .identity_token = text_of(json, "identitytoken"),
        .registry_token = text_of(json, "registrytoken"),
    };
    if (colon && !ret->user) {
        ret->user = xstrndup(pair, (size_t)(colon - pair));
        secret_free(ret->password);
        ret->password = xstrdup(colon + 1);
    }
    bool damaged = !str_empty(auth) && !colon;
    secret_free(pair);
    if (!json_is_object(json) || damaged) {
        credentials_done(ret);
        return error_set(ret_error, ERROR_INVALID, 0, "credentials are not docker's AuthConfig");
    }
    return 0;
}

int credentials_parse(const char *text, struct credentials *ret, struct error **ret_error)
{
    *ret = (struct credentials){0};
    if (str_empty(text))
        return 0;
    CLEANUP_JSON json_t *json = strlen(text) <= CREDENTIALS_MAX ? json_loads(text, 0, NULL) : NULL;
    return credentials_read(json, ret, ret_error);
}

int credentials_find(const char *text, size_t size, const char *server, struct credentials *ret,
                     struct error **ret_error)
{
    json_error_t why;
    CLEANUP_JSON json_t *json = json_loadb(text, size, 0, &why);
    const json_t *found = json_object_get(json_object_get(json, "auths"), server);

    *ret = (struct credentials){0};
    if (!json)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it is not JSON: line %d: %s", why.line,
                         why.text);
    return found ? credentials_read(found, ret, ret_error) : 0;
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* What may stand in a header: RFC 6750's b64token and what servers put in besides, but no blank
 * and no control character. */
static bool is_sendable(const char *token)
{
    for (const char *s = token; *s; s++)
        if (*s <= ' ' || *s > '~')
            return false;
    return *token && strlen(token) <= TOKEN_MAX;
}

char *token_parse(const char *text, size_t size, struct error **ret_error)
{
    CLEANUP_JSON json_t *json =
        size <= TOKEN_ANSWER_MAX ? json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *token = json_string_value(json_object_get(json, "token"));

    if (!token)
        token = json_string_value(json_object_get(json, "access_token"));
    if (token && is_sendable(token))
        return xstrdup(token);
    error_set(ret_error, ERROR_CORRUPT, 0, "the token server's answer has no token in it");
    return NULL;
}

static void pair_append(struct buf *out, char separator, const char *name, const char *value)
{
    if (str_empty(value))
        return;
    buf_printf(out, "%c%s=", separator, name);
    for (; *value; value++)
        if (isalnum((unsigned char)*value) || strchr("-_.~", *value))
            buf_append(out, value, 1);
        else
            buf_printf(out, "%%%02X", (unsigned char)*value);
}

char *token_url(const struct challenge *challenge, const char *scope, const char *account)
{
    struct buf url = {0};

    buf_append_str(&url, challenge->realm);
    pair_append(&url, strchr(challenge->realm, '?') ? '&' : '?', "service",
                str_or(challenge->service, "registry"));
    pair_append(&url, '&', "scope", scope);
    pair_append(&url, '&', "account", account);
    return buf_take_str(&url);
}

char *token_form(const struct challenge *challenge, const char *scope, const char *refresh)
{
    struct buf form = {0};

    buf_append_str(&form, "grant_type=refresh_token&client_id=husk");
    pair_append(&form, '&', "service", str_or(challenge->service, "registry"));
    pair_append(&form, '&', "scope", scope);
    pair_append(&form, '&', "refresh_token", refresh);
    return buf_take_str(&form);
}
