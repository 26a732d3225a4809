/* pyramidkv: the votes of the prompt's last queries decide, and lower layers keep more than upper
 * ones: budgets fall in equal steps from layer to layer. Their mean is the budget (each is rounded
 * to a whole slot, half to even, as published). Where the pyramid does not fit, because its foot
 * would be longer than the text or its top smaller than the window, all layers get the same.
 *
 * Later turns: the pyramid is that of the whole text so far. A layer that has fewer slots than its
 * share, because an earlier turn left it with less, keeps what it has. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t window, kernel;
    int pool;
    double beta;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return kvg_votes_init(in, o->window, o->kernel, err);
}

static size_t keep(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical)
{
    const struct opt *o = in->opt;
    double n = (double)n_logical, window = (double)o->window, layers = (double)in->dims.n_layers;
    double mean = kvg_budget_exact(in->budget, n_logical, &in->dims), top = mean / o->beta;
    double foot = 2 * mean - top, share = mean;
    (void)n_slots;
    if (foot >= n - window) {
        foot = n - window;
        top = 2 * mean - foot;
    }
    if (n >= foot && foot >= top && top >= window && layers > 1)
        share = foot - (double)layer * (foot - top) / (layers - 1);
    share = nearbyint(share);
    return share < 1 ? 1 : (size_t)share;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n_keep = keep(in, v->layer, kvg_view_slots(v, head), v->n_logical);
    kvg_votes_score(in, v, head, n_keep, (size_t)o->window, (size_t)o->kernel, o->pool, out);
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "25%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, mean over the layers, the window included"},
    {.name = "window",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, window),
     .def = "8",
     .min = 1,
     .max = 4096,
     .metavar = "N",
     .help = "last queries of the prompt that vote"},
    {.name = "kernel",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, kernel),
     .def = "7",
     .min = 1,
     .max = 63,
     .metavar = "N",
     .help = "width of the pooling along the text, odd"},
    {.name = "pool",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, pool),
     .def = "max",
     .choices = "mean|max",
     .help = "how neighbours are pooled"},
    {.name = "beta",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, beta),
     .def = "20",
     .min = 1,
     .max = 1e6,
     .metavar = "X",
     .help = "the top layer gets the mean budget divided by this"},
    {0}};

const struct kvg_strategy kvg_pyramidkv = {
    .name = "pyramidkv",
    .summary = "what the last queries vote for, with budgets that fall from the lowest layer to the highest",
    .source = "Cai et al. 2024, arXiv 2406.02069, section 4",
    .observes = "column sums of attention over the last `window` queries of a prompt",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .keep = keep,
    .score = score,
};
