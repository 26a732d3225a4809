/* Owns one pass of rows through the layers and the order of the strategy calls in it:
 * append, [decode: compress that evicts before attention], seal(APPENDED), before_attend, attention,
 * observe, compress, seal(ATTENDED), and after the last layer end_pass. */
#include "model/engine_internal.h"

#include <string.h>

static struct kvg_view view_of(struct kvg_engine *e, const struct kvg_pass *p, struct kvg_stream *s,
                               size_t layer, size_t row)
{
    const struct kvg_model *m = e->cfg.model;
    size_t rows = p->phase == KVG_PHASE_DECODE ? 1 : p->n, width = m->n_heads * m->d_head;
    return (struct kvg_view){.store = s->store,
                             .layer = layer,
                             .phase = p->phase,
                             .n_new = rows,
                             .pos0 = (int32_t)s->n_tokens,
                             .n_logical = s->n_tokens + rows,
                             .turn = s->turn,
                             .text = &s->text,
                             .position = s->pipe->position,
                             .q = p->phase == KVG_PHASE_DECODE ? e->qr + row * width : NULL,
                             .obs_ld = e->cfg.max_tokens,
                             .wo = {e->cfg.model->layers[layer].o.type,
                                    e->cfg.model->layers[layer].o.data,
                                    e->cfg.model->layers[layer].o.row_bytes,
                                    e->cfg.model->layers[layer].o.rows,
                                    e->cfg.model->layers[layer].o.cols},
                             .rope_cos = m->rope_cos,
                             .rope_sin = m->rope_sin,
                             .bytes_read = &s->store->count.bytes_read,
                             .max_slots = e->cfg.max_tokens,
                             .rng = &s->rng,
                             .scratch = e->scratch,
                             .scratch2 = e->scratch2};
}

static void view_colsums(struct kvg_engine *e, const struct kvg_pass *p, const struct kvg_stream *s,
                         struct kvg_view *v, size_t row)
{
    size_t heads = e->cfg.model->n_heads, ld = e->cfg.max_tokens;
    for (size_t i = 0; i < s->pipe->needs.n_obs && p->observe; i++) {
        if (p->phase == KVG_PHASE_DECODE) {
            v->obs[i] = e->row_scores + row * heads * ld; /* one query: its own row */
            v->obs_rows[i] = 1;
            continue;
        }
        size_t w = 0;
        while (w < e->n_windows && e->windows[w] != s->pipe->needs.obs[i].window)
            w++;
        if (w == e->n_windows)
            continue; /* asked for by another stream only: this one does not choose now */
        v->obs[i] = e->colsum + w * heads * ld;
        v->obs_rows[i] = kvg_attend_window_rows(e, w, p->n);
    }
}

static int apply(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err)
{
    (void)e;
    if (!s->plan.n_ops && !s->plan.failed)
        return 0;
    return kvg_store_apply(s->store, &s->plan, err);
}

static int call_compress(struct kvg_engine *e, struct kvg_stream *s, const struct kvg_view *v,
                         struct kvg_err *err)
{
    struct kvg_inst *in = s->pipe->keep;
    if (in->s->score)
        kvg_pipeline_choose(s->pipe, v, e->layer_scores, &s->plan);
    else
        in->s->compress(in, v, &s->plan);
    if (s->pipe->encode && s->pipe->encode->whole_groups)
        for (size_t i = 0; i < s->plan.n_ops; i++)
            s->plan.ops[i].whole_groups = 1;
    return apply(e, s, err);
}

static int call_seal(struct kvg_engine *e, struct kvg_stream *s, const struct kvg_view *v,
                     enum kvg_when when, struct kvg_err *err)
{
    struct kvg_inst *in = s->pipe->encode;
    if (!in || !in->s->seal)
        return 0;
    in->s->seal(in, v, when, &s->plan);
    return apply(e, s, err);
}

static int due_in_step(const struct kvg_stream *s)
{
    const struct kvg_inst *in = s->pipe->keep;
    return in && (in->s->compress || in->s->score) && in->schedule.kind == KVG_SCHED_EVERY &&
           (s->n_decode_steps + 1) % (size_t)in->schedule.every == 0;
}

static int due(const struct kvg_pass *p, const struct kvg_stream *s)
{
    if (p->phase == KVG_PHASE_DECODE)
        return due_in_step(s);
    const struct kvg_inst *in = s->pipe->keep;
    if (!p->compress || !in || !(in->s->compress || in->s->score))
        return 0;
    return in->schedule.kind != KVG_SCHED_PROMPT || s->turn == 0;
}

/* New rows go into the store; then what happens before attention. */
static int before_attention(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t row0,
                            size_t n, struct kvg_err *err)
{
    const struct kvg_model *m = e->cfg.model;
    size_t width = m->n_kv_heads * m->d_head;
    int decode = p->phase == KVG_PHASE_DECODE;
    for (size_t i = 0; i < p->n_streams; i++) {
        struct kvg_stream *s = p->streams[i];
        size_t row = decode ? i : 0;
        uint64_t t0 = kvg_engine_now(e);
        const float *k = (s->store->cfg.raw_keys ? e->k : e->kr) + row * width;
        kvg_store_append(s->store, layer, k, e->v + row * width, width,
                         (int32_t)(s->n_tokens + row0), decode ? 1 : n);
        uint64_t t1 = kvg_engine_now(e);
        e->times.append += t1 - t0;
        if (s->bare)
            continue;
        struct kvg_view v = view_of(e, p, s, layer, row);
        int rc = 0;
        if (decode && due_in_step(s) && s->pipe->keep->s->evicts_before_attention)
            rc = call_compress(e, s, &v, err);
        if (!rc)
            rc = call_seal(e, s, &v, KVG_WHEN_APPENDED, err);
        for (size_t k2 = 0; k2 < s->pipe->n && !rc; k2++) {
            struct kvg_inst *in = &s->pipe->inst[k2];
            if (in->s->before_attend) {
                in->s->before_attend(in, &v, &s->plan);
                rc = apply(e, s, err);
            }
        }
        if (rc)
            return rc;
        e->times.manage += kvg_engine_now(e) - t1;
    }
    return 0;
}

/* Observation, choice and encoding of one layer of one stream, after attention. */
static int after_attention(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                           struct kvg_err *err)
{
    struct kvg_stream *s = p->streams[i];
    size_t row = p->phase == KVG_PHASE_DECODE ? i : 0;
    if (s->bare)
        return 0;
    uint64_t t0 = kvg_engine_now(e);
    struct kvg_view v = view_of(e, p, s, layer, row);
    view_colsums(e, p, s, &v, row);
    for (size_t k = 0; k < s->pipe->n; k++)
        if (s->pipe->inst[k].s->observe)
            s->pipe->inst[k].s->observe(&s->pipe->inst[k], &v, s->store);
    uint64_t t1 = kvg_engine_now(e);
    e->times.observe += t1 - t0;
    int rc = 0;
    int early = p->phase == KVG_PHASE_DECODE && s->pipe->keep &&
                s->pipe->keep->s->evicts_before_attention;
    if (due(p, s) && !early)
        rc = call_compress(e, s, &v, err);
    if (!rc)
        rc = call_seal(e, s, &v, KVG_WHEN_ATTENDED, err);
    e->times.manage += kvg_engine_now(e) - t1;
    return rc;
}

static int call_end_pass(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    for (size_t i = 0; i < p->n_streams; i++) {
        struct kvg_stream *s = p->streams[i];
        struct kvg_view v = view_of(e, p, s, 0, p->phase == KVG_PHASE_DECODE ? i : 0);
        for (size_t k = 0; k < s->pipe->n && !s->bare; k++) {
            struct kvg_inst *in = &s->pipe->inst[k];
            if (!in->s->end_pass)
                continue;
            in->s->end_pass(in, &v, &s->plan);
            int rc = apply(e, s, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* The different windows of column sums that the streams of a pass ask for. */
static int collect_windows(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    e->n_windows = 0;
    p->observe = 0;
    for (size_t i = 0; i < p->n_streams; i++) {
        const struct kvg_stream *s = p->streams[i];
        int watches = due(p, s);
        for (size_t k = 0; k < s->pipe->n; k++)
            watches |= s->pipe->inst[k].s->observe != NULL;
        if (!watches || s->bare)
            continue;
        for (size_t k = 0; k < s->pipe->needs.n_obs; k++) {
            size_t w = 0;
            while (w < e->n_windows && e->windows[w] != s->pipe->needs.obs[k].window)
                w++;
            if (w == KVG_WINDOWS_MAX)
                return KVG_FAIL(err, KVG_ELIMIT,
                                "more than %d different observation windows run side by side",
                                KVG_WINDOWS_MAX);
            e->windows[w] = s->pipe->needs.obs[k].window;
            e->n_windows += w == e->n_windows;
            p->observe = 1;
        }
    }
    return 0;
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
        kvg_attend_prompt(e, lead, layer, row0, n, p->n, p->row_mode, p->observe);
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
    if (!rc && p->observe && p->phase == KVG_PHASE_PROMPT) {
        uint64_t t0 = kvg_engine_now(e);
        size_t most = 0;
        for (size_t h = 0; h < e->cfg.model->n_kv_heads; h++) {
            size_t slots = kvg_store_head(p->streams[0]->store, layer, h)->n_slots;
            most = slots > most ? slots : most;
        }
        kvg_attend_finish_colsum(e, most);
        e->times.observe += kvg_engine_now(e) - t0;
    }
    for (size_t i = 0; i < p->n_streams && !rc; i++)
        rc = after_attention(e, p, layer, i, err);
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
    int rc = collect_windows(e, p, err);
    if (rc)
        return rc;
    p->row_mode = e->row_ordered || n_rows <= KVG_ROW_MODE_MAX || p->phase == KVG_PHASE_DECODE;
#ifndef KVG_BLAS
    p->row_mode = 1;
#endif
    kvg_dense_embed(e, p->tokens, n_rows, e->x);
    for (size_t l = 0; l < e->cfg.model->n_layers && !rc; l++)
        rc = run_layer(e, p, l, n_rows, err);
    if (!rc)
        rc = call_end_pass(e, p, err);
    for (size_t i = 0; i < p->n_streams; i++)
        p->streams[i]->store->count.n_macs +=
            dense_macs(e->cfg.model) * (p->phase == KVG_PHASE_DECODE ? 1 : p->n);
    if (!rc && p->hidden)
        write_hidden(e, p, n_rows);
    return rc;
}
