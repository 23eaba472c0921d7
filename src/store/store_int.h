/* Inside of the store: statements, and the way of each noun to its row and back. */
#ifndef HUSK_STORE_STORE_INT_H
#define HUSK_STORE_STORE_INT_H

#include <sqlite3.h>

#include "store/store.h"

enum statement {
    BEGIN,
    COMMIT,
    PUT_IMAGE,
    DELETE_IMAGE,
    PUT_NAME,
    DELETE_NAMES,
    PUT_VM,
    DELETE_VM,
    PUT_POD,
    DELETE_POD,
    PUT_CTR,
    DELETE_CTR,
    PUT_EVENT,
    TRIM_FEED,
    READ_FEED,
    LAST_REVISION,
    GET_META,
    PUT_META,
    DELETE_META,
    STATEMENT_COUNT
};

struct store {
    sqlite3 *db;
    char *path;
    char *reserve; /* path of the reserve file, NULL for a store in memory */
    bool tight;    /* the reserve was given up */
    bool unsynced; /* something was committed that may not be on the disk */
    uint64_t revision;
    uint64_t feed_keep;
    sqlite3_stmt *prepared[STATEMENT_COUNT];
};

/* What SQLite says, as an error of the store. Returns -1. */
int store_error(struct store *store, const char *what, struct error **ret_error);
/* Reset and without bindings. */
sqlite3_stmt *store_statement(struct store *store, enum statement statement);
int store_step(struct store *store, sqlite3_stmt *statement, struct error **ret_error);

/* Inside a transaction: everything of the world that is not in the file yet. */
int store_write_world(struct store *store, struct world *world, struct error **ret_error);

#endif
