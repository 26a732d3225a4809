/* Computes the summary's values from slices and writes summary.csv. */
#include "result/summary.h"

#include "result/recall.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int add_value(struct kvg_summary *s, struct kvg_summary_value v, struct kvg_err *err)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        struct kvg_summary_value *p = realloc(s->v, cap * sizeof *p);
        if (!p)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory while summarising '%s'", s->run.dir);
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = v;
    return KVG_OK;
}

static double quantile_of(int stat)
{
    return stat == KVG_STAT_P50 ? 0.5 : stat == KVG_STAT_P90 ? 0.9 : 0.99;
}

/* Fills value, interval and note of one statistic of a sample. */
static void compute(struct kvg_summary_value *v, const struct kvg_sample *sample, int stat)
{
    struct kvg_interval iv = {(double)NAN, (double)NAN};
    switch (stat) {
    case KVG_STAT_MEAN:
    case KVG_STAT_EXP_MEAN:
        v->value = kvg_stats_ratio(sample->clusters, sample->n_clusters);
        iv = kvg_stats_bootstrap(sample->clusters, sample->n_clusters);
        if (stat == KVG_STAT_EXP_MEAN) {
            v->value = exp(v->value);
            iv.lo = exp(iv.lo);
            iv.hi = exp(iv.hi);
        }
        break;
    case KVG_STAT_MAX:
        v->value = sample->v[sample->n - 1];
        break;
    case KVG_STAT_SUM:
        v->value = kvg_stats_mean(sample->v, sample->n) * (double)sample->n;
        if (v->slice->n_seeds > 1) {
            v->value /= (double)v->slice->n_seeds;
            v->note = "mean of the seeds";
        }
        break;
    default:
        v->value = kvg_stats_percentile(sample->v, sample->n, quantile_of(stat));
        if (v->metric->lane && !strcmp(v->metric->lane, "time"))
            iv = kvg_stats_order_interval(sample->v, sample->n, quantile_of(stat));
        if (kvg_stats_is_few(sample->n, quantile_of(stat)))
            v->note = "few";
    }
    v->lo = iv.lo;
    v->hi = iv.hi;
}

/* `uncached` is timed at a few depths, one step each: a percentile or a mean
 * over them says nothing. */
static int is_by_depth(const struct kvg_run *run, const struct kvg_slice *x)
{
    return !strcmp(x->lane, "time") && !strcmp(x->role, "baseline") &&
           kvg_row_u64(&run->cells[x->cells[0]], KVG_CELLS_n_recomputed) > 0;
}

static int add_sampled(struct kvg_summary *s, const struct kvg_slice *x, const struct kvg_metric *m,
                       struct kvg_err *err)
{
    struct kvg_sample sample;
    int rc = kvg_sample_take(&sample, &s->run, x, m, err);
    for (int stat = 1; stat <= KVG_STAT_EXP_MEAN && !rc && sample.n; stat *= 2) {
        if (!(m->stats & stat) || (strstr(m->sources, "steps.step_ns") && is_by_depth(&s->run, x)))
            continue;
        struct kvg_summary_value v = {
            .slice = x, .metric = m, .stat = kvg_stat_name(stat), .note = ""};
        v.n = sample.n;
        v.n_items = sample.n_clusters;
        compute(&v, &sample, stat);
        rc = add_value(s, v, err);
    }
    kvg_sample_release(&sample);
    return rc;
}

static int add_survival(struct kvg_summary *s, const struct kvg_slice *x,
                        const struct kvg_metric *m, struct kvg_err *err)
{
    struct kvg_summary_value v = {.slice = x, .metric = m, .stat = "median", .note = ""};
    struct kvg_survival_obs *obs = malloc((x->n_cells + 1) * sizeof *obs);
    struct kvg_survival_step *steps = malloc((x->n_cells + 1) * sizeof *steps);
    int rc = KVG_OK;
    if (!obs || !steps) {
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while summarising '%s'", s->run.dir);
        goto out;
    }
    v.n = kvg_slice_survival_obs(x, &s->run, obs);
    if (!v.n)
        goto out;
    v.n_items = x->n_items;
    v.value = kvg_stats_survival_median(steps, kvg_stats_survival(obs, v.n, steps));
    v.lo = v.hi = (double)NAN;
    if (isnan(v.value))
        v.note = "not reached: more than half never diverged";
    rc = add_value(s, v, err);
out:
    free(obs);
    free(steps);
    return rc;
}

static int add_floor(struct kvg_summary *s, const struct kvg_slice *x, const struct kvg_metric *m,
                     struct kvg_err *err)
{
    struct kvg_summary_value v = {.slice = x, .metric = m, .stat = "max", .note = ""};
    int rc = kvg_slice_floor(&s->slices, &s->run, x, &v.value, &v.n, err);
    if (rc || !v.n)
        return rc;
    v.lo = v.hi = (double)NAN;
    if (kvg_stats_is_few(v.n, 0.99))
        v.note = "few";
    return add_value(s, v, err);
}

static int add_metric(struct kvg_summary *s, const struct kvg_slice *x, const struct kvg_metric *m,
                      struct kvg_err *err)
{
    if (!kvg_slice_has(x, m))
        return KVG_OK;
    if (m->of == KVG_METRIC_FLOOR)
        return add_floor(s, x, m, err);
    if (m->of == KVG_METRIC_SURVIVAL)
        return add_survival(s, x, m, err);
    return add_sampled(s, x, m, err);
}

/* Marks drift that the floor covers. */
static void mark_floor(struct kvg_summary *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct kvg_summary_value *v = &s->v[i];
        if (strcmp(v->metric->name, "kl_mean"))
            continue;
        const struct kvg_summary_value *f = kvg_summary_find(s, v->slice, "noise_floor", NULL);
        if (f && v->value <= f->value)
            v->note = "not distinguishable";
    }
}

int kvg_summary_open(struct kvg_summary *s, const char *run_dir, struct kvg_err *err)
{
    memset(s, 0, sizeof *s);
    int rc = kvg_run_load(&s->run, run_dir, err);
    if (!rc)
        rc = kvg_slices_build(&s->slices, &s->run, err);
    for (size_t i = 0; i < s->slices.n && !rc; i++)
        for (const struct kvg_metric *m = kvg_metrics; m->name && !rc; m++)
            rc = add_metric(s, &s->slices.v[i], m, err);
    if (!rc)
        mark_floor(s);
    return rc;
}

void kvg_summary_release(struct kvg_summary *s)
{
    kvg_slices_release(&s->slices);
    kvg_run_release(&s->run);
    free(s->v);
    s->v = NULL;
    s->n = s->cap = 0;
}

const struct kvg_summary_value *kvg_summary_find(const struct kvg_summary *s,
                                                 const struct kvg_slice *slice, const char *metric,
                                                 const char *stat)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].slice == slice && !strcmp(s->v[i].metric->name, metric) &&
            (!stat || !strcmp(s->v[i].stat, stat)))
            return &s->v[i];
    return NULL;
}

static void fill_row(struct kvg_row *row, const struct kvg_summary_value *v)
{
    kvg_row_init(row, &kvg_table_summary);
    kvg_row_set_str(row, KVG_SUMMARY_strategy, v->slice->strategy);
    kvg_row_set_str(row, KVG_SUMMARY_query, v->slice->query);
    kvg_row_set_str(row, KVG_SUMMARY_question_index, v->slice->question);
    kvg_row_set_str(row, KVG_SUMMARY_role, v->slice->role);
    kvg_row_set_str(row, KVG_SUMMARY_arm, v->slice->arm);
    kvg_row_set_str(row, KVG_SUMMARY_workload, v->slice->workload);
    kvg_row_set_str(row, KVG_SUMMARY_mode, v->slice->mode);
    kvg_row_set_str(row, KVG_SUMMARY_target, v->slice->target);
    kvg_row_set_str(row, KVG_SUMMARY_lane, v->slice->lane);
    kvg_row_set_str(row, KVG_SUMMARY_metric, v->metric->name);
    kvg_row_set_str(row, KVG_SUMMARY_unit, v->metric->unit);
    kvg_row_set_str(row, KVG_SUMMARY_stat, v->stat);
    if (!isnan(v->value))
        kvg_row_set_f64(row, KVG_SUMMARY_value, v->value);
    if (!isnan(v->lo) && !isnan(v->hi)) {
        kvg_row_set_f64(row, KVG_SUMMARY_ci_lo, v->lo);
        kvg_row_set_f64(row, KVG_SUMMARY_ci_hi, v->hi);
    }
    kvg_row_set_u64(row, KVG_SUMMARY_n, v->n);
    kvg_row_set_u64(row, KVG_SUMMARY_n_items, v->n_items);
    kvg_row_set_str(row, KVG_SUMMARY_note, v->note);
}

/* Shares of facts recalled: one row per strategy, query and length. */
static int write_recall(struct kvg_csv *csv, const char *run_dir, struct kvg_err *err)
{
    struct kvg_recall r;
    char workload[64];
    kvg_recall_init(&r);
    int rc = kvg_recall_load(&r, run_dir, err);
    for (size_t i = 0; i < r.n && !rc; i++) {
        const struct kvg_recall_sum *x = &r.v[i];
        struct kvg_row row;
        if (!x->all.asked)
            continue;
        snprintf(workload, sizeof workload, "recall-%.16s-%llu", x->query,
                 (unsigned long long)x->length);
        kvg_row_init(&row, &kvg_table_summary);
        kvg_row_set_str(&row, KVG_SUMMARY_strategy, x->strategy);
        kvg_row_set_str(&row, KVG_SUMMARY_role, x->role);
        kvg_row_set_str(&row, KVG_SUMMARY_workload, workload);
        kvg_row_set_str(&row, KVG_SUMMARY_metric, "recall");
        kvg_row_set_str(&row, KVG_SUMMARY_unit, "share");
        kvg_row_set_str(&row, KVG_SUMMARY_stat, "mean");
        kvg_row_set_f64(&row, KVG_SUMMARY_value, (double)x->all.recalled / (double)x->all.asked);
        kvg_row_set_u64(&row, KVG_SUMMARY_n, x->all.asked);
        rc = kvg_csv_write(csv, &row, err);
    }
    kvg_recall_release(&r);
    return rc;
}

/* Written beside and renamed: a reader never sees half a summary. */
int kvg_summary_make(const char *run_dir, struct kvg_err *err)
{
    struct kvg_summary s;
    struct kvg_row row;
    struct kvg_csv *csv = NULL;
    char path[4096], tmp[4104];
    snprintf(path, sizeof path, "%s/summary.csv", run_dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    int rc = kvg_summary_open(&s, run_dir, err);
    if (rc)
        goto out;
    unlink(tmp);
    rc = kvg_csv_open_append(&csv, tmp, &kvg_table_summary, err);
    for (size_t i = 0; i < s.n && !rc; i++) {
        fill_row(&row, &s.v[i]);
        rc = kvg_csv_write(csv, &row, err);
    }
    if (!rc)
        rc = write_recall(csv, run_dir, err);
    int rc2 = kvg_csv_close(csv, rc ? NULL : err);
    rc = rc ? rc : rc2;
    if (!rc && rename(tmp, path))
        rc = KVG_FAIL(err, KVG_EIO, "cannot replace '%s'", path);
    if (rc)
        unlink(tmp);
out:
    kvg_summary_release(&s);
    return rc;
}
