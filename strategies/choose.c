/* Owns the choice of what stays: scores of a layer, wrappers that change them, the best of every
 * head. Must not know any strategy by name. */
#include "strategies/strategy.h"

#include <string.h>

/* Slots that must stay get the layer's largest score plus 1, so that wrappers can compute. */
static void level_must_stay(const struct kvg_scores *s)
{
    float top = -INFINITY;
    for (size_t h = 0; h < s->n_heads; h++)
        for (size_t j = 0; j < s->n[h]; j++) {
            float x = kvg_scores_head(s, h)[j];
            top = x > top && x < KVG_MUST_STAY ? x : top;
        }
    top = top > -INFINITY ? top + 1 : 1;
    for (size_t h = 0; h < s->n_heads; h++)
        for (size_t j = 0; j < s->n[h]; j++)
            if (kvg_scores_head(s, h)[j] >= KVG_MUST_STAY)
                kvg_scores_head(s, h)[j] = top;
}

int kvg_pipeline_evicts(const struct kvg_pipeline *p)
{
    const struct kvg_strategy *s = p->keep ? p->keep->s : NULL;
    return s && (s->score || s->compress || s->end_pass || s->recompute);
}

size_t kvg_pipeline_keep(const struct kvg_pipeline *p, size_t layer, size_t n_slots,
                         size_t n_logical)
{
    const struct kvg_inst *in = p->keep;
    if (!in || (!in->s->keep && !in->budget))
        return n_slots;
    size_t n = in->s->keep ? in->s->keep(in, layer, n_slots, n_logical)
                           : kvg_budget_slots(in->budget, n_logical, &in->dims);
    return n < n_slots ? n : n_slots;
}

void kvg_pipeline_choose(struct kvg_pipeline *p, const struct kvg_view *v, float *room,
                         struct kvg_plan *plan)
{
    struct kvg_inst *in = p->keep;
    struct kvg_scores *s = &p->scores;
    int some = 0;
    s->v = room;
    s->ld = v->max_slots;
    for (size_t h = 0; h < s->n_heads; h++) {
        s->n[h] = kvg_view_slots(v, h);
        s->n_keep[h] = kvg_pipeline_keep(p, v->layer, s->n[h], v->n_logical);
        some |= s->n_keep[h] < s->n[h];
    }
    if (!some)
        return;
    for (size_t h = 0; h < s->n_heads; h++)
        in->s->score(in, v, h, kvg_scores_head(s, h));
    if (p->n_wraps)
        level_must_stay(s);
    for (int last = 0; last < 2; last++)
        for (size_t i = 0; i < p->n_wraps; i++)
            if (p->wrap[i]->s->rescore && p->wrap[i]->s->guards == last)
                p->wrap[i]->s->rescore(p->wrap[i], v, s);
    for (size_t h = 0; h < s->n_heads; h++)
        kvg_keep_best(plan, v, h, kvg_scores_head(s, h), s->n[h], s->n_keep[h]);
}
