/* topk: reads only the slots that the present query attends to most, found by scoring every key:
 * the upper bound of what choosing what to read by attention can reach, and slow on purpose. The
 * query heads of a KV head agree by the mean or the largest of their weights. The current token is
 * always read and counts. Nothing is ever dropped. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    struct kvg_budget budget;
    int reduce;
};

enum { REDUCE_MEAN, REDUCE_MAX };

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    in->user = kvg_arena_array(in->arena, group * in->dims.n_ctx, sizeof(float));
    return in->user ? 0 : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
}

/* Attention weights of the query heads of one KV head over its n slots: [group, n_ctx]. */
static const float *weights(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                            size_t n)
{
    size_t d = in->dims.d_head, group = in->dims.n_heads / in->dims.n_kv_heads;
    size_t ld = in->dims.n_ctx;
    const struct kvg_kernels *k = v->store->cfg.kernels;
    float *p = in->user, *keys = v->scratch + 3 * v->max_slots;
    for (size_t j = 0; j < n; j += KVG_TILE_SLOTS) {
        size_t m = n - j < KVG_TILE_SLOTS ? n - j : KVG_TILE_SLOTS;
        kvg_view_keys(v, head, j, m, keys);
        k->attn_dot[KVG_F32](keys, d * sizeof *keys, m, d, v->q + head * group * d, group, p + j,
                             ld);
    }
    for (size_t g = 0; g < group; g++)
        k->softmax(p + g * ld, n, 1.0f / sqrtf((float)d));
    return p;
}

static void narrow_head(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                        struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), group = in->dims.n_heads / in->dims.n_kv_heads, m = 0;
    size_t n_read = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    float *scores = v->scratch;
    unsigned char *read = (unsigned char *)(v->scratch + v->max_slots);
    if (n_read >= n)
        return;
    uint32_t *slots = kvg_plan_slots(plan, n_read);
    if (!slots)
        return;
    const float *p = weights(in, v, head, n);
    memcpy(scores, p, n * sizeof *scores);
    for (size_t g = 1; g < group; g++) {
        p += in->dims.n_ctx;
        for (size_t j = 0; j < n; j++) /* a sum orders as a mean */
            scores[j] = o->reduce == REDUCE_MEAN ? scores[j] + p[j]
                        : p[j] > scores[j]       ? p[j]
                                                 : scores[j];
    }
    scores[n - 1] = INFINITY;
    kvg_mark_best(v, scores, n, n_read, read);
    for (size_t j = 0; j < n; j++)
        if (read[j])
            slots[m++] = (uint32_t)j;
    kvg_plan_list(plan, KVG_PLAN_READ, v->layer, head, slots, m);
}

static void before_attend(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    for (size_t h = 0; v->q && h < in->dims.n_kv_heads; h++)
        narrow_head(in, v, h, plan);
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "1024",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that a step reads, the current one included"},
    {.name = "reduce",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, reduce),
     .def = "mean",
     .choices = "mean|max",
     .help = "how the query heads of a KV head agree on its slots"},
    {0}};

const struct kvg_strategy kvg_topk = {
    .name = "topk",
    .summary = "reads the slots the query attends to most, after scoring every key; drops nothing",
    .source = "Gupta et al. 2021, arXiv 2106.06899 (top-k attention)",
    .observes = "the step's query against all keys: reads the whole of K at every step",
    .kind = KVG_KIND_READ,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .path_dependent = 1,
    .init = init,
    .before_attend = before_attend,
};
