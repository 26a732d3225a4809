/* The engine: the forward pass of a llama-architecture model over streams. A stream is one
 * conversation under one strategy: its pipeline, its store and its tokens. Several streams that are
 * fed the same prompt from the start share the dense work; decode steps of several streams run in
 * lockstep, as rows of one product. Row kernels are batch-invariant, so company changes no bit. */
#ifndef KVG_MODEL_ENGINE_H
#define KVG_MODEL_ENGINE_H

#include "base/err.h"
#include "base/pool.h"
#include "cache/store.h"
#include "model/model.h"
#include "strategies/strategy.h"

#include <stddef.h>
#include <stdint.h>

enum { KVG_STREAMS_MAX = 32 };

/* Nanoseconds by phase, filled only when engine->timed (one stream at a time). */
struct kvg_times {
    uint64_t total, observe, manage, append, attend, logits; /* rest = total - the others */
};

struct kvg_engine_cfg {
    const struct kvg_model *model;
    const struct kvg_kernels *kernels;
    struct kvg_pool *pool;
    size_t max_tokens;  /* longest logical length of a stream, <= model n_ctx */
    size_t max_streams; /* streams of one call, <= KVG_STREAMS_MAX */
    int row_ordered;    /* 1: prompts run as rows too (bit-equal to token by token), no BLAS */
};

/* The model as strategies see it; slot_bytes of exact rows. The tokenizer is the model's. */
struct kvg_dims kvg_model_dims(const struct kvg_model *m);

struct kvg_engine;
int kvg_engine_open(struct kvg_engine **e, const struct kvg_engine_cfg *cfg, struct kvg_err *err);
void kvg_engine_close(struct kvg_engine *e);
void kvg_engine_set_timed(struct kvg_engine *e, int timed);
const struct kvg_times *kvg_engine_times(const struct kvg_engine *e); /* of the last call */
/* Bytes of scratch the engine holds (activations, tiles). */
size_t kvg_engine_scratch_bytes(const struct kvg_engine *e);
/* Another kernel table for the following calls (noise floors); NULL restores the configured one. */
void kvg_engine_set_kernels(struct kvg_engine *e, const struct kvg_kernels *k);
void kvg_engine_set_row_ordered(struct kvg_engine *e, int row_ordered);

struct kvg_stream {
    struct kvg_pipeline *pipe;
    struct kvg_store *store;
    struct kvg_plan plan;
    int32_t *tokens;      /* [max_tokens] everything fed so far */
    struct kvg_text text; /* spans, question and future are the caller's, set between calls */
    size_t n_tokens;      /* logical length */
    size_t turn, n_decode_steps;
    int bare; /* 1: no strategy calls at all (to measure the harness's own cost) */
    struct kvg_rng rng;
    uint64_t seed;
    struct kvg_held *held; /* past queries and their moments; NULL = nobody asked */
};

/* `spec` pipelines are opened by the caller; a stream borrows its pipeline. */
int kvg_stream_open(struct kvg_stream *s, struct kvg_engine *e, struct kvg_pipeline *pipe,
                    struct kvg_err *err);
void kvg_stream_close(struct kvg_stream *s);
/* Back to an empty conversation with this cell's seed. */
void kvg_stream_reset(struct kvg_stream *s, uint64_t seed);
/* dst, opened with a pipeline of the same spec, goes on as src would; blocks of the stores are
 * shared until one side writes. */
int kvg_stream_copy(struct kvg_stream *dst, const struct kvg_stream *src, struct kvg_err *err);
/* Takes the conversation back to n_tokens: cut or recompute, as the strategy says. */
int kvg_stream_truncate(struct kvg_engine *e, struct kvg_stream *s, size_t n_tokens,
                        struct kvg_err *err);

/* The same, but always cut: what the strategy dropped so far stays dropped. Moments of past queries
 * begin anew there. */
void kvg_stream_cut(struct kvg_stream *s, size_t n_tokens);

/* Feeds a prompt of n tokens to all streams (every stream gets the same tokens). hidden, if not
 * NULL, is [n_streams][n_want][n_embd]: final normalised rows of the prompt's tokens
 * want[0..n_want) (ascending indices into tokens). last_in_turn = 1 lets scheduled compression run
 * at its end. */
int kvg_engine_prompt(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                      const int32_t *tokens, size_t n, int last_in_turn, const uint32_t *want,
                      size_t n_want, float *hidden, struct kvg_err *err);
/* One decode step: tokens[i] goes to streams[i]; hidden is [n_streams][n_embd], normalised. */
int kvg_engine_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                    const int32_t *tokens, float *hidden, struct kvg_err *err);
/* Ends the turn: end_turn calls; the next prompt belongs to the next turn. */
int kvg_engine_end_turn(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err);
/* logits [n][n_vocab] of n hidden rows [n][n_embd]. */
void kvg_engine_logits(struct kvg_engine *e, const float *hidden, size_t n, float *logits);

/* The store of a stream of this pipeline, and the pipeline's codecs in it (their indices). */
struct kvg_store_cfg kvg_stream_store_cfg(const struct kvg_model *m, const struct kvg_kernels *k,
                                          const struct kvg_pipeline *p, size_t max_tokens);
int kvg_stream_add_codecs(struct kvg_pipeline *p, struct kvg_store *s, struct kvg_err *err);
/* Bytes a stream holds for its strategies outside the slots. */
size_t kvg_stream_held_bytes(const struct kvg_model *m, const struct kvg_pipeline *p);

/* Tokens an engine must have room for so that a conversation of n_tokens can be held: auxiliary
 * passes go on top of it. Never more than the model's context. */
size_t kvg_stream_room(const struct kvg_pipeline *p, size_t n_tokens);

/* Largest memory a stream's store may come to at n_tokens, for plans. */
size_t kvg_stream_store_bytes(const struct kvg_model *m, const struct kvg_pipeline *p,
                              size_t n_tokens);

#endif
