/* ctx-shift: llama.cpp's context shift. When the cache is full the first `keep` tokens stay, of the
 * rest the first half goes at once, and what follows closes up: positions are those in the cache.
 * llama.cpp turns its stored keys by the shift, decoding and encoding them anew where they are
 * quantised, so that errors add up from shift to shift; here keys lie before rotation and are
 * turned by their slot at each read, so nothing accumulates. Of a prompt longer than the cache as
 * much goes as it takes (llama.cpp refuses or cuts it; here it was attended to whole). */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t keep;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (o->budget.kind == KVG_BUDGET_TOKENS && o->budget.value <= (double)o->keep)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'ctx-shift': a budget of %.0f tokens leaves no room behind the "
                        "%lld that are kept; raise 'budget' or lower 'keep'",
                        o->budget.value, (long long)o->keep);
    in->position = KVG_POSITION_SLOT;
    in->needs.raw_keys = 1;
    return 0;
}

/* Tokens kept at the front: of a budget that is a share of a short text, fewer. */
static size_t kept_first(const struct opt *o, size_t budget)
{
    return (size_t)o->keep < budget ? (size_t)o->keep : budget - 1;
}

static size_t keep(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical)
{
    (void)layer;
    size_t budget = kvg_budget_slots(in->budget, n_logical, &in->dims);
    if (n_slots <= budget)
        return n_slots;
    size_t half = (budget - kept_first(in->opt, budget)) / 2;
    half = half ? half : 1;
    return n_slots - half < budget ? n_slots - half : budget;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    size_t budget = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    size_t first = kept_first(in->opt, budget);
    for (size_t j = 0; j < kvg_view_slots(v, head); j++)
        out[j] = j < first ? KVG_MUST_STAY : (float)j;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "512",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens of a full cache, which is then about halved"},
    {.name = "keep",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, keep),
     .def = "4",
     .min = 0,
     .max = 1 << 20,
     .metavar = "N",
     .help = "first tokens that always stay (llama.cpp's own default is 0)"},
    {0}};

const struct kvg_strategy kvg_ctx_shift = {
    .name = "ctx-shift",
    .summary = "drops the first half when the cache is full and closes up: llama.cpp's shift",
    .source = "llama.cpp, context shift (n_keep)",
    .observes = "nothing; every key is rotated at every read",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .evicts_before_attention = 1,
    .truncation = KVG_TRUNCATE_RECOMPUTE,
    .init = init,
    .keep = keep,
    .score = score,
};
