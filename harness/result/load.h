/* A run folder in memory: manifest, cells, turns and steps, with the steps and turns of each cell
 * found by index. Must not know metrics. */
#ifndef KVG_RESULT_LOAD_H
#define KVG_RESULT_LOAD_H

#include "base/arena.h"
#include "base/err.h"
#include "result/csv.h"
#include "result/manifest.h"

#include <stddef.h>
#include <stdint.h>

/* Missing numbers are NaN. Times in ns. */
struct kvg_run_turn {
    uint32_t cell, turn;
    double n_prompt_tokens, n_reply_tokens, ttft_ns, prefill_ns, itl_ns;
    double logical_tokens, kept_tokens_mean, logical_bytes, alloc_bytes, step_peak_bytes;
};

struct kvg_run_step {
    uint32_t cell, turn, step;
    int uncompressed;
    double pos, kl, top1, top10, nll_base, nll, dprob, max_dlogit;
    double step_ns, observe_ns, manage_ns;
};

struct kvg_run_range {
    size_t begin, end;
};

struct kvg_run {
    struct kvg_arena arena; /* owns every text */
    const char *dir, *id;   /* id: the folder's last name */
    struct kvg_manifest manifest;
    enum kvg_status status; /* interrupted when there is no STATUS file */
    struct kvg_row *cells;  /* of the last row per (cell_id, round) */
    size_t n_cells, cap_cells;
    struct kvg_run_turn *turns; /* sorted by cell, turn */
    size_t n_turns, cap_turns;
    struct kvg_run_step *steps; /* sorted by cell, turn, step */
    size_t n_steps, cap_steps;
    struct kvg_run_range *cell_turns, *cell_steps; /* [n_cells] */
    size_t n_orphans; /* rows of turns and steps whose cell is not in cells.csv: left out */
    size_t *slots;    /* hash index of the cells: index + 1, 0 = free */
    size_t n_slots;
};

/* turns.csv and steps.csv may be absent; cells.csv and manifest.json must be there. Release also
 * after a failure. */
int kvg_run_load(struct kvg_run *run, const char *dir, struct kvg_err *err);
void kvg_run_release(struct kvg_run *run);

/* A cell's text column, by KVG_CELLS_<name>; "" when missing. */
const char *kvg_run_cell(const struct kvg_run *run, size_t cell, int column);
/* 1 when the cell's text column is `value`. */
int kvg_run_cell_is(const struct kvg_run *run, size_t cell, int column, const char *value);

#endif
