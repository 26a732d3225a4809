/* merge: cache merging. Chooses as the heavy-hitter rule does: the latest tokens stay, and of the
 * older ones those with the largest attention received so far. What goes is not wholly lost: with a
 * probability that grows with its own attention against that of its successors, its value is spread
 * over the next tokens that stay; its key is dropped. Those that go at once are taken in the order
 * of the text.
 *
 * Published as a rule of decoding, one token a step. What a prompt has too much of is dropped,
 * unless `prompt=merge`: hundreds of values piled upon the few that stay drown these. The paper holds
 * a token's attention against the mean of its successors, the authors' code against the largest of all;
 * sums favour the old, so with the mean nearly everything is merged and the model suffers. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    double recent;
    int64_t into;
    int prompt, against;
};

enum { PROMPT_DROP, PROMPT_MERGE };
enum { AGAINST_MEAN, AGAINST_MAX };

/* Marks what stays of n slots; their sums of attention to acc. */
static void choose(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t n,
                   size_t n_keep, float *acc, unsigned char *stays)
{
    const struct opt *o = in->opt;
    float *scores = v->scratch + v->max_slots;
    size_t recent = (size_t)((double)n_keep * o->recent);
    kvg_store_side_get(v->store, v->layer, head, in->first_side, acc);
    for (size_t j = 0; j < n; j++)
        scores[j] = j + recent < n ? acc[j] : KVG_MUST_STAY;
    kvg_mark_best(v, scores, n, n_keep, stays);
}

/* Slot j, which goes, into the n slots that follow and stay, if it so happens. `most` is the
 * largest sum of attention of all that stay. */
static void spread(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t j,
                   const float *acc, float most, const uint32_t *into, size_t n,
                   struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    double sum = 0, draw = kvg_rng_unit(v->rng);
    for (size_t i = 0; i < n; i++)
        sum += (double)(o->against == AGAINST_MAX ? most : acc[into[i]]);
    if (n > 0 && draw * sum < (double)acc[j] * (double)n)
        kvg_plan_merge(plan, v->layer, head, j, into, n, 1.0f / (float)n);
}

static void compress_head(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                          struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), m = 0, before = 0, gone = 0;
    size_t n_keep = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    size_t into = v->phase == KVG_PHASE_DECODE || o->prompt == PROMPT_MERGE ? (size_t)o->into : 0;
    float *acc = v->scratch, most = 0;
    unsigned char *stays = (unsigned char *)(v->scratch + 2 * v->max_slots);
    if (n_keep >= n)
        return;
    uint32_t *kept = kvg_plan_slots(plan, n_keep);
    if (!kept)
        return;
    choose(in, v, head, n, n_keep, acc, stays);
    for (size_t j = 0; j < n; j++)
        if (stays[j]) {
            kept[m++] = (uint32_t)j;
            most = acc[j] > most ? acc[j] : most;
        }
    for (size_t j = 0; j < n; j++) {
        size_t next = n_keep - before;
        if (stays[j]) {
            before++;
            continue;
        }
        gone = j;
        spread(in, v, head, j, acc, most, kept + before, next < into ? next : into, plan);
    }
    if (n_keep + 1 == n)
        kvg_plan_drop_range(plan, v->layer, head, gone, gone + 1);
    else
        kvg_plan_list(plan, KVG_PLAN_KEEP, v->layer, head, kept, n_keep);
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    for (size_t h = 0; h < in->dims.n_kv_heads; h++)
        compress_head(in, v, h, plan);
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "20%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, recent ones included"},
    {.name = "recent",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, recent),
     .def = "0.5",
     .min = 0,
     .max = 1,
     .metavar = "SHARE",
     .help = "share of the budget for the latest tokens"},
    {.name = "into",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, into),
     .def = "32",
     .min = 1,
     .max = 4096,
     .metavar = "N",
     .help = "following tokens that a dropped value is spread over, fewer where fewer follow"},
    {.name = "prompt",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, prompt),
     .def = "drop",
     .choices = "drop|merge",
     .help = "what happens to the values that go when a prompt has ended"},
    {.name = "against",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, against),
     .def = "max",
     .choices = "mean|max",
     .help = "what its attention is held against: the mean of those it would be spread over, as in "
             "the paper, or the largest of all that stay, as in the authors' code"},
    {0}};

const struct kvg_strategy kvg_merge = {
    .name = "merge",
    .summary = "drops as heavy hitters do, but spreads dropped values over the tokens that follow",
    .source = "Zhang et al. 2024, CaM: Cache Merging for Memory-efficient LLMs Inference, ICML",
    .observes = "column sums of attention over all queries of every pass, one f32 per slot",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 1},
    .random = 1,
    .path_dependent = 1,
    .init = kvg_sums_init,
    .observe = kvg_sums_observe,
    .compress = compress,
};
