/* Statistics of results: means, percentiles, intervals, survival. Pure functions of numbers; must
 * not know columns or metrics. Missing values never enter: the caller leaves them out. */
#ifndef KVG_RESULT_STATS_H
#define KVG_RESULT_STATS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    KVG_BOOTSTRAP_RESAMPLES = 2000,
    KVG_BOOTSTRAP_MIN_CLUSTERS = 20, /* under it there is no interval */
    KVG_PERCENTILE_MIN_BEYOND = 10   /* values beyond a percentile, or it is marked "few" */
};

struct kvg_interval {
    double lo, hi; /* NaN when there is none */
};

/* NaN for n = 0. */
double kvg_stats_mean(const double *v, size_t n);
/* Sample standard deviation (n - 1); NaN for n < 2. */
double kvg_stats_stddev(const double *v, size_t n);
/* Ascending; NaN last. */
void kvg_stats_sort(double *v, size_t n);
/* Linear interpolation at (n-1)q of ascending values, 0 <= q <= 1; NaN for n = 0. */
double kvg_stats_percentile(const double *sorted, size_t n, double q);
/* 1 when n(1-q) < 10: too few values beyond the percentile to trust it. */
int kvg_stats_is_few(size_t n, double q);

/* One item (conversation, document): the sum of its values and how many there are. */
struct kvg_cluster {
    double sum, count;
};
/* sum of sums / sum of counts; NaN when nothing was counted. */
double kvg_stats_ratio(const struct kvg_cluster *c, size_t n);
/* Percentile 95 % cluster bootstrap of that ratio: 2000 resamples of whole items, a fixed seed.
 * No interval (NaN) under 20 clusters or when memory is short. */
struct kvg_interval kvg_stats_bootstrap(const struct kvg_cluster *c, size_t n);

/* Distribution-free 95 % interval of a percentile from order statistics (binomial): bounds are
 * values of `sorted`. No interval when n is too small for both bounds to exist. */
struct kvg_interval kvg_stats_order_interval(const double *sorted, size_t n, double q);

/* Kaplan and Meier (1958). A reply of `time` equal steps, then an event (divergence) or the end. */
struct kvg_survival_obs {
    double time;
    int event; /* 0 = censored: no event was seen up to `time` */
};
struct kvg_survival_step {
    double time, share; /* the share surviving just after `time` */
    size_t at_risk;     /* just before `time` */
};
/* Sorts obs. steps[n] receives one entry per distinct event time; returns how many. */
size_t kvg_stats_survival(struct kvg_survival_obs *obs, size_t n, struct kvg_survival_step *steps);
/* First time at which the share is 0.5 or less; NaN when that is never reached. */
double kvg_stats_survival_median(const struct kvg_survival_step *steps, size_t n);

#endif
