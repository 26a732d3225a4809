/* hybrid: layers of two kinds. Every `full`-th layer keeps all tokens, the others a sliding window
 * of the latest `budget` ones; the oldest row of a window goes before attention, so a query there
 * sees exactly `budget` tokens, itself included. It is the cache of models with five local layers
 * to one global (Gemma 3), put on a model that was not trained for it: the memory is theirs, the
 * quality need not be. A prompt's queries see the whole prompt, as with every keeper; with
 * prefill_chunk they see a window and a chunk. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t full;
};

static int is_full(const struct opt *o, size_t layer)
{
    return (layer + 1) % (size_t)o->full == 0;
}

/* Tokens and shares are those of a window layer. Bytes are of the whole cache: the windows get what
 * the full layers leave of them, and one token when that is nothing. */
static size_t keep(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical)
{
    const struct opt *o = in->opt;
    size_t n = kvg_budget_slots(in->budget, n_logical, &in->dims), layers = in->dims.n_layers;
    if (is_full(o, layer))
        return n_slots;
    if (in->budget->kind == KVG_BUDGET_BYTES) {
        size_t n_full = layers / (size_t)o->full, taken = n_full * n_logical;
        n = n * layers > taken ? (n * layers - taken) / (layers - n_full) : 0;
        n = n ? n : 1;
    }
    return n < n_slots ? n : n_slots;
}

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
     .help = "tokens of a window layer; bytes: of all layers together"},
    {.name = "full",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, full),
     .def = "6",
     .min = 1,
     .max = 4096,
     .metavar = "K",
     .help = "every K-th layer keeps everything (6: layers 5, 11, ... counted from 0)"},
    {0}};

const struct kvg_strategy kvg_hybrid = {
    .name = "hybrid",
    .summary = "sliding windows in most layers, every K-th layer keeps everything",
    .source = "Gemma Team 2025, arXiv 2503.19786, section 2 (5 local layers to 1 global)",
    .observes = "nothing",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .evicts_before_attention = 1,
    .truncation = KVG_TRUNCATE_RECOMPUTE,
    .keep = keep,
    .score = score,
};
