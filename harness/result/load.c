/* Reads a run folder into memory. A killed run may leave steps of a cell that was never finished,
 * and a resumed one may write a cell again: the first are left out, of the second the last counts.
 */
#include "result/load.h"

#include "base/fs.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t hash_cell(const char *id, uint64_t round)
{
    uint64_t h = kvg_hash_fnv_str(KVG_FNV_INIT, id);
    return (size_t)kvg_hash_fnv(h, &round, sizeof round);
}

/* The slot of (id, round), or the free slot where it belongs. */
static size_t *find_slot(const struct kvg_run *run, const char *id, uint64_t round)
{
    size_t at = hash_cell(id, round);
    for (;; at++) {
        size_t *slot = &run->slots[at & (run->n_slots - 1)];
        if (!*slot)
            return slot;
        const struct kvg_row *c = &run->cells[*slot - 1];
        if (kvg_row_u64(c, KVG_CELLS_round) == round &&
            !strcmp(kvg_row_str(c, KVG_CELLS_cell_id), id))
            return slot;
    }
}

static int grow_slots(struct kvg_run *run)
{
    size_t n = run->n_slots ? 2 * run->n_slots : 256;
    size_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return KVG_ENOMEM;
    free(run->slots);
    run->slots = slots;
    run->n_slots = n;
    for (size_t i = 0; i < run->n_cells; i++)
        *find_slot(run, kvg_run_cell(run, i, KVG_CELLS_cell_id),
                   kvg_row_u64(&run->cells[i], KVG_CELLS_round)) = i + 1;
    return KVG_OK;
}

/* Room for one more element; NULL when memory is short. */
static void *grow(void *v, size_t n, size_t *cap, size_t bytes)
{
    if (n < *cap)
        return v;
    size_t want = *cap ? 2 * *cap : 256;
    void *p = realloc(v, want * bytes);
    if (p)
        *cap = want;
    return p;
}

static int copy_texts(struct kvg_run *run, struct kvg_row *row)
{
    for (size_t c = 0; c < row->table->n_columns; c++)
        if (row->is_set[c] && row->table->columns[c].type == KVG_COL_STR &&
            !(row->v[c].str = kvg_arena_strdup(&run->arena, row->v[c].str)))
            return KVG_ENOMEM;
    return KVG_OK;
}

static int add_cell(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kvg_run *run = arg;
    struct kvg_row *cells = grow(run->cells, run->n_cells, &run->cap_cells, sizeof *cells);
    if (!cells)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", run->dir);
    run->cells = cells;
    if (2 * (run->n_cells + 1) > run->n_slots && grow_slots(run))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", run->dir);
    size_t *slot =
        find_slot(run, kvg_row_str(row, KVG_CELLS_cell_id), kvg_row_u64(row, KVG_CELLS_round));
    if (!*slot)
        *slot = ++run->n_cells;
    struct kvg_row *cell = &run->cells[*slot - 1];
    *cell = *row;
    if (copy_texts(run, cell))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", run->dir);
    return KVG_OK;
}

/* The cell's index, or n_cells when it is unknown. */
static size_t find_cell(struct kvg_run *run, const char *id, uint64_t round)
{
    size_t slot = run->n_slots ? *find_slot(run, id, round) : 0;
    if (slot)
        return slot - 1;
    run->n_orphans++;
    return run->n_cells;
}

static int add_turn(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kvg_run *run = arg;
    size_t cell =
        find_cell(run, kvg_row_str(row, KVG_TURNS_cell_id), kvg_row_u64(row, KVG_TURNS_round));
    if (cell == run->n_cells)
        return KVG_OK;
    struct kvg_run_turn *turns = grow(run->turns, run->n_turns, &run->cap_turns, sizeof *turns);
    if (!turns)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", run->dir);
    run->turns = turns;
    turns[run->n_turns++] = (struct kvg_run_turn){
        .cell = (uint32_t)cell,
        .turn = (uint32_t)kvg_row_u64(row, KVG_TURNS_turn),
        .n_prompt_tokens = kvg_row_f64(row, KVG_TURNS_n_prompt_tokens),
        .n_reply_tokens = kvg_row_f64(row, KVG_TURNS_n_reply_tokens),
        .ttft_ns = kvg_row_f64(row, KVG_TURNS_ttft_ns),
        .prefill_ns = kvg_row_f64(row, KVG_TURNS_prefill_ns),
        .itl_ns = kvg_row_f64(row, KVG_TURNS_itl_ns),
        .logical_tokens = kvg_row_f64(row, KVG_TURNS_logical_tokens),
        .kept_tokens_mean = kvg_row_f64(row, KVG_TURNS_kept_tokens_mean),
        .logical_bytes = kvg_row_f64(row, KVG_TURNS_logical_bytes),
        .alloc_bytes = kvg_row_f64(row, KVG_TURNS_alloc_bytes),
        .step_peak_bytes = kvg_row_f64(row, KVG_TURNS_step_peak_bytes),
    };
    return KVG_OK;
}

static int add_step(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kvg_run *run = arg;
    size_t cell =
        find_cell(run, kvg_row_str(row, KVG_STEPS_cell_id), kvg_row_u64(row, KVG_STEPS_round));
    if (cell == run->n_cells)
        return KVG_OK;
    struct kvg_run_step *steps = grow(run->steps, run->n_steps, &run->cap_steps, sizeof *steps);
    if (!steps)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", run->dir);
    run->steps = steps;
    steps[run->n_steps++] = (struct kvg_run_step){
        .cell = (uint32_t)cell,
        .turn = (uint32_t)kvg_row_u64(row, KVG_STEPS_turn),
        .step = (uint32_t)kvg_row_u64(row, KVG_STEPS_step),
        .uncompressed = kvg_row_u64(row, KVG_STEPS_uncompressed) != 0,
        .pos = kvg_row_f64(row, KVG_STEPS_pos),
        .kl = kvg_row_f64(row, KVG_STEPS_kl),
        .top1 = kvg_row_f64(row, KVG_STEPS_top1),
        .top10 = kvg_row_f64(row, KVG_STEPS_top10),
        .nll_base = kvg_row_f64(row, KVG_STEPS_nll_base),
        .nll = kvg_row_f64(row, KVG_STEPS_nll),
        .dprob = kvg_row_f64(row, KVG_STEPS_dprob),
        .max_dlogit = kvg_row_f64(row, KVG_STEPS_max_dlogit),
        .step_ns = kvg_row_f64(row, KVG_STEPS_step_ns),
        .observe_ns = kvg_row_f64(row, KVG_STEPS_observe_ns),
        .manage_ns = kvg_row_f64(row, KVG_STEPS_manage_ns),
    };
    return KVG_OK;
}

static int by_turn(const void *a, const void *b)
{
    const struct kvg_run_turn *x = a, *y = b;
    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    return (x->turn > y->turn) - (x->turn < y->turn);
}

static int by_step(const void *a, const void *b)
{
    const struct kvg_run_step *x = a, *y = b;
    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    if (x->turn != y->turn)
        return x->turn < y->turn ? -1 : 1;
    return (x->step > y->step) - (x->step < y->step);
}

/* Sorts, refuses doubles (they would count twice) and finds each cell's range. */
static int index_turns(struct kvg_run *run, struct kvg_err *err)
{
    if (run->n_turns)
        qsort(run->turns, run->n_turns, sizeof *run->turns, by_turn);
    for (size_t i = 0; i < run->n_turns; i++) {
        struct kvg_run_range *r = &run->cell_turns[run->turns[i].cell];
        if (i && !by_turn(&run->turns[i - 1], &run->turns[i]))
            return KVG_FAIL(err, KVG_EFORMAT,
                            "turn %u of cell '%s' is there twice in '%s/turns.csv'; "
                            "resume or repeat the run",
                            run->turns[i].turn,
                            kvg_run_cell(run, run->turns[i].cell, KVG_CELLS_cell_id), run->dir);
        if (r->begin == r->end)
            r->begin = i;
        r->end = i + 1;
    }
    return KVG_OK;
}

static int index_steps(struct kvg_run *run, struct kvg_err *err)
{
    if (run->n_steps)
        qsort(run->steps, run->n_steps, sizeof *run->steps, by_step);
    for (size_t i = 0; i < run->n_steps; i++) {
        struct kvg_run_range *r = &run->cell_steps[run->steps[i].cell];
        if (i && !by_step(&run->steps[i - 1], &run->steps[i]))
            return KVG_FAIL(err, KVG_EFORMAT,
                            "step %u of turn %u of cell '%s' is there twice in '%s/steps.csv'; "
                            "resume or repeat the run",
                            run->steps[i].step, run->steps[i].turn,
                            kvg_run_cell(run, run->steps[i].cell, KVG_CELLS_cell_id), run->dir);
        if (r->begin == r->end)
            r->begin = i;
        r->end = i + 1;
    }
    return KVG_OK;
}

/* Steps with a row of their own: in the time lane the last pass of a prompt is its turn's. */
static uint64_t n_step_rows(const struct kvg_row *cell)
{
    if (strcmp(kvg_row_str(cell, KVG_CELLS_lane), "time"))
        return kvg_row_u64(cell, KVG_CELLS_n_scored);
    uint64_t n = kvg_row_u64(cell, KVG_CELLS_n_steps), turns = kvg_row_u64(cell, KVG_CELLS_n_turns);
    return n > turns ? n - turns : 0;
}

static int check_count(const struct kvg_run *run, size_t cell, const char *what,
                       const struct kvg_run_range *have, uint64_t want, struct kvg_err *err)
{
    if (have->end - have->begin == want)
        return KVG_OK;
    return KVG_FAIL(err, KVG_EFORMAT,
                    "'%s/%s.csv' has %zu of the %llu %s of cell '%s': it was cut or changed; "
                    "repeat the run",
                    run->dir, what, have->end - have->begin, (unsigned long long)want, what,
                    kvg_run_cell(run, cell, KVG_CELLS_cell_id));
}

/* A mean over what a cut file has left would look like any other. */
static int check_counts(const struct kvg_run *run, struct kvg_err *err)
{
    int rc = KVG_OK;
    for (size_t i = 0; i < run->n_cells && !rc; i++) {
        const struct kvg_row *c = &run->cells[i];
        if (!kvg_run_cell_is(run, i, KVG_CELLS_status, "ok"))
            continue;
        rc = check_count(run, i, "turns", &run->cell_turns[i], kvg_row_u64(c, KVG_CELLS_n_turns),
                         err);
        if (!rc)
            rc = check_count(run, i, "steps", &run->cell_steps[i], n_step_rows(c), err);
    }
    return rc;
}

static int read_table(struct kvg_run *run, const struct kvg_table *table, kvg_csv_fn fn,
                      int required, struct kvg_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.csv", run->dir, table->name);
    if (!required && !kvg_fs_exists(path))
        return KVG_OK;
    return kvg_csv_read(path, table, fn, run, err);
}

static const char *last_name(struct kvg_run *run)
{
    size_t n = strlen(run->dir);
    while (n > 1 && run->dir[n - 1] == '/')
        n--;
    size_t begin = n;
    while (begin && run->dir[begin - 1] != '/')
        begin--;
    return kvg_arena_strndup(&run->arena, run->dir + begin, n - begin);
}

int kvg_run_load(struct kvg_run *run, const char *dir, struct kvg_err *err)
{
    memset(run, 0, sizeof *run);
    kvg_arena_init(&run->arena);
    run->dir = kvg_arena_strdup(&run->arena, dir);
    run->id = run->dir ? last_name(run) : NULL;
    if (!run->id)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", dir);
    if (!kvg_fs_is_dir(dir))
        return KVG_FAIL(err, KVG_EUSAGE, "not a run folder: '%s'", dir);
    int rc = kvg_manifest_read(dir, &run->manifest, &run->arena, err);
    if (!rc && kvg_status_read(dir, &run->status, NULL))
        run->status = KVG_STATUS_INTERRUPTED;
    if (!rc)
        rc = read_table(run, &kvg_table_cells, add_cell, 1, err);
    if (rc)
        return rc;
    run->cell_turns = calloc(run->n_cells + 1, sizeof *run->cell_turns);
    run->cell_steps = calloc(run->n_cells + 1, sizeof *run->cell_steps);
    if (!run->cell_turns || !run->cell_steps)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while loading '%s'", dir);
    rc = read_table(run, &kvg_table_turns, add_turn, 0, err);
    if (!rc)
        rc = read_table(run, &kvg_table_steps, add_step, 0, err);
    if (!rc)
        rc = index_turns(run, err);
    if (!rc)
        rc = index_steps(run, err);
    return rc ? rc : check_counts(run, err);
}

void kvg_run_release(struct kvg_run *run)
{
    kvg_arena_release(&run->arena);
    free(run->cells);
    free(run->turns);
    free(run->steps);
    free(run->cell_turns);
    free(run->cell_steps);
    free(run->slots);
    memset(run, 0, sizeof *run);
}

const char *kvg_run_cell(const struct kvg_run *run, size_t cell, int column)
{
    return kvg_row_str(&run->cells[cell], column);
}

int kvg_run_cell_is(const struct kvg_run *run, size_t cell, int column, const char *value)
{
    return !strcmp(kvg_run_cell(run, cell, column), value);
}
