/* Owns what several strategies share: budgets, choosing the best, reducing observations. */
#include "strategies/strategy.h"

#include <string.h>

size_t kvg_budget_slots(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims)
{
    double n = b->value;
    if (b->kind == KVG_BUDGET_SHARE)
        n = (double)n_logical * b->value;
    else if (b->kind == KVG_BUDGET_BYTES)
        n = (double)n_logical * b->value / (double)dims->slot_bytes;
    return n < 1 ? 1 : (size_t)n;
}

/* The k-th largest (k >= 1) of x[0..n); reorders x. Quickselect with Hoare's partition. */
static float select_largest(float *x, size_t n, size_t k)
{
    size_t lo = 0, hi = n - 1, want = k - 1;
    while (lo < hi) {
        float pivot = x[lo + (hi - lo) / 2];
        size_t i = lo, j = hi;
        for (;;) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i >= j)
                break;
            float t = x[i];
            x[i++] = x[j];
            x[j--] = t;
        }
        if (want <= j)
            hi = j;
        else
            lo = j + 1;
    }
    return x[lo];
}

void kvg_keep_best(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                   const float *scores, size_t n, size_t n_keep)
{
    if (n_keep >= n)
        return;
    uint32_t *slots = kvg_plan_slots(plan, n_keep);
    if (!slots)
        return;
    memcpy(v->scratch2, scores, n * sizeof *scores);
    float cut = select_largest(v->scratch2, n, n_keep);
    size_t above = 0, m = 0;
    for (size_t j = 0; j < n; j++)
        above += scores[j] > cut;
    size_t ties = n_keep - above;
    for (size_t j = 0; j < n && m < n_keep; j++) {
        int tie = scores[j] == cut && ties > 0;
        if (scores[j] > cut || tie)
            slots[m++] = (uint32_t)j;
        ties -= (size_t)tie;
    }
    kvg_plan_list(plan, KVG_PLAN_KEEP, v->layer, head, slots, m);
}

void kvg_drop_worst(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                    const float *scores, size_t limit)
{
    size_t worst = 0;
    for (size_t j = 1; j < limit; j++)
        if (scores[j] < scores[worst])
            worst = j;
    if (limit > 0)
        kvg_plan_drop_range(plan, v->layer, head, worst, worst + 1);
}

void kvg_keep_ends(struct kvg_plan *plan, const struct kvg_view *v, size_t head, size_t sinks,
                   size_t n_keep)
{
    size_t n = kvg_view_slots(v, head);
    if (sinks > n_keep)
        sinks = n_keep;
    if (n > n_keep)
        kvg_plan_drop_range(plan, v->layer, head, sinks, n - (n_keep - sinks));
}

void kvg_colsum_mean(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                     size_t n, float *out)
{
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    const float *first = v->colsum[i] + head * group * v->colsum_ld;
    for (size_t j = 0; j < n; j++) {
        float sum = 0;
        for (size_t g = 0; g < group; g++)
            sum += first[g * v->colsum_ld + j];
        out[j] = sum / (float)group;
    }
}
