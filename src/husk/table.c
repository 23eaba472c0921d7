#include "husk/table.h"

#include <stdlib.h>

#include "base/str.h"

size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

void table_row(struct table *table, const char *const *cells)
{
    size_t size = (table->count + table->columns) * sizeof(char *);
    table->cells = xrealloc(table->cells, size);
    for (size_t i = 0; i < table->columns; i++)
        table->cells[table->count++] = xstrdup(cells[i] ? cells[i] : "");
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = TABLE_COLUMN_MIN;
    for (size_t i = column; i < table->count; i += table->columns) {
        size_t wanted = text_width(table->cells[i]) + TABLE_PADDING;
        if (wanted > width)
            width = wanted;
    }
    return width;
}

void table_print(const struct table *table, FILE *out)
{
    size_t *widths = xcalloc(table->columns, sizeof(*widths));
    for (size_t i = 0; i < table->columns; i++)
        widths[i] = column_width(table, i);
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns;
        const char *text = table->cells[i];
        if (column + 1 == table->columns)
            fprintf(out, "%s\n", text);
        else
            fprintf(out, "%s%*s", text, (int)(widths[column] - text_width(text)), "");
    }
    free(widths);
}

void table_done(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
    table->count = 0;
}
