#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/str.h"
#include "store/store_int.h"

/* Versions of the schema. schema[n] makes version n + 1 out of version n. */
static const char *const schema[STORE_VERSION] = {
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE images (id TEXT PRIMARY KEY, state TEXT NOT NULL, config TEXT NOT NULL,"
    " size_bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL, files TEXT NOT NULL);"
    "CREATE TABLE names (name TEXT PRIMARY KEY, image TEXT NOT NULL, place INTEGER NOT NULL);"
    "CREATE INDEX names_image ON names (image);"
    "CREATE TABLE vms (id TEXT PRIMARY KEY, state TEXT NOT NULL, cpus INTEGER NOT NULL,"
    " memory_mb INTEGER NOT NULL, accel TEXT, machine TEXT, qemu_pid INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, paused INTEGER NOT NULL, dead INTEGER NOT NULL, reason TEXT);"
    "CREATE TABLE pods (uid TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,"
    " created_ns INTEGER NOT NULL, started_ns INTEGER NOT NULL, want TEXT NOT NULL,"
    " state TEXT NOT NULL, step INTEGER NOT NULL, vm TEXT, target_vm TEXT,"
    " placed INTEGER NOT NULL, keep_vm INTEGER NOT NULL, failed INTEGER NOT NULL, reason TEXT,"
    " backoff INTEGER NOT NULL, restart_ns INTEGER NOT NULL, grace_ms INTEGER NOT NULL);"
    "CREATE TABLE containers (id TEXT PRIMARY KEY, pod TEXT NOT NULL, place INTEGER NOT NULL,"
    " spec TEXT NOT NULL, image TEXT NOT NULL, want TEXT NOT NULL, state TEXT NOT NULL,"
    " run INTEGER NOT NULL, restarts INTEGER NOT NULL, backoff INTEGER NOT NULL,"
    " restart_ns INTEGER NOT NULL, stop_asked INTEGER NOT NULL, held INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, started_ns INTEGER NOT NULL, finished_ns INTEGER NOT NULL,"
    " exit_code INTEGER NOT NULL, exit_signal INTEGER NOT NULL, oom INTEGER NOT NULL,"
    " succeeded INTEGER NOT NULL, reason TEXT, grace_ms INTEGER NOT NULL);"
    "CREATE TABLE feed (revision INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL,"
    " noun TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL,"
    " message TEXT NOT NULL);",
    "ALTER TABLE vms ADD COLUMN pooled INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE vms ADD COLUMN template TEXT;",
    ("ALTER TABLE vms ADD COLUMN image_id TEXT;"
     "ALTER TABLE vms ADD COLUMN layer_mb INTEGER NOT NULL DEFAULT 0;"),
    "ALTER TABLE pods ADD COLUMN expires_ns INTEGER NOT NULL DEFAULT 0;",
};

static const char *const statements[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [PUT_IMAGE] = "REPLACE INTO images VALUES (?,?,?,?,?,?)",
    [DELETE_IMAGE] = "DELETE FROM images WHERE id = ?",
    [PUT_NAME] = "REPLACE INTO names VALUES (?,?,?)",
    [DELETE_NAMES] = "DELETE FROM names WHERE image = ?",
    [PUT_VM] = "REPLACE INTO vms VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [DELETE_VM] = "DELETE FROM vms WHERE id = ?",
    [PUT_POD] = "REPLACE INTO pods VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [DELETE_POD] = "DELETE FROM pods WHERE uid = ?",
    [PUT_CTR] = "REPLACE INTO containers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [DELETE_CTR] = "DELETE FROM containers WHERE id = ?",
    [PUT_EVENT] = "INSERT INTO feed VALUES (?,?,?,?,?,?,?)",
    [TRIM_FEED] = "DELETE FROM feed WHERE revision <= ?",
    [READ_FEED] = "SELECT * FROM feed WHERE revision > ? AND time_ns >= ? ORDER BY revision",
    [LAST_REVISION] = "SELECT COALESCE(MAX(revision), 0) FROM feed",
    [GET_META] = "SELECT value FROM meta WHERE name = ?",
    [PUT_META] = "REPLACE INTO meta VALUES (?,?)",
    [DELETE_META] = "DELETE FROM meta WHERE name = ?",
};

/* ---- SQLite, a little shorter --------------------------------------------------------------- */

int store_error(struct store *store, const char *what, struct error **ret_error)
{
    int code = sqlite3_errcode(store->db);
    enum error_kind kind = code == SQLITE_FULL                               ? ERROR_NO_SPACE
                           : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERROR_CORRUPT
                           : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? ERROR_BUSY
                                                                             : ERROR_IO;

    return error_set(ret_error, kind, 0, "store '%s': %s: %s", store->path, what,
                     sqlite3_errmsg(store->db));
}

static int run(struct store *store, const char *sql, struct error **ret_error)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    return store_error(store, "cannot be set up", ret_error);
}

sqlite3_stmt *store_statement(struct store *store, enum statement statement)
{
    sqlite3_stmt *s = store->prepared[statement];

    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return s;
}

/* Runs a statement that answers no rows. */
int store_step(struct store *store, sqlite3_stmt *s, struct error **ret_error)
{
    int code = sqlite3_step(s);

    if (code == SQLITE_DONE || code == SQLITE_ROW) {
        sqlite3_reset(s);
        return 0;
    }
    store_error(store, "cannot be written", ret_error);
    sqlite3_reset(s);
    return -1;
}

/* ---- the reserve ---------------------------------------------------------------------------- */

static void reserve_take(struct store *store)
{
    if (!store->reserve)
        return;
    int fd = open(store->reserve, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    store->tight = posix_fallocate(fd, 0, STORE_RESERVE_BYTES) != 0;
    close(fd);
    if (store->tight)
        unlink(store->reserve); /* a part of it would only take the last blocks */
}

static bool reserve_give(struct store *store)
{
    if (store->tight || !store->reserve)
        return false;
    store->tight = true;
    return unlink(store->reserve) == 0;
}

/* Of a disk that is full later the log needs no block any more (but where writing copies, as on
 * btrfs), and the database seldom one: what frees space has to be written down as well. The blocks
 * are beyond the end of the file, where SQLite does not look. A disk without plenty of room is left
 * alone: there is the reserve. */
static void claim_blocks(struct store *store)
{
    CLEANUP_FREE char *log = str_printf("%s-wal", store->path);
    int chunk = STORE_CHUNK_BYTES;
    struct statvfs disk;
    struct stat st;

    if (!store->reserve)
        return;
    sqlite3_file_control(store->db, "main", SQLITE_FCNTL_CHUNK_SIZE, &chunk);
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    bool room = fstatvfs(fd, &disk) == 0 &&
                (uint64_t)disk.f_bavail * disk.f_frsize >= 2 * (uint64_t)STORE_LOG_BYTES;
    /* ext4 keeps what it could get of what it could not get whole. */
    if (room && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, STORE_LOG_BYTES) < 0 && fstat(fd, &st) == 0)
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st.st_size, STORE_LOG_BYTES);
    close(fd);
}

bool store_is_tight(struct store *store)
{
    if (!store->tight)
        return false;
    reserve_take(store);
    if (!store->tight)
        claim_blocks(store);
    return store->tight;
}

void store_limit_pages(struct store *store, uint32_t pages)
{
    enum { NO_LIMIT = 0x3fffffff };
    CLEANUP_FREE char *sql = str_printf("PRAGMA max_page_count = %u", pages ? pages : NO_LIMIT);

    sqlite3_exec(store->db, sql, NULL, NULL, NULL);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int version_of(struct store *store, int *ret, struct error **ret_error)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW) {
        store_error(store, "cannot be read", ret_error);
        sqlite3_finalize(s);
        return -1;
    }
    *ret = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return 0;
}

/* Each step of the schema is a transaction with its new version. */
static int migrate(struct store *store, struct error **ret_error)
{
    int version;

    if (version_of(store, &version, ret_error) < 0)
        return -1;
    if (version > STORE_VERSION)
        return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                         "store '%s' is of version %d, newer than this program's %d", store->path,
                         version, STORE_VERSION);
    for (; version < STORE_VERSION; version++) {
        CLEANUP_FREE char *sql = str_printf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT",
                                            schema[version], version + 1);

        if (run(store, sql, ret_error) < 0) {
            sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
            return -1;
        }
    }
    return 0;
}

static int prepare(struct store *store, struct error **ret_error)
{
    for (int i = 0; i < STATEMENT_COUNT; i++)
        if (sqlite3_prepare_v3(store->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &store->prepared[i], NULL) != SQLITE_OK)
            return store_error(store, "is damaged", ret_error);
    sqlite3_stmt *s = store_statement(store, LAST_REVISION);

    if (sqlite3_step(s) != SQLITE_ROW)
        return store_error(store, "cannot be read", ret_error);
    store->revision = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return 0;
}

/* What is in the log is durable when the log was synced: see store_sync(). An exclusive lock keeps
 * a second daemon out, and spares the shared-memory file. The write-ahead log is never truncated:
 * blocks that it has once are there when the disk is full. */
static int set_up(struct store *store, struct error **ret_error)
{
    static const char pragmas[] =
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "PRAGMA cache_size = -512; PRAGMA journal_size_limit = -1; PRAGMA trusted_schema = OFF;"
        "PRAGMA temp_store = MEMORY;";

    sqlite3_busy_timeout(store->db, 0);
    /* Closing would copy all of the log into the database and wait for the disk twice: what is in
     * the log is as durable there, and the next daemon reads it. */
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (run(store, pragmas, ret_error) < 0 || migrate(store, ret_error) < 0)
        return -1;
    return prepare(store, ret_error);
}

int store_open(const char *path, struct store **ret, struct error **ret_error)
{
    struct store *store = xcalloc(1, sizeof(*store));

    store->path = xstrdup(path);
    store->feed_keep = STORE_FEED_KEEP;
    if (!str_eq(path, ":memory:"))
        store->reserve = str_printf("%s.reserve", path);
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK) {
        store_error(store, "cannot be opened", ret_error);
        store_close(store);
        return -1;
    }
    sqlite3_extended_result_codes(store->db, 0);
    if (set_up(store, ret_error) < 0) {
        store_close(store);
        return -1;
    }
    reserve_take(store);
    claim_blocks(store);
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (int i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(store->prepared[i]);
    sqlite3_close(store->db);
    free(store->path);
    free(store->reserve);
    free(store);
}

/* ---- commit --------------------------------------------------------------------------------- */

static int commit_once(struct store *store, struct world *world, struct error **ret_error)
{
    uint64_t revision = store->revision;

    if (store_step(store, store_statement(store, BEGIN), ret_error) < 0)
        return -1;
    if (store_write_world(store, world, ret_error) == 0 &&
        store_step(store, store_statement(store, COMMIT), ret_error) == 0)
        return 0;
    sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    store->revision = revision;
    return -1;
}

int store_commit(struct store *store, struct world *world, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;

    if (!world_is_dirty(world))
        return 0;
    int result = commit_once(store, world, &error);

    if (result < 0 && error->kind == ERROR_NO_SPACE && reserve_give(store)) {
        error_free(take(error));
        result = commit_once(store, world, &error);
    }
    if (result < 0)
        return error_move(ret_error, &error);
    store->unsynced = true;
    world_clean(world);
    return 0;
}

/* What SQLite itself does after each commit with synchronous = FULL. */
int store_sync(struct store *store, struct error **ret_error)
{
    sqlite3_file *log = NULL;

    if (!store->unsynced)
        return 0;
    if (store->reserve &&
        (sqlite3_file_control(store->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) != SQLITE_OK ||
         !log || !log->pMethods || log->pMethods->xSync(log, SQLITE_SYNC_NORMAL) != SQLITE_OK))
        return error_set(ret_error, ERROR_IO, errno, "store '%s': its log cannot be synced",
                         store->path);
    store->unsynced = false;
    return 0;
}

/* ---- meta and feed -------------------------------------------------------------------------- */

void store_keep_events(struct store *store, uint64_t revisions)
{
    store->feed_keep = revisions;
}

uint64_t store_revision(const struct store *store)
{
    return store->revision;
}

char *store_meta_get(struct store *store, const char *name)
{
    sqlite3_stmt *s = store_statement(store, GET_META);
    char *value = NULL;

    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    if (sqlite3_step(s) == SQLITE_ROW)
        value = xstrdup((const char *)sqlite3_column_text(s, 0));
    sqlite3_reset(s);
    return value;
}

int store_meta_set(struct store *store, const char *name, const char *value,
                   struct error **ret_error)
{
    sqlite3_stmt *s = store_statement(store, value ? PUT_META : DELETE_META);

    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    if (value)
        sqlite3_bind_text(s, 2, value, -1, SQLITE_STATIC);
    return store_step(store, s, ret_error);
}

static void event_read(sqlite3_stmt *s, struct feed_event *ret)
{
    const char *texts[4];

    for (int i = 0; i < 4; i++)
        texts[i] = (const char *)sqlite3_column_text(s, 3 + i);
    int noun = noun_from_name((const char *)sqlite3_column_text(s, 2));

    *ret = (struct feed_event){
        .revision = (uint64_t)sqlite3_column_int64(s, 0),
        .time_ns = sqlite3_column_int64(s, 1),
        .noun = noun < 0 ? NOUN_POD : (enum noun)noun,
        .id = xstrdup(texts[0] ? texts[0] : ""),
        .name = xstrdup(texts[1] ? texts[1] : ""),
        .reason = xstrdup(texts[2] ? texts[2] : ""),
        .message = xstrdup(texts[3] ? texts[3] : ""),
    };
}

static void event_clear(struct feed_event *event)
{
    free(event->id);
    free(event->name);
    free(event->reason);
    free(event->message);
}

int store_feed_each(struct store *store, uint64_t revision, int64_t since_ns, uint32_t max,
                    bool (*fn)(const struct feed_event *event, void *arg), void *arg,
                    struct error **ret_error)
{
    sqlite3_stmt *s = store_statement(store, READ_FEED);
    bool more = true;
    int code = SQLITE_DONE;

    sqlite3_bind_int64(s, 1, (int64_t)revision);
    sqlite3_bind_int64(s, 2, since_ns);
    for (uint32_t n = 0; more && (!max || n < max) && (code = sqlite3_step(s)) == SQLITE_ROW; n++) {
        struct feed_event event;

        event_read(s, &event);
        more = fn(&event, arg);
        event_clear(&event);
    }
    int result = code == SQLITE_DONE || code == SQLITE_ROW
                     ? 0
                     : store_error(store, "feed cannot be read", ret_error);

    sqlite3_reset(s);
    return result;
}
