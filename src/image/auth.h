/* How a registry asks who is there, and how it is answered.
 *
 * Challenges are the WWW-Authenticate headers of RFC 7235; bearer tokens are those of the
 * distribution project's token specification (docs/spec/auth/token.md), asked for with GET, or with
 * POST where there is a refresh token (oauth.md). All of it comes from strangers: every part has a
 * limit. Credentials are wiped when they are done with. Nothing here does I/O.
 */
#ifndef HUSK_IMAGE_AUTH_H
#define HUSK_IMAGE_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    CHALLENGE_MAX = 16 << 10,    /* bytes of a header */
    TOKEN_MAX = 32 << 10,        /* bytes of a token */
    TOKEN_ANSWER_MAX = 64 << 10, /* bytes of what a token comes in */
    CREDENTIALS_MAX = 64 << 10,  /* bytes of an AuthConfig */
};

enum challenge_scheme { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
    enum challenge_scheme scheme; /* NONE: another scheme, which nobody here speaks */
    char *realm, *service, *scope;
};

/* Of one header's value, which may hold several challenges: a bearer one is taken before a basic
 * one. ERROR_CORRUPT for what does not follow the grammar. */
int challenge_parse(const char *header, struct challenge *ret, struct error **ret_error);
void challenge_done(struct challenge *challenge);

/* Who we are to a registry; all owned, each may be NULL. */
struct credentials {
    char *user, *password;
    char *identity_token; /* a refresh token, used instead of the password */
    char *registry_token; /* a bearer token as it is */
};

/* Of docker's AuthConfig, a JSON object; "" gives none. */
int credentials_parse(const char *text, struct credentials *ret, struct error **ret_error);
/* Of a file as ~/.docker/config.json, {"auths":{SERVER:{…}}}: what it says of that server. */
int credentials_find(const char *text, size_t size, const char *server, struct credentials *ret,
                     struct error **ret_error);
bool credentials_are_there(const struct credentials *c);
void credentials_done(struct credentials *c);
/* Overwrites a text before it is freed; NULL is fine. */
void secret_free(char *secret);

/* The name under which docker keeps the credentials for a registry ("docker.io" has another). */
const char *credentials_server(const char *domain);

/* The token in a token server's answer; owned by the caller. */
char *token_parse(const char *text, size_t size, struct error **ret_error);
/* Where to ask for a token: the realm with service, scope and account as its query; owned. */
char *token_url(const struct challenge *challenge, const char *scope, const char *account);
/* The form for an exchange of a refresh token; owned, a secret. */
char *token_form(const struct challenge *challenge, const char *scope, const char *refresh);

#endif
