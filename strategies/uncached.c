/* uncached: no cache at all. Before every pass the whole text so far is fed again, so attention is
 * always full and exact: the baseline against which drift is measured. */
#include "strategies/strategy.h"

static size_t recompute_all(const struct kvg_inst *in, size_t n_logical, size_t n_new)
{
    (void)in;
    (void)n_new;
    return n_logical;
}

static const struct kvg_opt opts[] = {{0}};

const struct kvg_strategy kvg_uncached = {
    .name = "uncached",
    .summary = "recomputes the whole prefix at every step: exact, and the baseline of all drift",
    .source = "Vaswani et al. 2017, arXiv 1706.03762, section 3.2 (decoding without a cache)",
    .observes = "nothing; each step costs a full prefill of the text so far",
    .kind = KVG_KIND_KEEP,
    .role = KVG_ROLE_BASELINE,
    .opts = opts,
    .schedule = {KVG_SCHED_TURN, 0},
    .recompute = recompute_all,
};
