/* Changes of an image's config, as `commit --change` takes them: instructions of a Dockerfile
 * (docker's "Dockerfile reference"): CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME
 * WORKDIR. They come from whoever may talk to the daemon; every part has a limit. Only for this
 * room.
 */
#ifndef HUSK_IMAGE_CHANGE_H
#define HUSK_IMAGE_CHANGE_H

#include <stdbool.h>

#include <jansson.h>

#include "base/error.h"

enum {
    CHANGE_MAX = 64 << 10, /* bytes of an instruction */
    CHANGES_MAX = 256,
    CHANGE_WORDS_MAX = 1024, /* of an instruction */
};

/* Applies them in their order to the object "config" of an image's config. An entry point takes an
 * inherited command away, unless one of the changes is a command. $NAME and ${NAME} mean variables
 * of the image in all but CMD and ENTRYPOINT. ERROR_INVALID names the change. */
int changes_apply(json_t *config, const char *const *changes, struct error **ret_error);

/* One variable or label of that object, in the place of what had its name. ERROR_INVALID if it is
 * no UTF-8. */
int config_env_set(json_t *config, const char *name, const char *value, struct error **ret_error);
int config_label_set(json_t *config, const char *name, const char *value, struct error **ret_error);

#endif
