/* window: only the latest tokens stay. While decoding the oldest row goes before attention, so a
 * query sees exactly `budget` tokens, itself included. Known to fail once the first tokens leave
 * (Xiao et al. 2023, section 3.1): it is the curve the others are measured against. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    (void)in;
    for (size_t j = 0; j < kvg_view_slots(v, head); j++)
        out[j] = (float)j;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "512",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {0}};

const struct kvg_strategy kvg_window = {
    .name = "window",
    .summary = "keeps the latest tokens only (sliding window)",
    .source = "Beltagy et al. 2020, arXiv 2004.05150, section 3.1; Xiao et al. 2023, arXiv "
              "2309.17453, section 3.1",
    .observes = "nothing",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .evicts_before_attention = 1,
    .truncation = KVG_TRUNCATE_RECOMPUTE,
    .score = score,
};
