/* A tiny model under an engine, and streams by spec, for tests. Everything that goes wrong here
 * ends the test program with a message. */
#ifndef KVG_TESTS_GEN_ENGINE_H
#define KVG_TESTS_GEN_ENGINE_H

#include "gen_gguf.h"
#include "model/engine.h"

/* Writes the model to a temporary file and opens it. */
struct kvg_model *gen_model(const struct gen_llama *cfg);

struct gen_engine {
    const struct kvg_model *m;
    struct kvg_pool *pool;
    struct kvg_engine *e;
    struct kvg_dims dims;
};
void gen_engine_open(struct gen_engine *g, const struct kvg_model *m, const char *level,
                     int threads, int row_ordered);
void gen_engine_close(struct gen_engine *g);

struct gen_stream {
    struct kvg_arena arena;
    struct kvg_pipeline pipe;
    struct kvg_stream s;
};
void gen_stream_open(struct gen_stream *st, struct gen_engine *g, const char *spec, uint64_t seed);
void gen_stream_close(struct gen_stream *st);
/* A fork that goes on as the original: store, tokens, random numbers, pipeline state. */
void gen_stream_fork(struct gen_stream *dst, struct gen_engine *g, struct gen_stream *src);

/* Random tokens of the model's vocabulary. */
void gen_tokens(int32_t *out, size_t n, size_t n_vocab, uint64_t seed);
/* Feeds a prompt to one stream; hidden [n_embd] is the last token's row. */
void gen_prompt(struct gen_engine *g, struct gen_stream *st, const int32_t *tokens, size_t n,
                float *hidden);
/* Feeds n tokens one by one; hidden [n][n_embd]. */
void gen_steps(struct gen_engine *g, struct gen_stream *st, const int32_t *tokens, size_t n,
               float *hidden);
/* A number that two stores share when all positions and all rows of K and V are the same. */
uint64_t gen_store_hash(const struct kvg_store *s);

#endif
