/* Owns attention over a stream's store. A query sees the slots up to its own, or the named ones.
 * Prompts run in tiles of queries as matrix products over windows of slots, or row by row in the
 * order of decode steps; neither depends on how the store's rows lie in blocks. */
#include "model/engine_internal.h"

#include "kernel/blas.h"

#include <math.h>
#include <string.h>

struct attend {
    struct kvg_engine *e;
    const struct kvg_stream *s;
    struct kvg_stream **streams;
    size_t layer, row0, n;
    int observe;
    size_t n_chunks; /* step of one stream: windows of slots of the longest head */
};

float kvg_attend_scale(const struct kvg_engine *e)
{
    return 1.0f / sqrtf((float)e->cfg.model->d_head);
}

struct kvg_room kvg_room_of(const struct kvg_engine *e, int thread)
{
    size_t d = e->cfg.model->d_head, rows = kvg_engine_group(e) * KVG_QUERY_TILE;
    struct kvg_room r = {.q = e->tiles + (size_t)thread * e->tile_floats};
    r.o = r.q + rows * d;
    r.turned = r.o + rows * d;
    r.tile = r.turned + rows * d;
    r.spare = r.tile + KVG_TILE_SLOTS * d;
    r.part = r.spare + KVG_TILE_SLOTS * d;
    return r;
}

/* The queries of KV head h of row `row`, ready to meet keys: [group, d] to out. `slot` is the row's
 * own slot in this head. */
static void load_queries(const struct kvg_engine *e, const struct kvg_stream *s, size_t h,
                         size_t row, size_t slot, float *out)
{
    const struct kvg_model *m = e->cfg.model;
    size_t g = kvg_engine_group(e), d = m->d_head, w = m->n_heads * d, half = d / 2;
    int by_slot = s->pipe->position == KVG_POSITION_SLOT;
    memcpy(out, (by_slot ? e->q : e->qr) + row * w + h * g * d, g * d * sizeof *out);
    for (size_t i = 0; by_slot && i < g; i++)
        e->kern->rope(out + i * d, m->rope_cos + slot * half, m->rope_sin + slot * half, d);
}

/* ---- row by row ---- */

/* o = the sum over windows of slots, each summed by itself first. */
static void sum_row(const struct kvg_walk *w, const float *p, size_t ld, const struct kvg_room *r,
                    float *o)
{
    size_t g = kvg_engine_group(w->e), width = g * w->e->cfg.model->d_head;
    memset(o, 0, width * sizeof *o);
    for (size_t i = 0; i < w->n; i += KVG_SUM_SLOTS) {
        memset(r->part, 0, width * sizeof *r->part);
        kvg_walk_sum(w, i, w->n - i < KVG_SUM_SLOTS ? w->n : i + KVG_SUM_SLOTS, p, ld, g, r,
                     r->part);
        for (size_t k = 0; k < width; k++)
            o[k] += r->part[k];
    }
}

/* One query row of one KV head, from scores to output. scores: [group, ld]. */
static void attend_row(const struct kvg_walk *w, size_t row, size_t own_slot, float *scores,
                       size_t ld, const struct kvg_room *r)
{
    const struct kvg_engine *e = w->e;
    size_t g = kvg_engine_group(e), d = e->cfg.model->d_head;
    load_queries(e, w->s, w->head, row, own_slot, r->q);
    kvg_walk_score(w, 0, w->n, r->q, g, r, scores, ld);
    for (size_t i = 0; i < g; i++)
        e->kern->softmax(scores + i * ld, w->n, kvg_attend_scale(e));
    sum_row(w, scores, ld, r, r->o);
    memcpy(e->att + row * e->cfg.model->n_heads * d + w->head * g * d, r->o, g * d * sizeof *r->o);
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
    size_t g = kvg_engine_group(e);
    for (size_t k = 0; k < g; k++)
        for (size_t j = 0; j < n_rows; j++)
            kvg_observe_row(e, part, a->row0 + i + j, h * g + k, scores + (k * n_rows + j) * ld,
                            visible(a, h, i + j));
    e->observe_ns[(size_t)thread * 8] += kvg_engine_now(e) - t;
}

#ifdef KVG_BLAS
static size_t tile_slots(size_t i, size_t n)
{
    return n - i < KVG_TILE_SLOTS ? n - i : KVG_TILE_SLOTS;
}

/* Queries of rows [i, i + n), head by head: [group, n, d]. */
static void load_tile(const struct attend *a, size_t h, size_t i, size_t n,
                      const struct kvg_room *r)
{
    size_t g = kvg_engine_group(a->e), d = a->e->cfg.model->d_head;
    for (size_t j = 0; j < n; j++) {
        load_queries(a->e, a->s, h, i + j, visible(a, h, i + j) - 1, r->part);
        for (size_t k = 0; k < g; k++)
            memcpy(r->q + (k * n + j) * d, r->part + k * d, d * sizeof *r->q);
    }
}

static void softmax_tile(const struct attend *a, size_t h, size_t i, size_t n, size_t n_max,
                         float *scores, size_t ld)
{
    for (size_t k = 0; k < kvg_engine_group(a->e); k++)
        for (size_t j = 0; j < n; j++) {
            float *row = scores + (k * n + j) * ld;
            size_t vis = visible(a, h, i + j);
            a->e->kern->softmax(row, vis, kvg_attend_scale(a->e));
            memset(row + vis, 0, (n_max - vis) * sizeof *row);
        }
}

static void attend_tile(const struct attend *a, size_t part, size_t h, size_t i, size_t n,
                        int thread)
{
    struct kvg_engine *e = a->e;
    struct kvg_room r = kvg_room_of(e, thread);
    struct kvg_walk w = kvg_walk_of(e, a->s, a->layer, h);
    size_t g = kvg_engine_group(e), d = e->cfg.model->d_head, width = e->cfg.model->n_heads * d;
    size_t n_max = visible(a, h, i + n - 1), ld = (n_max + 15) / 16 * 16, m;
    float *scores = e->scores + (size_t)thread * e->scores_floats;
    load_tile(a, h, i, n, &r);
    for (size_t slot = 0; slot < n_max; slot += m) {
        m = tile_slots(slot, n_max);
        const float *k = kvg_walk_rows(&w, KVG_COL_K, slot, m, &r);
        kvg_gemm_nt(g * n, m, d, r.q, d, k, d, 0.0f, scores + slot, ld);
    }
    softmax_tile(a, h, i, n, n_max, scores, ld);
    if (a->observe)
        observe_rows(a, part, h, i, n, scores, ld, thread);
    for (size_t slot = 0; slot < n_max; slot += m) {
        m = tile_slots(slot, n_max);
        const float *v = kvg_walk_rows(&w, KVG_COL_V, slot, m, &r);
        kvg_gemm_nn(g * n, d, m, scores + slot, ld, v, d, slot ? 1.0f : 0.0f, r.o, d);
    }
    for (size_t k = 0; k < g; k++)
        for (size_t j = 0; j < n; j++)
            memcpy(e->att + (i + j) * width + (h * g + k) * d, r.o + (k * n + j) * d,
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
    struct kvg_room r = kvg_room_of(e, thread);
    size_t h = part / KVG_ATTEND_PARTS, j = part % KVG_ATTEND_PARTS, ld = e->cfg.max_tokens;
    float *scores = e->scores + (size_t)thread * e->scores_floats;
    struct kvg_walk w = kvg_walk_of(e, a->s, a->layer, h);
    for (size_t i = j; i < a->n; i += KVG_ATTEND_PARTS) {
        w.n = visible(a, h, i);
        attend_row(&w, i, w.n - 1, scores, ld, &r);
        if (a->observe)
            observe_rows(a, j, h, i, 1, scores, ld, thread);
    }
}

static void bill_walk(const struct kvg_walk *w)
{
    struct kvg_store *st = w->s->store;
    st->count.bytes_read += kvg_walk_bytes(w, KVG_COL_K) + kvg_walk_bytes(w, KVG_COL_V);
    if (st->cfg.raw_keys)
        st->count.n_rotated += w->n;
}

void kvg_attend_bill(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t n,
                     size_t tile)
{
    struct attend a = {.s = s, .layer = layer, .n = n};
    struct kvg_store *st = s->store;
    size_t g = kvg_engine_group(e), d = st->cfg.d_head;
    for (size_t h = 0; h < st->cfg.n_kv_heads; h++) {
        struct kvg_walk w = kvg_walk_of(e, s, layer, h);
        for (size_t i = 0; i < n; i += tile) {
            w.n = visible(&a, h, (n - i < tile ? n : i + tile) - 1);
            bill_walk(&w);
        }
        for (size_t i = 0; i < n; i++)
            st->count.n_macs += 2 * g * d * visible(&a, h, i);
    }
}

void kvg_attend_prompt(struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t row0,
                       size_t n, int row_mode, int observe)
{
    struct attend a = {
        .e = e, .s = s, .layer = layer, .row0 = row0, .n = n, .observe = observe && e->n_stats > 0};
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

/* What row `row` of a step reads of KV head h. */
static struct kvg_walk step_walk(const struct attend *a, size_t row, size_t h)
{
    struct kvg_walk w = kvg_walk_of(a->e, a->streams[row], a->layer, h);
    const struct kvg_named *named = &a->e->named[row * a->e->cfg.model->n_kv_heads + h];
    if (named->slots) {
        w.named = named->slots;
        w.n = named->n;
    }
    return w;
}

static size_t own_slot(const struct kvg_walk *w)
{
    return kvg_store_head(w->s->store, w->layer, w->head)->n_slots - 1;
}

static void step_whole_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    size_t n_kv = a->e->cfg.model->n_kv_heads, row = part / n_kv, h = part % n_kv;
    struct kvg_room r = kvg_room_of(a->e, thread);
    struct kvg_walk w = step_walk(a, row, h);
    attend_row(&w, row, own_slot(&w), kvg_step_scores(a->e, row, h * kvg_engine_group(a->e)),
               a->e->cfg.max_tokens, &r);
}

static size_t chunk_end(const struct kvg_walk *w, size_t from)
{
    return w->n - from < KVG_SUM_SLOTS ? w->n : from + KVG_SUM_SLOTS;
}

static void step_score_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    size_t h = part / a->n_chunks, from = part % a->n_chunks * KVG_SUM_SLOTS;
    struct kvg_walk w = step_walk(a, 0, h);
    if (from >= w.n)
        return;
    struct kvg_room r = kvg_room_of(e, thread);
    load_queries(e, a->s, h, 0, own_slot(&w), r.q);
    kvg_walk_score(&w, from, chunk_end(&w, from), r.q, kvg_engine_group(e), &r,
                   kvg_step_scores(e, 0, h * kvg_engine_group(e)), e->cfg.max_tokens);
}

static void step_softmax_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_walk w = step_walk(a, 0, part / kvg_engine_group(a->e));
    (void)thread;
    a->e->kern->softmax(kvg_step_scores(a->e, 0, part), w.n, kvg_attend_scale(a->e));
}

static void step_sum_part(void *arg, size_t part, int thread)
{
    const struct attend *a = arg;
    struct kvg_engine *e = a->e;
    size_t h = part / a->n_chunks, from = part % a->n_chunks * KVG_SUM_SLOTS;
    size_t g = kvg_engine_group(e), width = g * e->cfg.model->d_head;
    struct kvg_walk w = step_walk(a, 0, h);
    if (from >= w.n)
        return;
    struct kvg_room r = kvg_room_of(e, thread);
    float *out = e->partial + part * width;
    memset(out, 0, width * sizeof *out);
    kvg_walk_sum(&w, from, chunk_end(&w, from), kvg_step_scores(e, 0, h * g), e->cfg.max_tokens, g,
                 &r, out);
}

/* One stream alone: the work of a head is split over threads by windows of slots. */
static void step_alone(struct attend *a)
{
    struct kvg_engine *e = a->e;
    size_t n_kv = e->cfg.model->n_kv_heads, width = kvg_engine_group(e) * e->cfg.model->d_head;
    kvg_pool_run(e->cfg.pool, n_kv * a->n_chunks, step_score_part, a);
    kvg_pool_run(e->cfg.pool, e->cfg.model->n_heads, step_softmax_part, a);
    kvg_pool_run(e->cfg.pool, n_kv * a->n_chunks, step_sum_part, a);
    for (size_t h = 0; h < n_kv; h++) {
        float *o = e->att + h * width;
        size_t n = step_walk(a, 0, h).n;
        memset(o, 0, width * sizeof *o);
        for (size_t c = 0; c * KVG_SUM_SLOTS < n; c++)
            for (size_t i = 0; i < width; i++)
                o[i] += e->partial[(h * a->n_chunks + c) * width + i];
    }
}

static void bill_step(const struct attend *a, size_t row)
{
    size_t g = kvg_engine_group(a->e), d = a->e->cfg.model->d_head;
    for (size_t h = 0; h < a->e->cfg.model->n_kv_heads; h++) {
        struct kvg_walk w = step_walk(a, row, h);
        bill_walk(&w);
        a->streams[row]->store->count.n_macs += 2 * g * d * w.n;
    }
}

void kvg_attend_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                     size_t layer)
{
    struct attend a = {.e = e, .s = streams[0], .streams = streams, .layer = layer, .n = 1};
    size_t most = 1;
    for (size_t h = 0; h < e->cfg.model->n_kv_heads; h++) {
        size_t n = step_walk(&a, 0, h).n;
        most = n > most ? n : most;
    }
    a.n_chunks = (most + KVG_SUM_SLOTS - 1) / KVG_SUM_SLOTS;
    if (n_streams == 1 && a.n_chunks > 1 && kvg_pool_threads(e->cfg.pool) > 1)
        step_alone(&a);
    else
        kvg_pool_run(e->cfg.pool, n_streams * e->cfg.model->n_kv_heads, step_whole_part, &a);
    for (size_t i = 0; i < n_streams; i++)
        bill_step(&a, i);
}
