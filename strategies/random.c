/* random: keeps tokens drawn at random, each head its own. The control: a strategy that does not
 * beat it has learnt nothing from what it looked at. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n_keep = kvg_budget_slots(&o->budget, v->n_logical, &in->dims);
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        for (size_t j = 0; j < n; j++)
            v->scratch[j] = (float)kvg_rng_unit(v->rng);
        kvg_keep_best(plan, v, h, v->scratch, n, n_keep);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "50%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {0}};

const struct kvg_strategy kvg_random = {
    .name = "random",
    .summary = "keeps random tokens: the control every eviction policy must beat",
    .source = "the control of kvpress (RandomPress)",
    .observes = "nothing",
    .kind = KVG_KIND_KEEP,
    .role = KVG_ROLE_CONTROL,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .compress = compress,
};
