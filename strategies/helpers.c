/* Owns what several strategies share: budgets, choosing the best, reducing observations. */
#include "strategies/strategy.h"

#include <string.h>

double kvg_budget_exact(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims)
{
    if (b->kind == KVG_BUDGET_SHARE)
        return (double)n_logical * b->value;
    if (b->kind == KVG_BUDGET_BYTES)
        return (double)n_logical * b->value / (double)dims->slot_bytes;
    return b->value;
}

size_t kvg_budget_slots(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims)
{
    double n = kvg_budget_exact(b, n_logical, dims);
    return n < 1 ? 1 : (size_t)n;
}

size_t kvg_window_slots(size_t window, size_t n, size_t n_keep)
{
    window = window <= n_keep ? window : n_keep / 2;
    return window < n ? window : n;
}

float kvg_select_largest(float *x, size_t n, size_t k)
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

/* The single worst one (ties: the lower slot) goes: what a decode step mostly asks for. */
static void drop_worst(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                       const float *scores, size_t n)
{
    size_t worst = 0;
    for (size_t j = 1; j < n; j++)
        if (scores[j] < scores[worst])
            worst = j;
    kvg_plan_drop_range(plan, v->layer, head, worst, worst + 1);
}

void kvg_mark_best(const struct kvg_view *v, const float *scores, size_t n, size_t k,
                   unsigned char *out)
{
    size_t above = 0;
    memset(out, k >= n, n);
    if (k == 0 || k >= n)
        return;
    memcpy(v->scratch2, scores, n * sizeof *scores);
    float cut = kvg_select_largest(v->scratch2, n, k);
    for (size_t j = 0; j < n; j++)
        above += scores[j] > cut;
    size_t ties = k - above;
    for (size_t j = 0; j < n; j++) {
        int tie = scores[j] == cut && ties > 0;
        out[j] = scores[j] > cut || tie;
        ties -= (size_t)tie;
    }
}

void kvg_keep_best(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                   const float *scores, size_t n, size_t n_keep)
{
    if (n_keep >= n)
        return;
    if (v->phase == KVG_PHASE_DECODE && n_keep + 1 == n) {
        drop_worst(plan, v, head, scores, n);
        return;
    }
    uint32_t *slots = kvg_plan_slots(plan, n_keep);
    if (!slots)
        return;
    size_t m = 0;
    unsigned char *stays = (unsigned char *)(v->scratch2 + n); /* scratch2 has twice the slots */
    kvg_mark_best(v, scores, n, n_keep, stays);
    for (size_t j = 0; j < n; j++)
        if (stays[j])
            slots[m++] = (uint32_t)j;
    kvg_plan_list(plan, KVG_PLAN_KEEP, v->layer, head, slots, m);
}

void kvg_obs_mean(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                  size_t n, float *out)
{
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    const float *first = v->obs[i] + head * group * v->obs_ld;
    for (size_t j = 0; j < n; j++) {
        float sum = 0;
        for (size_t g = 0; g < group; g++)
            sum += first[g * v->obs_ld + j];
        out[j] = sum / (float)group;
    }
}

int kvg_votes_init(struct kvg_inst *in, int64_t window, int64_t kernel, struct kvg_err *err)
{
    if (kernel % 2 == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy '%s': 'kernel=%lld' must be odd", in->s->name,
                        (long long)kernel);
    if (in->budget->kind == KVG_BUDGET_TOKENS && in->budget->value < (double)window)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s': a budget of %.0f tokens is smaller than the window of "
                        "%lld; raise 'budget' or lower 'window'",
                        in->s->name, in->budget->value, (long long)window);
    in->needs.n_obs = 1;
    in->needs.obs[0].window = (size_t)window;
    return 0;
}

void kvg_votes_score(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                     size_t n_keep, size_t window, size_t kernel, int maximum, float *out)
{
    size_t n = kvg_view_slots(v, head), n_old = n - kvg_window_slots(window, n, n_keep);
    kvg_obs_votes(in, v, in->first_obs, head, n_old, kernel, maximum, out);
    for (size_t j = n_old; j < n; j++)
        out[j] = KVG_MUST_STAY;
}

int kvg_sums_init(struct kvg_inst *in, struct kvg_err *err)
{
    (void)err;
    in->needs.n_obs = 1;
    in->needs.n_side = 1;
    in->needs.side_floats[0] = 1;
    return 0;
}

void kvg_sums_observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        float *now = v->scratch, *acc = v->scratch2;
        kvg_obs_mean(in, v, in->first_obs, h, n, now);
        kvg_store_side_get(columns, v->layer, h, in->first_side, acc);
        for (size_t j = 0; j < n; j++)
            acc[j] += now[j];
        kvg_store_side_put(columns, v->layer, h, in->first_side, acc);
    }
}

void kvg_pool_scores(const float *x, size_t n, size_t k, int maximum, float *out)
{
    size_t half = k / 2;
    for (size_t j = 0; j < n; j++) {
        size_t from = j > half ? j - half : 0, to = j + half < n ? j + half : n - 1;
        float acc = maximum ? x[from] : 0;
        for (size_t i = from; i <= to; i++)
            acc = maximum ? (x[i] > acc ? x[i] : acc) : acc + x[i];
        out[j] = maximum ? acc : acc / (float)k;
    }
}

void kvg_obs_votes(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                   size_t n, size_t kernel, int maximum, float *out)
{
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    float *pooled = v->scratch, rows = (float)v->obs_rows[i];
    memset(out, 0, n * sizeof *out);
    for (size_t g = 0; g < group && n; g++) {
        kvg_pool_scores(v->obs[i] + (head * group + g) * v->obs_ld, n, kernel, maximum, pooled);
        for (size_t j = 0; j < n; j++)
            out[j] += pooled[j] / (rows * (float)group);
    }
}

static void count_read(const struct kvg_view *v, size_t head, enum kvg_col col, size_t from,
                       size_t n)
{
    const struct kvg_list *l = &kvg_store_head(v->store, v->layer, head)->cols[col];
    size_t at = 0, end = from + n;
    for (uint32_t i = 0; i < l->n_segs && at < end; at += l->segs[i].n, i++) {
        size_t a = at > from ? at : from, b = at + l->segs[i].n < end ? at + l->segs[i].n : end;
        const struct kvg_codec *c = &v->store->codecs[l->segs[i].codec];
        if (a < b)
            *v->bytes_read += kvg_codec_total_bytes(c, c->group > 1 ? l->segs[i].n : b - a,
                                                    v->store->cfg.d_head);
    }
}

void kvg_view_keys(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out)
{
    const struct kvg_store *st = v->store;
    size_t d = st->cfg.d_head, half = d / 2;
    kvg_store_read(st, v->layer, head, KVG_COL_K, from, n, out);
    count_read(v, head, KVG_COL_K, from, n);
    if (!st->cfg.raw_keys)
        return;
    int32_t pos[KVG_TILE_SLOTS];
    if (v->position == KVG_POSITION_TRUE)
        kvg_store_positions_range(st, v->layer, head, from, n, pos);
    for (size_t j = 0; j < n; j++) {
        size_t p = v->position == KVG_POSITION_TRUE ? (size_t)pos[j] : from + j;
        st->cfg.kernels->rope(out + j * d, v->rope_cos + p * half, v->rope_sin + p * half, d);
    }
}

void kvg_view_values(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out)
{
    kvg_store_read(v->store, v->layer, head, KVG_COL_V, from, n, out);
    count_read(v, head, KVG_COL_V, from, n);
}

void kvg_seal_rows(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                   struct kvg_plan *plan)
{
    if (when == KVG_WHEN_APPENDED && v->phase == KVG_PHASE_PROMPT && !in->prefill_stored)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        if (in->k_codec_index > 0)
            kvg_plan_seal(plan, v->layer, h, KVG_COL_K, n, in->k_codec_index);
        if (in->v_codec_index > 0)
            kvg_plan_seal(plan, v->layer, h, KVG_COL_V, n, in->v_codec_index);
    }
}

int kvg_text_in_span(const struct kvg_text *t, size_t pos, unsigned kinds)
{
    size_t lo = 0, hi = t->n_spans;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->spans[mid].end <= pos)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_spans && t->spans[lo].begin <= pos && (kinds >> t->spans[lo].kind & 1);
}

int kvg_span_kinds_parse(const struct kvg_inst *in, const char *text, unsigned *kinds,
                         struct kvg_err *err)
{
    static const char *const names[KVG_SPAN_KINDS] = {[KVG_SPAN_SYSTEM] = "system",
                                                      [KVG_SPAN_TOOL] = "tool",
                                                      [KVG_SPAN_GLOSSARY] = "glossary",
                                                      [KVG_SPAN_USER] = "user"};
    *kinds = 0;
    for (const char *at = text; at; at = *at ? at + 1 : NULL) {
        size_t n = strcspn(at, "/"), k = 0;
        while (k < KVG_SPAN_KINDS && (strlen(names[k]) != n || memcmp(names[k], at, n)))
            k++;
        if (k == KVG_SPAN_KINDS)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "strategy '%s': '%.*s' is no kind of span; write system, tool, "
                            "glossary, user or several of them with '/' between",
                            in->s->name, (int)n, at);
        *kinds |= 1u << k;
        at += n;
    }
    return 0;
}
