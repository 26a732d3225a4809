/* CSV in and out through libcsv: RFC 4180, header always, an empty field is a missing value, `.`
 * decimals in every locale, doubles that read back exactly. Rows are typed by the column table. */
#ifndef KVG_RESULT_CSV_H
#define KVG_RESULT_CSV_H

#include "base/err.h"
#include "result/columns.h"

#include <stddef.h>
#include <stdint.h>

/* One row. Texts are borrowed: they must live until kvg_csv_write (or, in a reader's callback,
 * until the callback returns). About 1.3 KB: put it on the stack or reuse one per table. */
struct kvg_row {
    const struct kvg_table *table;
    const char *misuse; /* the first column set with a wrong type; kvg_csv_write refuses the row */
    unsigned char is_set[KVG_COLUMNS_MAX];
    union {
        uint64_t u64;
        int64_t i64;
        double f64;
        const char *str;
    } v[KVG_COLUMNS_MAX];
};

/* Empties the row (every column missing); a `schema` column is set to KVG_SCHEMA. */
void kvg_row_init(struct kvg_row *row, const struct kvg_table *table);
/* `column` is a KVG_<TABLE>_<name>. The setter must be the one of the column's type. NULL or ""
 * as text means missing. */
void kvg_row_set_u64(struct kvg_row *row, int column, uint64_t v);
void kvg_row_set_i64(struct kvg_row *row, int column, int64_t v);
void kvg_row_set_f64(struct kvg_row *row, int column, double v);
void kvg_row_set_str(struct kvg_row *row, int column, const char *v);

int kvg_row_has(const struct kvg_row *row, int column);
/* 0 when missing or of another type. */
uint64_t kvg_row_u64(const struct kvg_row *row, int column);
int64_t kvg_row_i64(const struct kvg_row *row, int column);
/* Any numeric column as a double; NaN when missing. */
double kvg_row_f64(const struct kvg_row *row, int column);
/* "" when missing. */
const char *kvg_row_str(const struct kvg_row *row, int column);

/* The end of the last complete record of data[n], quotes respected: what follows is torn. */
size_t kvg_csv_complete_bytes(const char *data, size_t n);

struct kvg_csv; /* an open file for appending */

/* Creates the file with its header, or opens an existing one: its header must equal the table's
 * (KVG_EFORMAT otherwise), and a last line torn by a killed run is dropped. */
int kvg_csv_open_append(struct kvg_csv **csv, const char *path, const struct kvg_table *table,
                        struct kvg_err *err);
/* Buffered. KVG_ECHECK when a setter of a wrong type was used or a required column is missing. */
int kvg_csv_write(struct kvg_csv *csv, const struct kvg_row *row, struct kvg_err *err);
/* Hands everything to the operating system; KVG_EIO names the file and the cause (disk full). */
int kvg_csv_flush(struct kvg_csv *csv, struct kvg_err *err);
/* Flushes and closes; NULL is allowed. The file is closed even when this fails. */
int kvg_csv_close(struct kvg_csv *csv, struct kvg_err *err);

/* Called per row; a non-zero return stops the reading and is handed back. */
typedef int (*kvg_csv_fn)(void *arg, const struct kvg_row *row, struct kvg_err *err);

/* Reads a file by column names: columns the table does not know are ignored, a missing required
 * one is an error that names it, others read as missing. Malformed lines are KVG_EFORMAT with the
 * line number. A torn last line (no line end) is not read. */
int kvg_csv_read(const char *path, const struct kvg_table *table, kvg_csv_fn fn, void *arg,
                 struct kvg_err *err);

/* Rewrites a file (atomically) with the rows for which `keep` returns 1, e.g. to drop the steps of
 * a cell that a killed run did not finish before the cell is done again. */
typedef int (*kvg_csv_keep_fn)(void *arg, const struct kvg_row *row);
int kvg_csv_filter(const char *path, const struct kvg_table *table, kvg_csv_keep_fn keep, void *arg,
                   size_t *n_dropped, struct kvg_err *err);

#endif
