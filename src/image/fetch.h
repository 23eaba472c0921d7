/* The blobs of one image on their way from a registry: several at a time, in the order in which
 * they were added, each begun again where it broke off. Only for the files of this room.
 */
#ifndef HUSK_IMAGE_FETCH_H
#define HUSK_IMAGE_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "image/manifest.h"
#include "image/partial.h"
#include "image/pull.h"

struct fetch {
    struct fetches *all;
    char hex[DIGEST_HEX + 1];
    uint64_t size;
    char *path; /* its file in the scratch directory: a link, so that nobody takes it away */
    enum { FETCH_WAITS, FETCH_RUNS, FETCH_WHOLE, FETCH_PRESENT } state;
    struct partial partial;
    bool shown;        /* people see it */
    bool started;      /* bytes of this try have come */
    int tries;         /* without much progress */
    uint64_t tried_at; /* bytes that were there when this try began */
    int64_t not_before_ms, told_ms, fed_ms;
    struct error *error;
};

struct fetches {
    struct registry *registry;
    const struct image_pull *pull;
    /* A blob has more bytes than before, or is whole. */
    void (*grows)(void *arg, const struct fetch *fetch);
    void *arg;
    struct fetch *items; /* made at once: pointers to them stay */
    size_t count;
    bool ending; /* nothing is begun any more */
};

/* Adds a blob, unless it is there already. At most FETCHES_MAX. */
void fetches_add(struct fetches *all, const struct descriptor *d, bool shown);
const struct fetch *fetches_find(const struct fetches *all, const char *hex);
/* Begins what can be begun. Returns how many are not whole (of an ending: how many are under way);
 * -1: one has failed. */
int fetches_step(struct fetches *all, struct error **ret_error);
/* Gives all of them their places. */
int fetches_place(struct fetches *all, struct placing *placing, struct error **ret_error);
/* keep: what has come stays for another time. */
void fetches_done(struct fetches *all, bool keep);

uint64_t fetch_have(const struct fetch *fetch);
bool fetch_is_whole(const struct fetch *fetch);

#endif
