/* adakv: heads of a layer share one budget. The best scores of the whole layer stay, whichever head
 * they are in, so heads with scattered attention keep more than heads that look at little; every
 * head is sure of a part (`floor`) of an even share. A wrapper: any scores that can be compared
 * between heads.
 *
 * Later turns: the layer's budget is the even one times the heads, also where earlier turns left
 * the heads with different numbers of slots. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    double floor;
};

/* Numbers in the order of the floats they come from. */
static uint32_t order_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u >> 31 ? ~u : u | 0x80000000u;
}

static size_t count_from(const struct kvg_scores *s, uint32_t cut)
{
    size_t n = 0;
    for (size_t h = 0; h < s->n_heads; h++) {
        const float *x = kvg_scores_head(s, h);
        for (size_t j = 0; j < s->n[h]; j++)
            n += order_of(x[j]) >= cut;
    }
    return n;
}

/* The k-th largest score of a layer, found bit by bit: there is no room to sort them in. */
static uint32_t cut_of(const struct kvg_scores *s, size_t k)
{
    uint32_t cut = 0;
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t higher = cut | (uint32_t)1 << bit;
        cut = count_from(s, higher) >= k ? higher : cut;
    }
    return cut;
}

/* The best n_safe slots of a head stay whatever the others score. */
static void make_safe(const struct kvg_view *v, const struct kvg_scores *s, size_t head,
                      size_t n_safe)
{
    unsigned char *best = (unsigned char *)v->scratch;
    float *x = kvg_scores_head(s, head);
    kvg_mark_best(v, x, s->n[head], n_safe, best);
    for (size_t j = 0; j < s->n[head]; j++)
        x[j] = best[j] ? KVG_MUST_STAY : x[j];
}

static void rescore(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *s)
{
    const struct opt *o = in->opt;
    size_t even = 0, n_slots = 0;
    for (size_t h = 0; h < s->n_heads; h++) {
        even = s->n_keep[h] > even ? s->n_keep[h] : even;
        n_slots += s->n[h];
    }
    size_t n_keep = even * s->n_heads, n_safe = (size_t)((double)even * o->floor);
    for (size_t h = 0; h < s->n_heads; h++)
        make_safe(v, s, h, n_safe > 0 ? n_safe : 1);
    if (n_keep >= n_slots) {
        memcpy(s->n_keep, s->n, s->n_heads * sizeof *s->n);
        return;
    }
    uint32_t cut = cut_of(s, n_keep);
    size_t ties = n_keep - (cut < UINT32_MAX ? count_from(s, cut + 1) : 0);
    for (size_t h = 0; h < s->n_heads; h++) {
        const float *x = kvg_scores_head(s, h);
        s->n_keep[h] = 0;
        for (size_t j = 0; j < s->n[h]; j++) {
            int tie = order_of(x[j]) == cut && ties > 0;
            s->n_keep[h] += order_of(x[j]) > cut || tie;
            ties -= (size_t)tie;
        }
    }
}

static const struct kvg_opt opts[] = {{.name = "floor",
                                       .type = KVG_OPT_FLOAT,
                                       .offset = offsetof(struct opt, floor),
                                       .def = "0.2",
                                       .min = 0,
                                       .max = 1,
                                       .metavar = "SHARE",
                                       .help = "part of an even share that every head is sure of"},
                                      {0}};

const struct kvg_strategy kvg_adakv = {
    .name = "adakv",
    .summary = "wrapper: the heads of a layer share one budget by their scores",
    .source = "Feng et al. 2024, arXiv 2407.11550",
    .observes = "the scores of the strategy it wraps",
    .kind = KVG_KIND_WRAP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .path_dependent = 1,
    .rescore = rescore,
};
