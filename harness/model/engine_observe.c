/* Owns the statistics of attention that strategies ask for: which ones a pass needs, their sums by
 * column, and what a view shows of them. Must not know what they are used for. */
#include "model/engine_internal.h"

#include <string.h>

/* First row of a pass that belongs to an observation's window. */
static size_t first_row(const struct kvg_stream *s, const struct kvg_pass *p, size_t window)
{
    size_t pos0 = s->n_tokens - (p->fed ? p->n : 0), question = s->text.question;
    if (window == KVG_WINDOW_QUESTION)
        return question > pos0 && question < pos0 + p->n ? question - pos0 : 0;
    return window && window < p->n ? p->n - window : 0;
}

static size_t find_stat(const struct kvg_engine *e, size_t n, struct kvg_stat want)
{
    size_t i = 0;
    while (i < n && (e->stats[i].kind != want.kind || e->stats[i].first != want.first))
        i++;
    return i;
}

static int watches(const struct kvg_pass *p, const struct kvg_stream *s)
{
    int any = kvg_call_due(p, s);
    for (size_t k = 0; k < s->pipe->n; k++)
        any |= s->pipe->inst[k].s->observe != NULL;
    return any && !s->bare && s->pipe->needs.n_obs > 0;
}

size_t kvg_observe_collect(struct kvg_engine *e, struct kvg_pass *p)
{
    size_t n = 0, refused = 0;
    p->observe = 0;
    for (size_t i = 0; i < p->n_streams; i++) {
        const struct kvg_stream *s = p->streams[i];
        if (!watches(p, s))
            continue;
        p->observe = 1;
        for (size_t k = 0; k < s->pipe->needs.n_obs && p->phase != KVG_PHASE_DECODE; k++) {
            const struct kvg_obs *o = &s->pipe->needs.obs[k];
            struct kvg_stat want = {o->kind, first_row(s, p, o->window)};
            size_t at = find_stat(e, n, want);
            if (at == KVG_STATS_MAX) {
                refused++;
                continue;
            }
            e->stats[at] = want;
            n += at == n;
        }
    }
    e->n_stats = n;
    return n + refused;
}

static float *stat_sum(const struct kvg_engine *e, size_t i, size_t head)
{
    return e->stat_sums + (i * e->cfg.model->n_heads + head) * e->cfg.max_tokens;
}

static float *stat_part(const struct kvg_engine *e, size_t part, size_t i, size_t head)
{
    size_t ld = e->cfg.max_tokens, heads = e->cfg.model->n_heads;
    return e->stat_parts + ((part * KVG_STATS_MAX + i) * heads + head) * ld;
}

static void take_larger(float *to, const float *x, size_t n)
{
    for (size_t j = 0; j < n; j++)
        to[j] = x[j] > to[j] ? x[j] : to[j];
}

/* One row's share of a statistic. */
static void add_row(const struct kvg_kernels *k, enum kvg_obs_kind kind, const float *p, size_t n,
                    float *to)
{
    float m = (float)n, even = 1.0f / (float)n;
    switch (kind) {
    case KVG_OBS_SUM:
        k->add(to, p, n);
        break;
    case KVG_OBS_MAX:
        take_larger(to, p, n);
        break;
    case KVG_OBS_WEIGHTED:
        for (size_t j = 0; j < n; j++)
            to[j] += p[j] * m;
        break;
    case KVG_OBS_ABOVE:
        for (size_t j = 0; j < n; j++)
            to[j] += p[j] >= even ? 1.0f : 0.0f;
        break;
    }
}

void kvg_observe_row(const struct kvg_engine *e, size_t part, size_t row, size_t head,
                     const float *p, size_t n)
{
    for (size_t i = 0; i < e->n_stats; i++)
        if (row >= e->stats[i].first)
            add_row(e->kern, e->stats[i].kind, p, n, stat_part(e, part, i, head));
}

void kvg_observe_finish(struct kvg_engine *e, size_t n)
{
    for (size_t i = 0; i < e->n_stats; i++)
        for (size_t h = 0; h < e->cfg.model->n_heads; h++) {
            float *out = stat_sum(e, i, h);
            memset(out, 0, n * sizeof *out);
            for (size_t part = 0; part < KVG_ATTEND_PARTS; part++) {
                float *in = stat_part(e, part, i, h);
                if (e->stats[i].kind == KVG_OBS_MAX)
                    take_larger(out, in, n);
                else
                    e->kern->add(out, in, n);
                memset(in, 0, n * sizeof *in);
            }
        }
}

/* ---- steps ---- */

/* A step that read named slots only: its rows are spread over all slots, 0 where nothing was read.
 */
static void spread_row(const struct kvg_named *named, size_t n_slots, float *row)
{
    size_t i = named->n;
    for (size_t j = n_slots; named->slots && j-- > 0;)
        row[j] = i > 0 && named->slots[i - 1] == j ? row[--i] : 0.0f;
}

/* Every kind of a decode step's own row: weights as they are, or derived from them. */
static const float *own_row(struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                            size_t i, size_t obs)
{
    const struct kvg_model *m = e->cfg.model;
    enum kvg_obs_kind kind = s->pipe->needs.obs[obs].kind;
    size_t group = kvg_engine_group(e), ld = e->cfg.max_tokens;
    if (kind == KVG_OBS_SUM || kind == KVG_OBS_MAX)
        return kvg_step_scores(e, i, 0);
    float *out = e->row_stats + obs * m->n_heads * ld;
    for (size_t g = 0; g < m->n_heads; g++) {
        size_t n = kvg_store_head(s->store, layer, g / group)->n_slots;
        size_t seen = e->named[i * m->n_kv_heads + g / group].slots
                          ? e->named[i * m->n_kv_heads + g / group].n
                          : n;
        float few = (float)seen, *to = out + g * ld;
        const float *p = kvg_step_scores(e, i, g);
        for (size_t j = 0; j < n; j++)
            to[j] = kind == KVG_OBS_WEIGHTED ? p[j] * few : p[j] >= 1.0f / few ? 1.0f : 0.0f;
    }
    return out;
}

/* ---- steps that look back ---- */

struct again {
    struct kvg_engine *e;
    const struct kvg_stream *s;
    size_t layer, n_logical, n; /* the last n queries */
};

/* Slots of a head at positions up to pos. */
static size_t slots_upto(const struct kvg_walk *w, size_t pos)
{
    int32_t at[KVG_TILE_SLOTS];
    for (size_t n = w->n; n > 0;) {
        size_t m = n < KVG_TILE_SLOTS ? n : KVG_TILE_SLOTS;
        kvg_store_positions_range(w->s->store, w->layer, w->head, n - m, m, at);
        while (m > 0 && (size_t)at[m - 1] > pos)
            m--, n--;
        if (m > 0)
            return n;
    }
    return 0;
}

/* Rows [i, i + n) of the queries held; query head k of row j is at [k * n + j]. */
static void again_tile(const struct again *a, size_t part, size_t h, size_t i, size_t n,
                       const struct kvg_room *r, float *scores)
{
    struct kvg_engine *e = a->e;
    struct kvg_walk w = kvg_walk_of(e, a->s, a->layer, h);
    size_t g = kvg_engine_group(e), d = e->cfg.model->d_head, first = a->n_logical - a->n + i;
    size_t n_max = slots_upto(&w, first + n - 1), ld = (n_max + 15) / 16 * 16;
    for (size_t j = 0; j < n; j++) {
        kvg_held_load(e, a->s, a->layer, h, a->n_logical, a->n, i + j, r->part);
        for (size_t k = 0; k < g; k++)
            memcpy(r->q + (k * n + j) * d, r->part + k * d, d * sizeof *r->q);
    }
    kvg_walk_score(&w, 0, n_max, r->q, g * n, r, scores, ld);
    for (size_t j = 0; j < n; j++) {
        size_t vis = slots_upto(&w, first + j);
        for (size_t k = 0; k < g && vis; k++) {
            float *row = scores + (k * n + j) * ld;
            e->kern->softmax(row, vis, kvg_attend_scale(e));
            kvg_observe_row(e, part, i + j, h * g + k, row, vis);
        }
    }
}

static void again_part(void *arg, size_t part, int thread)
{
    const struct again *a = arg;
    struct kvg_room r = kvg_room_of(a->e, thread);
    float *scores = a->e->scores + (size_t)thread * a->e->scores_floats;
    size_t h = part / KVG_ATTEND_PARTS, j = part % KVG_ATTEND_PARTS;
    for (size_t i = j * KVG_QUERY_TILE; i < a->n; i += KVG_ATTEND_PARTS * KVG_QUERY_TILE)
        again_tile(a, j, h, i, a->n - i < KVG_QUERY_TILE ? a->n - i : KVG_QUERY_TILE, &r, scores);
}

/* Keys are read once per tile of queries; values not at all. */
static void bill_again(const struct again *a)
{
    struct kvg_store *st = a->s->store;
    size_t g = kvg_engine_group(a->e), d = st->cfg.d_head;
    for (size_t h = 0; h < st->cfg.n_kv_heads; h++) {
        const struct kvg_walk all = kvg_walk_of(a->e, a->s, a->layer, h);
        for (size_t i = 0; i < a->n; i++) {
            size_t last = a->n - i < KVG_QUERY_TILE ? a->n - 1 : i + KVG_QUERY_TILE - 1;
            struct kvg_walk w = all;
            st->count.n_macs += g * d * slots_upto(&all, a->n_logical - a->n + i);
            if (i % KVG_QUERY_TILE)
                continue;
            w.n = slots_upto(&all, a->n_logical - a->n + last);
            st->count.bytes_read += kvg_walk_bytes(&w, KVG_COL_K);
            st->count.n_rotated += st->cfg.raw_keys ? w.n : 0;
        }
    }
}

/* The statistics over the last queries of every observation that is wider than one row. */
static void attend_again(struct kvg_engine *e, const struct kvg_stream *s, struct kvg_view *v)
{
    struct again a = {.e = e, .s = s, .layer = v->layer, .n_logical = v->n_logical};
    const struct kvg_needs *w = &s->pipe->needs;
    size_t at[KVG_OBS_N], most = 0, n_max = 0;
    for (size_t k = 0; k < w->n_obs; k++)
        if (kvg_obs_looks_back(&w->obs[k])) {
            v->obs_rows[k] = kvg_held_queries(s, v->n_logical, w->obs[k].window);
            a.n = v->obs_rows[k] > a.n ? v->obs_rows[k] : a.n;
        }
    if (a.n == 0)
        return;
    for (size_t k = 0; k < w->n_obs; k++)
        if (kvg_obs_looks_back(&w->obs[k])) {
            at[k] = most;
            e->stats[most++] = (struct kvg_stat){w->obs[k].kind, a.n - v->obs_rows[k]};
        }
    e->n_stats = most;
    kvg_pool_run(e->cfg.pool, e->cfg.model->n_kv_heads * KVG_ATTEND_PARTS, again_part, &a);
    for (size_t h = 0; h < e->cfg.model->n_kv_heads; h++)
        n_max = kvg_view_slots(v, h) > n_max ? kvg_view_slots(v, h) : n_max;
    kvg_observe_finish(e, n_max);
    bill_again(&a);
    for (size_t k = 0; k < w->n_obs; k++)
        if (kvg_obs_looks_back(&w->obs[k]))
            v->obs[k] = stat_sum(e, at[k], 0);
}

/* ---- views ---- */

static void step_view(struct kvg_engine *e, const struct kvg_pass *p, size_t i, struct kvg_view *v)
{
    const struct kvg_stream *s = p->streams[i];
    const struct kvg_model *m = e->cfg.model;
    for (size_t g = 0; g < m->n_heads; g++) {
        size_t h = g / kvg_engine_group(e);
        spread_row(&e->named[i * m->n_kv_heads + h], kvg_view_slots(v, h),
                   kvg_step_scores(e, i, g));
    }
    for (size_t k = 0; k < s->pipe->needs.n_obs; k++) {
        v->obs[k] = own_row(e, s, v->layer, i, k);
        v->obs_rows[k] = 1;
    }
    if (kvg_call_due(p, s))
        attend_again(e, s, v);
}

void kvg_observe_view(struct kvg_engine *e, const struct kvg_pass *p, size_t i, struct kvg_view *v)
{
    const struct kvg_stream *s = p->streams[i];
    if (!p->observe || !watches(p, s))
        return;
    if (p->phase == KVG_PHASE_DECODE) {
        step_view(e, p, i, v);
        return;
    }
    for (size_t k = 0; k < s->pipe->needs.n_obs; k++) {
        const struct kvg_obs *o = &s->pipe->needs.obs[k];
        struct kvg_stat want = {o->kind, first_row(s, p, o->window)};
        v->obs[k] = stat_sum(e, find_stat(e, e->n_stats, want), 0);
        v->obs_rows[k] = p->n - want.first;
    }
}
