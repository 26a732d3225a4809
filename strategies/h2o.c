/* h2o: heavy hitters. Each slot carries the attention it has received from all queries so far (mean
 * over the query heads of its KV head); half of the budget goes to the latest tokens, half to the
 * older ones with the largest sums. Early tokens have had more time to gather: a known bias. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    double recent;
};

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), n_keep = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    size_t recent = (size_t)((double)n_keep * o->recent);
    kvg_store_side_get(v->store, v->layer, head, in->first_side, out);
    for (size_t j = n > recent ? n - recent : 0; j < n; j++)
        out[j] = KVG_MUST_STAY;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "20%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, recent ones included"},
    {.name = "recent",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, recent),
     .def = "0.5",
     .min = 0,
     .max = 1,
     .metavar = "SHARE",
     .help = "share of the budget for the latest tokens"},
    {0}};

const struct kvg_strategy kvg_h2o = {
    .name = "h2o",
    .summary = "keeps recent tokens and heavy hitters: the largest attention received so far",
    .source = "Zhang et al. 2023, arXiv 2306.14048, section 4",
    .observes = "column sums of attention over all queries of every pass, one f32 per slot",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .path_dependent = 1,
    .init = kvg_sums_init,
    .observe = kvg_sums_observe,
    .score = score,
};
