/* The user's credentials for registries, where docker keeps them.
 *
 * $DOCKER_CONFIG/config.json or ~/.docker/config.json: `auths`, and the programs that `credHelpers`
 * and `credsStore` name, which are asked with docker's protocol (docker-credential-NAME get). They
 * go to the daemon with the request that needs them, and are not kept there.
 */
#ifndef HUSK_HUSK_CREDENTIALS_H
#define HUSK_HUSK_CREDENTIALS_H

#include "base/error.h"

enum {
    CREDENTIALS_CONFIG_MAX = 1 << 20,  /* bytes of a config.json */
    CREDENTIALS_HELPER_MAX = 64 << 10, /* bytes of a helper's answer */
    CREDENTIALS_HELPER_MS = 30000,     /* time for it */
};

/* The line "X-Registry-Auth: …" for the registry of that image, a secret; NULL if the user has no
 * credentials for it. */
int credentials_header(const char *image, char **ret, struct error **ret_error);
/* The same of a user's name and password. */
char *credentials_header_of(const char *server, const char *user, const char *password);

#endif
