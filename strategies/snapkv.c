/* snapkv: at the prompt's end the last `window` queries vote. Attention is averaged over the window,
 * pooled along the text so that neighbours come along, and averaged over the query heads of a KV
 * head; the best tokens stay and the window always does. Nothing goes while decoding. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    struct kvg_budget budget;
    int64_t window, kernel;
    int pool;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (o->kernel % 2 == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'snapkv': 'kernel=%lld' must be odd",
                        (long long)o->kernel);
    if (o->budget.kind == KVG_BUDGET_TOKENS && o->budget.value < (double)o->window)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'snapkv': a budget of %.0f tokens is smaller than the window of "
                        "%lld; raise 'budget' or lower 'window'",
                        o->budget.value, (long long)o->window);
    in->needs.n_colsums = 1;
    in->needs.colsum_window[0] = (size_t)o->window;
    in->needs.prompt_only_obs = 1;
    return 0;
}

/* out[j] = mean or maximum of x over [j - k/2, j + k/2]; outside of x counts as 0 and is divided
 * by k all the same, as average pooling with zero padding does. */
static void pool(const float *x, size_t n, size_t k, int maximum, float *out)
{
    size_t half = k / 2;
    for (size_t j = 0; j < n; j++) {
        size_t from = j > half ? j - half : 0, to = j + half < n ? j + half : n - 1;
        float acc = maximum ? x[from] : 0;
        for (size_t i = from; i <= to; i++)
            acc = maximum ? (x[i] > acc ? x[i] : acc) : acc + x[i];
        out[j] = maximum ? acc : acc / (float)k;
    }
}

/* Scores of one KV head over its first n_old slots. */
static void score_head(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                       size_t n_old, float *out)
{
    const struct opt *o = in->opt;
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    float *pooled = v->scratch2, rows = (float)v->colsum_rows[in->first_colsum];
    memset(out, 0, n_old * sizeof *out);
    for (size_t g = 0; g < group; g++) {
        const float *sum = v->colsum[in->first_colsum] + (head * group + g) * v->colsum_ld;
        pool(sum, n_old, (size_t)o->kernel, o->pool, pooled);
        for (size_t j = 0; j < n_old; j++)
            out[j] += pooled[j] / (rows * (float)group);
    }
}

/* The window counts inside the budget; where it would leave no room (a share of a short text) it
 * shrinks to half of the budget. */
static size_t voting_window(const struct opt *o, size_t n, size_t n_keep)
{
    size_t window = (size_t)o->window < n_keep ? (size_t)o->window : n_keep / 2;
    return window < n ? window : n;
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n_keep = kvg_budget_slots(&o->budget, v->n_logical, &in->dims);
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h), window = voting_window(o, n, n_keep);
        if (n <= n_keep)
            continue;
        if (n > window)
            score_head(in, v, h, n - window, v->scratch);
        for (size_t j = n - window; j < n; j++)
            v->scratch[j] = 2; /* above every mean of probabilities */
        kvg_keep_best(plan, v, h, v->scratch, n, n_keep);
    }
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
    .compress = compress,
};
