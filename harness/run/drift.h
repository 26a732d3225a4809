/* Drift of one step: how far a strategy's next-token distribution is from the baseline's. Pure
 * functions of two rows of logits; must not know models, stores or files.
 *
 * Logits are f32. Log-sum-exp, log probabilities, their difference and the sum over the vocabulary
 * are double: log p rounded to f32 alone would make a KL of about 2e-8 nats out of nothing. Ties
 * between logits go to the lower token id everywhere. */
#ifndef KVG_RUN_DRIFT_H
#define KVG_RUN_DRIFT_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { KVG_DRIFT_TOP = 10 };

/* The baseline's side of a step, worked out once for all strategies. */
struct kvg_drift_base {
    size_t n;                   /* vocabulary */
    size_t n_top;               /* min(n, KVG_DRIFT_TOP) */
    const float *z;             /* [n] the logits given to kvg_drift_base_set, borrowed */
    double *p;                  /* [n] probabilities */
    double lse;                 /* log sum exp of z */
    double gap;                 /* best minus second best logit; 0 when n is 1 */
    int32_t top[KVG_DRIFT_TOP]; /* likeliest tokens, best first */
};

struct kvg_drift {
    double kl;            /* KL(base||test), nats, >= 0 */
    double nll_base, nll; /* -log p(target), nats */
    double dprob;         /* p_test(target) - p_base(target) */
    double gap;           /* of the baseline, logits */
    double max_dlogit;    /* largest |difference| of a logit */
    double top10;         /* overlap of the likeliest ten, 0..1 */
    int32_t token;        /* the test's own choice */
    int top1;             /* 1: the same as the baseline's */
};

/* Room for a vocabulary of n >= 1 tokens. KVG_ENOMEM. */
int kvg_drift_base_init(struct kvg_drift_base *b, size_t n, struct kvg_err *err);
void kvg_drift_base_release(struct kvg_drift_base *b);
/* z [n] must live as long as steps are measured against it. KVG_ECHECK when a logit is not finite.
 */
int kvg_drift_base_set(struct kvg_drift_base *b, const float *z, struct kvg_err *err);
/* Measures z [n] against the base; target is a token id. KVG_ECHECK when a logit is not finite.
 * Read-only on b: threads may measure different rows at once. */
int kvg_drift_measure(const struct kvg_drift_base *b, const float *z, int32_t target,
                      struct kvg_drift *out, struct kvg_err *err);

/* The likeliest token; KVG_ECHECK when a logit is not finite. */
int kvg_drift_argmax(const float *z, size_t n, int32_t *token, struct kvg_err *err);

#endif
