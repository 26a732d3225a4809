/* keydiff: keys that point where most keys point are taken to say the same; those that differ most
 * from the mean direction of the head's keys stay. It looks at keys alone, so it needs no query and
 * works on any cache.
 *
 * Later turns: the mean is that of the keys that are left, new ones included. */
#include "strategies/strategy.h"

#include <string.h>

enum { TILE = 32 }; /* slots read at a time; the other half of the scratch holds the mean */

struct opt {
    struct kvg_budget budget;
};

static double norm_of(const float *x, size_t d)
{
    double sum = 0;
    for (size_t c = 0; c < d; c++)
        sum += (double)x[c] * (double)x[c];
    return sqrt(sum);
}

/* Sum of the keys' directions; its length does not matter. */
static void mean_direction(const struct kvg_view *v, size_t head, size_t d, double *mean)
{
    size_t n = kvg_view_slots(v, head);
    float *rows = v->scratch;
    memset(mean, 0, d * sizeof *mean);
    for (size_t j = 0; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        kvg_view_keys(v, head, j, m, rows);
        for (size_t i = 0; i < m; i++) {
            double norm = norm_of(rows + i * d, d);
            for (size_t c = 0; c < d && norm > 0; c++)
                mean[c] += (double)rows[i * d + c] / norm;
        }
    }
}

static double cosine(const float *key, const double *mean, double mean_norm, size_t d)
{
    double dot = 0, norm = norm_of(key, d) * mean_norm;
    for (size_t c = 0; c < d; c++)
        dot += (double)key[c] * mean[c];
    return norm > 0 ? dot / norm : 0;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    size_t d = in->dims.d_head, n = kvg_view_slots(v, head);
    float *rows = v->scratch;
    double *mean = (double *)(void *)(v->scratch + TILE * d), square = 0;
    mean_direction(v, head, d, mean);
    for (size_t c = 0; c < d; c++)
        square += mean[c] * mean[c];
    for (size_t j = 0; j < n; j += TILE) {
        size_t m = n - j < TILE ? n - j : TILE;
        kvg_view_keys(v, head, j, m, rows);
        for (size_t i = 0; i < m; i++)
            out[j + i] = (float)-cosine(rows + i * d, mean, sqrt(square), d);
    }
}

static const struct kvg_opt opts[] = {{.name = "budget",
                                       .type = KVG_OPT_BUDGET,
                                       .offset = offsetof(struct opt, budget),
                                       .def = "50%",
                                       .metavar = "TOKENS|SHARE%|BYTES",
                                       .help = "tokens that stay"},
                                      {0}};

const struct kvg_strategy kvg_keydiff = {
    .name = "keydiff",
    .summary = "keeps the tokens whose keys differ most from the head's mean key",
    .source = "Park et al. 2025, arXiv 2504.15364",
    .observes = "the keys in the store, read twice at each compression",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .score = score,
};
