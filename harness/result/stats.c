/* Statistics of results. Sources: percentile as numpy's default; cluster bootstrap: Efron and
 * Tibshirani (1993), chapter 13; survival: Kaplan and Meier (1958). Knows no columns. */
#include "result/stats.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

static const uint64_t bootstrap_seed = 12345;
static const struct kvg_interval no_interval = {(double)NAN, (double)NAN};

double kvg_stats_mean(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / (double)n : (double)NAN;
}

double kvg_stats_stddev(const double *v, size_t n)
{
    double mean = kvg_stats_mean(v, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (v[i] - mean) * (v[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : (double)NAN;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

void kvg_stats_sort(double *v, size_t n)
{
    if (n)
        qsort(v, n, sizeof *v, by_value);
}

double kvg_stats_percentile(const double *sorted, size_t n, double q)
{
    if (!n)
        return (double)NAN;
    double at = (double)(n - 1) * q;
    size_t i = (size_t)at;
    double part = at - (double)i;
    if (i + 1 >= n || part <= 0)
        return sorted[i < n ? i : n - 1];
    return sorted[i] + part * (sorted[i + 1] - sorted[i]);
}

int kvg_stats_is_few(size_t n, double q)
{
    /* 100 x (1 - 0.9) is a hair under 10 in binary */
    return (double)n * (1 - q) < KVG_PERCENTILE_MIN_BEYOND - 1e-6;
}

double kvg_stats_ratio(const struct kvg_cluster *c, size_t n)
{
    double sum = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        sum += c[i].sum;
        count += c[i].count;
    }
    return count > 0 ? sum / count : (double)NAN;
}

struct kvg_interval kvg_stats_bootstrap(const struct kvg_cluster *c, size_t n)
{
    struct kvg_interval iv = no_interval;
    struct kvg_rng rng = {bootstrap_seed};
    size_t got = 0;
    if (n < KVG_BOOTSTRAP_MIN_CLUSTERS)
        return iv;
    double *v = malloc(KVG_BOOTSTRAP_RESAMPLES * sizeof *v);
    if (!v)
        return iv;
    for (int b = 0; b < KVG_BOOTSTRAP_RESAMPLES; b++) {
        double sum = 0, count = 0;
        for (size_t i = 0; i < n; i++) {
            const struct kvg_cluster *pick = &c[kvg_rng_below(&rng, n)];
            sum += pick->sum;
            count += pick->count;
        }
        if (count > 0)
            v[got++] = sum / count;
    }
    kvg_stats_sort(v, got);
    iv.lo = kvg_stats_percentile(v, got, 0.025);
    iv.hi = kvg_stats_percentile(v, got, 0.975);
    free(v);
    return iv;
}

static double log_choose(double n, double k)
{
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1);
}

/* With X ~ Binomial(n, q) values below the true percentile, [x_(l), x_(u)] (1-based) covers it with
 * probability P(l <= X < u): l is the largest with P(X < l) <= 2.5 %, u the smallest with
 * P(X >= u) <= 2.5 %. */
struct kvg_interval kvg_stats_order_interval(const double *sorted, size_t n, double q)
{
    struct kvg_interval iv = no_interval;
    double below = 0; /* P(X < k) */
    size_t lower = 0, upper = 0;
    if (q <= 0 || q >= 1)
        return iv;
    for (size_t k = 0; k <= n; k++) {
        if (below <= 0.025)
            lower = k;
        if (!upper && 1 - below <= 0.025)
            upper = k;
        double kk = (double)k, nn = (double)n;
        below += exp(log_choose(nn, kk) + kk * log(q) + (nn - kk) * log1p(-q));
    }
    if (lower < 1 || !upper)
        return iv;
    iv.lo = sorted[lower - 1];
    iv.hi = sorted[upper - 1];
    return iv;
}

/* At equal times events come first: a censored reply was still at risk then. */
static int by_time(const void *a, const void *b)
{
    const struct kvg_survival_obs *x = a, *y = b;
    if (x->time < y->time || x->time > y->time)
        return x->time < y->time ? -1 : 1;
    return !!y->event - !!x->event;
}

size_t kvg_stats_survival(struct kvg_survival_obs *obs, size_t n, struct kvg_survival_step *steps)
{
    size_t n_steps = 0;
    double share = 1;
    if (n)
        qsort(obs, n, sizeof *obs, by_time);
    for (size_t i = 0; i < n;) {
        size_t events = 0, at_risk = n - i;
        double t = obs[i].time;
        for (; i < n && obs[i].time <= t; i++)
            events += !!obs[i].event;
        if (!events)
            continue;
        share *= 1 - (double)events / (double)at_risk;
        steps[n_steps++] = (struct kvg_survival_step){t, share, at_risk};
    }
    return n_steps;
}

double kvg_stats_survival_median(const struct kvg_survival_step *steps, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (steps[i].share <= 0.5 + 1e-12)
            return steps[i].time;
    return (double)NAN;
}
