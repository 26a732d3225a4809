/* random: keeps tokens drawn at random, each head its own. The control: a strategy that does not
 * beat it has learnt nothing from what it looked at. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    (void)in;
    for (size_t j = 0; j < kvg_view_slots(v, head); j++)
        out[j] = (float)kvg_rng_unit(v->rng);
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
    .random = 1,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .score = score,
};
