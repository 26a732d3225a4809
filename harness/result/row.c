/* Typed rows: setters and getters checked against the column table. Knows no files. */
#include "result/csv.h"

#include <math.h>
#include <string.h>

void kvg_row_init(struct kvg_row *row, const struct kvg_table *table)
{
    row->table = table;
    row->misuse = NULL;
    memset(row->is_set, 0, sizeof row->is_set);
    int schema = kvg_table_column(table, "schema");
    if (schema >= 0)
        kvg_row_set_u64(row, schema, KVG_SCHEMA);
}

/* 1 when the column exists and has this type; otherwise the row remembers the slip. */
static int accepts(struct kvg_row *row, int column, enum kvg_column_type type)
{
    if (column < 0 || (size_t)column >= row->table->n_columns) {
        if (!row->misuse)
            row->misuse = "(not a column)";
        return 0;
    }
    const struct kvg_column *c = &row->table->columns[column];
    if (c->type == type)
        return 1;
    if (!row->misuse)
        row->misuse = c->name;
    return 0;
}

void kvg_row_set_u64(struct kvg_row *row, int column, uint64_t v)
{
    if (accepts(row, column, KVG_COL_U64)) {
        row->v[column].u64 = v;
        row->is_set[column] = 1;
    }
}

void kvg_row_set_i64(struct kvg_row *row, int column, int64_t v)
{
    if (accepts(row, column, KVG_COL_I64)) {
        row->v[column].i64 = v;
        row->is_set[column] = 1;
    }
}

void kvg_row_set_f64(struct kvg_row *row, int column, double v)
{
    if (accepts(row, column, KVG_COL_F64)) {
        row->v[column].f64 = v;
        row->is_set[column] = 1;
    }
}

void kvg_row_set_str(struct kvg_row *row, int column, const char *v)
{
    if (accepts(row, column, KVG_COL_STR)) {
        row->v[column].str = v;
        row->is_set[column] = v && *v;
    }
}

int kvg_row_has(const struct kvg_row *row, int column)
{
    return column >= 0 && (size_t)column < row->table->n_columns && row->is_set[column];
}

uint64_t kvg_row_u64(const struct kvg_row *row, int column)
{
    if (!kvg_row_has(row, column) || row->table->columns[column].type != KVG_COL_U64)
        return 0;
    return row->v[column].u64;
}

int64_t kvg_row_i64(const struct kvg_row *row, int column)
{
    if (!kvg_row_has(row, column) || row->table->columns[column].type != KVG_COL_I64)
        return 0;
    return row->v[column].i64;
}

double kvg_row_f64(const struct kvg_row *row, int column)
{
    if (!kvg_row_has(row, column))
        return (double)NAN;
    switch (row->table->columns[column].type) {
    case KVG_COL_U64:
        return (double)row->v[column].u64;
    case KVG_COL_I64:
        return (double)row->v[column].i64;
    case KVG_COL_F64:
        return row->v[column].f64;
    case KVG_COL_STR:
        break;
    }
    return (double)NAN;
}

const char *kvg_row_str(const struct kvg_row *row, int column)
{
    if (!kvg_row_has(row, column) || row->table->columns[column].type != KVG_COL_STR)
        return "";
    return row->v[column].str;
}
