/* Owns attention over a stream's store and the column sums that strategies ask for. A query sees
 * the slots up to its own. Prompts run in tiles of queries as matrix products, or row by row in the
 * order of decode steps; both read the store's segments as they lie. */
#include "model/engine_internal.h"

#include "kernel/blas.h"

#include <math.h>
#include <string.h>

struct attend {
    struct kvg_engine *e;
    const struct kvg_stream *s;
    struct kvg_stream **streams;
    size_t layer, row0, n, n_total;
    int observe;
    size_t n_chunks; /* step of one stream: chunks of segments of the longest head */
};

static size_t group_of(const struct kvg_engine *e)
{
    return e->cfg.model->n_heads / e->cfg.model->n_kv_heads;
}

static float scale_of(const struct kvg_engine *e)
{
    return 1.0f / sqrtf((float)e->cfg.model->d_head);
}

/* Rows of one segment of K ready for products: in place when they are exact and rotated already,
 * else decoded to `tile`, rotated by their place (slot) or their position. `slot` is the index of
 * the segment's first row in the head. */
static const float *key_rows(const struct kvg_engine *e, const struct kvg_stream *s,
                             const struct kvg_head *hd, const struct kvg_seg *g, size_t slot,
                             float *tile)
{
    const struct kvg_store *st = s->store;
    size_t d = st->cfg.d_head, half = d / 2;
    const struct kvg_codec *c = &st->codecs[g->codec];
    size_t row = kvg_codec_total_bytes(c, c->group, d) / c->group;
    const unsigned char *src = g->b->data + g->off * row;
    if (g->codec == 0 && !st->cfg.raw_keys)
        return (const float *)(const void *)src;
    c->decode(c, e->kern, (size_t)(hd - st->heads), src, g->n, d, tile);
    if (!st->cfg.raw_keys)
        return tile;
    const int32_t *pos = NULL;
    size_t in_seg = slot;
    const struct kvg_list *pl = &hd->cols[KVG_COL_POS];
    uint32_t pi = 0;
    for (; s->pipe->position == KVG_POSITION_TRUE && in_seg >= pl->segs[pi].n; pi++)
        in_seg -= pl->segs[pi].n;
    for (size_t i = 0; i < g->n; i++) {
        size_t p = slot + i;
        if (s->pipe->position == KVG_POSITION_TRUE) {
            if (in_seg == pl->segs[pi].n) {
                pi++;
                in_seg = 0;
            }
            pos = (const int32_t *)(const void *)pl->segs[pi].b->data + pl->segs[pi].off;
            p = (size_t)pos[in_seg++];
        }
        e->kern->rope(tile + i * d, e->cfg.model->rope_cos + p * half,
                      e->cfg.model->rope_sin + p * half, d);
    }
    return tile;
}

static const float *value_rows(const struct kvg_engine *e, const struct kvg_store *st, size_t head,
                               const struct kvg_seg *g, float *tile)
{
    size_t d = st->cfg.d_head;
    const struct kvg_codec *c = &st->codecs[g->codec];
    const unsigned char *src =
        g->b->data + g->off * (kvg_codec_total_bytes(c, c->group, d) / c->group);
    if (g->codec == 0)
        return (const float *)(const void *)src;
    c->decode(c, e->kern, head, src, g->n, d, tile);
    return tile;
}

static void rotate_by_slot(const struct kvg_engine *e, float *q, size_t slot)
{
    size_t half = e->cfg.model->d_head / 2;
    e->kern->rope(q, e->cfg.model->rope_cos + slot * half, e->cfg.model->rope_sin + slot * half,
                  e->cfg.model->d_head);
}

/* The G queries of KV head h of row `row`, ready to meet keys: [G, d] to out. `slot` is the row's
 * own slot in this head. */
static void load_queries(const struct kvg_engine *e, const struct kvg_stream *s, size_t h,
                         size_t row, size_t slot, float *out)
{
    const struct kvg_model *m = e->cfg.model;
    size_t g = group_of(e), d = m->d_head, w = m->n_heads * d;
    int by_slot = s->pipe->position == KVG_POSITION_SLOT;
    memcpy(out, (by_slot ? e->q : e->qr) + row * w + h * g * d, g * d * sizeof *out);
    for (size_t i = 0; by_slot && i < g; i++)
        rotate_by_slot(e, out + i * d, slot);
}

/* ---- row by row ---- */

static int direct(const struct kvg_store *st, const struct kvg_seg *g)
{
    return st->codecs[g->codec].type >= 0;
}

/* Scores of segments [seg0, seg1) that begin at `slot`, first n_vis slots only: s[g*ld + slot]. */
static void score_segs(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                       size_t h, uint32_t seg0, uint32_t seg1, size_t slot, size_t n_vis,
                       const float *q, float *qi, float *tile, float *scores, size_t ld)
{
    const struct kvg_store *st = s->store;
    const struct kvg_head *hd = kvg_store_head(st, layer, h);
    const struct kvg_list *l = &hd->cols[KVG_COL_K];
    size_t d = st->cfg.d_head, gq = group_of(e);
    for (uint32_t i = seg0; i < seg1 && slot < n_vis; slot += l->segs[i].n, i++) {
        const struct kvg_seg *g = &l->segs[i];
        size_t n = g->n < n_vis - slot ? g->n : n_vis - slot;
        const struct kvg_codec *c = &st->codecs[g->codec];
        if (direct(st, g) && !st->cfg.raw_keys) {
            size_t rb = kvg_type_row_bytes((enum kvg_type)c->type, d);
            for (size_t k = 0; c->interleaved && k < gq; k++)
                kvg_codec_interleave(q + k * d, qi + k * d, d);
            e->kern->attn_dot[c->type](g->b->data + g->off * rb, rb, n, d, c->interleaved ? qi : q,
                                       gq, scores + slot, ld);
        } else {
            const float *rows = key_rows(e, s, hd, g, slot, tile);
            e->kern->attn_dot[KVG_F32](rows, d * sizeof(float), n, d, q, gq, scores + slot, ld);
        }
    }
}

/* o[G, d] += p V over segments [seg0, seg1) that begin at `slot`. */
static void sum_segs(const struct kvg_engine *e, const struct kvg_store *st, size_t layer, size_t h,
                     uint32_t seg0, uint32_t seg1, size_t slot, size_t n_vis, const float *p,
                     size_t ld, float *tile, float *o)
{
    const struct kvg_list *l = &kvg_store_head(st, layer, h)->cols[KVG_COL_V];
    size_t d = st->cfg.d_head, gq = group_of(e);
    for (uint32_t i = seg0; i < seg1 && slot < n_vis; slot += l->segs[i].n, i++) {
        const struct kvg_seg *g = &l->segs[i];
        size_t n = g->n < n_vis - slot ? g->n : n_vis - slot;
        if (direct(st, g)) {
            enum kvg_type t = (enum kvg_type)st->codecs[g->codec].type;
            size_t rb = kvg_type_row_bytes(t, d);
            e->kern->attn_acc[t](g->b->data + g->off * rb, rb, n, d, p + slot, ld, gq, o);
        } else {
            e->kern->attn_acc[KVG_F32](value_rows(e, st, layer * st->cfg.n_kv_heads + h, g, tile), d * sizeof(float), n, d,
                                       p + slot, ld, gq, o);
        }
    }
}

static size_t slots_before(const struct kvg_list *l, uint32_t seg)
{
    size_t n = 0;
    for (uint32_t i = 0; i < seg && i < l->n_segs; i++)
        n += l->segs[i].n;
    return n;
}

/* o = the sum over chunks of segments, each chunk summed by itself first. */
static void sum_row(const struct kvg_engine *e, const struct kvg_store *st, size_t layer, size_t h,
                    size_t n_vis, const float *p, size_t ld, float *tile, float *part, float *o)
{
    const struct kvg_list *l = &kvg_store_head(st, layer, h)->cols[KVG_COL_V];
    size_t w = group_of(e) * st->cfg.d_head, slot = 0;
    memset(o, 0, w * sizeof *o);
    for (uint32_t seg = 0; seg < l->n_segs && slot < n_vis; seg += KVG_ATTEND_SEGS) {
        memset(part, 0, w * sizeof *part);
        sum_segs(e, st, layer, h, seg, seg + KVG_ATTEND_SEGS < l->n_segs ? seg + KVG_ATTEND_SEGS
                                                                          : l->n_segs,
                 slot, n_vis, p, ld, tile, part);
        for (uint32_t i = seg; i < seg + KVG_ATTEND_SEGS && i < l->n_segs; i++)
            slot += l->segs[i].n;
        for (size_t i = 0; i < w; i++)
            o[i] += part[i];
    }
}

/* Per-thread room: [G*QT, d] queries, [G*QT, d] outputs, one tile, [G, d] interleaved queries and
 * partial sums. */
struct room {
    float *q, *o, *tile, *qi, *part;
};

static struct room room_of(const struct kvg_engine *e, int thread)
{
    size_t d = e->cfg.model->d_head, g = group_of(e);
    float *at = e->tiles + (size_t)thread * e->tile_floats;
    struct room r = {.q = at};
    r.o = r.q + g * KVG_QUERY_TILE * d;
    r.tile = r.o + g * KVG_QUERY_TILE * d;
    r.qi = r.tile + KVG_TILE_SLOTS * d;
    r.part = r.qi + g * d;
    return r;
}

/* One query row of one KV head, from scores to output. scores: [G, ld]. */
static void attend_row(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                       size_t h, size_t row, size_t n_vis, float *scores, size_t ld,
                       const struct room *r)
{
    size_t g = group_of(e), d = e->cfg.model->d_head;
    const struct kvg_list *kl = &kvg_store_head(s->store, layer, h)->cols[KVG_COL_K];
    load_queries(e, s, h, row, n_vis - 1, r->q);
    score_segs(e, s, layer, h, 0, kl->n_segs, 0, n_vis, r->q, r->qi, r->tile, scores, ld);
    for (size_t i = 0; i < g; i++)
        e->kern->softmax(scores + i * ld, n_vis, scale_of(e));
    sum_row(e, s->store, layer, h, n_vis, scores, ld, r->tile, r->part, r->o);
    memcpy(e->att + row * e->cfg.model->n_heads * d + h * g * d, r->o, g * d * sizeof *r->o);
}

/* ---- column sums ---- */

size_t kvg_attend_window_rows(const struct kvg_engine *e, size_t w, size_t n_total)
{
    return e->windows[w] && e->windows[w] < n_total ? e->windows[w] : n_total;
}

static float *colsum_part(const struct kvg_engine *e, size_t part, size_t w, size_t head)
{
    size_t ld = e->cfg.max_tokens, heads = e->cfg.model->n_heads;
    return e->colsum_part + ((part * KVG_WINDOWS_MAX + w) * heads + head) * ld;
}

static void add_colsum(const struct kvg_engine *e, size_t part, size_t row, size_t n_total,
                       size_t head, const float *p, size_t n_vis)
{
    for (size_t w = 0; w < e->n_windows; w++)
        if (row >= n_total - kvg_attend_window_rows(e, w, n_total))
            e->kern->add(colsum_part(e, part, w, head), p, n_vis);
}

void kvg_attend_finish_colsum(struct kvg_engine *e, size_t n)
{
    size_t ld = e->cfg.max_tokens, heads = e->cfg.model->n_heads;
    for (size_t w = 0; w < e->n_windows; w++) {
        for (size_t h = 0; h < heads; h++) {
            float *out = e->colsum + (w * heads + h) * ld;
            memset(out, 0, n * sizeof *out);
            for (size_t part = 0; part < KVG_ATTEND_PARTS; part++) {
                float *in = colsum_part(e, part, w, h);
                e->kern->add(out, in, n);
                memset(in, 0, n * sizeof *in);
            }
        }
    }
}

/* ---- prompts ---- */

static size_t visible(const struct attend *a, size_t h, size_t i)
{
    size_t n = kvg_store_head(a->s->store, a->layer, h)->n_slots;
    return n - a->n + i + 1; /* the chunk's rows are the last a->n slots */
}

static void observe_rows(const struct attend *a, size_t part, size_t h, size_t i, size_t n_rows,
                         const float *scores, size_t ld, int thread)
{
    struct kvg_engine *e = a->e;
    uint64_t t = kvg_engine_now(e);
    size_t g = group_of(e);
    for (size_t k = 0; k < g; k++)
        for (size_t j = 0; j < n_rows; j++)
            add_colsum(e, part, a->row0 + i + j, a->n_total, h * g + k,
                       scores + (k * n_rows + j) * ld, visible(a, h, i + j));
    e->observe_ns[(size_t)thread * 8] += kvg_engine_now(e) - t;
}

#ifdef KVG_BLAS
static void attend_tile(const struct attend *a, size_t part, size_t h, size_t i, size_t n,
                        int thread)
{
    struct kvg_engine *e = a->e;
    const struct kvg_store *st = a->s->store;
    const struct kvg_head *hd = kvg_store_head(st, a->layer, h);
    struct room r = room_of(e, thread);
    size_t g = group_of(e), d = e->cfg.model->d_head, w = e->cfg.model->n_heads * d;
    size_t n_max = visible(a, h, i + n - 1), ld = (n_max + 15) / 16 * 16, slot = 0;
    float *scores = e->scores + (size_t)thread * e->scores_floats;
    for (size_t j = 0; j < n; j++) {
        load_queries(e, a->s, h, i + j, visible(a, h, i + j) - 1, r.part);
        for (size_t k = 0; k < g; k++)
            memcpy(r.q + (k * n + j) * d, r.part + k * d, d * sizeof *r.q);
    }
    const struct kvg_list *kl = &hd->cols[KVG_COL_K], *vl = &hd->cols[KVG_COL_V];
    for (uint32_t s = 0; s < kl->n_segs && slot < n_max; slot += kl->segs[s].n, s++) {
        size_t m = kl->segs[s].n < n_max - slot ? kl->segs[s].n : n_max - slot;
        const float *k = key_rows(e, a->s, hd, &kl->segs[s], slot, r.tile);
        kvg_gemm_nt(g * n, m, d, r.q, d, k, d, 0.0f, scores + slot, ld);
    }
    for (size_t k = 0; k < g; k++) {
        for (size_t j = 0; j < n; j++) {
            float *row = scores + (k * n + j) * ld;
            size_t vis = visible(a, h, i + j);
            e->kern->softmax(row, vis, scale_of(e));
            memset(row + vis, 0, (n_max - vis) * sizeof *row);
        }
    }
    if (a->observe)
        observe_rows(a, part, h, i, n, scores, ld, thread);
    slot = 0;
    for (uint32_t s = 0; s < vl->n_segs && slot < n_max; slot += vl->segs[s].n, s++) {
        size_t m = vl->segs[s].n < n_max - slot ? vl->segs[s].n : n_max - slot;
        const float *v = value_rows(e, st, (size_t)(hd - st->heads), &vl->segs[s], r.tile);
        kvg_gemm_nn(g * n, d, m, scores + slot, ld, v, d, slot ? 1.0f : 0.0f, r.o, d);
    }
    for (size_t k = 0; k < g; k++)
        for (size_t j = 0; j < n; j++)
            memcpy(e->att + (i + j) * w + (h * g + k) * d, r.o + (k * n + j) * d,
                   d * sizeof *r.o);
}

static void prompt_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    size_t h = part / KVG_ATTEND_PARTS, j = part % KVG_ATTEND_PARTS;
    for (size_t i = j * KVG_QUERY_TILE; i < a->n; i += KVG_ATTEND_PARTS * KVG_QUERY_TILE)
        attend_tile(a, j, h, i, a->n - i < KVG_QUERY_TILE ? a->n - i : KVG_QUERY_TILE, thread);
}
#endif

static void prompt_rows_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    struct room r = room_of(e, thread);
    size_t h = part / KVG_ATTEND_PARTS, j = part % KVG_ATTEND_PARTS, ld = e->cfg.max_tokens;
    float *scores = e->scores + (size_t)thread * e->scores_floats;
    for (size_t i = j; i < a->n; i += KVG_ATTEND_PARTS) {
        attend_row(e, a->s, a->layer, h, i, visible(a, h, i), scores, ld, &r);
        if (a->observe)
            observe_rows(a, j, h, i, 1, scores, ld, thread);
    }
}

static size_t range_bytes(const struct kvg_store *st, const struct kvg_list *l, size_t n_vis)
{
    size_t bytes = 0, slot = 0;
    for (uint32_t i = 0; i < l->n_segs && slot < n_vis; slot += l->segs[i].n, i++) {
        const struct kvg_codec *c = &st->codecs[l->segs[i].codec];
        size_t n = c->group > 1 || l->segs[i].n < n_vis - slot ? l->segs[i].n : n_vis - slot;
        bytes += kvg_codec_total_bytes(c, n, st->cfg.d_head);
    }
    return bytes;
}

void kvg_attend_bill(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                     size_t n, size_t tile)
{
    struct attend a = {.s = s, .layer = layer, .n = n};
    struct kvg_store *st = s->store;
    size_t g = group_of(e), d = st->cfg.d_head;
    for (size_t h = 0; h < st->cfg.n_kv_heads; h++) {
        const struct kvg_head *hd = kvg_store_head(st, layer, h);
        for (size_t i = 0; i < n; i += tile) {
            size_t last = (n - i < tile ? n : i + tile) - 1;
            size_t vis = visible(&a, h, last);
            st->count.bytes_read += range_bytes(st, &hd->cols[KVG_COL_K], vis) +
                                    range_bytes(st, &hd->cols[KVG_COL_V], vis);
            if (st->cfg.raw_keys)
                st->count.n_rotated += vis;
        }
        for (size_t i = 0; i < n; i++)
            st->count.n_macs += 2 * g * d * visible(&a, h, i);
    }
}

void kvg_attend_prompt(struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t row0,
                       size_t n, size_t n_total, int row_mode, int observe)
{
    struct attend a = {.e = e,
                       .s = s,
                       .layer = layer,
                       .row0 = row0,
                       .n = n,
                       .n_total = n_total,
                       .observe = observe && e->n_windows > 0};
    size_t parts = e->cfg.model->n_kv_heads * KVG_ATTEND_PARTS;
#ifdef KVG_BLAS
    if (!row_mode) {
        kvg_pool_run(e->cfg.pool, parts, prompt_part, &a);
        return;
    }
#endif
    (void)row_mode;
    kvg_pool_run(e->cfg.pool, parts, prompt_rows_part, &a);
}

/* ---- steps ---- */

static float *step_scores(const struct kvg_engine *e, size_t stream, size_t head)
{
    return e->row_scores + (stream * e->cfg.model->n_heads + head) * e->cfg.max_tokens;
}

static void step_whole_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    size_t n_kv = e->cfg.model->n_kv_heads, row = part / n_kv, h = part % n_kv;
    const struct kvg_stream *s = a->streams[row];
    struct room r = room_of(e, thread);
    attend_row(e, s, a->layer, h, row, kvg_store_head(s->store, a->layer, h)->n_slots,
               step_scores(e, row, h * group_of(e)), e->cfg.max_tokens, &r);
}

static void step_score_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    size_t h = part / a->n_chunks;
    uint32_t seg = (uint32_t)(part % a->n_chunks) * KVG_ATTEND_SEGS;
    const struct kvg_head *hd = kvg_store_head(a->s->store, a->layer, h);
    const struct kvg_list *l = &hd->cols[KVG_COL_K];
    if (seg >= l->n_segs)
        return;
    struct room r = room_of(e, thread);
    load_queries(e, a->s, h, 0, hd->n_slots - 1, r.q);
    score_segs(e, a->s, a->layer, h, seg,
               seg + KVG_ATTEND_SEGS < l->n_segs ? seg + KVG_ATTEND_SEGS : l->n_segs,
               slots_before(l, seg), hd->n_slots, r.q, r.qi, r.tile,
               step_scores(e, 0, h * group_of(e)), e->cfg.max_tokens);
}

static void step_softmax_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    size_t h = part / group_of(a->e);
    (void)thread;
    a->e->kern->softmax(step_scores(a->e, 0, part),
                        kvg_store_head(a->s->store, a->layer, h)->n_slots, scale_of(a->e));
}

static void step_sum_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    size_t h = part / a->n_chunks, w = group_of(e) * e->cfg.model->d_head;
    uint32_t seg = (uint32_t)(part % a->n_chunks) * KVG_ATTEND_SEGS;
    const struct kvg_head *hd = kvg_store_head(a->s->store, a->layer, h);
    const struct kvg_list *l = &hd->cols[KVG_COL_V];
    float *out = e->partial + part * w;
    memset(out, 0, w * sizeof *out);
    if (seg >= l->n_segs)
        return;
    struct room r = room_of(e, thread);
    sum_segs(e, a->s->store, a->layer, h, seg,
             seg + KVG_ATTEND_SEGS < l->n_segs ? seg + KVG_ATTEND_SEGS : l->n_segs,
             slots_before(l, seg), hd->n_slots, step_scores(e, 0, h * group_of(e)),
             e->cfg.max_tokens, r.tile, out);
}

/* One stream alone: the work of a head is split over threads by chunks of segments. */
static void step_alone(struct attend *a)
{
    struct kvg_engine *e = a->e;
    size_t n_kv = e->cfg.model->n_kv_heads, w = group_of(e) * e->cfg.model->d_head;
    kvg_pool_run(e->cfg.pool, n_kv * a->n_chunks, step_score_part, a);
    kvg_pool_run(e->cfg.pool, e->cfg.model->n_heads, step_softmax_part, a);
    kvg_pool_run(e->cfg.pool, n_kv * a->n_chunks, step_sum_part, a);
    for (size_t h = 0; h < n_kv; h++) {
        float *o = e->att + h * w;
        memset(o, 0, w * sizeof *o);
        for (size_t c = 0; c < a->n_chunks; c++)
            for (size_t i = 0; i < w; i++)
                o[i] += e->partial[(h * a->n_chunks + c) * w + i];
    }
}

static size_t chunks_of(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer)
{
    uint32_t most = 1;
    for (size_t h = 0; h < e->cfg.model->n_kv_heads; h++) {
        const struct kvg_head *hd = kvg_store_head(s->store, layer, h);
        most = hd->cols[KVG_COL_K].n_segs > most ? hd->cols[KVG_COL_K].n_segs : most;
        most = hd->cols[KVG_COL_V].n_segs > most ? hd->cols[KVG_COL_V].n_segs : most;
    }
    return (most + KVG_ATTEND_SEGS - 1) / KVG_ATTEND_SEGS;
}

void kvg_attend_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                     size_t layer)
{
    struct attend a = {.e = e, .s = streams[0], .streams = streams, .layer = layer, .n = 1};
    a.n_chunks = chunks_of(e, streams[0], layer);
    if (n_streams == 1 && a.n_chunks > 1 && kvg_pool_threads(e->cfg.pool) > 1)
        step_alone(&a);
    else
        kvg_pool_run(e->cfg.pool, n_streams * e->cfg.model->n_kv_heads, step_whole_part, &a);
    for (size_t i = 0; i < n_streams; i++)
        kvg_attend_bill(e, streams[i], layer, 1, 1);
}
