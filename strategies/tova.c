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
    in->needs.n_obs = 1;
    in->needs.obs[0].window = 1;
    return 0;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    const float *sums = v->obs[in->first_obs];
    size_t n = kvg_view_slots(v, head);
    for (size_t j = 0; j < n; j++) {
        float sum = 0;
        for (size_t g = 0; g < in->dims.n_heads; g++)
            sum += sums[g * v->obs_ld + j];
        out[j] = sum / (float)in->dims.n_heads;
    }
    if (o->protect)
        out[n - 1] = KVG_MUST_STAY;
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
    .score = score,
};
