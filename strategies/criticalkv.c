/* criticalkv: what a dropped token does to the layer's output depends on its value too. Half of the
 * budget goes to the best scores as they are; for the rest every score is multiplied by the L1 norm
 * of the token's value row behind the layer's output matrix, mean over the query heads that read
 * it. A wrapper for scores that are like attention; scores that can be negative are measured from
 * the smallest of their head. The norms are computed anew at each compression from the values in
 * the store, which are read once; the products cost n_embd * n_heads * d_head multiply-adds per
 * slot. */
#include "strategies/strategy.h"

#include "kernel/kernel.h"

#include <string.h>

enum { ROWS = 8, D_MAX = 512, BLOCK_MAX = 256 };

struct opt {
    double first, epsilon;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    if (in->dims.d_head > D_MAX || in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "strategy 'criticalkv': heads of %zu channels; it takes multiples of 32 up "
                        "to %d",
                        in->dims.d_head, D_MAX);
    return 0;
}

/* Columns [from, from + d) of a row of weights, to out. Blocks may begin before and end behind. */
static void decode_part(const struct kvg_view *v, size_t row, size_t from, size_t d, float *out)
{
    const struct kvg_weights *w = &v->wo;
    const struct kvg_type_info *t = kvg_type_info(w->type);
    size_t first = from / t->block_elems * t->block_elems;
    size_t end = (from + d + t->block_elems - 1) / t->block_elems * t->block_elems;
    float room[D_MAX + 2 * BLOCK_MAX];
    const unsigned char *src = (const unsigned char *)w->rows + row * w->row_bytes;
    v->store->cfg.kernels->decode[w->type](src + first / t->block_elems * t->block_bytes, room,
                                           end - first);
    memcpy(out, room + (from - first), d * sizeof *out);
}

/* norms[j] += |W_g value_j|_1 of one query head, n <= 64 values. */
static void add_norms(const struct kvg_view *v, size_t query_head, const float *values, size_t n,
                      size_t d, double *norms)
{
    float rows[ROWS * D_MAX], out[ROWS * KVG_TILE_SLOTS];
    for (size_t r = 0; r < v->wo.n_rows; r += ROWS) {
        size_t m = v->wo.n_rows - r < ROWS ? v->wo.n_rows - r : ROWS;
        for (size_t i = 0; i < m; i++)
            decode_part(v, r + i, query_head * d, d, rows + i * d);
        v->store->cfg.kernels->attn_dot[KVG_F32](values, d * sizeof(float), n, d, rows, m, out,
                                                 KVG_TILE_SLOTS);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++)
                norms[j] += fabs((double)out[i * KVG_TILE_SLOTS + j]);
    }
}

/* Scores of the slots that are not sure yet, times the norms of their values. */
static void weigh(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t n,
                  float *x)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head, group = in->dims.n_heads / in->dims.n_kv_heads;
    float least = 0, *values = v->scratch;
    for (size_t j = 0; j < n; j++)
        least = x[j] < least ? x[j] : least;
    for (size_t j = 0; j < n; j += KVG_TILE_SLOTS) {
        size_t m = n - j < KVG_TILE_SLOTS ? n - j : KVG_TILE_SLOTS;
        double norms[KVG_TILE_SLOTS] = {0};
        kvg_view_values(v, head, j, m, values);
        for (size_t g = 0; g < group; g++)
            add_norms(v, head * group + g, values, m, d, norms);
        for (size_t i = 0; i < m; i++)
            if (x[j + i] < KVG_MUST_STAY)
                x[j + i] =
                    (float)(((double)(x[j + i] - least) + o->epsilon) * norms[i] / (double)group);
    }
}

static void rescore(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *s)
{
    const struct opt *o = in->opt;
    unsigned char *best = (unsigned char *)v->scratch;
    for (size_t h = 0; h < s->n_heads; h++) {
        size_t n = s->n[h], sure = (size_t)((double)s->n_keep[h] * o->first);
        float *x = kvg_scores_head(s, h);
        kvg_mark_best(v, x, n, sure > 0 ? sure : 1, best);
        for (size_t j = 0; j < n; j++)
            x[j] = best[j] ? KVG_MUST_STAY : x[j];
        weigh(in, v, h, n, x);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "first",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, first),
     .def = "0.5",
     .min = 0,
     .max = 1,
     .metavar = "SHARE",
     .help = "part of the budget that goes by the scores as they are"},
    {.name = "epsilon",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, epsilon),
     .def = "0.0001",
     .min = 0,
     .max = 1,
     .metavar = "X",
     .help = "added to scores before they are multiplied"},
    {0}};

const struct kvg_strategy kvg_criticalkv = {
    .name = "criticalkv",
    .summary = "wrapper: scores are weighed by what a token's value does to the layer's output",
    .source = "Feng et al. 2025, arXiv 2502.03805",
    .observes =
        "values in the store and the attention output matrix, multiplied at each compression",
    .kind = KVG_KIND_WRAP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .path_dependent = 1,
    .init = init,
    .rescore = rescore,
};
