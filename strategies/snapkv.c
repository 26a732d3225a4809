/* snapkv: at the prompt's end the last `window` queries vote. Attention is averaged over the window,
 * pooled along the text so that neighbours come along, and averaged over the query heads of a KV
 * head; the best tokens stay and the window always does. Nothing goes while decoding. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t window, kernel;
    int pool;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return kvg_votes_init(in, o->window, o->kernel, err);
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n_keep = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    kvg_votes_score(in, v, head, n_keep, (size_t)o->window, (size_t)o->kernel, o->pool, out);
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "25%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, the window included"},
    {.name = "window",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, window),
     .def = "32",
     .min = 1,
     .max = 4096,
     .metavar = "N",
     .help = "last queries of the prompt that vote"},
    {.name = "kernel",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, kernel),
     .def = "5",
     .min = 1,
     .max = 63,
     .metavar = "N",
     .help = "width of the pooling along the text, odd"},
    {.name = "pool",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, pool),
     .def = "mean",
     .choices = "mean|max",
     .help = "how neighbours are pooled"},
    {0}};

const struct kvg_strategy kvg_snapkv = {
    .name = "snapkv",
    .summary = "keeps what the last queries of the prompt attend to, pooled with its neighbours",
    .source = "Li et al. 2024, arXiv 2404.14469, section 4",
    .observes = "column sums of attention over the last `window` queries of a prompt",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .score = score,
};
