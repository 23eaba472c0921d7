/* Text in columns, as Go's tabwriter sets it with a minimal width of 20 and a padding of 3, which
 * is how hyperctl prints its tables: a cell is padded with blanks to the widest of its column
 * plus 3, at least 20; the last cell of a row is not padded.
 */
#ifndef HUSK_HUSK_TABLE_H
#define HUSK_HUSK_TABLE_H

#include <stddef.h>
#include <stdio.h>

enum {
    TABLE_COLUMN_MIN = 20,
    TABLE_PADDING = 3,
};

struct table {
    size_t columns;
    char **cells; /* columns to a row, owned */
    size_t count; /* of cells */
};

/* Appends a row of `columns` strings; NULL is an empty cell. */
void table_row(struct table *table, const char *const *cells);
void table_print(const struct table *table, FILE *out);
void table_done(struct table *table);
#define CLEANUP_TABLE __attribute__((cleanup(table_done)))

/* The columns that a text takes on a terminal: UTF-8 sequences count as one. */
size_t text_width(const char *text);

#endif
