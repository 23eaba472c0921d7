/* Names of images, as people type them and as they are kept.
 *
 *      reference   = name [":" tag] ["@" digest]
 *      name        = [domain "/"] component {"/" component}          at most 255 characters
 *                    with the default domain
 *      domain      = (word {"." word} | "[" IPv6 "]") [":" port]
 *      component   = lower-case letters and digits, joined by ".", "_", "__" or hyphens
 *      tag         = a letter, digit or "_", then at most 127 of these, "." and "-"
 *      digest      = "sha256:" and 64 lower-case hexadecimal digits
 *
 * (github.com/distribution/reference.) The first component is a domain only if it has a "." or a
 * ":", or is "localhost", or has an upper-case letter. Without a domain it is docker.io, where a
 * single component is below "library/"; without tag and digest the tag is "latest". So "busybox"
 * is kept as "docker.io/library/busybox:latest", and shown as "busybox:latest".
 */
#ifndef HUSK_IMAGE_REFERENCE_H
#define HUSK_IMAGE_REFERENCE_H

#include <stdbool.h>

#include "base/error.h"

enum {
    REFERENCE_NAME_MAX = 255,
    REFERENCE_TAG_MAX = 128,
    REFERENCE_DIGEST_HEX = 64,
};

/* All owned; filled with the defaults, so that two references are equal if their texts are. */
struct reference {
    char *domain; /* "docker.io" */
    char *path;   /* "library/busybox" */
    char *tag;    /* "latest"; NULL if there is only a digest */
    char *digest; /* "sha256:…" or NULL */
};

/* ERROR_INVALID with a sentence that quotes the text. After an error there is nothing to free. */
int reference_parse(const char *text, struct reference *ret, struct error **ret_error);
void reference_done(struct reference *ref);
#define CLEANUP_REFERENCE __attribute__((cleanup(reference_done)))

/* "docker.io/library/busybox:latest"; the caller owns it. */
char *reference_full(const struct reference *ref);
/* "busybox:latest": without what reference_parse() would add again; the tag stays. */
char *reference_familiar(const struct reference *ref);
/* "busybox" or "ghcr.io/a/b": the familiar form without tag and digest. */
char *reference_repository(const struct reference *ref);

/* The full form of any text; NULL and *ret_error if it is not a reference. */
char *reference_normalise(const char *text, struct error **ret_error);
/* The familiar form of any text; a copy of the text if it is not a reference. */
char *reference_shorten(const char *text);

/* "sha256:" and 64 lower-case hexadecimal digits. */
bool reference_is_digest(const char *text);

#endif
