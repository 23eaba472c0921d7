#include "image/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "image/fetch.h"
#include "image/login.h"
#include "image/manifest.h"
#include "image/mirror.h"
#include "image/place.h"
#include "image/reference.h"

#define ACCEPTED                                                                                   \
    "application/vnd.oci.image.index.v1+json, "                                                    \
    "application/vnd.docker.distribution.manifest.list.v2+json, "                                  \
    "application/vnd.oci.image.manifest.v1+json, "                                                 \
    "application/vnd.docker.distribution.manifest.v2+json"

enum { DEPTH_MAX = 4, SHORT_ID = 12, TICK_MS = 200, TELL_MS = 250 };

/* An index or a manifest as it came. */
struct document {
    char *text;
    size_t size;
    char hex[DIGEST_HEX + 1];
};

struct pulling {
    const struct image_pull *pull;
    struct reference ref;
    const char *host; /* the registry of the reference, or a mirror of it … */
    char *repository; /* … and what the image is called there */
    struct registry *registry;
    struct document documents[DEPTH_MAX]; /* from what the name leads to, down to the manifest */
    size_t document_count;
    struct oci_manifest manifest;
    struct fetches fetches; /* the config is the first, then the layers */
    char *config_text;
    struct image_config config;
    char *platforms; /* what an index offered instead */

    struct image_layer *layers; /* for the preparation */
    struct extraction {
        int64_t told_ms;
        bool done;
    } * extractions;
    int prepare_fd;           /* -1: none is under way */
    struct error *unprepared; /* why the root cannot be prepared */
    char *fresh;
    uint64_t root_size;
    char **files;
    struct placing placing;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- manifests ------------------------------------------------------------------------------ */

static void documents_free(struct pulling *p)
{
    for (size_t i = 0; i < p->document_count; i++)
        free(p->documents[i].text);
    p->document_count = 0;
}

/* The digest that the document must have: of the descriptor that led here, of the reference, or
 * what the registry says itself. */
static int document_check(const struct document *d, const struct descriptor *from,
                          const char *named, const char *served, struct error **ret_error)
{
    const char *wanted = from ? from->digest : named ? strchr(named, ':') + 1 : NULL;

    if (!wanted && reference_is_digest(served))
        wanted = strchr(served, ':') + 1;
    if (wanted && strcmp(wanted, d->hex) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "the content of manifest 'sha256:%s' has the digest 'sha256:%s'", wanted,
                         d->hex);
    if (from && from->size != d->size)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "manifest 'sha256:%s' has %zu bytes, not the %llu of its descriptor",
                         d->hex, d->size, (unsigned long long)from->size);
    return 0;
}

static int missing(const struct pulling *p, struct error **error, struct error **ret_error)
{
    CLEANUP_FREE char *name = reference_familiar(&p->ref);

    if ((*error)->kind != ERROR_NOT_FOUND)
        return error_move(ret_error, error);
    return error_set(ret_error, ERROR_NOT_FOUND, 0, "registry '%s' has no image '%s'", p->host,
                     name);
}

/* Gets one document; `from` NULL: what the reference names. */
static int document_get(struct pulling *p, const struct descriptor *from,
                        enum descriptor_kind *ret_kind, struct error **ret_error)
{
    struct document *d = &p->documents[p->document_count];
    CLEANUP_FREE char *digest = from ? str_printf("sha256:%s", from->digest) : NULL;
    CLEANUP_FREE char *path = str_printf("manifests/%s", digest          ? digest
                                                         : p->ref.digest ? p->ref.digest
                                                                         : p->ref.tag);
    struct registry_request request = {
        .method = "GET", .path = path, .accept = ACCEPTED, .body_max = MANIFEST_MAX};
    CLEANUP_ERROR struct error *error = NULL;
    struct response response;

    int result = registry_call(p->registry, &request, &response, &error);
    if (result == 0) {
        d->size = response.body.len;
        sha256_text(response.body.data, d->size, d->hex);
        CLEANUP_FREE char *type = take(response.content_type);
        CLEANUP_FREE char *served = take(response.digest);
        d->text = buf_take_str(&response.body);
        p->document_count++;
        result = document_check(d, from, p->ref.digest, served, ret_error);
        if (result == 0)
            result = document_kind(d->text, d->size, type, ret_kind, ret_error);
    } else {
        missing(p, &error, ret_error);
    }
    response_done(&response);
    return result;
}

static const struct descriptor *index_choose(struct pulling *p, const struct oci_index *index)
{
    const struct descriptor *bare = NULL;

    for (size_t i = 0; i < index->count; i++) {
        const struct descriptor *d = &index->items[i];
        if (d->kind == DESCRIPTOR_OTHER)
            continue;
        if (str_eq(d->platform, IMAGE_PLATFORM))
            return d;
        if (!d->platform && !bare)
            bare = d;
        if (!d->platform || str_starts(d->platform, "unknown/")) /* attestations */
            continue;
        CLEANUP_FREE char *before = p->platforms;
        p->platforms =
            str_printf("%s%s'%.40s'", before ? before : "", before ? ", " : "", d->platform);
    }
    return bare;
}

/* From what the name leads to, through indexes, to the manifest for this machine. */
static int manifest_get(struct pulling *p, struct error **ret_error)
{
    struct oci_index index = {0};
    const struct descriptor *from = NULL;
    enum descriptor_kind kind;
    int result;

    for (;;) {
        result = document_get(p, from, &kind, ret_error);
        oci_index_done(&index);
        if (result < 0 || kind != DESCRIPTOR_INDEX)
            break;
        const struct document *d = &p->documents[p->document_count - 1];
        if (p->document_count == DEPTH_MAX)
            return error_set(ret_error, ERROR_CORRUPT, 0, "its indexes lie more than %d deep",
                             DEPTH_MAX - 1);
        if (oci_index_parse(d->text, d->size, &index, ret_error) < 0)
            return -1;
        from = index_choose(p, &index);
        if (from)
            continue;
        oci_index_done(&index);
        return error_set(ret_error, ERROR_UNSUPPORTED, 0, "there is no image for '%s'%s%s",
                         IMAGE_PLATFORM, p->platforms ? ", only for " : "",
                         str_or(p->platforms, ""));
    }
    if (result < 0)
        return -1;
    const struct document *d = &p->documents[p->document_count - 1];
    return oci_manifest_parse(d->text, d->size, &p->manifest, ret_error);
}

/* ---- config --------------------------------------------------------------------------------- */

static int sizes_check(const struct pulling *p, struct error **ret_error)
{
    if (p->manifest.config.size > CONFIG_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "its config has more than %d bytes",
                         CONFIG_MAX);
    for (size_t i = 0; i < p->manifest.count; i++)
        if (p->manifest.layers[i].size > p->pull->layer_max_bytes)
            return error_set(ret_error, ERROR_TOO_LARGE, 0,
                             "layer 'sha256:%s' claims %llu bytes, more than the %llu that a layer "
                             "may have",
                             p->manifest.layers[i].digest,
                             (unsigned long long)p->manifest.layers[i].size,
                             (unsigned long long)p->pull->layer_max_bytes);
    return 0;
}

static int config_read(struct pulling *p, struct error **ret_error)
{
    const struct fetch *fetch = &p->fetches.items[0];
    size_t size = (size_t)fetch->size, layers;
    CLEANUP_FREE char *text = xcalloc(1, size + 1);
    int fd = open(fetch->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, size));
    int err = n < 0 ? errno : EIO;

    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)size)
        return error_set(ret_error, ERROR_IO, err, "read '%s'", fetch->path);
    if (image_config_parse(text, size, &p->config, ret_error) < 0)
        return -1;
    layers = strv_count((const char *const *)p->config.diff_ids);
    if (layers != p->manifest.count)
        return error_set(ret_error, ERROR_CORRUPT, 0, "its config names %zu layers, not %zu",
                         layers, p->manifest.count);
    p->config_text = take(text);
    return 0;
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* Tells the preparation what has come. */
static void layer_grows(void *arg, const struct fetch *fetch)
{
    struct pulling *p = arg;

    for (size_t i = 0; p->layers && i < p->manifest.count; i++)
        if (strcmp(p->manifest.layers[i].digest, fetch->hex) == 0)
            p->pull->prepare_feed(p->pull->arg, i, fetch_have(fetch), fetch_is_whole(fetch));
}

/* Tells people of the start and the end of each layer, and now and then in between. */
static int extracting(struct pulling *p, const struct image_prepare_news *news,
                      struct error **ret_error)
{
    const struct descriptor *d = &p->manifest.layers[news->layer];
    struct extraction *e = &p->extractions[news->layer];
    char id[SHORT_ID + 1];
    int64_t now = now_ms();
    bool done = news->done >= d->size;

    /* While its bytes still come, these are what is told of. */
    if (!fetch_is_whole(fetches_find(&p->fetches, d->digest)))
        return 0;
    if (e->done || (!done && now - e->told_ms < TELL_MS))
        return 0;
    e->told_ms = now;
    e->done = done;
    snprintf(id, sizeof(id), "%.*s", SHORT_ID, d->digest);
    if (done)
        return p->pull->progress(p->pull->arg, id, "Pull complete", 0, 0, ret_error);
    return p->pull->progress(p->pull->arg, id, "Extracting", news->done, d->size, ret_error);
}

static int preparation_attend(struct pulling *p, struct error **ret_error)
{
    for (;;) {
        struct image_prepare_news news = {0};
        if (p->pull->prepare_attend(p->pull->arg, &news, ret_error) < 0)
            return -1;
        if (!news.any)
            return 0;
        if (news.ended) {
            p->root_size = news.size;
            p->prepare_fd = -1;
            return 0;
        }
        if (news.layer < p->manifest.count && extracting(p, &news, ret_error) < 0)
            return -1;
    }
}

/* The preparation reads layers that are not verified yet. If it finds something wrong, what is
 * under way comes to its end first: if that has the wrong digest, this is what is wrong. */
static void preparation_check(struct pulling *p)
{
    if (p->prepare_fd < 0 || preparation_attend(p, &p->unprepared) == 0)
        return;
    p->prepare_fd = -1;
    p->fetches.ending = true;
}

/* Until the blobs are here and the root is prepared. */
static int work_until_done(struct pulling *p, struct error **ret_error)
{
    for (;;) {
        struct pollfd fd = {.fd = p->prepare_fd, .events = POLLIN};
        int left = fetches_step(&p->fetches, ret_error);
        if (left < 0)
            return -1;
        if (left == 0 && p->unprepared)
            return error_move(ret_error, &p->unprepared);
        if (left == 0 && p->prepare_fd < 0)
            return 0;
        if (registry_run(p->registry, &fd, p->prepare_fd >= 0, TICK_MS, ret_error) < 0 ||
            p->pull->check(p->pull->arg, ret_error) < 0)
            return -1;
        preparation_check(p);
    }
}

/* ---- the image ------------------------------------------------------------------------------ */

static void file_add(struct pulling *p, const char *hex)
{
    CLEANUP_FREE char *file = blob_file(hex);

    if (!strv_contains((const char *const *)p->files, file))
        strv_push(&p->files, file);
}

/* In this order: the prepared root, the config, the manifest, the layers, and the indexes. */
static void files_list(struct pulling *p)
{
    const char *id = p->manifest.config.digest;

    strv_push_take(&p->files, p->pull->prepared(p->pull->arg, id));
    file_add(p, id);
    file_add(p, p->documents[p->document_count - 1].hex);
    for (size_t i = 0; i < p->manifest.count; i++)
        file_add(p, p->manifest.layers[i].digest);
    for (size_t i = 0; i + 1 < p->document_count; i++)
        file_add(p, p->documents[i].hex);
}

static bool root_is_there(struct pulling *p)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", p->pull->root, p->files[0]);
    struct stat st;

    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    p->root_size = (uint64_t)st.st_size;
    return true;
}

static int preparation_begin(struct pulling *p, struct error **ret_error)
{
    size_t count = p->manifest.count;

    p->layers = xcalloc(count + 1, sizeof(*p->layers));
    p->extractions = xcalloc(count + 1, sizeof(*p->extractions));
    for (size_t i = 0; i < count; i++)
        p->layers[i] = (struct image_layer){
            fetches_find(&p->fetches, p->manifest.layers[i].digest)->path, p->config.diff_ids[i]};
    p->fresh = str_printf("%s/root", p->pull->scratch);
    return p->pull->prepare_begin(p->pull->arg, p->manifest.config.digest, p->layers, count,
                                  p->fresh, &p->prepare_fd, ret_error);
}

/* Layers of a root that is there already: they were only fetched. */
static int unextracted_tell(struct pulling *p, struct error **ret_error)
{
    for (size_t i = 1; !p->fresh && i < p->fetches.count; i++) {
        char id[SHORT_ID + 1];
        if (p->fetches.items[i].state != FETCH_WHOLE)
            continue;
        snprintf(id, sizeof(id), "%.*s", SHORT_ID, p->fetches.items[i].hex);
        if (p->pull->progress(p->pull->arg, id, "Pull complete", 0, 0, ret_error) < 0)
            return -1;
    }
    return 0;
}

/* The layers on top are needed first. */
static int layers_get(struct pulling *p, struct error **ret_error)
{
    for (size_t i = p->manifest.count; i-- > 0;)
        fetches_add(&p->fetches, &p->manifest.layers[i], true);
    if (!root_is_there(p) && preparation_begin(p, ret_error) < 0)
        return -1;
    return work_until_done(p, ret_error) < 0 ? -1 : unextracted_tell(p, ret_error);
}

/* What was prepared before may have gone meanwhile, with the last name of its image. */
static int root_check(struct pulling *p, struct error **ret_error)
{
    if (p->fresh || root_is_there(p))
        return 0;
    return error_set(ret_error, ERROR_BUSY, 0,
                     "image '%.*s' was removed while it was pulled: pull it again", SHORT_ID,
                     p->manifest.config.digest);
}

static int image_place(struct pulling *p, struct error **ret_error)
{
    const struct image_pull *pull = p->pull;

    if (pull->placing(pull->arg, ret_error) < 0 || root_check(p, ret_error) < 0 ||
        fetches_place(&p->fetches, &p->placing, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < p->document_count; i++) {
        const struct document *d = &p->documents[i];
        CLEANUP_FREE char *file = blob_file(d->hex);
        if (!blob_is_there(pull->root, d->hex, d->size) &&
            place_text(&p->placing, pull->scratch, d->text, d->size, file, ret_error) < 0)
            return -1;
    }
    if (p->fresh && place_file(&p->placing, p->fresh, p->files[0], ret_error) < 0)
        return -1;
    return place_sync(&p->placing, ret_error);
}

static int say(struct pulling *p, const char *id, struct error **ret_error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int say(struct pulling *p, const char *id, struct error **ret_error, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    CLEANUP_FREE char *text = str_vprintf(format, ap);
    va_end(ap);
    return p->pull->progress(p->pull->arg, id, text, 0, 0, ret_error);
}

/* By its tag, unless it was asked for by digest, and by the digest of what the name led to. */
static int image_announce(struct pulling *p, struct error **ret_error)
{
    const struct image_pull *pull = p->pull;
    CLEANUP_STRV char **names = NULL;
    CLEANUP_FREE char *familiar = reference_familiar(&p->ref);
    CLEANUP_FREE char *id = str_printf("sha256:%s", p->manifest.config.digest);

    if (p->ref.tag && !p->ref.digest)
        strv_push_take(&names, reference_full(&p->ref));
    strv_push_take(&names,
                   str_printf("%s/%s@sha256:%s", p->ref.domain, p->ref.path, p->documents[0].hex));
    struct image_found found = {
        .id = id,
        .names = (const char *const *)names,
        .config = p->config_text,
        .size_bytes = p->root_size,
        .created_ns = p->config.created_ns,
        .files = (const char *const *)p->files,
    };
    if (say(p, "", ret_error, "Digest: sha256:%s", p->documents[0].hex) < 0 ||
        say(p, "", ret_error, "Status: %s for %s",
            p->placing.placed ? "Downloaded newer image" : "Image is up to date", familiar) < 0)
        return -1;
    return pull->found(pull->arg, &found, ret_error);
}

static int image_get(struct pulling *p, struct error **ret_error)
{
    if (manifest_get(p, ret_error) < 0 || sizes_check(p, ret_error) < 0 ||
        say(p, p->ref.digest ? p->ref.digest : p->ref.tag, ret_error, "Pulling from %s",
            p->ref.path) < 0)
        return -1;
    fetches_add(&p->fetches, &p->manifest.config, false);
    if (work_until_done(p, ret_error) < 0 || config_read(p, ret_error) < 0)
        return -1;
    files_list(p);
    if (layers_get(p, ret_error) < 0 || image_place(p, ret_error) < 0)
        return -1;
    return image_announce(p, ret_error);
}

/* Whether what has come so far is worth keeping for another try: nothing of it was wrong. */
static bool is_worth_keeping(const struct error *error)
{
    return error && (error->kind == ERROR_UNAVAILABLE || error->kind == ERROR_TIMEOUT ||
                     error->kind == ERROR_CANCELLED || error->kind == ERROR_LIMIT);
}

/* `mirror` NULL: the registry itself. */
static int registry_open(struct pulling *p, const struct mirror *mirror,
                         const struct credentials *credentials, struct error **ret_error)
{
    p->host = mirror ? mirror->host : p->ref.domain;
    p->repository = str_printf("%s%s", mirror ? mirror->prefix : "", p->ref.path);
    p->registry =
        registry_new(&p->pull->settings, p->host, p->repository, "pull", credentials, ret_error);
    if (!p->registry)
        return -1;
    return mirror && (mirror->plain || mirror->tls)
               ? registry_insist(p->registry, mirror->tls, ret_error)
               : 0;
}

/* From one registry: the one that the reference names, or a mirror of it. */
static int pull_from(const struct image_pull *pull, const struct mirror *mirror,
                     const struct credentials *credentials, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct pulling p = {.pull = pull, .prepare_fd = -1, .placing = {.root = pull->root}};
    int result = reference_parse(pull->reference, &p.ref, &error);

    if (result == 0)
        result = place_dirs(pull->root, &error);
    if (result == 0)
        result = registry_open(&p, mirror, credentials, &error);
    p.fetches =
        (struct fetches){.registry = p.registry, .pull = pull, .grows = layer_grows, .arg = &p};
    if (result == 0)
        result = image_get(&p, &error);
    pull->prepare_end(pull->arg);
    if (result < 0)
        place_undo(&p.placing);
    registry_free(p.registry);
    fetches_done(&p.fetches, result == 0 || is_worth_keeping(error));
    place_done(&p.placing);
    documents_free(&p);
    oci_manifest_done(&p.manifest);
    image_config_done(&p.config);
    reference_done(&p.ref);
    strv_free(p.files);
    error_free(p.unprepared);
    free(p.repository);
    free(p.layers);
    free(p.extractions);
    free(p.config_text);
    free(p.platforms);
    if (p.fresh)
        unlink(p.fresh);
    free(p.fresh);
    return result < 0 ? error_move(ret_error, &error) : 0;
}

/* One mirror after the other; what it lacks or gets wrong, the next one may have. */
static int mirrors_try(const struct image_pull *pull, const char *domain, struct error **ret_error)
{
    STRV_FOREACH(setting, pull->settings.mirrors) {
        CLEANUP_ERROR struct error *error = NULL;
        CLEANUP_MIRROR struct mirror mirror = {0};
        struct credentials own;
        if (mirror_parse(*setting, &mirror, ret_error) < 0)
            return -1;
        if (strcmp(mirror.registry, domain) != 0)
            continue;
        int result = credentials_load(pull->root, mirror.host, &own, &error);
        if (result == 0)
            result = pull_from(pull, &mirror, &own, &error);
        credentials_done(&own);
        if (result == 0)
            return 1;
        if (error->kind == ERROR_CANCELLED || error->kind == ERROR_NO_SPACE)
            return error_move(ret_error, &error);
        CLEANUP_FREE char *line = str_printf(
            "Mirror '%s' is of no use: %s", *setting + strlen(mirror.registry) + 1, error->message);
        if (pull->progress(pull->arg, "", line, 0, 0, ret_error) < 0)
            return -1;
    }
    return 0;
}

int image_pull(const struct image_pull *pull, struct error **ret_error)
{
    CLEANUP_REFERENCE struct reference ref = {0};
    struct credentials own = {0};

    if (reference_parse(pull->reference, &ref, ret_error) < 0)
        return -1;
    int result = mirrors_try(pull, ref.domain, ret_error);
    if (result)
        return result < 0 ? -1 : 0;
    bool sent = credentials_are_there(pull->credentials);
    if (!sent && credentials_load(pull->root, ref.domain, &own, ret_error) < 0)
        return -1;
    result = pull_from(pull, NULL, sent ? pull->credentials : &own, ret_error);
    credentials_done(&own);
    return result;
}
