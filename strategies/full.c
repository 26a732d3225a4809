/* full: every row of every token stays, exact (f32). Its drift against `uncached` is what rounding
 * in another order makes: the noise floor. */
#include "strategies/strategy.h"

static const struct kvg_opt opts[] = {{0}};

const struct kvg_strategy kvg_full = {
    .name = "full",
    .summary = "keeps everything, exact f32: the noise floor; `full+f16` is the usual default",
    .source = "Pope et al. 2022, arXiv 2211.05102, section 3.3 (the KV cache)",
    .observes = "nothing",
    .kind = KVG_KIND_KEEP,
    .role = KVG_ROLE_FLOOR,
    .opts = opts,
    .schedule = {KVG_SCHED_TURN, 0},
};
