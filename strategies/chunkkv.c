/* chunkkv: whole chunks of neighbouring tokens stay or go, the same ones in all heads of a layer,
 * so that phrases are not torn. A chunk counts by the mean of its tokens' scores, summed over
 * heads. As many chunks stay as the budget's share of their number allows, and never more tokens
 * than the budget; so a few tokens of it may be left over. A wrapper: any scores.
 *
 * Later turns: chunks run over slots. Heads that no longer hold the same number of them, because
 * another wrapper shares the budget out between heads, choose their chunks alone. */
#include "strategies/strategy.h"

struct opt {
    int64_t chunk;
};

/* Mean over its slots of the scores of a chunk, summed over heads [first, end). */
static float chunk_mean(const struct kvg_scores *s, size_t first, size_t end, size_t from, size_t n)
{
    double sum = 0;
    for (size_t h = first; h < end; h++)
        for (size_t j = from; j < from + n; j++)
            sum += (double)kvg_scores_head(s, h)[j];
    return (float)(sum / (double)n);
}

static void set_chunk(const struct kvg_scores *s, size_t first, size_t end, size_t from, size_t n,
                      float score)
{
    for (size_t h = first; h < end; h++)
        for (size_t j = from; j < from + n; j++)
            kvg_scores_head(s, h)[j] = score;
}

/* Chooses for heads [first, end), which have the same number of slots and the same budget. */
static void choose(const struct opt *o, const struct kvg_view *v, struct kvg_scores *s,
                   size_t first, size_t end)
{
    size_t n = s->n[first], n_keep = s->n_keep[first], size = (size_t)o->chunk, left = n_keep;
    size_t n_chunks = (n + size - 1) / size, most = ((n_keep + 1) * n_chunks - 1) / n;
    float *means = v->scratch;
    if (n_keep >= n)
        return;
    for (size_t c = 0; c < n_chunks; c++) {
        size_t len = n - c * size < size ? n - c * size : size;
        means[c] = chunk_mean(s, first, end, c * size, len);
        set_chunk(s, first, end, c * size, len, means[c]);
    }
    for (size_t taken = 0; left && (taken < most || !taken); taken++) {
        size_t best = 0;
        for (size_t c = 1; c < n_chunks; c++)
            best = means[c] > means[best] ? c : best;
        size_t len = n - best * size < size ? n - best * size : size;
        if (len > left && taken)
            break;
        len = len < left ? len : left; /* a budget smaller than one chunk: its beginning */
        set_chunk(s, first, end, best * size, len, KVG_MUST_STAY);
        means[best] = -INFINITY;
        left -= len;
    }
    for (size_t h = first; h < end; h++)
        s->n_keep[h] = n_keep - left;
}

static void rescore(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *s)
{
    int alike = 1;
    for (size_t h = 1; h < s->n_heads; h++)
        alike &= s->n[h] == s->n[0] && s->n_keep[h] == s->n_keep[0];
    if (alike) {
        choose(in->opt, v, s, 0, s->n_heads);
        return;
    }
    for (size_t h = 0; h < s->n_heads; h++)
        choose(in->opt, v, s, h, h + 1);
}

static const struct kvg_opt opts[] = {{.name = "chunk",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, chunk),
                                       .def = "20",
                                       .min = 1,
                                       .max = 4096,
                                       .metavar = "N",
                                       .help = "tokens of a chunk"},
                                      {0}};

const struct kvg_strategy kvg_chunkkv = {
    .name = "chunkkv",
    .summary = "wrapper: whole chunks of tokens stay, the same in all heads of a layer",
    .source = "Liu et al. 2025, arXiv 2502.00299",
    .observes = "the scores of the strategy it wraps",
    .kind = KVG_KIND_WRAP,
    .recounts = 1,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .path_dependent = 1,
    .rescore = rescore,
};
