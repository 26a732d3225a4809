/* sink: StreamingLLM. The first tokens and the latest ones stay. With position=slot keys are kept
 * before rotation and rotated at every read by their place in the cache, as the paper does; with
 * position=true they keep the rotary position they had in the text. Sinks count in the budget. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t sinks;
    int position;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (o->budget.kind == KVG_BUDGET_TOKENS && o->budget.value <= (double)o->sinks)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'sink': a budget of %.0f tokens leaves no room behind %lld sinks; "
                        "raise 'budget' or lower 'sinks'",
                        o->budget.value, (long long)o->sinks);
    in->position = o->position ? KVG_POSITION_TRUE : KVG_POSITION_SLOT;
    in->needs.raw_keys = in->position == KVG_POSITION_SLOT;
    return 0;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    for (size_t j = 0; j < kvg_view_slots(v, head); j++)
        out[j] = j < (size_t)o->sinks ? KVG_MUST_STAY : (float)j;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "512",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, sinks included"},
    {.name = "sinks",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, sinks),
     .def = "4",
     .min = 0,
     .max = 1024,
     .metavar = "N",
     .help = "first tokens that always stay"},
    {.name = "position",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, position),
     .def = "slot",
     .choices = "slot|true",
     .help = "rotary positions: place in the cache, or place in the text"},
    {0}};

const struct kvg_strategy kvg_sink = {
    .name = "sink",
    .summary = "keeps the first tokens (attention sinks) and the latest ones: StreamingLLM",
    .source = "Xiao et al. 2023, arXiv 2309.17453, section 3.2",
    .observes = "nothing; position=slot rotates every key at every read",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .evicts_before_attention = 1,
    .truncation = KVG_TRUNCATE_RECOMPUTE,
    .init = init,
    .score = score,
};
