/* The daemon's own credentials for registries: ROOT/credentials.json, in the format of docker's
 * config.json, mode 0600. Only processes that speak with registries read and write it.
 */
#ifndef HUSK_IMAGE_LOGIN_H
#define HUSK_IMAGE_LOGIN_H

#include "image/auth.h"
#include "image/registry.h"

/* What it says of a registry; none if there is no such file. */
int credentials_load(const char *root, const char *domain, struct credentials *ret,
                     struct error **ret_error);
/* Notes them; NULL forgets, and what was not there is ERROR_NOT_FOUND. Durable when it returns. */
int credentials_store(const char *root, const char *domain, const struct credentials *credentials,
                      struct error **ret_error);

/* Whether the registry takes them: ERROR_UNAUTHORIZED if not. */
int registry_login(const struct registry_settings *settings, const char *domain,
                   const struct credentials *credentials, struct error **ret_error);

#endif
