/* The inside of a registry's client: for registry.c and registry_auth.c only. */
#ifndef HUSK_IMAGE_REGISTRY_INT_H
#define HUSK_IMAGE_REGISTRY_INT_H

#include <curl/curl.h>

#include "image/registry.h"

enum { HTTP_OK_END = 300, HTTP_UNAUTHORIZED = 401, HTTP_FORBIDDEN = 403 };

enum scheme { SCHEME_UNKNOWN, SCHEME_HTTPS, SCHEME_HTTP };

/* A request that is under way. */
struct transfer {
    struct transfer *prev, *next;
    struct registry *registry;
    struct registry_request request;
    CURL *easy;
    struct curl_slist *headers;
    char *path;
    struct response response;
    char *challenge; /* WWW-Authenticate, all of them */
    struct buf refusal;
    size_t head_size;
    uint64_t sent;
    int auth_tries;
    unsigned token_number; /* of the registry, when it was sent */
    struct error *error;   /* of our own, met inside of libcurl */
    char reason[CURL_ERROR_SIZE];
};

struct registry {
    const struct registry_settings *settings;
    const char *host, *repository, *actions;
    const struct credentials *credentials;
    CURLM *multi;
    struct transfer *transfers;
    enum scheme scheme;
    bool plain_allowed;
    bool basic; /* it asked for it */
    char *token;
    unsigned token_number; /* of tokens that there were so far */
};

/* Sets what a stranger must not decide: protocols, certificates, redirects, times. */
void easy_guard(const struct registry *r, CURL *easy, const char *url);
long easy_status(CURL *easy);
/* "host:port" of a URL; owned. */
char *url_host(const char *url);
/* After a 401: gets ready to ask once more. */
int transfer_authorise(struct transfer *t, struct error **ret_error);

#endif
