/* Equal bytes instead of equal ratios: which budget makes a strategy hold a given number of bytes
 * per token of logical length at a prompt's end. Found from the exact accounting of a store that is
 * filled with rows of noise and sealed and thinned by the strategy itself; the model is not run.
 * Must not know suites or cells. */
#ifndef KVG_RUN_EQUALBYTES_H
#define KVG_RUN_EQUALBYTES_H

#include "base/arena.h"
#include "base/err.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "strategies/strategy.h"

#include <stddef.h>

/* Two strategies are comparable when their bytes differ by no more than this share. */
#define KVG_EQUAL_TOLERANCE 0.02

struct kvg_equal;

/* For one strategy and conversations of up to max_tokens. Closes nothing of the pipeline it opens
 * from `spec` in `a`. */
int kvg_equal_open(struct kvg_equal **e, const char *spec, const struct kvg_model *m,
                   size_t max_tokens, struct kvg_arena *a, struct kvg_err *err);
void kvg_equal_close(struct kvg_equal *e);

/* Where a strategy chooses: when the text is n_tokens long; n_more of the prompt come on top (a
 * question it does not see; 0 = none). n_tokens + n_more <= max_tokens. */
struct kvg_equal_at {
    size_t n_tokens, n_more;
};

/* Bytes per token at the end of the prompt, under a budget (NULL: the strategy's own). */
double kvg_equal_bytes(struct kvg_equal *e, struct kvg_equal_at at,
                       const struct kvg_budget *budget);

/* The budget that comes nearest to `target` bytes per token. KVG_ENONE, with the reason, when the
 * target is out of reach: the strategy has no budget, holds more than the target at its least, or
 * less at its most. */
int kvg_equal_find(struct kvg_equal *e, struct kvg_equal_at at, double target,
                   struct kvg_budget *budget, struct kvg_err *err);

#endif
