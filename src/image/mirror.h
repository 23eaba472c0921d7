/* Mirrors of registries, as the setting registry_mirrors names them.
 *
 *      mirror  = registry "=" [scheme "://"] host [":" port] {"/" component} ["/"]
 *
 * What is behind the host is put before the path of each image, so that with a mirror
 * https://mirror.example/hub the image docker.io/library/busybox is asked for at
 * https://mirror.example/v2/hub/library/busybox/…; "v2" as the first component is left out, for
 * those who name the whole. The scheme is "https", or "http" where plain HTTP is allowed; without
 * one it is found out, as for any registry.
 */
#ifndef HUSK_IMAGE_MIRROR_H
#define HUSK_IMAGE_MIRROR_H

#include <stdbool.h>

#include "base/error.h"

/* All owned: mirror_done(). */
struct mirror {
    char *registry; /* "docker.io" */
    char *host;     /* "mirror.example:5000" */
    char *prefix;   /* "hub/", or "" */
    bool plain;     /* it says "http" … */
    bool tls;       /* … or "https" */
};

/* ERROR_INVALID with a sentence that quotes the text. After an error there is nothing to free. */
int mirror_parse(const char *text, struct mirror *ret, struct error **ret_error);
void mirror_done(struct mirror *mirror);
#define CLEANUP_MIRROR __attribute__((cleanup(mirror_done)))

#endif
