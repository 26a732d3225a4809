/* The baseline of the drift lane: full attention recomputed over the whole prefix, exact f32, as
 * causal passes of the strategy with role baseline. Of its work only the final hidden row of each
 * scored position is kept; logits are made from it beside the strategies'. */
#ifndef KVG_RUN_BASELINE_H
#define KVG_RUN_BASELINE_H

#include "run/replay.h"
#include "run/rig.h"

/* rows [r->n_scored, n_embd], in the order of turns and steps: the row that predicts each target.
 * One pass per stretch of conversation between two rewinds. */
int kvg_baseline_rows(struct kvg_rig *rig, const struct kvg_replay *r, float *rows,
                      struct kvg_err *err);

#endif
