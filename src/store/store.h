/* The store: the world, written down. Only this room knows SQLite.
 *
 * One transaction a loop turn (store_commit): it survives the end of this process. What must
 * survive the end of the host, too, waits for the disk (store_sync), which takes a hundred times as
 * long. What is in the file is always a world that world_verify() accepts, if not the last one.
 * Beside the objects it keeps the feed, a log of what happened by revision, and a few settings of
 * the daemon's own (meta).
 *
 * A file that is damaged, or of a newer version, is refused with a sentence that names the row:
 * nothing is dropped silently.
 *
 * Space: a reserve file beside the database is given up when the disk is full, so that what
 * frees space (stop, rm) can still be written down; store_is_tight() says so until there is
 * room again. If even that does not help, store_commit() fails, and the caller must answer its
 * clients with the error, and load the world again: the store is as it was before the turn.
 */
#ifndef HUSK_STORE_STORE_H
#define HUSK_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/world.h"

enum {
    STORE_VERSION = 5,
    STORE_FEED_KEEP = 10000, /* revisions that are kept, if nothing else is said */
    STORE_RESERVE_BYTES = 1 << 20,
    STORE_LOG_BYTES = 6 << 20,     /* of the write-ahead log, which is copied back at 1000 pages */
    STORE_CHUNK_BYTES = 256 << 10, /* by which the database grows */
};

struct store;

/* Opens or makes the file; ":memory:" for one that is forgotten. */
int store_open(const char *path, struct store **ret, struct error **ret_error);
void store_close(struct store *store);

/* Fills an empty world. On failure the world is cleared. */
int store_load(struct store *store, struct world *world, struct error **ret_error);

/* Writes what is dirty and the world's feed, and marks the world clean. Cheap if nothing is.
 * On failure nothing is written and the world is still dirty. */
int store_commit(struct store *store, struct world *world, struct error **ret_error);
/* Waits until all that was committed is on the disk. Cheap if it is. */
int store_sync(struct store *store, struct error **ret_error);

/* Of the last event that was committed; 0 if there never was one. */
uint64_t store_revision(const struct store *store);

/* Calls for each event later than `revision` and not before `since_ns`, in order, at most `max`
 * (0: all) times. `fn` returns false to stop. Returns 0 or -1. */
int store_feed_each(struct store *store, uint64_t revision, int64_t since_ns, uint32_t max,
                    bool (*fn)(const struct feed_event *event, void *arg), void *arg,
                    struct error **ret_error);

/* Small values by name. get: owned, NULL if there is none. set: durable at once; NULL removes. */
char *store_meta_get(struct store *store, const char *name);
int store_meta_set(struct store *store, const char *name, const char *value,
                   struct error **ret_error);

/* The disk is full, or nearly: the reserve is in use. Tries to get it back. */
bool store_is_tight(struct store *store);

/* The feed keeps that many revisions; older ones go with the next event. */
void store_keep_events(struct store *store, uint64_t revisions);

/* For tests: commits fail as on a full disk when the file would grow over that many pages; 0: no
 * limit. */
void store_limit_pages(struct store *store, uint32_t pages);

#endif
