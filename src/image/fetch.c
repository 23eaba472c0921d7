#include "image/fetch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

enum {
    FETCHES_MAX = MANIFEST_LAYERS_MAX + 1,
    SHORT_ID = 12,
    TELL_MS = 250, /* between two messages about the same blob */
    FEED_MS = 20,
    BUSY_MS = 200, /* before a blob is looked at again that another process fetches */
    HTTP_PARTIAL = 206,
    HTTP_RANGE_BAD = 416,
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool fetch_is_whole(const struct fetch *fetch)
{
    return fetch->state == FETCH_WHOLE || fetch->state == FETCH_PRESENT;
}

uint64_t fetch_have(const struct fetch *fetch)
{
    return fetch_is_whole(fetch) ? fetch->size : fetch->partial.have;
}

void fetches_add(struct fetches *all, const struct descriptor *d, bool shown)
{
    if (!all->items)
        all->items = xcalloc(FETCHES_MAX, sizeof(*all->items));
    if (fetches_find(all, d->digest))
        return;
    struct fetch *fetch = &all->items[all->count++];
    *fetch = (struct fetch){.all = all, .size = d->size, .shown = shown, .partial.fd = -1};
    memcpy(fetch->hex, d->digest, DIGEST_HEX);
    fetch->path = str_printf("%s/%s", all->pull->scratch, fetch->hex);
}

const struct fetch *fetches_find(const struct fetches *all, const char *hex)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].hex, hex) == 0)
            return &all->items[i];
    return NULL;
}

static int tell(struct fetch *fetch, const char *status, uint64_t done, uint64_t total,
                struct error **ret_error)
{
    const struct image_pull *pull = fetch->all->pull;
    char id[SHORT_ID + 1];

    if (!fetch->shown)
        return 0;
    snprintf(id, sizeof(id), "%.*s", SHORT_ID, fetch->hex);
    return pull->progress(pull->arg, id, status, done, total, ret_error);
}

/* ---- what comes in -------------------------------------------------------------------------- */

/* The first bytes of an answer: are they those that were asked for? */
static int answer_check(struct fetch *fetch, const struct response *response,
                        struct error **ret_error)
{
    fetch->started = true;
    if (fetch->partial.have == 0 && response->status != HTTP_PARTIAL)
        return 0;
    if (response->status != HTTP_PARTIAL) /* it knows no ranges, and begins at the start */
        return partial_restart(&fetch->partial, ret_error);
    if (response->range_start == fetch->partial.have)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "it was asked for byte %llu of blob 'sha256:%s' and sends from byte %llu",
                     (unsigned long long)fetch->partial.have, fetch->hex,
                     (unsigned long long)response->range_start);
}

static int bytes_came(void *arg, const struct response *response, const void *data, size_t size,
                      struct error **ret_error)
{
    struct fetch *fetch = arg;
    int64_t now = now_ms();

    if (!fetch->started && answer_check(fetch, response, ret_error) < 0)
        return -1;
    if (partial_write(&fetch->partial, data, size, ret_error) < 0)
        return -1;
    if (now - fetch->fed_ms >= FEED_MS) {
        fetch->fed_ms = now;
        fetch->all->grows(fetch->all->arg, fetch);
    }
    if (now - fetch->told_ms < TELL_MS)
        return 0;
    fetch->told_ms = now;
    return tell(fetch, "Downloading", fetch->partial.have, fetch->size, ret_error);
}

static int fetch_finish(struct fetch *fetch, struct error **ret_error)
{
    if (tell(fetch, "Verifying Checksum", 0, 0, ret_error) < 0 ||
        partial_verify(&fetch->partial, ret_error) < 0)
        return -1;
    fetch->state = FETCH_WHOLE;
    fetch->all->grows(fetch->all->arg, fetch);
    return tell(fetch, "Download complete", 0, 0, ret_error);
}

/* Whether another try may help; waits longer each time that little has come. */
static bool fetch_again(struct fetch *fetch)
{
    if (fetch->partial.have >= fetch->tried_at + PULL_TRY_BYTES)
        fetch->tries = 0;
    if (++fetch->tries >= PULL_TRIES)
        return false;
    fetch->state = FETCH_WAITS;
    fetch->not_before_ms = now_ms() + ((int64_t)PULL_BACKOFF_MS << (fetch->tries - 1));
    return true;
}

static void answer_ended(void *arg, struct response *response, struct error *error)
{
    struct fetch *fetch = arg;

    if (error && response->status == HTTP_RANGE_BAD && fetch->partial.have > 0) {
        error_free(take(error));
        if (partial_restart(&fetch->partial, &error) == 0 && fetch_again(fetch))
            return;
    }
    if (error && response->transient && fetch_again(fetch)) {
        error_free(error);
        tell(fetch, "Retrying", 0, 0, NULL);
        return;
    }
    fetch->state = FETCH_WAITS;
    if (error || fetch_finish(fetch, &error) < 0)
        fetch->error = error;
}

/* ---- beginning ------------------------------------------------------------------------------ */

/* What is in the store may be removed by others, but not our link to it. */
static int present_link(struct fetch *fetch, struct error **ret_error)
{
    CLEANUP_FREE char *blob = str_printf("%s/blobs/sha256/%s", fetch->all->pull->root, fetch->hex);

    if (!blob_is_there(fetch->all->pull->root, fetch->hex, fetch->size) ||
        (link(blob, fetch->path) < 0 && errno == ENOENT))
        return 0;
    if (access(fetch->path, F_OK) < 0)
        return error_set(ret_error, ERROR_IO, errno, "link '%s'", blob);
    fetch->state = FETCH_PRESENT;
    fetch->all->grows(fetch->all->arg, fetch);
    return tell(fetch, "Already exists", 0, 0, ret_error);
}

static void request_send(struct fetch *fetch)
{
    CLEANUP_FREE char *path = str_printf("blobs/sha256:%s", fetch->hex);
    struct registry_request request = {
        .method = "GET",
        .path = path,
        .from = fetch->partial.have,
        .data = bytes_came,
        .done = answer_ended,
        .arg = fetch,
    };

    fetch->state = FETCH_RUNS;
    fetch->started = false;
    fetch->tried_at = fetch->partial.have;
    registry_send(fetch->all->registry, &request);
}

static int fetch_begin(struct fetch *fetch, struct error **ret_error)
{
    if (fetch->partial.fd < 0) {
        if (present_link(fetch, ret_error) < 0)
            return -1;
        if (fetch->state == FETCH_PRESENT)
            return 0;
        int busy = partial_open(&fetch->partial, fetch->all->pull->root, fetch->hex, fetch->size,
                                ret_error);
        if (busy < 0)
            return -1;
        if (busy) {
            fetch->not_before_ms = now_ms() + BUSY_MS;
            return 0;
        }
        if (link(fetch->partial.path, fetch->path) < 0)
            return error_set(ret_error, ERROR_IO, errno, "link '%s'", fetch->partial.path);
        if (tell(fetch, "Pulling fs layer", 0, 0, ret_error) < 0)
            return -1;
    }
    if (fetch->partial.have == fetch->size)
        return fetch_finish(fetch, ret_error);
    request_send(fetch);
    return 0;
}

int fetches_step(struct fetches *all, struct error **ret_error)
{
    int64_t now = now_ms();
    int running = 0, left = 0;

    for (size_t i = 0; i < all->count; i++) {
        struct fetch *fetch = &all->items[i];
        if (fetch->error)
            return error_move(ret_error, &fetch->error);
        running += fetch->state == FETCH_RUNS;
    }
    if (all->ending)
        return running;
    for (size_t i = 0; i < all->count; i++) {
        struct fetch *fetch = &all->items[i];
        if (fetch->state == FETCH_WAITS && running < PULL_PARALLEL && now >= fetch->not_before_ms &&
            fetch_begin(fetch, ret_error) < 0)
            return -1;
        running += fetch->state == FETCH_RUNS;
        left += !fetch_is_whole(fetch);
    }
    return left;
}

/* ---- the end -------------------------------------------------------------------------------- */

int fetches_place(struct fetches *all, struct placing *placing, struct error **ret_error)
{
    for (size_t i = 0; i < all->count; i++) {
        struct fetch *fetch = &all->items[i];
        CLEANUP_FREE char *file = blob_file(fetch->hex);
        if (fetch->state == FETCH_WHOLE && partial_place(&fetch->partial, placing, ret_error) < 0)
            return -1;
        if (fetch->state == FETCH_PRESENT &&
            !blob_is_there(placing->root, fetch->hex, fetch->size) &&
            place_file(placing, fetch->path, file, ret_error) < 0)
            return -1;
    }
    return 0;
}

void fetches_done(struct fetches *all, bool keep)
{
    for (size_t i = 0; i < all->count; i++) {
        struct fetch *fetch = &all->items[i];
        if (!keep)
            partial_drop(&fetch->partial);
        partial_close(&fetch->partial);
        unlink(fetch->path);
        free(fetch->path);
        error_free(fetch->error);
    }
    free(all->items);
    *all = (struct fetches){0};
}
