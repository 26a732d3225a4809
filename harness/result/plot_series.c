/* Line charts over turns, positions and steps: bytes by turn, drift by turn and position, survival.
 * One data row per point: series number, strategy, x, y. */
#include "plot_impl.h"

#include "base/fs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BINS = 256, HEIGHT_PX = 460 };

/* A chart being filled: series in order, and the range of y. */
struct chart {
    struct kvg_plot *p;
    struct kvg_series *series;
    size_t n;
    double lo, hi; /* of y, log10 on a logarithmic axis */
    double x_hi;
    int log;
};

static int chart_init(struct chart *c, struct kvg_plot *p, size_t most, int log)
{
    *c = (struct chart){.p = p, .lo = HUGE_VAL, .hi = -HUGE_VAL, .log = log};
    c->series = kvg_arena_array(&p->summary->run.arena, most + 1, sizeof *c->series);
    return c->series ? KVG_OK : KVG_FAIL(p->err, KVG_ENOMEM, "out of memory while plotting");
}

/* Adds a point to the series `name` (a new one when it differs from the last). A value that has no
 * place on a logarithmic axis is left out. */
static void chart_point(struct chart *c, const char *panel, const char *name, double x, double y)
{
    double at = c->log ? log10(y) : y;
    if (!isfinite(at))
        return;
    if (!c->n || c->series[c->n - 1].name != name) {
        c->series[c->n].name = name;
        c->series[c->n].index = c->n;
        c->n++;
    }
    c->series[c->n - 1].end = at;
    c->lo = fmin(c->lo, at);
    c->hi = fmax(c->hi, at);
    c->x_hi = fmax(c->x_hi, x);
    kvg_str_addf(&c->p->dat, "%s %zu ", panel, c->n - 1);
    kvg_plot_put_text(&c->p->dat, name, 80);
    kvg_str_addf(&c->p->dat, " %.10g %.10g\n", x, y);
}

static void chart_end(struct chart *c, const char *prefix)
{
    if (c->log) {
        c->lo = floor(c->lo * 4 - 0.2) / 4;
        c->hi = ceil(c->hi * 4 + 0.2) / 4;
    }
    kvg_plot_put_series(c->p, prefix, c->series, c->n, c->lo, c->hi, c->log, HEIGHT_PX);
    kvg_str_addf(&c->p->vars, "%s_lo = %.6g\n%s_hi = %.6g\n%s_x_hi = %.6g\n", prefix,
                 c->log ? pow(10, c->lo) : c->lo, prefix, c->log ? pow(10, c->hi) : c->hi, prefix,
                 c->x_hi);
}

static void put_text_var(struct kvg_plot *p, const char *name, const char *value)
{
    kvg_str_addf(&p->vars, "%s = '", name);
    kvg_plot_quote(&p->vars, value, 60);
    kvg_str_add(&p->vars, "'\n");
}

static size_t n_turns(const struct kvg_run *run, size_t cell)
{
    return run->cell_turns[cell].end - run->cell_turns[cell].begin;
}

/* The slice's cell of an item; n_cells when there is none. */
static size_t cell_of_item(const struct kvg_run *run, const struct kvg_slice *x, size_t like)
{
    for (size_t i = 0; x && i < x->n_cells; i++)
        if (!strcmp(kvg_run_cell(run, x->cells[i], KVG_CELLS_item),
                    kvg_run_cell(run, like, KVG_CELLS_item)) &&
            !strcmp(kvg_run_cell(run, x->cells[i], KVG_CELLS_workload),
                    kvg_run_cell(run, like, KVG_CELLS_workload)))
            return x->cells[i];
    return run->n_cells;
}

/* The drift cell of an item may have failed where another did not. */
static size_t any_cell_of_item(const struct kvg_run *run, const struct kvg_line *line, size_t like)
{
    const struct kvg_slice *slices[] = {line->drift, line->free, line->time};
    size_t cell = run->n_cells;
    for (size_t i = 0; i < 3 && cell == run->n_cells; i++)
        cell = cell_of_item(run, slices[i], like);
    return cell;
}

/* The cell with most turns of any strategy. */
static size_t longest_cell(const struct kvg_run *run, const struct kvg_section *s)
{
    size_t best = run->n_cells, most = 1;
    for (size_t i = 0; i < s->n_lines; i++)
        for (size_t k = 0; k < s->lines[i].bytes->n_cells; k++) {
            size_t cell = s->lines[i].bytes->cells[k];
            if (n_turns(run, cell) > most) {
                most = n_turns(run, cell);
                best = cell;
            }
        }
    return best;
}

int kvg_plot_bytes_turns(struct kvg_plot *p)
{
    const struct kvg_run *run = &p->summary->run;
    const struct kvg_section *s = kvg_plot_section(p, 0);
    size_t longest = s ? longest_cell(run, s) : run->n_cells;
    struct chart c;
    if (longest == run->n_cells) {
        p->why_not = "left out: no item has more than one turn";
        return KVG_OK;
    }
    int rc = chart_init(&c, p, s->n_lines, 1);
    kvg_str_add(&p->dat, "panel series strategy turn megabytes\n");
    for (size_t i = 0; i < s->n_lines && !rc; i++) {
        size_t cell = any_cell_of_item(run, &s->lines[i], longest);
        if (cell == run->n_cells)
            continue;
        for (size_t t = run->cell_turns[cell].begin; t < run->cell_turns[cell].end; t++)
            chart_point(&c, "turns", s->lines[i].strategy, run->turns[t].turn + 1.0,
                        run->turns[t].logical_bytes * 1e-6);
    }
    if (!rc && !c.n)
        p->why_not = "left out: no bytes were recorded by turn";
    else if (!rc) {
        chart_end(&c, "turns");
        put_text_var(p, "item", kvg_run_cell(run, longest, KVG_CELLS_item));
    }
    return rc;
}

/* Sums of KL by bin. */
struct bins {
    double sum[MAX_BINS], n[MAX_BINS];
};

static void add_bin(struct bins *b, double bin, double kl)
{
    if (!(bin >= 0) || bin >= MAX_BINS || isnan(kl))
        return;
    b->sum[(size_t)bin] += kl;
    b->n[(size_t)bin]++;
}

static void sum_bins(const struct kvg_run *run, const struct kvg_slice *x, struct bins *turns,
                     struct bins *places)
{
    memset(turns, 0, sizeof *turns);
    memset(places, 0, sizeof *places);
    for (size_t i = 0; i < x->n_cells; i++) {
        const struct kvg_run_range *r = &run->cell_steps[x->cells[i]];
        for (size_t k = r->begin; k < r->end; k++) {
            const struct kvg_run_step *step = &run->steps[k];
            if (step->uncompressed)
                continue;
            add_bin(turns, step->turn, step->kl);
            add_bin(places, floor(log2(fmax(step->pos, 1))), step->kl);
        }
    }
}

/* What is under the floor would only stretch the axis: it is named, not drawn. */
static void put_undrawn(struct kvg_plot *p, const struct kvg_section *s)
{
    size_t n = 0;
    kvg_str_add(&p->vars, "undrawn = '");
    for (size_t i = 0; i < s->n_lines; i++)
        if (s->lines[i].indistinct) {
            kvg_str_add(&p->vars, n++ ? ", " : "at or under the noise floor, not drawn: ");
            kvg_plot_quote(&p->vars, s->lines[i].strategy, 24);
        }
    kvg_str_add(&p->vars, "'\n");
}

int kvg_plot_drift_turn(struct kvg_plot *p)
{
    const struct kvg_run *run = &p->summary->run;
    const struct kvg_section *s = kvg_plot_section(p, 1);
    struct chart by_turn, by_place;
    struct bins turns, places;
    if (!s) {
        p->why_not = "left out: no forced drift was measured";
        return KVG_OK;
    }
    int rc = chart_init(&by_turn, p, s->n_lines, 1);
    rc = rc ? rc : chart_init(&by_place, p, s->n_lines, 1);
    kvg_str_add(&p->dat, "panel series strategy x kl\n");
    for (size_t i = 0; i < s->n_lines && !rc; i++) {
        const struct kvg_line *line = &s->lines[i];
        if (!line->drift || line->indistinct)
            continue;
        sum_bins(run, line->drift, &turns, &places);
        for (size_t b = 0; b < MAX_BINS; b++)
            chart_point(&by_turn, "turn", line->strategy, (double)b + 1, turns.sum[b] / turns.n[b]);
        for (size_t b = 0; b < MAX_BINS; b++)
            chart_point(&by_place, "position", line->strategy, 1.5 * ldexp(1, (int)b),
                        places.sum[b] / places.n[b]);
    }
    if (!rc && (!by_turn.n || by_turn.n != by_place.n))
        p->why_not = "left out: no drift above the noise floor";
    else if (!rc) {
        by_turn.lo = by_place.lo = fmin(by_turn.lo, by_place.lo);
        by_turn.hi = by_place.hi = fmax(by_turn.hi, by_place.hi);
        chart_end(&by_turn, "turn");
        chart_end(&by_place, "position");
        put_text_var(p, "workload", kvg_workload_title(s->workload));
        put_undrawn(p, s);
    }
    return rc;
}

static int add_survival(struct chart *c, const struct kvg_run *run, const struct kvg_line *line)
{
    const struct kvg_slice *x = line->free;
    struct kvg_survival_obs *obs = malloc((x->n_cells + 1) * sizeof *obs);
    struct kvg_survival_step *steps = malloc((x->n_cells + 1) * sizeof *steps);
    int rc =
        obs && steps ? KVG_OK : KVG_FAIL(c->p->err, KVG_ENOMEM, "out of memory while plotting");
    size_t n = rc ? 0 : kvg_slice_survival_obs(x, run, obs);
    size_t n_steps = n ? kvg_stats_survival(obs, n, steps) : 0;
    if (n) {
        chart_point(c, "steps", line->strategy, 0, 100);
        for (size_t i = 0; i < n_steps; i++)
            chart_point(c, "steps", line->strategy, steps[i].time, 100 * steps[i].share);
        double last = obs[n - 1].time; /* sorted: the longest reply */
        chart_point(c, "steps", line->strategy, last,
                    n_steps ? 100 * steps[n_steps - 1].share : 100);
    }
    free(obs);
    free(steps);
    return rc;
}

int kvg_plot_survival(struct kvg_plot *p)
{
    const struct kvg_run *run = &p->summary->run;
    const struct kvg_section *s = kvg_plot_section(p, 0);
    struct chart c;
    int rc = chart_init(&c, p, s ? s->n_lines : 0, 0);
    kvg_str_add(&p->dat, "panel series strategy steps percent\n");
    for (size_t i = 0; s && i < s->n_lines && !rc; i++)
        if (s->lines[i].free)
            rc = add_survival(&c, run, &s->lines[i]);
    if (!rc && !c.n)
        p->why_not = "left out: no free replies were measured";
    else if (!rc) {
        c.lo = 0;
        c.hi = 103;
        chart_end(&c, "steps");
        put_text_var(p, "workload", kvg_workload_title(s->workload));
    }
    return rc;
}

/* Rows of bench.csv that time replies, in the order of the file: depth by depth. */
struct bench_point {
    const char *strategy;
    double depth, ms;
};

struct bench {
    struct kvg_arena *arena;
    struct bench_point *v;
    size_t n;
};

static int add_bench(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct bench *b = arg;
    double n_gen = kvg_row_f64(row, KVG_BENCH_n_gen),
           n_prompt = kvg_row_f64(row, KVG_BENCH_n_prompt);
    const char *name = kvg_row_str(row, KVG_BENCH_strategy);
    if (!(n_gen > 0) || n_prompt > 0)
        return KVG_OK;
    struct bench_point *p = &b->v[b->n];
    for (size_t i = 0; i < b->n && !p->strategy; i++)
        if (!strcmp(b->v[i].strategy, name))
            p->strategy = b->v[i].strategy;
    if (!p->strategy)
        p->strategy = kvg_arena_strdup(b->arena, name);
    if (!p->strategy)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while plotting");
    p->depth = kvg_row_f64(row, KVG_BENCH_n_depth);
    p->ms = kvg_row_f64(row, KVG_BENCH_avg_ns) / n_gen * 1e-6;
    b->n++;
    return KVG_OK;
}

static int count_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    (void)row;
    (void)err;
    ++*(size_t *)arg;
    return KVG_OK;
}

/* One series per strategy, in the order in which they first appear. */
static void put_bench(struct chart *c, const struct bench *b)
{
    for (size_t i = 0; i < b->n; i++) {
        size_t first = 0;
        while (b->v[first].strategy != b->v[i].strategy)
            first++;
        for (size_t j = i; j < b->n && first == i; j++)
            if (b->v[j].strategy == b->v[i].strategy)
                chart_point(c, "depth", b->v[i].strategy, b->v[j].depth, b->v[j].ms);
    }
}

int kvg_plot_latency_context(struct kvg_plot *p)
{
    struct kvg_run *run = &p->summary->run;
    struct chart c;
    struct bench b = {.arena = &run->arena};
    char path[4200];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/bench.csv", run->dir);
    if (!kvg_fs_exists(path)) {
        p->why_not = "left out: there is no bench.csv in the run folder";
        return KVG_OK;
    }
    int rc = kvg_csv_read(path, &kvg_table_bench, count_row, &n, p->err);
    rc = rc ? rc : chart_init(&c, p, n, 1);
    b.v = kvg_arena_array(&run->arena, n + 1, sizeof *b.v);
    if (!rc && !b.v)
        rc = KVG_FAIL(p->err, KVG_ENOMEM, "out of memory while plotting");
    rc = rc ? rc : kvg_csv_read(path, &kvg_table_bench, add_bench, &b, p->err);
    if (rc)
        return rc;
    kvg_str_add(&p->dat, "panel series strategy tokens ms_per_token\n");
    put_bench(&c, &b);
    if (c.n)
        chart_end(&c, "depth");
    else
        p->why_not = "left out: bench.csv times no replies";
    return KVG_OK;
}
