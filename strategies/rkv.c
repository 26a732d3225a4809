/* r-kv: keeps what is attended to and not yet said by other keys. At the prompt's end and every 128
 * decode steps the last `window` queries score the older slots: attention (largest logit of the
 * group, softmax over the older slots, mean over the window, maximum over `kernel` neighbours)
 * times lambda, minus redundancy times 1 - lambda. Redundancy of a slot is the mean cosine of its
 * key with all keys, softmax over all slots; in each row of that matrix the latest slot above
 * `threshold` counts as 0, so that the newest of several like keys is the one that stays. A row
 * without one zeroes slot 0, as the published code does. The window itself stays.
 *
 * The matrix is never stored: tiles of 32 x 32 cosines, each pair once, are summed as they come.
 * That is n * n / 2 products of d and every key read n / 64 times, billed as it is. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    struct kvg_budget budget;
    double lambda, threshold;
    int64_t window, kernel;
};

enum { TILE = 32 };

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (o->kernel % 2 == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'r-kv': 'kernel=%lld' must be odd",
                        (long long)o->kernel);
    if (o->budget.kind == KVG_BUDGET_TOKENS && o->budget.value <= (double)o->window)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'r-kv': a budget of %.0f tokens leaves no room before the window "
                        "of %lld; raise 'budget' or lower 'window'",
                        o->budget.value, (long long)o->window);
    in->needs.queries = (size_t)o->window;
    in->needs.across = 1;
    return 0;
}

/* The window counts inside the budget; where it would leave no room (a share of a short text) it
 * shrinks to half of the budget. */
static size_t voting_window(const struct opt *o, size_t n, size_t n_keep)
{
    size_t window = (size_t)o->window < n_keep ? (size_t)o->window : n_keep / 2;
    return window < n ? window : n;
}

/* Softmax over slots [0, n) of the group's largest logits for one query row, to p. */
static void attention_row(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                          size_t row, size_t n, float *p)
{
    size_t d = in->dims.d_head, group = in->dims.n_heads / in->dims.n_kv_heads;
    const float *q = v->queries + (row * in->dims.n_heads + head * group) * d;
    const struct kvg_kernels *k = v->store->cfg.kernels;
    float *keys = v->scratch + 3 * v->max_slots, logits[TILE];
    for (size_t j = 0; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        kvg_view_keys(v, head, j, m, keys);
        for (size_t g = 0; g < group; g++) {
            k->attn_dot[KVG_F32](keys, d * sizeof *keys, m, d, q + g * d, 1, logits, TILE);
            for (size_t i = 0; i < m; i++)
                p[j + i] = g == 0 || logits[i] > p[j + i] ? logits[i] : p[j + i];
        }
    }
    k->softmax(p, n, 1 / sqrtf((float)d));
}

static void unit_keys(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out)
{
    size_t d = v->store->cfg.d_head;
    kvg_view_keys(v, head, from, n, out);
    for (size_t j = 0; j < n; j++, out += d) {
        float sum = 0;
        for (size_t c = 0; c < d; c++)
            sum += out[c] * out[c];
        float scale = 1 / (sqrtf(sum) + 1e-8f);
        for (size_t c = 0; c < d; c++)
            out[c] *= scale;
    }
}

/* Column sums of the cosines, and of every row the latest column above the threshold (0: none) with
 * its cosine. */
struct cosines {
    float threshold;
    float *sum, *latest_cos;
    uint32_t *latest;
};

/* Row `row` meets columns col.. in ascending order. */
static void meet(const struct cosines *c, size_t row, size_t col, const float *cos, size_t stride,
                 size_t n)
{
    uint32_t latest = c->latest[row];
    float value = c->latest_cos[row];
    for (size_t i = 0; i < n; i++) {
        int first = col + i == 0; /* the column that a row without a latest one zeroes */
        int later = cos[i * stride] > c->threshold && col + i > latest;
        value = first || later ? cos[i * stride] : value;
        latest = later ? (uint32_t)(col + i) : latest;
    }
    c->latest[row] = latest;
    c->latest_cos[row] = value;
}

/* A tile of cosines [n_a, TILE] between slots a.. and b.. (b >= a), both ways. */
static void add_tile(const struct cosines *c, size_t a, size_t n_a, size_t b, size_t n_b,
                     float *cos)
{
    for (size_t i = 0; i < n_a && a == b; i++)
        cos[i * TILE + i] = 0;
    for (size_t i = 0; i < n_a; i++) {
        float sum = 0;
        for (size_t j = 0; j < n_b; j++) {
            c->sum[b + j] += cos[i * TILE + j];
            sum += cos[i * TILE + j];
        }
        c->sum[a + i] += a == b ? 0 : sum;
        meet(c, a + i, b, cos + i * TILE, 1, n_b);
    }
    for (size_t j = 0; j < n_b && a != b; j++)
        meet(c, b + j, a, cos + j, TILE, n_a);
}

/* Redundancy of all n slots, to out. */
static void redundancy(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t n,
                       float *out)
{
    const struct opt *o = in->opt;
    const struct kvg_kernels *k = v->store->cfg.kernels;
    size_t d = in->dims.d_head;
    float *ka = v->scratch + 3 * v->max_slots, *kb = ka + TILE * d, cos[TILE * TILE];
    struct cosines c = {(float)o->threshold, out, v->scratch2,
                        (uint32_t *)(void *)(v->scratch2 + v->max_slots)};
    memset(c.sum, 0, n * sizeof *c.sum);
    memset(c.latest_cos, 0, n * sizeof *c.latest_cos);
    memset(c.latest, 0, n * sizeof *c.latest);
    for (size_t a = 0; a < n; a += TILE) {
        size_t n_a = n - a < TILE ? n - a : TILE;
        unit_keys(v, head, a, n_a, ka);
        for (size_t b = a; b < n; b += TILE) {
            size_t n_b = n - b < TILE ? n - b : TILE;
            if (b != a)
                unit_keys(v, head, b, n_b, kb);
            k->attn_dot[KVG_F32](b == a ? ka : kb, d * sizeof *kb, n_b, d, ka, n_a, cos, TILE);
            add_tile(&c, a, n_a, b, n_b, cos);
        }
    }
    for (size_t i = 0; i < n; i++)
        c.sum[c.latest[i]] -= c.latest_cos[i];
    k->softmax(out, n, 1 / (float)n);
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head);
    size_t window = voting_window(o, n, kvg_budget_slots(in->budget, v->n_logical, &in->dims));
    size_t n_old = n - window, rows = window ? window : 1;
    float *red = v->scratch, *p = red + v->max_slots, *mean = p + v->max_slots;
    float lambda = (float)o->lambda;
    rows = rows < v->n_queries ? rows : v->n_queries;
    redundancy(in, v, head, n, red);
    memset(mean, 0, n_old * sizeof *mean);
    for (size_t i = v->n_queries - rows; i < v->n_queries && n_old; i++) {
        attention_row(in, v, head, i, n_old, p);
        for (size_t j = 0; j < n_old; j++)
            mean[j] += p[j] / (float)rows;
    }
    kvg_pool_scores(mean, n_old, (size_t)o->kernel, 1, p);
    for (size_t j = 0; j < n_old; j++)
        out[j] = lambda * p[j] - (1 - lambda) * red[j];
    for (size_t j = n_old; j < n; j++)
        out[j] = KVG_MUST_STAY;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "128",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay at a compression, the window included"},
    {.name = "lambda",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, lambda),
     .def = "0.07",
     .min = 0,
     .max = 1,
     .metavar = "SHARE",
     .help = "weight of attention against redundancy (0.1 in the paper, 0.07 in its code)"},
    {.name = "threshold",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, threshold),
     .def = "0.5",
     .min = -1,
     .max = 1,
     .metavar = "COSINE",
     .help = "above it two keys are alike, and the latest like one is spared"},
    {.name = "window",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, window),
     .def = "8",
     .min = 1,
     .max = 256,
     .metavar = "N",
     .help = "last queries that vote; their tokens stay"},
    {.name = "kernel",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, kernel),
     .def = "7",
     .min = 1,
     .max = 63,
     .metavar = "N",
     .help = "neighbours over which the largest attention is taken, odd"},
    {0}};

const struct kvg_strategy kvg_rkv = {
    .name = "r-kv",
    .summary = "keeps what is attended to and whose key is unlike the others, for long reasoning",
    .source = "Cai et al. 2025, arXiv 2505.24133, and its code (R1KV)",
    .observes = "the last queries and all keys; n * n / 2 key products per head and compression",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_EVERY, 128},
    .path_dependent = 1,
    .init = init,
    .score = score,
};
