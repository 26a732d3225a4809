/* The strategy contract. Read this first.
 *
 * A strategy is a const descriptor at the end of its file. It decides; it never owns or moves
 * memory: its calls read views and fill a plan (cache/plan.h) that the store carries out and bills.
 * All calls are optional, none can fail or allocate, none may print. State is flat memory owned by
 * the engine (it is copied when a conversation forks); per-slot state belongs in side columns.
 *
 * Several strategies compose: `snapkv:budget=25%+adakv+kivi:bits=2`. Of a pipeline at most one
 * keeps (KEEP), encodes (ENCODE), reads (READ), gives the store its form (SHARE); any number wrap
 * the keeper (WRAP). Calls go in the order written.
 *
 * How a KEEP strategy chooses: score() gives every slot of a head a number, larger = stays, and
 * KVG_MUST_STAY for slots that must. Wrappers then change scores or counts (rescore), and the best
 * n_keep slots of every head stay. Only what cannot be said in scores has compress(). */
#ifndef KVG_STRATEGIES_STRATEGY_H
#define KVG_STRATEGIES_STRATEGY_H

#include "base/arena.h"
#include "base/opt.h"
#include "base/rng.h"
#include "cache/store.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum kvg_kind {
    KVG_KIND_KEEP,
    KVG_KIND_WRAP,
    KVG_KIND_ENCODE,
    KVG_KIND_READ,
    KVG_KIND_SHARE,
    KVG_KIND_N
};
/* BASELINE: recomputes everything, drift is measured against it. FLOOR: an exact cache, its drift
 * is the noise floor. CONTROL: chooses without looking, the least a strategy must beat. ORACLE:
 * looks at what no deployment knows; an upper bound, cannot be deployed. */
enum kvg_role {
    KVG_ROLE_STRATEGY,
    KVG_ROLE_BASELINE,
    KVG_ROLE_FLOOR,
    KVG_ROLE_CONTROL,
    KVG_ROLE_ORACLE
};
/* AUX: an auxiliary pass on top of the cache; nothing of it stays. */
enum kvg_phase { KVG_PHASE_PROMPT, KVG_PHASE_DECODE, KVG_PHASE_AUX };

/* When a KEEP strategy's compress() is called. PROMPT: after the first turn's prompt. TURN: after
 * each turn's prompt. EVERY: after each turn's prompt and at every k-th decode step. */
enum kvg_schedule_kind { KVG_SCHED_PROMPT, KVG_SCHED_TURN, KVG_SCHED_EVERY };
struct kvg_schedule {
    enum kvg_schedule_kind kind;
    int64_t every;
};

/* Rotary position of a cached key and of the query that meets it: the position in the text, or the
 * slot index (cache-relative, StreamingLLM section 3.2; needs raw keys). With SLOT the keys that
 * stay are re-rotated to 0, 1, 2, ... from their raw form whenever they are read, so no correction
 * is ever applied to a corrected key. */
enum kvg_position { KVG_POSITION_TRUE, KVG_POSITION_SLOT };

/* What may be done when a turn is taken back (edit, regenerate): CUT the slots at and behind the
 * position, or RECOMPUTE the conversation because what the strategy dropped would now be missing. */
enum kvg_truncation { KVG_TRUNCATE_CUT, KVG_TRUNCATE_RECOMPUTE };

/* From recompute(). */
#define KVG_RECOMPUTE_NOTHING SIZE_MAX

struct kvg_dims {
    size_t n_layers, n_heads, n_kv_heads, d_head, n_ctx, n_embd;
    float rope_base;
    size_t slot_bytes; /* bytes of one slot of all layers and KV heads in this pipeline's form */
    /* Token ids of a text, at most cap of them to out; how many there are. NULL: no tokenizer. */
    size_t (*encode)(const void *tokenizer, const char *text, int32_t *out, size_t cap);
    const void *tokenizer;
};

/* ---- the text ---- */

enum kvg_span_kind {
    KVG_SPAN_SYSTEM,   /* one instruction (line) of the system prompt */
    KVG_SPAN_TOOL,     /* a pasted document or tool schema */
    KVG_SPAN_GLOSSARY, /* terms that must be translated in one way */
    KVG_SPAN_USER,     /* a user message */
    KVG_SPAN_KINDS
};
struct kvg_span {
    uint32_t begin, end; /* positions [begin, end) in the conversation */
    enum kvg_span_kind kind;
};
/* What is known of a conversation beside its tokens. Spans ascend and do not overlap. */
struct kvg_text {
    const int32_t *tokens; /* [n_tokens] fed so far, the present pass included */
    size_t n_tokens;
    const struct kvg_span *spans;
    size_t n_spans;
    size_t question;       /* position where the present prompt's question begins; >= n_tokens: not
                              part of the text (yet) */
    const int32_t *future; /* [n_future] tokens that will follow, when recorded (forced mode) */
    size_t n_future;
};

/* ---- observations ---- */

/* What a strategy asks for; the engine computes only these and bills their time and bytes. With p
 * the attention of a query over the slots it sees, m how many those are: */
enum kvg_obs_kind {
    KVG_OBS_SUM,      /* sum of p over the window's queries */
    KVG_OBS_MAX,      /* largest p */
    KVG_OBS_WEIGHTED, /* sum of p * m */
    KVG_OBS_ABOVE     /* queries with p >= 1 / m */
};
/* The last `window` queries of a pass; 0 = all of them; KVG_WINDOW_QUESTION = from the question on
 * (all of the pass when none is marked). When a decode step is due to compress and the window is
 * wider than 1, the last `window` queries fed are kept and attend again; not so with `running`, for
 * strategies that add up what they see: a decode step then shows its own row, due or not. */
#define KVG_WINDOW_QUESTION SIZE_MAX
struct kvg_obs {
    enum kvg_obs_kind kind;
    size_t window;
    int running;
};
/* Whether decode steps that are due attend again for it. */
static inline int kvg_obs_looks_back(const struct kvg_obs *o)
{
    return o->window > 1 && o->window != KVG_WINDOW_QUESTION && !o->running;
}

enum { KVG_OBS_N = 4 };
struct kvg_needs {
    size_t n_obs; /* statistics of attention by slot */
    struct kvg_obs obs[KVG_OBS_N];
    size_t queries;      /* view.queries: the last so many */
    int moments;         /* view.q_mean, view.q_cov */
    size_t moments_skip; /* first positions that do not count there */
    int across;          /* queries and moments of earlier passes count too, and are held (and
                            billed) between them; 0 = those of the present pass only */
    int raw_keys;        /* K stored before rotation */
    int spans, question, future; /* parts of kvg_text without which it makes no sense */
    size_t block_slots;  /* SHARE: slots of a block of exact rows; 0 = 64 */
    size_t n_side;       /* side columns of the store */
    size_t side_floats[KVG_SIDE_MAX];
    size_t side_page[KVG_SIDE_MAX]; /* slots that share a row; 0 or 1: every slot has its own */
};

struct kvg_strategy;

/* One strategy of a pipeline, ready for a cell. */
struct kvg_inst {
    const struct kvg_strategy *s;
    void *opt;   /* parsed options, s->opts_bytes */
    void *state; /* s->state_bytes, zeroed at the start of an item; billed as state */
    void *user;  /* what init prepared in the arena; read-only afterwards, not copied on forks */
    struct kvg_needs needs;
    struct kvg_schedule schedule;  /* WRAP: init may set every > 0 to change the keeper's */
    enum kvg_position position;
    struct kvg_budget *budget;     /* its option `budget` of type BUDGET; NULL = has none */
    int64_t prefill_chunk;   /* 0 = the whole prompt in one pass */
    int prefill_stored;      /* ENCODE: 1 = prompt queries read the encoded rows too */
    int whole_groups;        /* ENCODE: sealed groups are evicted whole instead of being opened */
    size_t first_obs;        /* where this instance's observations begin in a view */
    size_t first_side;       /* where its side columns begin */
    struct kvg_codec k_codec, v_codec; /* ENCODE: set by init; name[0] == 0 leaves the side exact */
    struct kvg_codec extra_codec;      /* a third form, for whichever column */
    int k_codec_index, v_codec_index, extra_codec_index; /* indices in the store; -1 = none */
    struct kvg_dims dims;
    uint64_t seed;           /* of this cell */
    struct kvg_arena *arena; /* lives as long as the pipeline; for init only */
};

/* A matrix of weights, read-only: [n_rows, n_cols], rows of row_bytes, for store->kernels. */
struct kvg_weights {
    enum kvg_type type;
    const void *rows;
    size_t row_bytes, n_rows, n_cols;
};

/* One layer at one moment of a pass. Every pointer is valid during the call only. */
struct kvg_view {
    const struct kvg_store *store; /* read-only; new rows are appended already */
    const struct kvg_text *text;
    size_t layer;
    enum kvg_phase phase;
    size_t n_new;      /* rows of this pass, the last n_new slots of every head */
    int32_t pos0;      /* position of the first new row */
    size_t n_logical;  /* length of the text so far, new rows included */
    size_t turn;
    enum kvg_position position;
    /* Decode: the step's query [n_heads, d_head], rotated to meet kvg_view_keys. Else NULL. */
    const float *q;
    /* needs.queries: the last n_queries <= needs.queries ones fed, [n_queries, n_heads, d_head],
     * oldest first, rotated to meet kvg_view_keys; query i sits at slot n_slots - n_queries + i of
     * a head out of which nothing behind it went. Filled behind attention: for observe, choices,
     * seal(ATTENDED) and end_pass (of layer 0 there). */
    const float *queries;
    size_t n_queries;
    /* needs.moments: mean [n_heads, d] and covariance [n_heads, d, d] (divisor n) of the n_moments
     * queries before rotation fed so far. Filled as `queries` are. */
    const float *q_mean, *q_cov;
    size_t n_moments;
    /* Observations: obs[i] is [n_heads][obs_ld], entry j of query head g belongs to slot j of KV
     * head g / (n_heads / n_kv_heads), slots as they were when attention ran. NULL when not
     * computed in this pass. */
    const float *obs[KVG_OBS_N];
    size_t obs_ld;
    size_t obs_rows[KVG_OBS_N]; /* queries of the window */
    struct kvg_weights wo;      /* attention's output matrix [n_embd, n_heads * d_head] */
    const float *rope_cos, *rope_sin; /* [n_ctx, d_head / 2] */
    uint64_t *bytes_read;       /* what kvg_view_keys and kvg_view_values read is added here */
    struct kvg_rng *rng;
    float *scratch;    /* [3 * max_slots + 64 * d_head] floats for the strategy's own use */
    float *scratch2;   /* [2 * max_slots] for the helpers */
    size_t max_slots;
};

/* Scores of all KV heads of a layer, larger = stays. */
#define KVG_MUST_STAY INFINITY
struct kvg_scores {
    float *v;  /* [n_heads][ld] */
    size_t ld, n_heads;
    size_t *n;      /* [n_heads] slots */
    size_t *n_keep; /* [n_heads] how many will stay */
};
static inline float *kvg_scores_head(const struct kvg_scores *s, size_t head)
{
    return s->v + head * s->ld;
}

enum kvg_when {
    KVG_WHEN_APPENDED, /* new rows are in the store, attention has not run */
    KVG_WHEN_ATTENDED  /* after attention, and after the KEEP strategy's plan was carried out */
};

struct kvg_strategy {
    const char *name;
    const char *summary; /* one line */
    const char *source;  /* paper and section, or specification */
    const char *observes; /* what it looks at and what that costs, one line */
    enum kvg_kind kind;
    enum kvg_role role;
    const struct kvg_opt *opts; /* own options; the common ones of its kind are added */
    size_t opts_bytes, state_bytes;
    struct kvg_schedule schedule; /* default of KEEP strategies */
    int evicts_before_attention;  /* decode: compress() is called before attention, not after it */
    int random;                   /* draws random numbers: runs once per seed */
    int guards;                   /* WRAP: rescores behind all others, wherever it is written */
    int recounts;                 /* WRAP: rescore changes how many slots a layer keeps in total */
    int path_dependent;           /* choices depend on rounding along the path: gets its own floor */
    enum kvg_truncation truncation;

    /* Checks options against the model and fills needs, position, codecs. May allocate in
     * in->arena. KVG_EUSAGE with the cause. */
    int (*init)(struct kvg_inst *in, struct kvg_err *err);
    void (*begin_item)(struct kvg_inst *in);
    /* The cache is thrown away before every pass and the latest tokens are fed again with the n_new
     * ones: how many of the n_logical there are (uncached: all). KVG_RECOMPUTE_NOTHING: the cache
     * is what feeding again would give, and stays for this pass. */
    size_t (*recompute)(const struct kvg_inst *in, size_t n_logical, size_t n_new);
    /* Decode: the query is known; may narrow what is read (KVG_PLAN_READ). */
    void (*before_attend)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    /* After attention of every layer and pass; updates side columns or state. */
    void (*observe)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns);
    /* KEEP: slots that stay of each head of a layer with n_slots of them; NULL: kvg_budget_slots
     * of `budget`. Depends on nothing but its arguments. */
    size_t (*keep)(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical);
    /* KEEP: scores of all slots of one head when the schedule says so, to out. */
    void (*score)(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out);
    /* WRAP: changes scores and counts of a layer. Slots that must stay score the layer's maximum
     * plus 1 here; KVG_MUST_STAY may be set anew. */
    void (*rescore)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *scores);
    /* KEEP without score(): plans by itself; cannot be wrapped by what rescores. */
    void (*compress)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    /* KEEP: tokens to feed in auxiliary pass `index` (0, 1, ...) on top of the cache, when a prompt
     * has ended and compression is due; 0 = no more. At most cap fit in the context; more than cap
     * says what would be needed, and is refused. Their attention is seen by observe() in phase
     * AUX, then their rows go again. Choosing (score or compress for every layer, then end_pass)
     * comes after the last of them. */
    size_t (*auxiliary)(struct kvg_inst *in, const struct kvg_text *text, size_t index,
                        int32_t *out, size_t cap);
    /* ENCODE: which exact rows of one layer to encode now. */
    void (*seal)(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan);
    /* After the last layer of a pass in which compression was due: decisions across layers. */
    void (*end_pass)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    void (*end_turn)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
};

/* ---- the registry (registry.c, list.h) ---- */
const char *kvg_kind_name(enum kvg_kind kind); /* "keep", "wrap", ... */
const char *kvg_role_name(enum kvg_role role); /* "strategy", "baseline", ... */
const struct kvg_strategy *const *kvg_strategies(size_t *n);
const struct kvg_strategy *kvg_strategy_find(const char *name);
/* Options common to all strategies of a kind; their values struct. */
struct kvg_common {
    const char *schedule; /* KEEP: prompt | turn | every:k */
    int64_t prefill_chunk;
    int prefill; /* 0 exact, 1 stored */
};
const struct kvg_opt *kvg_common_opts(enum kvg_kind kind);

/* ---- a pipeline: a parsed spec ---- */
enum { KVG_PIPELINE_MAX = 8 };
struct kvg_pipeline {
    char *label;    /* as the user wrote it */
    char *resolved; /* every option with its value, canonical order */
    struct kvg_inst inst[KVG_PIPELINE_MAX];
    size_t n;
    struct kvg_inst *keep, *encode, *read, *share; /* NULL when absent */
    struct kvg_inst *wrap[KVG_PIPELINE_MAX];       /* in the order written */
    size_t n_wraps;
    struct kvg_scores scores; /* counts of choose.c; arrays [n_kv_heads] */
    enum kvg_role role;
    enum kvg_position position;
    struct kvg_needs needs; /* union: observations and side columns concatenated */
    int path_dependent, random;
    enum kvg_truncation truncation;
    struct kvg_dims dims;
};
/* Parses and checks a spec for a model of these dimensions. All memory in `a`. */
int kvg_pipeline_open(struct kvg_pipeline *p, const char *spec, const struct kvg_dims *dims,
                      struct kvg_arena *a, struct kvg_err *err);
void kvg_pipeline_begin_item(struct kvg_pipeline *p, uint64_t seed);
/* Bytes of flat state, to copy when a conversation forks. */
void kvg_pipeline_copy_state(struct kvg_pipeline *dst, const struct kvg_pipeline *src);

/* Scores, wrappers and choice of one layer, when its schedule is due. Room for the scores: [n_kv_heads]
 * [v->max_slots] floats. Only for keepers with score(). */
void kvg_pipeline_choose(struct kvg_pipeline *p, const struct kvg_view *v, float *room,
                         struct kvg_plan *plan);
/* 1 when tokens may go: the keeper chooses or recomputes. */
int kvg_pipeline_evicts(const struct kvg_pipeline *p);
/* Slots that a layer's heads are left with by the keeper, before wrappers. */
size_t kvg_pipeline_keep(const struct kvg_pipeline *p, size_t layer, size_t n_slots,
                         size_t n_logical);

/* ---- helpers for strategies (helpers.c) ---- */
/* Slots per KV head that a budget allows at a logical length; at least 1. */
size_t kvg_budget_slots(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims);
/* The same before it is cut to a whole number. */
double kvg_budget_exact(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims);
/* Last slots of n that stay because they vote: the window counts inside the budget of n_keep; where
 * it would leave no room (a share of a short text) it shrinks to half of it. */
size_t kvg_window_slots(size_t window, size_t n, size_t n_keep);
/* Plans to keep the n_keep best of n scores of one head (ties: the lower slot). */
void kvg_keep_best(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                   const float *scores, size_t n, size_t n_keep);
/* Marks the k best of n scores (ties: the lower slot) with 1 in out [n], the others with 0. Uses
 * scratch2. */
void kvg_mark_best(const struct kvg_view *v, const float *scores, size_t n, size_t k,
                   unsigned char *out);
/* The k-th largest (k >= 1) of x[0..n); reorders x. */
float kvg_select_largest(float *x, size_t n, size_t k);
static inline size_t kvg_view_slots(const struct kvg_view *v, size_t head)
{
    return kvg_store_head(v->store, v->layer, head)->n_slots;
}
/* Rows [from, from + n) of K of one head, n <= 64, to out [n, d_head]: decoded, half-split, rotated
 * as attention would see them. Billed. */
void kvg_view_keys(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out);
void kvg_view_values(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out);
/* Mean over the query heads of a KV head of observation `i` (index in the view), n slots, to out. */
void kvg_obs_mean(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                  size_t n, float *out);
/* The votes of observation `i`'s window for the first n slots: mean over its queries and the query
 * heads of the KV head, pooled over `kernel` slots (kvg_pool_scores). Uses scratch. */
void kvg_obs_votes(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                   size_t n, size_t kernel, int maximum, float *out);
/* init of a keeper by the votes of a prompt's last `window` queries: the pooling width must be odd and
 * the budget hold the window. Its scores when n_keep slots stay: votes for the old slots, the window
 * must stay. */
int kvg_votes_init(struct kvg_inst *in, int64_t window, int64_t kernel, struct kvg_err *err);
void kvg_votes_score(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                     size_t n_keep, size_t window, size_t kernel, int maximum, float *out);
/* init and observe of a keeper whose first side column is the attention that each slot has received
 * from all queries so far, mean over the query heads of its KV head. */
int kvg_sums_init(struct kvg_inst *in, struct kvg_err *err);
void kvg_sums_observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns);
/* out[j] = mean (maximum = 0) or maximum of x over [j - k/2, j + k/2]; outside of x counts as 0 and
 * is divided by k all the same. */
void kvg_pool_scores(const float *x, size_t n, size_t k, int maximum, float *out);
/* seal() of forms without groups: a row is encoded as soon as it is in the store, so that while
 * decoding even a token's own row is read back encoded; those of a prompt after attention, unless
 * prefill=stored. */
void kvg_seal_rows(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                   struct kvg_plan *plan);
/* 1 when a position lies in a span of one of the kinds in the bit set. */
int kvg_text_in_span(const struct kvg_text *t, size_t pos, unsigned kinds);
/* The bit set of kinds in a text such as `system/tool`; for init. */
int kvg_span_kinds_parse(const struct kvg_inst *in, const char *text, unsigned *kinds,
                         struct kvg_err *err);

#endif
