/* Owns one pass of rows through the layers. What strategies are asked on the way is in
 * engine_calls.c. */
#include "model/engine_internal.h"

#include <string.h>

/* New rows go into the store; then what happens before attention. */
static int before_attention(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t row0,
                            size_t n, struct kvg_err *err)
{
    const struct kvg_model *m = e->cfg.model;
    size_t width = m->n_kv_heads * m->d_head, q_width = m->n_heads * m->d_head;
    int decode = p->phase == KVG_PHASE_DECODE, rc = 0;
    for (size_t i = 0; i < p->n_streams && !rc; i++) {
        struct kvg_stream *s = p->streams[i];
        size_t row = decode ? i : 0;
        uint64_t t0 = kvg_engine_now(e);
        const float *k = (s->store->cfg.raw_keys ? e->k : e->kr) + row * width;
        kvg_store_append(s->store, layer, k, e->v + row * width, width,
                         (int32_t)(s->n_tokens + row0), decode ? 1 : n);
        uint64_t t1 = kvg_engine_now(e);
        e->times.append += t1 - t0;
        if (s->held && !s->bare && p->phase != KVG_PHASE_AUX)
            kvg_held_push(e, s, layer, e->q + row * q_width, s->n_tokens + row0, decode ? 1 : n,
                          decode);
        e->times.observe += kvg_engine_now(e) - t1;
        rc = kvg_call_before(e, p, layer, i, err);
    }
    return rc;
}

static void attend(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t row0, size_t n)
{
    uint64_t t0 = kvg_engine_now(e), watched = 0;
    int threads = kvg_pool_threads(e->cfg.pool);
    if (p->phase == KVG_PHASE_DECODE) {
        kvg_attend_step(e, p->streams, p->n_streams, layer);
    } else {
        /* streams that share a pass hold the same exact rows: one of them speaks for all */
        const struct kvg_stream *lead = p->streams[0];
        for (size_t i = 1; i < p->n_streams && lead->store->cfg.raw_keys; i++)
            lead = p->streams[i];
        kvg_attend_prompt(e, lead, layer, row0, n, p->row_mode, p->observe);
        for (size_t i = 0; i < p->n_streams; i++)
            kvg_attend_bill(e, p->streams[i], layer, n, p->row_mode ? 1 : KVG_QUERY_TILE);
    }
    for (int t = 0; t < threads; t++) {
        watched += e->observe_ns[t * 8];
        e->observe_ns[t * 8] = 0;
    }
    watched /= (uint64_t)threads;
    e->times.observe += watched;
    e->times.attend += kvg_engine_now(e) - t0 - watched;
}

static void project_in(struct kvg_engine *e, const struct kvg_pass *p, const struct kvg_layer *l,
                       const float *x, size_t row0, size_t n)
{
    const struct kvg_model *m = e->cfg.model;
    size_t qw = m->n_heads * m->d_head, kw = m->n_kv_heads * m->d_head;
    struct kvg_product in[] = {{&l->q, e->q, qw}, {&l->k, e->k, kw}, {&l->v, e->v, kw}};
    int32_t pos[KVG_STREAMS_MAX], *rows = NULL;
    kvg_dense_norm(e, x, l->attn_norm, n, e->xn);
    kvg_dense_products(e, in, 3, e->xn, m->n_embd, n, p->row_mode);
    if (p->phase == KVG_PHASE_DECODE) {
        for (size_t i = 0; i < p->n_streams; i++)
            pos[i] = (int32_t)p->streams[i]->n_tokens;
        rows = pos;
    }
    int32_t pos0 = (int32_t)(p->streams[0]->n_tokens + row0);
    kvg_dense_rope(e, e->q, e->qr, n, m->n_heads, rows, pos0);
    kvg_dense_rope(e, e->k, e->kr, n, m->n_kv_heads, rows, pos0);
}

static void project_out(struct kvg_engine *e, const struct kvg_pass *p, const struct kvg_layer *l,
                        float *x, size_t n)
{
    const struct kvg_model *m = e->cfg.model;
    size_t ew = m->n_embd, ff = m->n_ff;
    struct kvg_product o = {&l->o, e->xn, ew}, down = {&l->down, e->xn, ew};
    struct kvg_product up[] = {{&l->gate, e->gate, ff}, {&l->up, e->up, ff}};
    kvg_dense_products(e, &o, 1, e->att, m->n_heads * m->d_head, n, p->row_mode);
    kvg_dense_add(e, x, e->xn, n);
    kvg_dense_norm(e, x, l->ffn_norm, n, e->xn);
    kvg_dense_products(e, up, 2, e->xn, ew, n, p->row_mode);
    kvg_dense_swiglu(e, n);
    kvg_dense_products(e, &down, 1, e->gate, ff, n, p->row_mode);
    kvg_dense_add(e, x, e->xn, n);
}

static int run_layer(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t n_rows,
                     struct kvg_err *err)
{
    const struct kvg_layer *l = &e->cfg.model->layers[layer];
    int rc = 0;
    for (size_t row0 = 0; row0 < n_rows && !rc; row0 += KVG_CHUNK_ROWS) {
        size_t n = n_rows - row0 < KVG_CHUNK_ROWS ? n_rows - row0 : KVG_CHUNK_ROWS;
        float *x = e->x + row0 * e->cfg.model->n_embd;
        project_in(e, p, l, x, row0, n);
        rc = before_attention(e, p, layer, row0, n, err);
        if (rc)
            break;
        attend(e, p, layer, row0, n);
        project_out(e, p, l, x, n);
    }
    if (!rc && p->observe && p->phase != KVG_PHASE_DECODE) {
        uint64_t t0 = kvg_engine_now(e);
        size_t most = 0;
        for (size_t h = 0; h < e->cfg.model->n_kv_heads; h++) {
            size_t slots = kvg_store_head(p->streams[0]->store, layer, h)->n_slots;
            most = slots > most ? slots : most;
        }
        kvg_observe_finish(e, most);
        e->times.observe += kvg_engine_now(e) - t0;
    }
    for (size_t i = 0; i < p->n_streams && !rc; i++)
        rc = kvg_call_after(e, p, layer, i, err);
    return rc;
}

static void write_hidden(struct kvg_engine *e, const struct kvg_pass *p, size_t n_rows)
{
    const struct kvg_model *m = e->cfg.model;
    size_t w = m->n_embd;
    if (p->phase == KVG_PHASE_DECODE) {
        kvg_dense_norm(e, e->x, m->output_norm, n_rows, p->hidden);
        return;
    }
    for (size_t i = 0; i < p->n_want; i++)
        e->kern->rmsnorm(e->x + p->want[i] * w, m->output_norm, w, m->rms_eps, p->hidden + i * w);
    for (size_t s = 1; s < p->n_streams; s++)
        memcpy(p->hidden + s * p->n_want * w, p->hidden, p->n_want * w * sizeof *p->hidden);
}

/* Multiply-adds of the weights for one row; logits apart. */
static uint64_t dense_macs(const struct kvg_model *m)
{
    uint64_t q = m->n_heads * m->d_head, kv = m->n_kv_heads * m->d_head;
    return m->n_layers * m->n_embd * (2 * q + 2 * kv + 3 * m->n_ff);
}

int kvg_pass_run(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    size_t n_rows = p->phase == KVG_PHASE_DECODE ? p->n_streams : p->n;
    int rc = 0;
    if (kvg_observe_collect(e, p) > KVG_STATS_MAX)
        return KVG_FAIL(err, KVG_ELIMIT, "more than %d different observations run side by side",
                        KVG_STATS_MAX);
    p->row_mode = e->row_ordered || n_rows <= KVG_ROW_MODE_MAX || p->phase == KVG_PHASE_DECODE;
#ifndef KVG_BLAS
    p->row_mode = 1;
#endif
    kvg_dense_embed(e, p->tokens, n_rows, e->x);
    for (size_t l = 0; l < e->cfg.model->n_layers && !rc; l++)
        rc = run_layer(e, p, l, n_rows, err);
    if (!rc)
        rc = kvg_call_end_pass(e, p, err);
    for (size_t i = 0; i < p->n_streams; i++)
        p->streams[i]->store->count.n_macs +=
            dense_macs(e->cfg.model) * (p->phase == KVG_PHASE_DECODE ? 1 : p->n);
    if (!rc && p->hidden)
        write_hidden(e, p, n_rows);
    return rc;
}
