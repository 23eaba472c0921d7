#include "image/reference.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define LOWER         "abcdefghijklmnopqrstuvwxyz"
#define UPPER         "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS        "0123456789"
#define DEFAULT_HOST  "docker.io"
#define LEGACY_HOST   "index.docker.io"
#define DEFAULT_PATH  "library/"
#define DEFAULT_TAG   "latest"
#define DIGEST_PREFIX "sha256:"

enum { PORT_DIGITS_MAX = 5 };

bool reference_is_digest(const char *text)
{
    if (!text || !str_starts(text, DIGEST_PREFIX))
        return false;
    const char *hex = text + strlen(DIGEST_PREFIX);

    return strlen(hex) == REFERENCE_DIGEST_HEX &&
           strspn(hex, DIGITS "abcdef") == REFERENCE_DIGEST_HEX;
}

static bool is_tag(const char *tag)
{
    size_t length = strlen(tag);

    return length > 0 && length <= REFERENCE_TAG_MAX && tag[0] != '.' && tag[0] != '-' &&
           strspn(tag, LOWER UPPER DIGITS "_.-") == length;
}

/* The length of ".", "_", "__" or of a run of hyphens; 0 if s starts with none of them. */
static size_t separator_length(const char *s)
{
    if (*s == '-')
        return strspn(s, "-");
    if (*s == '.')
        return 1;
    if (*s == '_')
        return s[1] == '_' ? 2 : 1;
    return 0;
}

/* Letters-or-digits, then separators each followed by more of them. */
static bool is_component(const char *s)
{
    for (;;) {
        size_t length = strspn(s, LOWER DIGITS);
        if (length == 0)
            return false;
        s += length;
        if (!*s)
            return true;
        length = separator_length(s);
        if (length == 0)
            return false;
        s += length;
    }
}

static bool is_path(const char *path)
{
    CLEANUP_STRV char **components = str_split(path, '/');

    STRV_FOREACH(component, components)
        if (!is_component(*component))
            return false;
    return components != NULL;
}

static bool is_host_word(const char *word)
{
    size_t length = strlen(word);

    return length > 0 && word[0] != '-' && word[length - 1] != '-' &&
           strspn(word, LOWER UPPER DIGITS "-") == length;
}

static bool is_host(const char *host)
{
    size_t length = strlen(host);

    if (host[0] == '[')
        return length > 2 && host[length - 1] == ']' &&
               strspn(host + 1, DIGITS "abcdefABCDEF:") == length - 2;
    CLEANUP_STRV char **words = str_split(host, '.');
    STRV_FOREACH(word, words)
        if (!is_host_word(*word))
            return false;
    return words != NULL;
}

static bool is_domain(const char *domain)
{
    CLEANUP_FREE char *host = xstrdup(domain);
    const char *bracket = strchr(host, ']');
    char *colon = strchr(bracket ? bracket : host, ':');

    if (colon) {
        *colon = '\0';
        size_t length = strlen(colon + 1);
        if (length == 0 || length > PORT_DIGITS_MAX || strspn(colon + 1, DIGITS) != length)
            return false;
    }
    return is_host(host);
}

/* Whether the first component, `length` long, can only be a domain. */
static bool looks_like_domain(const char *name, size_t length)
{
    CLEANUP_FREE char *first = xstrndup(name, length);

    return strpbrk(first, ".:" UPPER) != NULL || strcmp(first, "localhost") == 0;
}

/* Cuts "@digest" and ":tag" off the text; what is left is the name. */
static const char *suffixes_take(char *text, struct reference *ref)
{
    char *at = strchr(text, '@');

    if (at) {
        *at = '\0';
        if (!reference_is_digest(at + 1))
            return "its digest is not 'sha256:' and 64 hexadecimal digits";
        ref->digest = xstrdup(at + 1);
    }
    char *slash = strrchr(text, '/');
    char *colon = strrchr(slash ? slash : text, ':');
    if (colon) {
        *colon = '\0';
        if (!is_tag(colon + 1))
            return "its tag has characters that a tag may not have, or is too long";
        ref->tag = xstrdup(colon + 1);
    } else if (!at) {
        ref->tag = xstrdup(DEFAULT_TAG);
    }
    return NULL;
}

static const char *name_take(const char *name, struct reference *ref)
{
    const char *slash = strchr(name, '/');
    const char *path = name;

    if (slash && looks_like_domain(name, (size_t)(slash - name))) {
        ref->domain = xstrndup(name, (size_t)(slash - name));
        path = slash + 1;
        if (!is_domain(ref->domain))
            return "its host is not a host name";
    }
    if (!ref->domain || strcmp(ref->domain, LEGACY_HOST) == 0)
        str_set(&ref->domain, DEFAULT_HOST);
    if (strpbrk(path, UPPER))
        return "its name must be in lower case";
    if (!is_path(path))
        return "its name is not made of letters, digits and single separators";
    bool official = strcmp(ref->domain, DEFAULT_HOST) == 0 && !strchr(path, '/');
    ref->path = str_printf("%s%s", official ? DEFAULT_PATH : "", path);
    /* With what was added, or the full form would not be a name any more. */
    if (strlen(ref->domain) + 1 + strlen(ref->path) > REFERENCE_NAME_MAX)
        return "its name is too long";
    return NULL;
}

int reference_parse(const char *text, struct reference *ret, struct error **ret_error)
{
    CLEANUP_REFERENCE struct reference ref = {0};
    CLEANUP_FREE char *rest = xstrdup(text);

    const char *wrong = suffixes_take(rest, &ref);
    if (!wrong)
        wrong = name_take(rest, &ref);
    if (wrong)
        return error_set(ret_error, ERROR_INVALID, 0, "'%.300s' does not name an image: %s", text,
                         wrong);
    *ret = ref;
    ref = (struct reference){0};
    return 0;
}

void reference_done(struct reference *ref)
{
    free(ref->domain);
    free(ref->path);
    free(ref->tag);
    free(ref->digest);
    *ref = (struct reference){0};
}

static char *with_suffixes(const struct reference *ref, const char *name)
{
    return str_printf("%s%s%s%s%s", name, ref->tag ? ":" : "", str_or(ref->tag, ""),
                      ref->digest ? "@" : "", str_or(ref->digest, ""));
}

char *reference_full(const struct reference *ref)
{
    CLEANUP_FREE char *name = str_printf("%s/%s", ref->domain, ref->path);

    return with_suffixes(ref, name);
}

char *reference_repository(const struct reference *ref)
{
    if (strcmp(ref->domain, DEFAULT_HOST) != 0)
        return str_printf("%s/%s", ref->domain, ref->path);
    const char *path = ref->path;
    const char *official = path + strlen(DEFAULT_PATH);

    /* Only what comes back: "library/a/b" is not what "a/b" means, and a first component that
     * looks like a host must keep its own. */
    if (str_starts(path, DEFAULT_PATH))
        return xstrdup(strchr(official, '/') ? path : official);
    if (looks_like_domain(path, strcspn(path, "/")))
        return str_printf("%s/%s", ref->domain, path);
    return xstrdup(path);
}

char *reference_familiar(const struct reference *ref)
{
    CLEANUP_FREE char *name = reference_repository(ref);

    return with_suffixes(ref, name);
}

char *reference_normalise(const char *text, struct error **ret_error)
{
    CLEANUP_REFERENCE struct reference ref = {0};

    if (reference_parse(text, &ref, ret_error) < 0)
        return NULL;
    return reference_full(&ref);
}

char *reference_shorten(const char *text)
{
    CLEANUP_REFERENCE struct reference ref = {0};

    if (reference_parse(text, &ref, NULL) < 0)
        return xstrdup(text);
    return reference_familiar(&ref);
}
