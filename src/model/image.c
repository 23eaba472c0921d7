#include "model/image.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/str.h"

#define DOMAIN_DEFAULT "docker.io"
#define LIBRARY_PREFIX "library/"

/* ---- names ---------------------------------------------------------------------------------- */

/* The first part names a registry if it has a dot or a port, or is localhost; distribution spec. */
static bool is_domain(const char *part, size_t length)
{
    return memchr(part, '.', length) || memchr(part, ':', length) ||
           (length == strlen("localhost") && strncmp(part, "localhost", length) == 0);
}

static bool is_path(const char *s, size_t length)
{
    bool separated = true; /* a part must begin and end with a letter or digit */

    for (size_t i = 0; i < length; i++) {
        bool word = islower((unsigned char)s[i]) || isdigit((unsigned char)s[i]);

        if (!word && !strchr("._-/", s[i]))
            return false;
        if (!word && separated && s[i] == '/')
            return false;
        if (!word && separated && (i == 0 || s[i - 1] == '/'))
            return false;
        separated = !word;
    }
    return length > 0 && !separated;
}

static bool is_tag(const char *s)
{
    size_t length = strlen(s);

    if (length == 0 || length > 128 || *s == '.' || *s == '-')
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
            return false;
    return true;
}

static bool is_digest(const char *s)
{
    if (!str_starts(s, "sha256:") || strlen(s) != IMAGE_ID_LEN)
        return false;
    for (s += strlen("sha256:"); *s; s++)
        if (!isdigit((unsigned char)*s) && (*s < 'a' || *s > 'f'))
            return false;
    return true;
}

int image_name_full(const char *name, char **ret, struct error **ret_error)
{
    const char *slash = strchr(name, '/');
    const char *path = slash && is_domain(name, (size_t)(slash - name)) ? slash + 1 : name;
    const char *at = strchr(path, '@');
    const char *colon = strchr(path, ':');
    const char *tag = colon && (!at || colon < at) ? colon + 1 : NULL;
    size_t length = strlen(path);

    if (tag)
        length = (size_t)(tag - 1 - path);
    else if (at)
        length = (size_t)(at - path);
    CLEANUP_FREE char *tag_text = tag ? xstrndup(tag, at ? (size_t)(at - tag) : strlen(tag)) : NULL;
    bool official = path == name && !memchr(path, '/', length);

    if (strlen(name) > IMAGE_NAME_LEN_MAX || !is_path(path, length) ||
        (tag_text && !is_tag(tag_text)) || (at && !is_digest(at + 1)))
        return error_set(ret_error, ERROR_INVALID, 0, "'%.200s' is not an image name", name);
    *ret = str_printf("%.*s%s%s%.*s%s%s", path == name ? 0 : (int)(slash - name), name,
                      path == name ? DOMAIN_DEFAULT "/" : "/", official ? LIBRARY_PREFIX : "",
                      (int)length, path, at ? "" : ":",
                      at         ? at
                      : tag_text ? tag_text
                                 : "latest");
    return 0;
}

char *image_name_short(const char *full)
{
    if (str_starts(full, DOMAIN_DEFAULT "/" LIBRARY_PREFIX))
        return xstrdup(full + strlen(DOMAIN_DEFAULT "/" LIBRARY_PREFIX));
    if (str_starts(full, DOMAIN_DEFAULT "/"))
        return xstrdup(full + strlen(DOMAIN_DEFAULT "/"));
    return xstrdup(full);
}

/* ---- config --------------------------------------------------------------------------------- */

static int config_string(const json_t *config, const char *key, char **ret,
                         struct error **ret_error)
{
    const json_t *value = json_object_get(config, key);

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return error_set(ret_error, ERROR_INVALID, 0, "image config: '%s' is not a string", key);
    if (json_string_length(value))
        *ret = xstrdup(json_string_value(value));
    return 0;
}

static int config_strings(const json_t *config, const char *key, char ***ret,
                          struct error **ret_error)
{
    const json_t *value = json_object_get(config, key);
    const json_t *item;
    size_t i;

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_array(value))
        return error_set(ret_error, ERROR_INVALID, 0, "image config: '%s' is not a list", key);
    json_array_foreach(value, i, item) {
        if (!json_is_string(item))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "image config: '%s' is not a list of strings", key);
        strv_push(ret, json_string_value(item));
    }
    return 0;
}

static int config_labels(json_t *config, char ***ret, struct error **ret_error)
{
    json_t *labels = json_object_get(config, "Labels");
    const char *key;
    json_t *value;

    if (!labels || json_is_null(labels))
        return 0;
    if (!json_is_object(labels))
        return error_set(ret_error, ERROR_INVALID, 0, "image config: 'Labels' is not an object");
    json_object_foreach(labels, key, value) {
        if (!json_is_string(value))
            return error_set(ret_error, ERROR_INVALID, 0, "image config: a label is not a string");
        strv_push(ret, key);
        strv_push(ret, json_string_value(value));
    }
    return 0;
}

static int config_read(json_t *root, struct image_config *ret, struct error **ret_error)
{
    json_t *config = json_object_get(root, "config");

    if (!config || json_is_null(config))
        return 0;
    if (!json_is_object(config))
        return error_set(ret_error, ERROR_INVALID, 0, "image config: 'config' is not an object");
    if (config_strings(config, "Entrypoint", &ret->entrypoint, ret_error) < 0 ||
        config_strings(config, "Cmd", &ret->command, ret_error) < 0 ||
        config_strings(config, "Env", &ret->env, ret_error) < 0 ||
        config_string(config, "WorkingDir", &ret->workdir, ret_error) < 0 ||
        config_string(config, "User", &ret->user, ret_error) < 0 ||
        config_string(config, "StopSignal", &ret->stop_signal, ret_error) < 0)
        return -1;
    return config_labels(config, &ret->labels, ret_error);
}

int image_config_parse(const char *text, size_t size, struct image_config *ret,
                       struct error **ret_error)
{
    json_error_t why;

    *ret = (struct image_config){0};
    if (size > IMAGE_CONFIG_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "image config is over %d bytes",
                         IMAGE_CONFIG_MAX);
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);

    if (!root)
        return error_set(ret_error, ERROR_INVALID, 0, "image config: line %d, column %d: %s",
                         why.line, why.column, why.text);
    int result = json_is_object(root)
                     ? config_read(root, ret, ret_error)
                     : error_set(ret_error, ERROR_INVALID, 0, "image config is not an object");

    json_decref(root);
    if (result < 0)
        image_config_clear(ret);
    return result;
}

void image_config_clear(struct image_config *config)
{
    strv_free(config->entrypoint);
    strv_free(config->command);
    strv_free(config->env);
    strv_free(config->labels);
    free(config->workdir);
    free(config->user);
    free(config->stop_signal);
    *config = (struct image_config){0};
}
