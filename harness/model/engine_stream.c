/* Owns streams: opening, emptying, copying, taking back. What is fed to them is in engine_feed.c.
 */
#include "model/engine_internal.h"

#include <stdlib.h>
#include <string.h>

struct kvg_store_cfg kvg_stream_store_cfg(const struct kvg_model *m, const struct kvg_kernels *k,
                                          const struct kvg_pipeline *p, size_t max_tokens)
{
    struct kvg_store_cfg c = {.n_layers = m->n_layers,
                              .n_kv_heads = m->n_kv_heads,
                              .d_head = m->d_head,
                              .max_slots = max_tokens,
                              .raw_keys = p->needs.raw_keys,
                              .block_slots = p->needs.block_slots,
                              .n_side = p->needs.n_side,
                              .kernels = k,
                              .rope_cos = m->rope_cos,
                              .rope_sin = m->rope_sin};
    memcpy(c.side_floats, p->needs.side_floats, sizeof c.side_floats);
    memcpy(c.side_page, p->needs.side_page, sizeof c.side_page);
    return c;
}

int kvg_stream_add_codecs(struct kvg_pipeline *p, struct kvg_store *s, struct kvg_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < p->n && !rc; i++) {
        struct kvg_inst *in = &p->inst[i];
        if (in->k_codec.name[0])
            rc = kvg_store_add_codec(s, &in->k_codec, &in->k_codec_index, err);
        if (!rc && in->v_codec.name[0])
            rc = kvg_store_add_codec(s, &in->v_codec, &in->v_codec_index, err);
        if (!rc && in->extra_codec.name[0])
            rc = kvg_store_add_codec(s, &in->extra_codec, &in->extra_codec_index, err);
    }
    return rc;
}

int kvg_stream_open(struct kvg_stream *s, struct kvg_engine *e, struct kvg_pipeline *pipe,
                    struct kvg_err *err)
{
    const struct kvg_model *m = e->cfg.model;
    memset(s, 0, sizeof *s);
    s->pipe = pipe;
    struct kvg_store_cfg c = kvg_stream_store_cfg(m, e->cfg.kernels, pipe, e->cfg.max_tokens);
    size_t heads = m->n_layers * m->n_kv_heads;
    s->tokens = calloc(e->cfg.max_tokens + 1, sizeof *s->tokens);
    int rc =
        s->tokens ? kvg_store_open(&s->store, &c, err) : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!rc)
        /* a layer may spread every slot that goes, one operation each */
        rc = kvg_plan_init(&s->plan, heads * 4 + 16 + m->n_kv_heads * e->cfg.max_tokens,
                           (heads + 2) * (e->cfg.max_tokens + 1), err);
    if (!rc)
        rc = kvg_stream_add_codecs(pipe, s->store, err);
    if (!rc)
        rc = kvg_held_open(s, e, err);
    if (rc) {
        kvg_stream_close(s);
        return rc;
    }
    s->store->held_bytes = kvg_stream_held_bytes(m, pipe);
    kvg_stream_reset(s, 0);
    return 0;
}

void kvg_stream_close(struct kvg_stream *s)
{
    kvg_store_close(s->store);
    kvg_plan_release(&s->plan);
    kvg_held_close(s);
    free(s->tokens);
    memset(s, 0, sizeof *s);
}

void kvg_stream_reset(struct kvg_stream *s, uint64_t seed)
{
    kvg_store_reset(s->store);
    kvg_plan_clear(&s->plan);
    s->text = (struct kvg_text){.tokens = s->tokens, .question = SIZE_MAX};
    s->n_tokens = 0;
    s->turn = 0;
    s->n_decode_steps = 0;
    s->seed = seed;
    s->rng = (struct kvg_rng){seed};
    kvg_held_clear(s);
    kvg_pipeline_begin_item(s->pipe, seed);
}

int kvg_stream_copy(struct kvg_stream *dst, const struct kvg_stream *src, struct kvg_err *err)
{
    struct kvg_store *store;
    int rc = kvg_store_open_fork(&store, src->store, err);
    if (rc)
        return rc;
    store->held_bytes = src->store->held_bytes;
    kvg_store_close(dst->store);
    dst->store = store;
    kvg_held_copy(dst, src);
    memcpy(dst->tokens, src->tokens, src->n_tokens * sizeof *src->tokens);
    dst->text = src->text;
    dst->text.tokens = dst->tokens;
    dst->n_tokens = src->n_tokens;
    dst->turn = src->turn;
    dst->n_decode_steps = src->n_decode_steps;
    dst->rng = src->rng;
    dst->seed = src->seed;
    kvg_pipeline_copy_state(dst->pipe, src->pipe);
    return 0;
}

void kvg_stream_throw_cache(struct kvg_stream *s)
{
    struct kvg_counters kept = s->store->count;
    kvg_store_reset(s->store);
    s->store->count = kept;
}

size_t kvg_stream_store_bytes(const struct kvg_model *m, const struct kvg_pipeline *p,
                              size_t n_tokens)
{
    size_t heads = m->n_layers * m->n_kv_heads, row = 2 * m->d_head * sizeof(float) + 4;
    for (size_t i = 0; i < p->needs.n_side; i++)
        row += p->needs.side_floats[i] * sizeof(float) /
               (p->needs.side_page[i] > 1 ? p->needs.side_page[i] : 1);
    return heads * (n_tokens + 2 * KVG_TILE_SLOTS) * row;
}

/* ---- taking back ---- */

size_t kvg_stream_room(const struct kvg_pipeline *p, size_t n_tokens)
{
    int more = p->keep && p->keep->s->auxiliary;
    size_t n = more ? 2 * n_tokens + 64 : n_tokens;
    return n < p->dims.n_ctx ? n : p->dims.n_ctx;
}

/* Whether nothing was dropped so far: then cutting is always right. */
static int complete(const struct kvg_stream *s)
{
    const struct kvg_store_cfg *c = &s->store->cfg;
    for (size_t h = 0; h < c->n_layers * c->n_kv_heads; h++)
        if (s->store->heads[h].n_slots != s->n_tokens)
            return 0;
    return 1;
}

void kvg_stream_cut(struct kvg_stream *s, size_t n_tokens)
{
    if (n_tokens >= s->n_tokens)
        return;
    if (!kvg_held_cut(s, n_tokens))
        kvg_held_restart(s, n_tokens);
    kvg_store_truncate(s->store, (int32_t)n_tokens);
    s->text.n_tokens = s->n_tokens = n_tokens;
}

int kvg_stream_truncate(struct kvg_engine *e, struct kvg_stream *s, size_t n_tokens,
                        struct kvg_err *err)
{
    if (n_tokens >= s->n_tokens)
        return 0;
    int whole = s->pipe->truncation == KVG_TRUNCATE_CUT || s->bare || complete(s) || n_tokens == 0;
    if (whole && kvg_held_cut(s, n_tokens)) {
        kvg_store_truncate(s->store, (int32_t)n_tokens);
        s->text.n_tokens = s->n_tokens = n_tokens;
        return 0;
    }
    kvg_pipeline_begin_item(s->pipe, s->seed);
    kvg_held_clear(s);
    kvg_stream_throw_cache(s);
    s->store->count.n_recomputed += n_tokens;
    size_t turn = s->turn;
    s->n_tokens = 0;
    s->turn = 0; /* the first prompt again: schedule=prompt is due */
    int rc = kvg_feed_prompt(e, s, s->tokens, n_tokens, 1, NULL, 0, NULL, err);
    s->turn = turn;
    return rc;
}
