/* What the files of the engine share; nobody else includes it.
 *   engine.c         the engine's memory, and what it says of a model
 *   engine_stream.c  streams: opening, emptying, copying, taking back
 *   engine_feed.c    prompts and steps: who is fed what
 *   engine_pass.c    one pass through the layers, and when calls are made
 *   engine_dense.c   everything that is a product with weights or works row by row
 *   engine_attend.c  attention over stores, and the observations asked for */
#ifndef KVG_MODEL_ENGINE_INTERNAL_H
#define KVG_MODEL_ENGINE_INTERNAL_H

#include "model/engine.h"

enum {
    KVG_CHUNK_ROWS = 1024,  /* rows of a prompt that go through a layer together */
    KVG_ROW_MODE_MAX = 16,  /* up to so many rows products run row by row */
    KVG_GEMM_TILE = 144,    /* rows of weights decoded at a time */
    KVG_QUERY_TILE = 32,    /* queries of one attention tile */
    KVG_ATTEND_PARTS = 4,   /* fixed split of query tiles, so that sums do not depend on threads */
    KVG_ATTEND_SEGS = 4,    /* segments whose values are summed before they join the rest */
    KVG_WINDOWS_MAX = 8     /* different windows of column sums in one pass */
};

struct kvg_engine {
    struct kvg_engine_cfg cfg;
    const struct kvg_kernels *kern;
    int row_ordered, timed;
    struct kvg_times times;
    size_t rows_max;      /* rows of the activation buffers below */
    float *x;             /* [max(max_tokens, max_streams), n_embd] residual stream */
    float *xn;            /* [rows_max, n_embd] */
    float *q, *qr;        /* [rows_max, n_heads*d] queries, before and after rotation */
    float *k, *kr, *v;    /* [rows_max, n_kv*d] */
    float *att;           /* [rows_max, n_heads*d] */
    float *gate, *up;     /* [rows_max, n_ff] */
    float *wtile;         /* [threads, KVG_GEMM_TILE, max cols] decoded weights */
    size_t wtile_floats;
    float *scores;        /* [threads, group*KVG_QUERY_TILE, max_tokens] or [streams, heads, ..] */
    size_t scores_floats; /* per thread */
    float *row_scores;    /* [max_streams, n_heads, max_tokens] of decode steps */
    float *partial;       /* [n_kv, parts of segments, group, d] */
    float *tiles;         /* [threads, KVG_TILE_FLOATS(d)] */
    size_t tile_floats;
    /* Column sums of the pass: windows[w] is [n_heads, max_tokens]. */
    size_t n_windows, windows[KVG_WINDOWS_MAX];
    float *colsum;        /* [KVG_WINDOWS_MAX, n_heads, max_tokens] */
    float *colsum_part;   /* [KVG_ATTEND_PARTS, KVG_WINDOWS_MAX, n_heads, max_tokens] */
    uint64_t *observe_ns; /* [threads * 8], spaced against false sharing */
    float *scratch, *scratch2; /* for strategies */
    float *layer_scores;       /* [n_kv_heads, max_tokens] of slots, for choosing */
    int32_t *feed;        /* [max_tokens] tokens of a recomputation */
    uint32_t *want;       /* [max_tokens] rows wanted of a recomputation or a chunk */
    size_t scratch_bytes;
};

/* One pass: what is fed and to whom. */
struct kvg_pass {
    struct kvg_stream **streams;
    size_t n_streams;
    const int32_t *tokens; /* PROMPT: [n]; DECODE: [n_streams] */
    size_t n;              /* rows per stream: prompt length, or 1 */
    enum kvg_phase phase;
    int shared;            /* PROMPT: all streams start empty and share one computation */
    int compress;          /* the schedule is due at the end of this pass */
    const uint32_t *want;
    size_t n_want;
    float *hidden;
    int row_mode;
    int observe;           /* column sums are computed in this pass */
};

/* A prompt of one stream, maybe in chunks that are compressed one after the other. */
int kvg_feed_prompt(struct kvg_engine *e, struct kvg_stream *s, const int32_t *tokens, size_t n,
                    int last_in_turn, const uint32_t *want, size_t n_want, float *hidden,
                    struct kvg_err *err);
/* Empties the store; counters stay. */
void kvg_stream_throw_cache(struct kvg_stream *s);

int kvg_pass_run(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err);

/* dense: y = x W^T for up to three matrices of the same input */
struct kvg_product {
    const struct kvg_mat *w;
    float *y;
    size_t ldy;
};
void kvg_dense_products(struct kvg_engine *e, const struct kvg_product *p, size_t n_products,
                        const float *x, size_t ldx, size_t n_x, int row_mode);
void kvg_dense_embed(struct kvg_engine *e, const int32_t *tokens, size_t n, float *x);
void kvg_dense_norm(struct kvg_engine *e, const float *x, const float *w, size_t n, float *out);
void kvg_dense_swiglu(struct kvg_engine *e, size_t n);
void kvg_dense_add(struct kvg_engine *e, float *x, const float *y, size_t n);
/* dst rows = src rows rotated; row i has position pos[i] (or pos0 + i when pos is NULL). */
void kvg_dense_rope(struct kvg_engine *e, const float *src, float *dst, size_t n, size_t n_heads,
                    const int32_t *pos, int32_t pos0);

/* attention */
/* Rows [row0, row0+n) of a prompt pass of n_total rows; queries are rows 0..n of e->q, e->qr. */
void kvg_attend_prompt(struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t row0,
                       size_t n, size_t n_total, int row_mode, int observe);
/* Counts what attention of the last n rows reads and multiplies: every tile of queries reads the
 * slots it may see once per KV head. Streams that share a computation are billed as if alone. */
void kvg_attend_bill(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t n,
                     size_t tile);
/* One row per stream: row i of e->q, e->qr belongs to streams[i]. */
void kvg_attend_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                     size_t layer);
/* Sums the parts of the windows' column sums over the first n slots. */
void kvg_attend_finish_colsum(struct kvg_engine *e, size_t n);
/* Query rows summed by window w in a pass of n_total rows. */
size_t kvg_attend_window_rows(const struct kvg_engine *e, size_t w, size_t n_total);

static inline uint64_t kvg_engine_now(const struct kvg_engine *e);

#include "base/clock.h"

static inline uint64_t kvg_engine_now(const struct kvg_engine *e)
{
    return e->timed ? kvg_clock_ns() : 0;
}

#endif
