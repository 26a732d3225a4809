/* observed-attention: what heavy hitters come to when a prompt is over. Each slot carries the
 * attention it received; divided by the number of queries that could see it, so that early tokens
 * have no head start, the largest means stay. Nothing is protected, the latest tokens neither.
 *
 * Later turns: sums go on, over decode steps too. A slot has been seen by every query from its own
 * position on, whatever went meanwhile; so the position gives the count and only the sum is kept.
 */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    size_t n = kvg_view_slots(v, head);
    int32_t pos[KVG_TILE_SLOTS];
    kvg_store_side_get(v->store, v->layer, head, in->first_side, out);
    for (size_t j = 0; j < n; j += KVG_TILE_SLOTS) {
        size_t m = n - j < KVG_TILE_SLOTS ? n - j : KVG_TILE_SLOTS;
        kvg_store_positions_range(v->store, v->layer, head, j, m, pos);
        for (size_t i = 0; i < m; i++)
            out[j + i] /= (float)(v->n_logical - (size_t)pos[i]);
    }
}

static const struct kvg_opt opts[] = {{.name = "budget",
                                       .type = KVG_OPT_BUDGET,
                                       .offset = offsetof(struct opt, budget),
                                       .def = "50%",
                                       .metavar = "TOKENS|SHARE%|BYTES",
                                       .help = "tokens that stay"},
                                      {0}};

const struct kvg_strategy kvg_observed = {
    .name = "observed-attention",
    .summary = "keeps the largest mean attention received: heavy hitters, once per prompt",
    .source = "Zhang et al. 2023, arXiv 2306.14048, as ObservedAttentionPress of kvpress has it",
    .observes = "column sums of attention over all queries of every pass, one f32 per slot",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = kvg_sums_init,
    .observe = kvg_sums_observe,
    .score = score,
};
