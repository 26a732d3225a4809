/* tova: Token Omission Via Attention. What the last query attends to least goes; the weights are
 * averaged over all query heads of the layer, so all heads of a layer keep the same tokens. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int protect;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    (void)err;
    in->needs.n_colsums = 1;
    in->needs.colsum_window[0] = 1;
    return 0;
}

static void mean_over_heads(const struct kvg_inst *in, const struct kvg_view *v, size_t n,
                            float *out)
{
    const float *sums = v->colsum[in->first_colsum];
    for (size_t j = 0; j < n; j++) {
        float sum = 0;
        for (size_t g = 0; g < in->dims.n_heads; g++)
            sum += sums[g * v->colsum_ld + j];
        out[j] = sum / (float)in->dims.n_heads;
    }
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n_keep = kvg_budget_slots(&o->budget, v->n_logical, &in->dims);
    size_t n = kvg_view_slots(v, 0);
    if (n <= n_keep)
        return;
    mean_over_heads(in, v, n, v->scratch);
    if (o->protect)
        v->scratch[n - 1] = 2; /* a mean of probabilities is at most 1 */
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        if (n == n_keep + 1)
            kvg_drop_worst(plan, v, h, v->scratch, n);
        else
            kvg_keep_best(plan, v, h, v->scratch, n, n_keep);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "25%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {.name = "protect",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, protect),
     .def = "none",
     .choices = "none|last",
     .help = "whether the current token may go too, as in the paper, or not"},
    {0}};

const struct kvg_strategy kvg_tova = {
    .name = "tova",
    .summary = "drops what the last query attends to least, one set for a whole layer",
    .source = "Oren et al. 2024, arXiv 2401.06104, section 3.2",
    .observes = "the attention row of the last query, every step",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .path_dependent = 1,
    .init = init,
    .compress = compress,
};
