/* expected-attention: nobody knows the queries to come, but they are much like those that were.
 * Mean and covariance of the queries before rotation, turned by the mean rotation of the positions
 * that come next, give every key the attention it can expect; times the norm of its value, the
 * largest stay. First tokens always do.
 *
 * With z = k.R mu / sqrt(d) + k R S R' k / (2d): the key is turned back by R instead of turning mu
 * and S, which serves every query head and needs no room.
 *
 * Later turns: the statistics are those of the turn's own prompt, as where a prompt is all there is;
 * queries=all goes on with those of all queries so far, the reply's too, which have to be held (32 kB
 * a query head of 64 channels, and the time of every step). With rotation by slot the positions to
 * come are the slots behind the last one. Positions behind the end of the model's context never
 * come and do not count. */
#include "strategies/strategy.h"

#include "kernel/kernel.h"

#include <string.h>

enum { ROWS = 8, TILE = 32, HALF_MAX = 256 };

struct opt {
    struct kvg_budget budget;
    int64_t sinks, future;
    int covariance, values, queries;
    double epsilon;
};

/* Mean cosine and sine of the rotations to come, by pair. */
struct turn {
    double c[HALF_MAX], s[HALF_MAX];
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (in->dims.d_head > 2 * HALF_MAX || in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "strategy 'expected-attention': heads of %zu channels; it takes multiples "
                        "of 32 up to %d",
                        in->dims.d_head, 2 * HALF_MAX);
    in->needs.moments = 1;
    in->needs.across = o->queries;
    in->needs.moments_skip = (size_t)o->sinks;
    return 0;
}

static void mean_turn(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                      struct turn *out)
{
    const struct opt *o = in->opt;
    size_t half = in->dims.d_head / 2, last = in->dims.n_ctx - 1;
    size_t from = v->position == KVG_POSITION_TRUE ? v->n_logical : kvg_view_slots(v, head);
    from = from < last ? from : last;
    size_t n = last + 1 - from < (size_t)o->future ? last + 1 - from : (size_t)o->future;
    memset(out, 0, sizeof *out);
    for (size_t p = from; p < from + n; p++)
        for (size_t i = 0; i < half; i++) {
            out->c[i] += (double)v->rope_cos[p * half + i] / (double)n;
            out->s[i] += (double)v->rope_sin[p * half + i] / (double)n;
        }
}

/* k becomes R' k. */
static void turn_back(const struct turn *t, float *k, size_t d)
{
    for (size_t i = 0; i < d / 2; i++) {
        double a = (double)k[i], b = (double)k[i + d / 2];
        k[i] = (float)(a * t->c[i] + b * t->s[i]);
        k[i + d / 2] = (float)(b * t->c[i] - a * t->s[i]);
    }
}

/* z of m <= TILE keys, turned back, for one query head. */
static void expect(const struct kvg_inst *in, const struct kvg_view *v, size_t query_head,
                   const float *k, size_t m, float *z)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head;
    const float *mean = v->q_mean + query_head * d, *cov = v->q_cov + query_head * d * d;
    double linear[TILE] = {0}, square[TILE] = {0};
    float dots[ROWS * TILE];
    for (size_t j = 0; j < m; j++)
        for (size_t c = 0; c < d; c++)
            linear[j] += (double)k[j * d + c] * (double)mean[c];
    for (size_t r = 0; r < d && o->covariance; r += ROWS) {
        v->store->cfg.kernels->attn_dot[KVG_F32](k, d * sizeof(float), m, d, cov + r * d, ROWS,
                                                 dots, TILE);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < m; j++)
                square[j] += (double)dots[i * TILE + j] * (double)k[j * d + r + i];
    }
    for (size_t j = 0; j < m; j++)
        z[j] = (float)(linear[j] / sqrt((double)d) + square[j] / (2 * (double)d));
}

/* z of the slots behind the sinks for one query head, to z [n]. */
static void expect_all(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                       size_t query_head, const struct turn *t, size_t sinks, size_t n, float *z)
{
    size_t d = in->dims.d_head;
    float *k = v->scratch;
    for (size_t j = sinks; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        kvg_view_keys(v, head, j, m, k);
        for (size_t i = 0; i < m; i++)
            turn_back(t, k + i * d, d);
        expect(in, v, query_head, k, m, z + j);
    }
}

static void multiply_by_values(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                               size_t sinks, size_t n, float *out)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head;
    float *rows = v->scratch;
    for (size_t j = sinks; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        kvg_view_values(v, head, j, m, rows);
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++)
                sum += (double)rows[i * d + c] * (double)rows[i * d + c];
            out[j + i] = (float)(((double)out[j + i] + o->epsilon) * sqrt(sum));
        }
    }
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), group = in->dims.n_heads / in->dims.n_kv_heads;
    size_t sinks = (size_t)o->sinks < n ? (size_t)o->sinks : n;
    float *z = v->scratch + TILE * in->dims.d_head;
    struct turn t;
    mean_turn(in, v, head, &t);
    for (size_t j = 0; j < n; j++)
        out[j] = j < sinks ? KVG_MUST_STAY : 0;
    for (size_t g = 0; g < group && sinks < n; g++) {
        expect_all(in, v, head, head * group + g, &t, sinks, n, z);
        v->store->cfg.kernels->softmax(z + sinks, n - sinks, 1.0f);
        for (size_t j = sinks; j < n; j++)
            out[j] += z[j] / (float)group;
    }
    if (o->values)
        multiply_by_values(in, v, head, sinks, n, out);
}

static const struct kvg_opt opts[] = {
    {.name = "queries",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, queries),
     .def = "turn",
     .choices = "turn|all",
     .help = "whose statistics: the turn's prompt, or all queries so far"},
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
     .help = "first tokens that always stay; their queries do not count"},
    {.name = "future",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, future),
     .def = "512",
     .min = 1,
     .max = 1 << 20,
     .metavar = "N",
     .help = "positions to come over which rotations are averaged"},
    {.name = "covariance",
     .type = KVG_OPT_BOOL,
     .offset = offsetof(struct opt, covariance),
     .def = "yes",
     .help = "the queries' covariance counts beside their mean"},
    {.name = "values",
     .type = KVG_OPT_BOOL,
     .offset = offsetof(struct opt, values),
     .def = "yes",
     .help = "expected attention is multiplied by the norm of the value"},
    {.name = "epsilon",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, epsilon),
     .def = "0",
     .min = 0,
     .max = 1,
     .metavar = "X",
     .help = "added before that"},
    {0}};

const struct kvg_strategy kvg_expected = {
    .name = "expected-attention",
    .summary = "keeps what future queries, drawn like those so far, are expected to attend to",
    .source = "Devoto et al. 2025, arXiv 2510.00636",
    .observes = "running mean and covariance of all queries; keys once per query head, values once",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .score = score,
};
