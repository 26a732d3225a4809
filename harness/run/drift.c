/* Owns the arithmetic of drift. Must not know where logits come from. */
#include "run/drift.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8 }; /* independent sums: shorter chains, and the same order on every machine */

/* Largest logit, or KVG_ECHECK. Infinity and NaN both fail the comparison with FLT_MAX. */
static int check_max(const float *z, size_t n, float *max, struct kvg_err *err)
{
    float best = -FLT_MAX;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= !(fabsf(z[i]) <= FLT_MAX);
        best = z[i] > best ? z[i] : best;
    }
    *max = best;
    if (!bad)
        return KVG_OK;
    size_t at = 0;
    while (fabsf(z[at]) <= FLT_MAX)
        at++;
    return KVG_FAIL(err, KVG_ECHECK,
                    "a logit is not a finite number: token '%zu' has %g; the model or a kernel is "
                    "broken, see 'doctor'",
                    at, (double)z[at]);
}

/* The n_top largest logits, best first; an equal one that comes later ranks lower. */
static void find_top(const float *z, size_t n, size_t n_top, int32_t *top)
{
    size_t have = 0;
    float worst = -FLT_MAX;
    for (size_t i = 0; i < n; i++) {
        if (have == n_top && z[i] <= worst)
            continue;
        size_t at = have < n_top ? have++ : n_top - 1;
        for (; at > 0 && z[top[at - 1]] < z[i]; at--)
            top[at] = top[at - 1];
        top[at] = (int32_t)i;
        worst = z[top[have - 1]];
    }
}

static double sum_lanes(const double *lane)
{
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
           ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* sum exp(z - max); with p not NULL the terms are stored there. */
static double sum_exp(const float *z, size_t n, float max, double *p)
{
    double lane[LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        double e = exp((double)z[i] - (double)max);
        if (p)
            p[i] = e;
        lane[i % LANES] += e;
    }
    return sum_lanes(lane);
}

int kvg_drift_base_init(struct kvg_drift_base *b, size_t n, struct kvg_err *err)
{
    memset(b, 0, sizeof *b);
    b->n = n;
    b->n_top = n < KVG_DRIFT_TOP ? n : KVG_DRIFT_TOP;
    b->p = calloc(n, sizeof *b->p);
    if (!b->p)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for a vocabulary of %zu tokens", n);
    return KVG_OK;
}

void kvg_drift_base_release(struct kvg_drift_base *b)
{
    free(b->p);
    memset(b, 0, sizeof *b);
}

int kvg_drift_base_set(struct kvg_drift_base *b, const float *z, struct kvg_err *err)
{
    float max;
    int rc = check_max(z, b->n, &max, err);
    if (rc)
        return rc;
    double sum = sum_exp(z, b->n, max, b->p);
    double inv = 1.0 / sum;
    for (size_t i = 0; i < b->n; i++)
        b->p[i] *= inv;
    b->z = z;
    b->lse = (double)max + log(sum);
    find_top(z, b->n, b->n_top, b->top);
    b->gap = b->n_top > 1 ? (double)z[b->top[0]] - (double)z[b->top[1]] : 0;
    return KVG_OK;
}

/* sum p (log p - log q) with log p - log q = (zb - zt) + (lse_t - lse_b): the difference of two f32
 * logits is taken first, so equal rows give exactly 0. */
static double sum_kl(const struct kvg_drift_base *b, const float *z, double dlse,
                     double *max_dlogit)
{
    double lane[LANES] = {0}, most = 0;
    for (size_t i = 0; i < b->n; i++) {
        double d = (double)b->z[i] - (double)z[i];
        most = fabs(d) > most ? fabs(d) : most;
        lane[i % LANES] += b->p[i] * (d + dlse);
    }
    *max_dlogit = most;
    return sum_lanes(lane);
}

static double overlap(const struct kvg_drift_base *b, const int32_t *top)
{
    size_t both = 0;
    for (size_t i = 0; i < b->n_top; i++)
        for (size_t j = 0; j < b->n_top; j++)
            both += b->top[i] == top[j];
    return (double)both / (double)b->n_top;
}

int kvg_drift_measure(const struct kvg_drift_base *b, const float *z, int32_t target,
                      struct kvg_drift *out, struct kvg_err *err)
{
    float max;
    int32_t top[KVG_DRIFT_TOP];
    memset(out, 0, sizeof *out);
    if (target < 0 || (size_t)target >= b->n)
        return KVG_FAIL(err, KVG_ECHECK, "a target is no token of this vocabulary: '%d'", target);
    int rc = check_max(z, b->n, &max, err);
    if (rc)
        return rc;
    double lse = (double)max + log(sum_exp(z, b->n, max, NULL));
    double kl = sum_kl(b, z, lse - b->lse, &out->max_dlogit);
    out->kl = kl > 0 ? kl : 0; /* rounding alone can leave a sum of -1e-17 */
    out->nll_base = b->lse - (double)b->z[target];
    out->nll = lse - (double)z[target];
    out->dprob = exp(-out->nll) - b->p[target];
    out->gap = b->gap;
    find_top(z, b->n, b->n_top, top);
    out->top10 = overlap(b, top);
    out->token = top[0];
    out->top1 = top[0] == b->top[0];
    return KVG_OK;
}

int kvg_drift_argmax(const float *z, size_t n, int32_t *token, struct kvg_err *err)
{
    float max;
    int rc = check_max(z, n, &max, err);
    if (!rc)
        find_top(z, n, 1, token);
    return rc;
}
