/* lagkv: judges a stretch of tokens by the one that follows it. Channels of K and V are scaled by
 * their range in the next stretch; a token whose scaled channels spread wide stands out and stays.
 * Only ranks within a stretch count, so every stretch loses the same share. First tokens, the last
 * full stretch and what is behind it have nobody who judges them and stay while the budget lasts
 * (where it does not, later ones before earlier ones). Shorter texts fall back to recency.
 *
 * Later turns: stretches run over slots, not positions: what earlier turns left is cut into
 * stretches anew, together with what is new. */
#include "strategies/strategy.h"

#include <string.h>

enum { TILE = 32 }; /* slots read at a time; the other half of the scratch holds the ranges */

struct opt {
    struct kvg_budget budget;
    int64_t sinks, lag;
    int scores;
};

typedef void (*read_fn)(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out);

static void ranges(const struct kvg_view *v, read_fn read, size_t head, size_t from, size_t n,
                   size_t d, float *lo, float *hi)
{
    float *rows = v->scratch;
    for (size_t j = 0; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        read(v, head, from + j, m, rows);
        if (!j) {
            memcpy(lo, rows, d * sizeof *lo);
            memcpy(hi, rows, d * sizeof *hi);
        }
        for (size_t i = 0; i < m; i++)
            for (size_t c = 0; c < d; c++) {
                float x = rows[i * d + c];
                lo[c] = x < lo[c] ? x : lo[c];
                hi[c] = x > hi[c] ? x : hi[c];
            }
    }
}

/* Standard deviation of a row's scaled channels. A channel that does not vary says nothing. */
static double spread(const float *x, const float *lo, const float *hi, size_t d)
{
    double sum = 0, square = 0;
    for (size_t c = 0; c < d; c++) {
        double range = (double)hi[c] - (double)lo[c];
        sum += range > 0 ? ((double)x[c] - (double)lo[c]) / range : 0;
    }
    for (size_t c = 0; c < d; c++) {
        double range = (double)hi[c] - (double)lo[c];
        double y = range > 0 ? ((double)x[c] - (double)lo[c]) / range : 0;
        square += (y - sum / (double)d) * (y - sum / (double)d);
    }
    return sqrt(square / (double)(d - 1));
}

/* Adds half of the softmax of the spreads of one stretch to out [lag]. */
static void judge(const struct kvg_view *v, read_fn read, size_t head, size_t from, size_t lag,
                  size_t d, float *out)
{
    float *rows = v->scratch, *lo = rows + TILE * d, *hi = lo + d, *u = v->scratch2;
    double top = 0, sum = 0;
    ranges(v, read, head, from + lag, lag, d, lo, hi);
    for (size_t j = 0; j < lag; j += TILE) {
        size_t m = lag - j < TILE ? lag - j : TILE;
        read(v, head, from + j, m, rows);
        for (size_t i = 0; i < m; i++) {
            u[j + i] = (float)spread(rows + i * d, lo, hi, d);
            top = (double)u[j + i] > top ? (double)u[j + i] : top;
        }
    }
    for (size_t j = 0; j < lag; j++)
        sum += exp((double)u[j] - top);
    for (size_t j = 0; j < lag; j++)
        out[j] += (float)(0.5 * exp((double)u[j] - top) / sum);
}

/* x becomes its ranks, 0 to (lag - 1) / lag; of equals the earlier one ranks lower. */
static void rank(const struct kvg_view *v, float *x, size_t lag)
{
    float *ranks = v->scratch2;
    for (size_t j = 0; j < lag; j++) {
        size_t below = 0;
        for (size_t i = 0; i < lag; i++)
            below += x[i] < x[j] || (x[i] == x[j] && i < j);
        ranks[j] = (float)below / (float)lag;
    }
    memcpy(x, ranks, lag * sizeof *x);
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), d = in->dims.d_head, lag = (size_t)o->lag;
    size_t sinks = (size_t)o->sinks < n ? (size_t)o->sinks : n, judged = sinks;
    if (n >= sinks + 2 * lag)
        judged = sinks + ((n - sinks) / lag - 1) * lag;
    for (size_t j = 0; j < n; j++) /* all above any rank, later ones a trifle more */
        out[j] = j < sinks ? KVG_MUST_STAY : 1 + (float)j / (float)n / (2 * (float)lag);
    for (size_t j = sinks; j < judged; j += lag) {
        memset(out + j, 0, lag * sizeof *out);
        judge(v, kvg_view_keys, head, j, lag, d, out + j);
        judge(v, kvg_view_values, head, j, lag, d, out + j);
        if (!o->scores)
            rank(v, out + j, lag);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "50%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {.name = "sinks",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, sinks),
     .def = "4",
     .min = 0,
     .max = 1024,
     .metavar = "N",
     .help = "first tokens that always stay"},
    {.name = "lag",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, lag),
     .def = "128",
     .min = 2,
     .max = 4096,
     .metavar = "N",
     .help = "tokens of a stretch"},
    {.name = "scores",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, scores),
     .def = "rank",
     .choices = "rank|value",
     .help = "ranks within a stretch, or values that stretches and heads can be compared by"},
    {0}};

const struct kvg_strategy kvg_lagkv = {
    .name = "lagkv",
    .summary = "keeps the tokens that stand out against the stretch of text behind them",
    .source = "Liang et al. 2025, arXiv 2504.04704",
    .observes = "keys and values in the store, read twice at each compression",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .score = score,
};
