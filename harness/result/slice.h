/* Slices: the finished cells of one strategy on one workload that may be pooled, and the values of
 * a metric in them. Specs that differ only by seed are one strategy; cells whose compression saw
 * the question and those where it did not are never pooled. Must not know how numbers are
 * written or printed. */
#ifndef KVG_RESULT_SLICE_H
#define KVG_RESULT_SLICE_H

#include "result/metrics.h"
#include "result/stats.h"

#define KVG_WORKLOAD_ALL "all" /* the slice over every workload */

struct kvg_slice {
    const char *strategy; /* label, without its seed when several seeds are merged */
    const char *label;    /* for people: with the choice of query where that is not plain, and a
                             word when it cannot be deployed */
    const char *key;      /* spec without seeds */
    const char *role, *workload, *mode, *target, *lane;
    const char *query;    /* seen, unseen, mixed or "" */
    const char *question; /* "1" or "2" of two questions after one context, or "" */
    const char *arm;      /* main, floor or bare */
    size_t n_seeds;       /* drift lane: most cells of one item; time lane: 1 */
    size_t *cells;        /* indices into run->cells */
    uint32_t *items;      /* [n_cells] index of the cell's item within the slice */
    size_t n_cells, cap_cells, n_items;
};

struct kvg_slices {
    struct kvg_slice *v;
    size_t n, cap;
    const char **workloads; /* in the order of first appearance */
    size_t n_workloads;
};

/* Texts and arrays live in the run's arena, except v and the slices' arrays: release them. */
int kvg_slices_build(struct kvg_slices *s, struct kvg_run *run, struct kvg_err *err);
void kvg_slices_release(struct kvg_slices *s);

/* The spec or label without `seed=` options. In the arena; NULL when memory is short. */
const char *kvg_spec_without_seed(const char *spec, struct kvg_arena *a);

/* 1 when a slice's mode, lane and target are those the metric needs. */
int kvg_slice_has(const struct kvg_slice *s, const struct kvg_metric *m);

/* The values of a metric in a slice. */
struct kvg_sample {
    double *v; /* ascending */
    size_t n;
    size_t n_missing;             /* empty fields: left out */
    struct kvg_cluster *clusters; /* one per item that has values */
    size_t n_clusters;
};
/* KVG_ENOMEM. Release also after a failure. */
int kvg_sample_take(struct kvg_sample *sample, const struct kvg_run *run, const struct kvg_slice *s,
                    const struct kvg_metric *m, struct kvg_err *err);
void kvg_sample_release(struct kvg_sample *sample);

/* The replies' equal steps for Kaplan-Meier; obs has room for n_cells. Returns how many. */
size_t kvg_slice_survival_obs(const struct kvg_slice *s, const struct kvg_run *run,
                              struct kvg_survival_obs *obs);

/* The floor of drift for a slice: the larger of mean and p99 of the KL of cells that are the
 * baseline in another order (role floor, or arm floor of a baseline), and of the strategy's own
 * floor arm, on the slice's workload and target. Without cells of role floor, the nearest main
 * cells of role baseline stand in. NaN when none was measured; *n receives the steps behind it. */
int kvg_slice_floor(const struct kvg_slices *all, const struct kvg_run *run,
                    const struct kvg_slice *s, double *floor, size_t *n, struct kvg_err *err);

#endif
