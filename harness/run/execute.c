/* Owns the course of a run: folder, groups in order, how it ends. Must not know how a cell is
 * measured. */
#include "run/execute.h"

#include "base/fs.h"
#include "run/bench.h"
#include "run/describe.h"
#include "run/folder.h"
#include "run/forced.h"
#include "run/free.h"
#include "run/recall.h"
#include "run/rig.h"
#include "run/stop.h"
#include "run/timing.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct run {
    struct kvg_runplan *plan;
    const struct kvg_run_options *opt;
    struct kvg_progress *pr;
    struct kvg_arena arena;
    struct kvg_manifest manifest;
    const char *dir, *id;
    struct kvg_rows rows;
    struct kvg_rig rig;
    int is_warm;
};

static int write_suite(const struct run *run, struct kvg_err *err)
{
    struct kvg_str text = {0};
    char path[KVG_RUN_DIR_CAP + 32];
    snprintf(path, sizeof path, "%s/suite.resolved.yaml", run->dir);
    kvg_suite_print(run->plan->suite, &text);
    int rc = text.failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory for '%s'", path)
                         : kvg_fs_write_atomic(path, text.s, text.len, err);
    kvg_str_release(&text);
    return rc;
}

static int open_folder(struct run *run, char run_dir[KVG_RUN_DIR_CAP], struct kvg_err *err)
{
    int is_resumed;
    int rc = kvg_describe(&run->manifest, run->plan, run->opt, &run->arena, err);
    if (!rc)
        rc = kvg_folder_open(run->opt->out, &run->manifest, run->opt->resume, &run->arena,
                             &run->dir, &run->id, &is_resumed, err);
    if (rc)
        return rc;
    if (strlen(run->dir) >= KVG_RUN_DIR_CAP)
        return KVG_FAIL(err, KVG_EUSAGE, "the path of the results is too long: '%s'", run->dir);
    strcpy(run_dir, run->dir);
    if (run->opt->resume)
        kvg_progress_note(run->pr, is_resumed ? "resuming %s" : "nothing to resume: starting %s",
                          run->dir);
    rc = kvg_manifest_write(run->dir, &run->manifest, err);
    if (!rc)
        rc = write_suite(run, err);
    if (!rc)
        rc = kvg_status_write(run->dir, KVG_STATUS_RUNNING, err);
    return rc ? rc : kvg_rows_open(&run->rows, run->dir, run->id, run->plan, err);
}

/* Cells that the plan has decided already get their rows; *n_open receives the number of others
 * that are still to do. */
static int put_decided(struct run *run, const struct kvg_group *g, size_t *n_open,
                       struct kvg_err *err)
{
    int rc = KVG_OK;
    *n_open = 0;
    for (size_t i = g->first; i < g->first + g->n && !rc; i++) {
        const struct kvg_cell *c = &run->plan->cells[i];
        if (kvg_rows_is_done(&run->rows, c))
            continue;
        if (c->status == KVG_CELL_TODO)
            ++*n_open;
        else
            rc = kvg_rows_put(&run->rows, c, NULL, err);
    }
    return rc;
}

/* The time lane starts with memory to itself and a warm machine. */
static int begin_time(struct run *run, const struct kvg_group *g, struct kvg_err *err)
{
    if (run->is_warm)
        return KVG_OK;
    run->is_warm = 1;
    kvg_rig_drop_slots(&run->rig);
    return kvg_timing_warm_up(&run->rig, g, err);
}

/* Cells of a group that are measured. */
static size_t todo_of(const struct run *run, const struct kvg_group *g)
{
    size_t n = 0;
    for (size_t i = g->first; i < g->first + g->n; i++)
        n += run->plan->cells[i].status == KVG_CELL_TODO;
    return n;
}

static int run_group(struct run *run, const struct kvg_group *g, struct kvg_err *err)
{
    char what[96];
    const char *item = run->plan->items[g->item].tokens.item->id;
    int is_drift = g->kind == KVG_GROUP_DRIFT, rc = KVG_OK;
    size_t n_open;
    rc = put_decided(run, g, &n_open, err);
    if (rc || !n_open) {
        kvg_progress_begin(run->pr, item, g->est_seconds);
        kvg_progress_end(run->pr, todo_of(run, g));
        return rc;
    }
    snprintf(what, sizeof what, "%.60s %s", item, is_drift ? kvg_mode_name(g->mode) : "time");
    if (!is_drift)
        rc = begin_time(run, g, err);
    kvg_progress_begin(run->pr, what, g->est_seconds);
    if (!rc && !is_drift)
        rc = kvg_timing_group(&run->rig, g, err);
    else if (!rc && g->mode == KVG_MODE_FREE)
        rc = kvg_free_group(&run->rig, g, err);
    else if (!rc)
        rc = kvg_forced_group(&run->rig, g, err);
    kvg_progress_end(run->pr, todo_of(run, g));
    return rc;
}

static int put_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    int rc = kvg_csv_write(arg, row, err);
    return rc ? rc : kvg_csv_flush(arg, err);
}

static int measure_bench(struct run *run, struct kvg_csv *csv, struct kvg_err *err)
{
    const struct kvg_suite *s = run->plan->suite;
    const struct kvg_strlist *specs = s->bench_strategies.n ? &s->bench_strategies : &s->strategies;
    size_t n_threads = (size_t)kvg_pool_threads(run->opt->pool);
    const struct kvg_bench_cfg cfg = {.model = run->plan->model,
                                      .kernels = run->opt->kernels,
                                      .specs = specs->v,
                                      .n_specs = specs->n,
                                      .gens = &s->bench_n_gen,
                                      .n_gens = 1,
                                      .depths = s->bench_depths,
                                      .n_depths = s->n_bench_depths,
                                      .threads = &n_threads,
                                      .n_threads = 1,
                                      .reps = 1,
                                      .seed = s->seed};
    return kvg_bench_run(&cfg, run->pr, put_row, csv, err);
}

static int measure_recall(struct run *run, struct kvg_csv *csv, struct kvg_err *err)
{
    const struct kvg_suite *s = run->plan->suite;
    const struct kvg_strlist *specs =
        s->recall_strategies.n ? &s->recall_strategies : &s->strategies;
    const struct kvg_recall_cfg cfg = {.kernels = run->opt->kernels,
                                       .pool = run->opt->pool,
                                       .specs = specs->v,
                                       .n_specs = specs->n,
                                       .lengths = s->recall_lengths,
                                       .n_lengths = s->n_recall_lengths,
                                       .n_facts = s->recall_facts,
                                       .seed = s->seed,
                                       .skip_unfit = 1};
    return kvg_recall_run(&cfg, run->pr, put_row, csv, err);
}

/* A file beside the cells. It is written under another name until it is whole: a resumed run makes
 * it again. */
static int write_beside(struct run *run, const struct kvg_table *table,
                        int (*measure)(struct run *, struct kvg_csv *, struct kvg_err *),
                        struct kvg_err *err)
{
    char path[KVG_RUN_DIR_CAP + 32], part[KVG_RUN_DIR_CAP + 32];
    struct kvg_csv *csv;
    snprintf(path, sizeof path, "%s/%.16s.csv", run->dir, table->name);
    snprintf(part, sizeof part, "%s/%.16s.csv.part", run->dir, table->name);
    if (kvg_fs_exists(path))
        return KVG_OK;
    unlink(part);
    int rc = kvg_csv_open_append(&csv, part, table, err);
    if (rc)
        return rc;
    kvg_progress_begin(run->pr, table->name, 0);
    rc = measure(run, csv, err);
    kvg_progress_end(run->pr, 0);
    int closed = kvg_csv_close(csv, rc ? NULL : err);
    rc = rc ? rc : closed;
    if (!rc && rename(part, path))
        rc = KVG_FAIL(err, KVG_EIO, "cannot rename '%s'", part);
    return rc;
}

static int run_all(struct run *run, struct kvg_err *err)
{
    int rc = kvg_rig_open(&run->rig, run->plan, run->opt, &run->rows, run->pr, err);
    for (size_t i = 0; i < run->plan->n_groups && !rc; i++) {
        rc = run_group(run, &run->plan->groups[i], err);
        if (!rc)
            rc = kvg_stop_check(err);
    }
    if (run->rig.n_ties)
        kvg_progress_note(run->pr, "%zu choices of the baseline were ties decided by rounding",
                          run->rig.n_ties);
    kvg_rig_close(&run->rig);
    if (!rc && run->plan->suite->bench)
        rc = write_beside(run, &kvg_table_bench, measure_bench, err);
    if (!rc && run->plan->suite->recall)
        rc = write_beside(run, &kvg_table_recall, measure_recall, err);
    if (!rc && !run->rows.n_measured)
        rc = KVG_FAIL(err, KVG_ENONE,
                      "nothing was measured: every cell was skipped or failed; "
                      "the column 'reason' of '%s/cells.csv' says why",
                      run->dir);
    return rc;
}

/* The status says the truth also when the disk is full: "running" never counts as complete. */
static int finish(struct run *run, int rc, struct kvg_err *err)
{
    enum kvg_status status = rc ? KVG_STATUS_INTERRUPTED : KVG_STATUS_COMPLETE;
    if (rc == KVG_ENONE)
        status = KVG_STATUS_COMPLETE;
    run->manifest.context.end = kvg_describe_now(&run->arena);
    int closed = kvg_rows_close(&run->rows, rc ? NULL : err);
    rc = rc ? rc : closed;
    int written = kvg_manifest_write(run->dir, &run->manifest, rc ? NULL : err);
    rc = rc ? rc : written;
    written = kvg_status_write(run->dir, status, rc ? NULL : err);
    rc = rc ? rc : written;
    if (rc == KVG_EINTR)
        KVG_FAIL(err, KVG_EINTR,
                 "interrupted; everything finished so far is in '%s'; the same command with "
                 "--resume goes on from there",
                 run->dir);
    return rc;
}

int kvg_run_execute(struct kvg_runplan *plan, const struct kvg_run_options *opt,
                    struct kvg_progress *pr, char run_dir[KVG_RUN_DIR_CAP], struct kvg_err *err)
{
    struct run run = {.plan = plan, .opt = opt, .pr = pr};
    run_dir[0] = 0;
    kvg_arena_init(&run.arena);
    kvg_stop_init();
    int rc = open_folder(&run, run_dir, err);
    if (!rc)
        rc = run_all(&run, err);
    if (run_dir[0])
        rc = finish(&run, rc, err);
    kvg_stop_release();
    kvg_arena_release(&run.arena);
    return rc;
}
