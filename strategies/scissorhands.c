/* scissorhands: a token that was not important for a while will not be. For every slot the steps
 * are counted in which its attention reached 1/m, the mean over the m slots seen; when a head holds
 * more than its budget, a `drop` share of the budget goes at once: with rank=low the slots with the
 * most steps below 1/m (the paper; a young slot has few of them), with rank=share those with the
 * smallest share of steps above it (cold-compress). The latest `recent` always stay.
 *
 * The history is not a ring of bits: every slot stores two floats, its counts over the present and
 * over the previous half window. When the present half is full it becomes the previous one, so the
 * history covers between half of `window` and all of it, and exactly `window` after a prompt that
 * long. Query heads of a group are counted apart and reduced as counts: reduce=any takes, of a
 * step, whether one head reached it, and of a prompt the head with the most. The paper's larger
 * budgets for later layers are not part of it. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    struct kvg_budget budget;
    int64_t window, recent;
    double drop;
    int reduce, rank;
};

/* Positions: the present half began at now0, the previous one at before0; `next` was not seen. */
enum fold { ADD, SHIFT, REPLACE };
struct state {
    int64_t before0, now0, next;
    enum fold fold; /* of the present pass */
    int forget;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    size_t half = (size_t)o->window / 2;
    if (o->window % 2)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'scissorhands': 'window=%lld' must be even",
                        (long long)o->window);
    in->needs.n_obs = 2;
    in->needs.obs[0] = (struct kvg_obs){KVG_OBS_ABOVE, half, 1};
    in->needs.obs[1] = (struct kvg_obs){KVG_OBS_ABOVE, 2 * half, 1};
    in->needs.n_side = 1;
    in->needs.side_floats[0] = 2;
    return 0;
}

/* What the queries of a pass do to the halves. Text that was taken back took its counts along: the
 * history begins anew. */
static void begin_pass(struct state *s, const struct kvg_view *v, int64_t half)
{
    int64_t n = (int64_t)v->n_new, end = v->pos0 + n;
    s->forget = v->pos0 != s->next;
    if (s->forget)
        s->before0 = s->now0 = v->pos0;
    s->fold = n > half ? REPLACE : v->pos0 + n - s->now0 > half ? SHIFT : ADD;
    if (s->fold == REPLACE) {
        s->now0 = end - half;
        s->before0 = end - (n < 2 * half ? n : 2 * half);
    } else if (s->fold == SHIFT) {
        s->before0 = s->now0;
        s->now0 = v->pos0;
    }
    s->next = end;
}

static void reduce(const struct kvg_inst *in, const struct kvg_view *v, size_t obs, size_t head,
                   size_t n, float *out)
{
    const struct opt *o = in->opt;
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    if (!o->reduce) {
        kvg_obs_mean(in, v, in->first_obs + obs, head, n, out);
        return;
    }
    const float *first = v->obs[in->first_obs + obs] + head * group * v->obs_ld;
    memcpy(out, first, n * sizeof *out);
    for (size_t g = 1; g < group; g++)
        for (size_t j = 0; j < n; j++)
            out[j] = first[g * v->obs_ld + j] > out[j] ? first[g * v->obs_ld + j] : out[j];
}

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    struct state *s = in->state;
    const struct opt *o = in->opt;
    if (v->layer == 0)
        begin_pass(s, v, o->window / 2);
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        float *half = v->scratch, *whole = half + v->max_slots, *counts = v->scratch2;
        reduce(in, v, 0, h, n, half);
        if (s->fold == REPLACE)
            reduce(in, v, 1, h, n, whole);
        kvg_store_side_get(columns, v->layer, h, in->first_side, counts);
        for (size_t j = 0; j < n; j++) {
            float *now = &counts[2 * j], *before = &counts[2 * j + 1];
            if (s->forget)
                *now = *before = 0;
            *before = s->fold == REPLACE ? whole[j] - half[j] : s->fold == SHIFT ? *now : *before;
            *now = s->fold == ADD ? *now + half[j] : half[j];
        }
        kvg_store_side_put(columns, v->layer, h, in->first_side, counts);
    }
}

static size_t keep(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical)
{
    (void)layer;
    const struct opt *o = in->opt;
    size_t budget = kvg_budget_slots(in->budget, n_logical, &in->dims);
    size_t drop = (size_t)((double)budget * o->drop);
    if (n_slots <= budget)
        return n_slots;
    drop = drop ? drop : 1;
    return n_slots - budget > drop ? budget : n_slots - drop;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct state *s = in->state;
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), n_keep = keep(in, v->layer, n, v->n_logical);
    size_t recent = (size_t)o->recent < n_keep ? (size_t)o->recent : n_keep / 2;
    int32_t *pos = (int32_t *)(void *)v->scratch;
    float *counts = v->scratch2;
    kvg_store_positions(v->store, v->layer, head, pos);
    kvg_store_side_get(v->store, v->layer, head, in->first_side, counts);
    for (size_t j = 0; j < n; j++) {
        float above = counts[2 * j] + counts[2 * j + 1];
        float seen = (float)(s->next - (pos[j] > s->before0 ? pos[j] : s->before0));
        out[j] = !o->rank ? above - seen : seen > 0 ? above / seen : 0;
    }
    for (size_t j = n > recent ? n - recent : 0; j < n; j++)
        out[j] = KVG_MUST_STAY;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "25%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens a head may hold, recent ones included"},
    {.name = "window",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, window),
     .def = "400",
     .min = 2,
     .max = 1 << 20,
     .metavar = "N",
     .help = "latest queries whose attention counts, even; see the note on halves"},
    {.name = "recent",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, recent),
     .def = "10",
     .min = 0,
     .max = 4096,
     .metavar = "N",
     .help = "latest tokens that always stay"},
    {.name = "drop",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, drop),
     .def = "0.5",
     .min = 0,
     .max = 0.9,
     .metavar = "SHARE",
     .help = "share of the budget that goes at once; 0 = one token at a time"},
    {.name = "reduce",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, reduce),
     .def = "mean",
     .choices = "mean|any",
     .help = "how the query heads of a KV head are counted together"},
    {.name = "rank",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, rank),
     .def = "low",
     .choices = "low|share",
     .help = "what goes: most steps below 1/m, or the smallest share of steps above it"},
    {0}};

const struct kvg_strategy kvg_scissorhands = {
    .name = "scissorhands",
    .summary = "drops half of the cache at once: tokens that mostly got less than mean attention",
    .source = "Liu et al. 2023, arXiv 2305.17118, section 4",
    .observes = "whether attention reached 1/m, over the latest queries; two f32 per slot",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .state_bytes = sizeof(struct state),
    .schedule = {KVG_SCHED_EVERY, 1},
    .path_dependent = 1,
    .init = init,
    .observe = observe,
    .keep = keep,
    .score = score,
};
