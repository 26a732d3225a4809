/* The strategy contract. Read this first.
 *
 * A strategy is a const descriptor at the end of its file. It decides; it never owns or moves
 * memory: its calls read views and fill a plan (cache/plan.h) that the store carries out and bills.
 * All calls are optional, none can fail or allocate, none may print. State is flat memory owned by
 * the engine (it is copied when a conversation forks); per-slot state belongs in side columns.
 *
 * Several strategies compose: `snapkv:budget=25%+kivi:bits=2`. Of a pipeline at most one keeps
 * (kind KEEP) and at most one encodes (kind ENCODE); calls go in the order written. */
#ifndef KVG_STRATEGIES_STRATEGY_H
#define KVG_STRATEGIES_STRATEGY_H

#include "base/arena.h"
#include "base/opt.h"
#include "base/rng.h"
#include "cache/store.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_kind { KVG_KIND_KEEP, KVG_KIND_ENCODE, KVG_KIND_READ, KVG_KIND_SHARE };
/* BASELINE: recomputes everything, drift is measured against it. FLOOR: an exact cache, its drift
 * is the noise floor. CONTROL: chooses without looking, the least a strategy must beat. */
enum kvg_role { KVG_ROLE_STRATEGY, KVG_ROLE_BASELINE, KVG_ROLE_FLOOR, KVG_ROLE_CONTROL };
enum kvg_phase { KVG_PHASE_PROMPT, KVG_PHASE_DECODE };

/* When a KEEP strategy's compress() is called. PROMPT: after the first turn's prompt. TURN: after
 * each turn's prompt. EVERY: after each turn's prompt and at every k-th decode step. */
enum kvg_schedule_kind { KVG_SCHED_PROMPT, KVG_SCHED_TURN, KVG_SCHED_EVERY };
struct kvg_schedule {
    enum kvg_schedule_kind kind;
    int64_t every;
};

/* Rotary position of a cached key and of the query that meets it: the position in the text, or the
 * slot index (cache-relative, StreamingLLM section 3.2; needs raw keys). */
enum kvg_position { KVG_POSITION_TRUE, KVG_POSITION_SLOT };

/* What may be done when a turn is taken back (edit, regenerate): CUT the slots at and behind the
 * position, or RECOMPUTE the conversation because what the strategy dropped would now be missing. */
enum kvg_truncation { KVG_TRUNCATE_CUT, KVG_TRUNCATE_RECOMPUTE };

struct kvg_dims {
    size_t n_layers, n_heads, n_kv_heads, d_head, n_ctx;
    size_t slot_bytes; /* bytes of one slot of all layers and KV heads in this pipeline's form */
};

/* Observations a strategy asks for; the engine computes only these and bills their time and bytes. */
enum { KVG_OBS_MAX = 4 };
struct kvg_needs {
    /* Column sums of attention over the last `window` queries of a pass; 0 = all of them. */
    size_t n_colsums;
    size_t colsum_window[KVG_OBS_MAX];
    int raw_keys;        /* K stored before rotation */
    int prompt_only_obs; /* observations are not needed in decode steps */
    size_t n_side;       /* side columns of the store */
    size_t side_floats[KVG_SIDE_MAX];
};

struct kvg_strategy;

/* One strategy of a pipeline, ready for a cell. */
struct kvg_inst {
    const struct kvg_strategy *s;
    void *opt;   /* parsed options, s->opts_bytes */
    void *state; /* s->state_bytes, zeroed at the start of an item */
    void *user;  /* what init prepared in the arena; read-only afterwards, not copied on forks */
    struct kvg_needs needs;
    struct kvg_schedule schedule;
    enum kvg_position position;
    int64_t prefill_chunk;   /* 0 = the whole prompt in one pass */
    int prefill_stored;      /* ENCODE: 1 = prompt queries read the encoded rows too */
    int whole_groups;        /* ENCODE: sealed groups are evicted whole instead of being opened */
    size_t first_colsum;     /* where this instance's colsums begin in a view */
    size_t first_side;       /* where its side columns begin */
    struct kvg_codec k_codec, v_codec; /* ENCODE: set by init; name[0] == 0 leaves the side exact */
    int k_codec_index, v_codec_index;  /* indices in the store; -1 = none */
    struct kvg_dims dims;
    uint64_t seed;           /* of this cell */
    struct kvg_arena *arena; /* lives as long as the pipeline; for init only */
};

/* One layer at one moment of a pass. Every pointer is valid during the call only. */
struct kvg_view {
    const struct kvg_store *store; /* read-only; new rows are appended already */
    size_t layer;
    enum kvg_phase phase;
    size_t n_new;      /* rows of this pass, the last n_new slots of every head */
    int32_t pos0;      /* position of the first new row */
    size_t n_logical;  /* length of the text so far, new rows included */
    size_t turn;
    const float *q;    /* [n_new of the last chunk, n_heads, d_head] queries after rotation */
    size_t q_rows;     /* rows of q; the last query of the pass is the last row */
    /* Column sums: colsum[i] is [n_heads][colsum_ld], entry j of query head g belongs to slot j of
     * KV head g / (n_heads / n_kv_heads), slots as they were when attention ran. NULL when not
     * asked for or not computed in this phase. */
    const float *colsum[KVG_OBS_MAX];
    size_t colsum_ld;
    size_t colsum_rows[KVG_OBS_MAX]; /* queries that were summed */
    struct kvg_rng *rng;
    float *scratch;    /* [3 * max_slots + 64 * d_head] floats for the strategy's own use */
    float *scratch2;   /* [max_slots] for the helpers */
};

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
    int path_dependent;           /* choices depend on rounding along the path: gets its own floor */
    enum kvg_truncation truncation;

    /* Checks options against the model and fills needs, position, codecs. May allocate in
     * in->arena. KVG_EUSAGE with the cause. */
    int (*init)(struct kvg_inst *in, struct kvg_err *err);
    void (*begin_item)(struct kvg_inst *in);
    /* How many of the latest tokens must be fed again before the new ones (uncached: all). */
    size_t (*recompute)(const struct kvg_inst *in, size_t n_logical);
    /* The query is known; may narrow what is read (KVG_PLAN_READ). */
    void (*before_attend)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    /* After attention of every layer and pass; updates side columns or state. */
    void (*observe)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns);
    /* KEEP: choose what stays of one layer, when the schedule says so. */
    void (*compress)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    /* ENCODE: which exact rows of one layer to encode now. */
    void (*seal)(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan);
    /* After the last layer of a pass whose schedule is due: decisions across layers. */
    void (*end_pass)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
    void (*end_turn)(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan);
};

/* ---- the registry (registry.c, list.h) ---- */
const struct kvg_strategy *const *kvg_strategies(size_t *n);
const struct kvg_strategy *kvg_strategy_find(const char *name);
/* Options common to all strategies of a kind; their values struct. */
struct kvg_common {
    const char *schedule; /* prompt | turn | every:k */
    int64_t prefill_chunk;
    int prefill; /* 0 exact, 1 stored */
};
const struct kvg_opt *kvg_common_opts(enum kvg_kind kind);

/* ---- a pipeline: a parsed spec ---- */
enum { KVG_PIPELINE_MAX = 4 };
struct kvg_pipeline {
    char *label;    /* as the user wrote it */
    char *resolved; /* every option with its value, canonical order */
    struct kvg_inst inst[KVG_PIPELINE_MAX];
    size_t n;
    struct kvg_inst *keep, *encode; /* NULL when absent */
    enum kvg_role role;
    enum kvg_position position;
    struct kvg_needs needs; /* union: colsums and side columns concatenated */
    int path_dependent;
    enum kvg_truncation truncation;
    struct kvg_dims dims;
};
/* Parses and checks a spec for a model of these dimensions. All memory in `a`. */
int kvg_pipeline_open(struct kvg_pipeline *p, const char *spec, const struct kvg_dims *dims,
                      struct kvg_arena *a, struct kvg_err *err);
void kvg_pipeline_begin_item(struct kvg_pipeline *p, uint64_t seed);
/* Bytes of flat state, to copy when a conversation forks. */
void kvg_pipeline_copy_state(struct kvg_pipeline *dst, const struct kvg_pipeline *src);

/* ---- helpers for strategies (helpers.c) ---- */
/* Slots per KV head that a budget allows at a logical length; at least 1. */
size_t kvg_budget_slots(const struct kvg_budget *b, size_t n_logical, const struct kvg_dims *dims);
/* Plans to keep the n_keep best of n scores of one head (ties: the lower slot). */
void kvg_keep_best(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                   const float *scores, size_t n, size_t n_keep);
/* Plans to keep the first `sinks` and the last n_keep - sinks slots of one head. */
void kvg_keep_ends(struct kvg_plan *plan, const struct kvg_view *v, size_t head, size_t sinks,
                   size_t n_keep);
/* Plans to drop the worst of n scores below slot `limit` of one head (ties: the lower slot). */
void kvg_drop_worst(struct kvg_plan *plan, const struct kvg_view *v, size_t head,
                    const float *scores, size_t limit);
static inline size_t kvg_view_slots(const struct kvg_view *v, size_t head)
{
    return kvg_store_head(v->store, v->layer, head)->n_slots;
}
/* Mean over the query heads of a KV head of colsum `i` (index in the view), n slots, to out. */
void kvg_colsum_mean(const struct kvg_inst *in, const struct kvg_view *v, size_t i, size_t head,
                     size_t n, float *out);

#endif
