/* knorm: keys with a small norm are the ones that are attended to; those with the largest norms go.
 * It looks at nothing but the keys in the store (rotation does not change a norm). */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    size_t d = in->dims.d_head, n = kvg_view_slots(v, head);
    float *rows = v->scratch;
    for (size_t j = 0; j < n; j += KVG_TILE_SLOTS) {
        size_t m = n - j < KVG_TILE_SLOTS ? n - j : KVG_TILE_SLOTS;
        kvg_view_keys(v, head, j, m, rows);
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++)
                sum += (double)rows[i * d + c] * (double)rows[i * d + c];
            out[j + i] = (float)-sqrt(sum);
        }
    }
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "50%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {0}};

const struct kvg_strategy kvg_knorm = {
    .name = "knorm",
    .summary = "keeps the tokens whose keys have the smallest norms",
    .source = "Devoto et al. 2024, arXiv 2406.11430, section 3",
    .observes = "the keys in the store, read once at each compression",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .score = score,
};
