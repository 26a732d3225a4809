/* The rows of a run folder: writes those of a finished cell in an order that keeps a killed run
 * valid, and knows which cells an earlier attempt finished. Must not know how cells are measured.
 */
#ifndef KVG_RUN_ROWS_H
#define KVG_RUN_ROWS_H

#include "base/err.h"
#include "result/csv.h"
#include "run/record.h"
#include "run/runplan.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_rows {
    const struct kvg_runplan *plan;
    const char *run_id;
    struct kvg_csv *cells, *turns, *steps, *kept;
    uint64_t *done; /* sorted keys of finished cells of earlier attempts */
    size_t n_done, cap_done;
    size_t n_measured; /* cells with status ok, earlier attempts included */
    size_t n_failed;
};

/* Opens the files of the folder for appending. When it has rows already, those of cells without a
 * row in cells.csv are dropped. run_id is borrowed. KVG_EIO, KVG_EFORMAT. Close also after a
 * failure. */
int kvg_rows_open(struct kvg_rows *r, const char *dir, const char *run_id,
                  const struct kvg_runplan *plan, struct kvg_err *err);
int kvg_rows_close(struct kvg_rows *r, struct kvg_err *err);
int kvg_rows_is_done(const struct kvg_rows *r, const struct kvg_cell *cell);
/* 1 when the plan wants the cell measured and no run has done it yet. */
int kvg_rows_is_open(const struct kvg_rows *r, const struct kvg_cell *cell);

/* Writes a cell: steps, turns and kept rows, then its own row, then hands all to the system. rec is
 * NULL for a cell that the plan skipped. KVG_EIO names the file and the cause. */
int kvg_rows_put(struct kvg_rows *r, const struct kvg_cell *cell, const struct kvg_record *rec,
                 struct kvg_err *err);

#endif
