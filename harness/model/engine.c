/* Owns the engine's memory and what it says of a model. Streams are in engine_stream.c, what is fed
 * to whom in engine_feed.c, the pass itself in engine_pass.c. */
#include "model/engine.h"

#include "model/engine_internal.h"

#include <stdlib.h>
#include <string.h>

static size_t max_of(size_t a, size_t b)
{
    return a > b ? a : b;
}

static float *room(struct kvg_engine *e, size_t n, int *failed)
{
    float *p = calloc(n + 16, sizeof *p);
    e->scratch_bytes += (n + 16) * sizeof *p;
    if (!p)
        *failed = 1;
    return p;
}

static int alloc_all(struct kvg_engine *e)
{
    const struct kvg_model *m = e->cfg.model;
    size_t t = e->cfg.max_tokens, th = (size_t)kvg_pool_threads(e->cfg.pool);
    size_t rows = t < KVG_CHUNK_ROWS ? t : KVG_CHUNK_ROWS, group = m->n_heads / m->n_kv_heads;
    int failed = 0;
    rows = max_of(rows, e->cfg.max_streams);
    e->rows_max = rows;
    e->x = room(e, max_of(t, rows) * m->n_embd, &failed);
    e->xn = room(e, rows * m->n_embd, &failed);
    e->q = room(e, rows * m->n_heads * m->d_head, &failed);
    e->qr = room(e, rows * m->n_heads * m->d_head, &failed);
    e->k = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->kr = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->v = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->att = room(e, rows * m->n_heads * m->d_head, &failed);
    e->gate = room(e, rows * m->n_ff, &failed);
    e->up = room(e, rows * m->n_ff, &failed);
    e->wtile_floats = KVG_GEMM_TILE * max_of(max_of(m->n_embd, m->n_ff), m->n_heads * m->d_head);
    e->wtile = room(e, th * e->wtile_floats, &failed);
    e->scores_floats = group * KVG_QUERY_TILE * (t + 16);
    e->scores = room(e, th * e->scores_floats, &failed);
    e->row_scores = room(e, e->cfg.max_streams * m->n_heads * t, &failed);
    e->partial = room(e, m->n_heads * m->d_head * (t / KVG_SUM_SLOTS + 1), &failed);
    e->tile_floats = (3 * group * KVG_QUERY_TILE + 2 * KVG_TILE_SLOTS + group) * m->d_head + 64;
    e->tiles = room(e, th * e->tile_floats, &failed);
    e->stat_sums = room(e, KVG_STATS_MAX * m->n_heads * t, &failed);
    e->stat_parts = room(e, KVG_ATTEND_PARTS * KVG_STATS_MAX * m->n_heads * t, &failed);
    e->row_stats = room(e, KVG_OBS_N * m->n_heads * t, &failed);
    e->view_q = room(e, m->n_heads * m->d_head, &failed);
    e->scratch = room(e, 3 * t + KVG_TILE_SLOTS * m->d_head, &failed);
    e->scratch2 = room(e, 2 * t, &failed);
    e->layer_scores = room(e, m->n_kv_heads * t, &failed);
    e->observe_ns = calloc(th * 8, sizeof *e->observe_ns);
    e->feed = calloc(t + 1, sizeof *e->feed);
    e->want = calloc(t + 1, sizeof *e->want);
    e->named = calloc(e->cfg.max_streams * m->n_kv_heads, sizeof *e->named);
    e->named_slots = calloc(e->cfg.max_streams * m->n_kv_heads * t, sizeof *e->named_slots);
    int lists = e->observe_ns && e->feed && e->want && e->named && e->named_slots;
    return failed || !lists ? -1 : 0;
}

int kvg_engine_open(struct kvg_engine **out, const struct kvg_engine_cfg *cfg, struct kvg_err *err)
{
    *out = NULL;
    if (cfg->max_streams < 1 || cfg->max_streams > KVG_STREAMS_MAX || cfg->max_tokens < 1 ||
        cfg->max_tokens > cfg->model->n_ctx)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "an engine takes 1 to %d streams and 1 to %zu tokens (the model's context)",
                        KVG_STREAMS_MAX, cfg->model->n_ctx);
    struct kvg_engine *e = calloc(1, sizeof *e);
    if (!e)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    e->cfg = *cfg;
    e->kern = cfg->kernels;
    e->row_ordered = cfg->row_ordered;
    if (alloc_all(e)) {
        kvg_engine_close(e);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for a context of %zu tokens",
                        cfg->max_tokens);
    }
    *out = e;
    return 0;
}

void kvg_engine_close(struct kvg_engine *e)
{
    if (!e)
        return;
    float *all[] = {e->x,       e->xn,          e->q,         e->qr,         e->k,
                    e->kr,      e->v,           e->att,       e->gate,       e->up,
                    e->wtile,   e->scores,      e->tiles,     e->row_scores, e->partial,
                    e->scratch, e->scratch2,    e->stat_sums, e->stat_parts, e->row_stats,
                    e->view_q,  e->layer_scores};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    free(e->observe_ns);
    free(e->feed);
    free(e->want);
    free(e->named);
    free(e->named_slots);
    free(e);
}

void kvg_engine_set_timed(struct kvg_engine *e, int timed)
{
    e->timed = timed;
}

const struct kvg_times *kvg_engine_times(const struct kvg_engine *e)
{
    return &e->times;
}

size_t kvg_engine_scratch_bytes(const struct kvg_engine *e)
{
    return e->scratch_bytes;
}

void kvg_engine_set_kernels(struct kvg_engine *e, const struct kvg_kernels *k)
{
    e->kern = k ? k : e->cfg.kernels;
}

void kvg_engine_set_row_ordered(struct kvg_engine *e, int row_ordered)
{
    e->row_ordered = row_ordered;
}

/* ---- the model, as strategies see it ---- */

static size_t encode_text(const void *tokenizer, const char *text, int32_t *out, size_t cap)
{
    size_t n = 0;
    struct kvg_err ignored; /* too small a room is told by the count */
    kvg_tokenizer_encode(tokenizer, text, strlen(text), KVG_ENCODE_CONTINUE, out, cap, &n,
                         &ignored);
    return n;
}

struct kvg_dims kvg_model_dims(const struct kvg_model *m)
{
    return (struct kvg_dims){
        .n_layers = m->n_layers,
        .n_heads = m->n_heads,
        .n_kv_heads = m->n_kv_heads,
        .d_head = m->d_head,
        .n_ctx = m->n_ctx,
        .n_embd = m->n_embd,
        .rope_base = m->rope_base,
        .slot_bytes = m->n_layers * m->n_kv_heads * m->d_head * 2 * sizeof(float),
        .encode = encode_text,
        .tokenizer = m->tok,
    };
}
