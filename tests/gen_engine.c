/* Owns what tests of the engine need; must not know what they check. */
#include "gen_engine.h"

#include "base/rng.h"
#include "gen_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void need(int rc, const struct kvg_err *err)
{
    if (!rc)
        return;
    fprintf(stderr, "%s:%d: %s\n", err->file, err->line, err->msg);
    abort();
}

struct kvg_model *gen_model(const struct gen_llama *cfg)
{
    char path[GEN_PATH_MAX];
    struct kvg_model *m;
    struct kvg_err err = {.file = __FILE__, .msg = "no temporary model"};
    need(gen_temp_file(path) || gen_llama_write(cfg, path), &err);
    int rc = kvg_model_open(&m, path, KVG_MODEL_FULL, &err);
    unlink(path);
    need(rc, &err);
    return m;
}

void gen_engine_open(struct gen_engine *g, const struct kvg_model *m, const char *level,
                     int threads, int row_ordered)
{
    struct kvg_err err;
    need(kvg_pool_open(&g->pool, threads, &err), &err);
    struct kvg_engine_cfg cfg = {.model = m,
                                 .kernels = kvg_kernels_get(level),
                                 .pool = g->pool,
                                 .max_tokens = m->n_ctx,
                                 .max_streams = 16,
                                 .row_ordered = row_ordered};
    need(kvg_engine_open(&g->e, &cfg, &err), &err);
    g->m = m;
    g->dims = kvg_model_dims(m);
}

void gen_engine_close(struct gen_engine *g)
{
    kvg_engine_close(g->e);
    kvg_pool_close(g->pool);
}

void gen_stream_open(struct gen_stream *st, struct gen_engine *g, const char *spec, uint64_t seed)
{
    struct kvg_err err;
    kvg_arena_init(&st->arena);
    need(kvg_pipeline_open(&st->pipe, spec, &g->dims, &st->arena, &err), &err);
    need(kvg_stream_open(&st->s, g->e, &st->pipe, &err), &err);
    kvg_stream_reset(&st->s, seed);
}

void gen_stream_close(struct gen_stream *st)
{
    kvg_stream_close(&st->s);
    kvg_arena_release(&st->arena);
}

void gen_stream_fork(struct gen_stream *dst, struct gen_engine *g, struct gen_stream *src)
{
    struct kvg_err err;
    gen_stream_open(dst, g, src->pipe.label, src->s.seed);
    need(kvg_stream_copy(&dst->s, &src->s, &err), &err);
}

void gen_tokens(int32_t *out, size_t n, size_t n_vocab, uint64_t seed)
{
    struct kvg_rng r = {seed};
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)kvg_rng_below(&r, n_vocab);
}

void gen_prompt(struct gen_engine *g, struct gen_stream *st, const int32_t *tokens, size_t n,
                float *hidden)
{
    struct kvg_err err;
    struct kvg_stream *s = &st->s;
    uint32_t last = (uint32_t)(n - 1);
    need(kvg_engine_prompt(g->e, &s, 1, tokens, n, 1, &last, 1, hidden, &err), &err);
}

void gen_steps(struct gen_engine *g, struct gen_stream *st, const int32_t *tokens, size_t n,
               float *hidden)
{
    struct kvg_err err;
    struct kvg_stream *s = &st->s;
    for (size_t i = 0; i < n; i++)
        need(kvg_engine_step(g->e, &s, 1, tokens + i, hidden + i * g->m->n_embd, &err), &err);
}

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
    const unsigned char *b = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

uint64_t gen_store_hash(const struct kvg_store *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    size_t d = s->cfg.d_head;
    for (size_t i = 0; i < s->cfg.n_layers * s->cfg.n_kv_heads; i++) {
        size_t n = s->heads[i].n_slots, layer = i / s->cfg.n_kv_heads, head = i % s->cfg.n_kv_heads;
        int32_t *pos = calloc(n + 1, sizeof *pos);
        float *rows = calloc(n * d + 1, sizeof *rows);
        if (!pos || !rows)
            abort();
        kvg_store_positions(s, layer, head, pos);
        h = mix(h, pos, n * sizeof *pos);
        for (int c = 0; c < 2; c++) {
            kvg_store_read(s, layer, head, (enum kvg_col)c, 0, n, rows);
            h = mix(h, rows, n * d * sizeof *rows);
        }
        free(pos);
        free(rows);
    }
    return h;
}
