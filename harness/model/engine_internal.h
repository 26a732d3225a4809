/* What the files of the engine share; nobody else includes it.
 *   engine.c         the engine's memory, and what it says of a model
 *   engine_stream.c  streams: opening, emptying, copying, taking back
 *   engine_feed.c    prompts and steps: who is fed what
 *   engine_pass.c    one pass through the layers
 *   engine_calls.c   the calls of strategies in a pass: what they see, when, and what comes of it
 *   engine_dense.c   everything that is a product with weights or works row by row
 *   engine_walk.c    the way over the slots of a head, whatever form they lie in
 *   engine_attend.c  attention over stores
 *   engine_observe.c statistics of attention that strategies ask for
 *   engine_held.c    past queries and their moments, held for strategies */
#ifndef KVG_MODEL_ENGINE_INTERNAL_H
#define KVG_MODEL_ENGINE_INTERNAL_H

#include "model/engine.h"

enum {
    KVG_CHUNK_ROWS = 1024, /* rows of a prompt that go through a layer together */
    KVG_ROW_MODE_MAX = 16, /* up to so many rows products run row by row */
    KVG_GEMM_TILE = 144,   /* rows of weights decoded at a time */
    KVG_QUERY_TILE = 32,   /* queries of one attention tile */
    KVG_ATTEND_PARTS = 4,  /* fixed split of query tiles, so that sums do not depend on threads */
    KVG_SUM_SLOTS = 256,   /* slots whose values are summed before they join the rest */
    KVG_STATS_MAX = 8      /* different statistics of attention in one pass */
};

/* A statistic of attention: the rows of a pass from `first` on. */
struct kvg_stat {
    enum kvg_obs_kind kind;
    size_t first;
};

/* The slots of one head of one stream that are read at a step; NULL = all of them. */
struct kvg_named {
    const uint32_t *slots;
    size_t n;
};

struct kvg_engine {
    struct kvg_engine_cfg cfg;
    const struct kvg_kernels *kern;
    int row_ordered, timed;
    struct kvg_times times;
    size_t rows_max;   /* rows of the activation buffers below */
    float *x;          /* [max(max_tokens, max_streams), n_embd] residual stream */
    float *xn;         /* [rows_max, n_embd] */
    float *q, *qr;     /* [rows_max, n_heads*d] queries, before and after rotation */
    float *k, *kr, *v; /* [rows_max, n_kv*d] */
    float *att;        /* [rows_max, n_heads*d] */
    float *gate, *up;  /* [rows_max, n_ff] */
    float *wtile;      /* [threads, KVG_GEMM_TILE, max cols] decoded weights */
    size_t wtile_floats;
    float *scores;        /* [threads, group*KVG_QUERY_TILE, max_tokens] or [streams, heads, ..] */
    size_t scores_floats; /* per thread */
    float *row_scores;    /* [max_streams, n_heads, max_tokens] of decode steps */
    float *partial;       /* [n_kv, max_tokens / KVG_SUM_SLOTS, group, d] */
    float *tiles;         /* [threads, tile_floats] struct kvg_room */
    size_t tile_floats;
    /* Statistics of the pass by column: stat_sums[i] is [n_heads, max_tokens] of stats[i]. */
    struct kvg_stat stats[KVG_STATS_MAX];
    size_t n_stats;
    float *stat_sums;          /* [KVG_STATS_MAX, n_heads, max_tokens] */
    float *stat_parts;         /* [KVG_ATTEND_PARTS, KVG_STATS_MAX, n_heads, max_tokens] */
    float *row_stats;          /* [KVG_OBS_N, n_heads, max_tokens] of one decode step's row */
    struct kvg_named *named;   /* [max_streams, n_kv_heads] of the layer at hand */
    uint32_t *named_slots;     /* [max_streams, n_kv_heads, max_tokens] */
    float *view_q;             /* [n_heads, d] a step's query as strategies see it */
    uint64_t *observe_ns;      /* [threads * 8], spaced against false sharing */
    float *scratch, *scratch2; /* for strategies */
    float *layer_scores;       /* [n_kv_heads, max_tokens] of slots, for choosing */
    int32_t *feed;             /* [max_tokens] tokens of a recomputation */
    uint32_t *want;            /* [max_tokens] rows wanted of a recomputation or a chunk */
    size_t scratch_bytes;
};

/* One pass: what is fed and to whom. */
struct kvg_pass {
    struct kvg_stream **streams;
    size_t n_streams;
    const int32_t *tokens; /* PROMPT: [n]; DECODE: [n_streams] */
    size_t n;              /* rows per stream: prompt length, or 1 */
    enum kvg_phase phase;
    int compress;  /* the schedule is due at the end of this pass */
    int postponed; /* 1: nothing is chosen or sealed behind attention: that comes later */
    int fed;       /* 1: the rows have been through, the streams' lengths count them */
    const uint32_t *want;
    size_t n_want;
    float *hidden;
    int row_mode;
    int observe; /* statistics of attention are computed in this pass */
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

/* ---- slots ---- */

/* The slots of a head that a row of queries sees: the first n of all or of the named ones. */
struct kvg_walk {
    const struct kvg_engine *e;
    const struct kvg_stream *s;
    size_t layer, head;
    const uint32_t *named; /* ascending; NULL = all */
    size_t n;
};
struct kvg_walk kvg_walk_of(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                            size_t head);
/* One thread's room. */
struct kvg_room {
    float *q, *o;  /* [group * KVG_QUERY_TILE, d] queries and outputs */
    float *turned; /* the same of queries in the file's order of channels */
    float *tile;   /* [KVG_TILE_SLOTS, d] rows in f32 */
    float *spare;  /* [KVG_TILE_SLOTS, d] a whole group in f32 */
    float *part;   /* [group, d] */
};
struct kvg_room kvg_room_of(const struct kvg_engine *e, int thread);
/* Scores of the walk's slots [from, to): scores[g * ld + i] for n_q queries [n_q, d]. */
void kvg_walk_score(const struct kvg_walk *w, size_t from, size_t to, const float *q, size_t n_q,
                    const struct kvg_room *r, float *scores, size_t ld);
/* o [n_q, d] += p V over the walk's slots [from, to), p[g * ld + i]. */
void kvg_walk_sum(const struct kvg_walk *w, size_t from, size_t to, const float *p, size_t ld,
                  size_t n_q, const struct kvg_room *r, float *o);
/* n <= KVG_TILE_SLOTS rows from the walk's slot `from` on, decoded and rotated, in place when they
 * lie together as such, else in r->tile. */
const float *kvg_walk_rows(const struct kvg_walk *w, enum kvg_col col, size_t from, size_t n,
                           const struct kvg_room *r);
/* Bytes of the rows a walk reads; groups are read whole. */
uint64_t kvg_walk_bytes(const struct kvg_walk *w, enum kvg_col col);

/* ---- attention ---- */
static inline size_t kvg_engine_group(const struct kvg_engine *e)
{
    return e->cfg.model->n_heads / e->cfg.model->n_kv_heads;
}
float kvg_attend_scale(const struct kvg_engine *e);
/* Rows [row0, row0+n) of a prompt pass; queries are rows 0..n of e->q, e->qr. */
void kvg_attend_prompt(struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t row0,
                       size_t n, int row_mode, int observe);
/* Counts what attention of the last n rows reads and multiplies: every tile of queries reads the
 * slots it may see once per KV head. Streams that share a computation are billed as if alone. */
void kvg_attend_bill(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t n,
                     size_t tile);
/* One row per stream: row i of e->q, e->qr belongs to streams[i], which reads e->named[i]. */
void kvg_attend_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                     size_t layer);
/* Scores of a step: [max_tokens] of one query head, by the walk's order. */
static inline float *kvg_step_scores(const struct kvg_engine *e, size_t stream, size_t head)
{
    return e->row_scores + (stream * e->cfg.model->n_heads + head) * e->cfg.max_tokens;
}

/* ---- observation ---- */
/* The statistics that the streams of a pass ask for, to e->stats; how many would be needed. */
size_t kvg_observe_collect(struct kvg_engine *e, struct kvg_pass *p);
/* Adds one row's attention over n slots; `row` is the row of the pass. */
void kvg_observe_row(const struct kvg_engine *e, size_t part, size_t row, size_t head,
                     const float *p, size_t n);
/* Joins the parts of the first n slots. */
void kvg_observe_finish(struct kvg_engine *e, size_t n);
/* Fills a view's observations of stream i of a pass. Steps that are due and look further back than
 * their own row attend again with the queries held. */
void kvg_observe_view(struct kvg_engine *e, const struct kvg_pass *p, size_t i, struct kvg_view *v);

/* ---- held for strategies ---- */
int kvg_held_open(struct kvg_stream *s, const struct kvg_engine *e, struct kvg_err *err);
void kvg_held_close(struct kvg_stream *s);
void kvg_held_clear(struct kvg_stream *s);
void kvg_held_copy(struct kvg_stream *dst, const struct kvg_stream *src);
/* The text is cut to n_tokens; 0 when that cannot be done. */
int kvg_held_cut(struct kvg_stream *s, size_t n_tokens);
/* Tokens from position `start` on are fed again. */
void kvg_held_restart(struct kvg_stream *s, size_t start);
/* n rows of queries before rotation [n, n_heads * d] of one layer, the first at pos0. */
void kvg_held_push(struct kvg_engine *e, struct kvg_stream *s, size_t layer, const float *q,
                   size_t pos0, size_t n, int decode);
/* How many of the last queries there are when the text has n_logical tokens, at most `most`. */
size_t kvg_held_queries(const struct kvg_stream *s, size_t n_logical, size_t most);
/* Query i of the last n ones of a layer, of one KV head: [group, d] to out, rotated to meet its
 * keys. */
void kvg_held_load(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                   size_t head, size_t n_logical, size_t n, size_t i, float *out);
/* Fills queries, q_mean and q_cov of a view. */
void kvg_held_view(struct kvg_engine *e, const struct kvg_stream *s, struct kvg_view *v);

/* ---- calls ---- */
/* Whether the schedule is due at the end of this pass. */
int kvg_call_due(const struct kvg_pass *p, const struct kvg_stream *s);
int kvg_call_before(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                    struct kvg_err *err);
int kvg_call_after(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                   struct kvg_err *err);
int kvg_call_end_pass(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err);
/* Choice, encoding and end_pass of a prompt that has been through with `postponed`. */
int kvg_call_settle(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err);
int kvg_call_end_turn(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err);

static inline uint64_t kvg_engine_now(const struct kvg_engine *e);

#include "base/clock.h"

static inline uint64_t kvg_engine_now(const struct kvg_engine *e)
{
    return e->timed ? kvg_clock_ns() : 0;
}

#endif
