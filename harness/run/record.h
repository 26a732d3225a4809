/* What is measured in one cell, in memory, until the cell is done and its rows are written. Owns
 * the readings taken from a stream's store; must not know files. */
#ifndef KVG_RUN_RECORD_H
#define KVG_RUN_RECORD_H

#include "base/err.h"
#include "model/engine.h"
#include "run/drift.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_finish {
    KVG_FINISH_NONE,
    KVG_FINISH_GIVEN,
    KVG_FINISH_EOS,
    KVG_FINISH_LIMIT,
    KVG_FINISH_LOOP,
    KVG_FINISH_MIXED
};
const char *kvg_finish_name(enum kvg_finish f); /* "" for NONE */

struct kvg_step_record {
    uint32_t turn, step, pos; /* pos: of the target, or of the new token in the time lane */
    int32_t target;
    int has_drift, has_times;
    struct kvg_drift drift;
    struct kvg_times times;
};

struct kvg_turn_record {
    uint32_t turn;
    size_t n_prompt, n_reply;
    uint64_t ttft_ns, prefill_ns, steps_ns; /* 0 = not timed */
    size_t n_timed;                         /* steps behind steps_ns */
    size_t logical_tokens;
    double kept_mean;
    struct kvg_bytes bytes;
    size_t prompt_bytes, prompt_tokens; /* stored, and fed, at the end of the prompt */
    size_t peak_bytes;
    uint64_t n_evicted;
    enum kvg_finish finish;
    int answer_expected, answer_right, baseline_right;
};

struct kvg_kept_record { /* positions that are kept, of one layer */
    uint32_t layer, pos, heads;
};

/* Numbers of free mode; NaN = missing. */
struct kvg_free_record {
    int is_set, has_diverged;
    size_t first_divergence, n_compared;
    double chrf2_baseline, edit_distance, chrf2_reference, bleu_reference;
    size_t answers_total, answers_right, answers_lost, answers_gained;
};

struct kvg_record {
    struct kvg_step_record *steps;
    size_t n_steps, cap_steps;
    struct kvg_turn_record *turns;
    size_t n_turns, cap_turns;
    struct kvg_kept_record *kept;
    size_t n_kept;
    uint32_t kept_turn;
    size_t n_forward; /* passes that gave logits of a reply */
    enum kvg_finish finish;

    /* readings of the store at the end */
    int has_store;
    size_t logical_tokens, kept_min, kept_max;
    double kept_mean;
    struct kvg_bytes bytes;
    struct kvg_counters count;
    size_t peak_bytes; /* store and scratch, of all calls */
    uint64_t rss_bytes, digest;

    int has_times;
    struct kvg_times times; /* of all calls of the cell */
    uint64_t prefill_ns;
    int has_overhead;
    int64_t overhead_ns;
    struct kvg_free_record free_mode;
    const char *error; /* the cell ended with an error row; borrowed */
};

void kvg_record_release(struct kvg_record *r);
/* Empties it and keeps the memory. */
void kvg_record_clear(struct kvg_record *r);
/* A new zeroed step or turn, valid until the next is added; NULL when out of memory. */
struct kvg_step_record *kvg_record_step(struct kvg_record *r);
struct kvg_turn_record *kvg_record_turn(struct kvg_record *r);

/* Before a call: the store's peak starts anew. After it: peak and scratch count in r and turn. */
void kvg_record_mark(struct kvg_stream *s);
void kvg_record_peak(struct kvg_record *r, struct kvg_turn_record *turn, const struct kvg_stream *s,
                     const struct kvg_engine *e);
/* State of the store after a turn. */
/* The prompt of a turn has been fed and compressed. */
void kvg_record_prompt_end(struct kvg_turn_record *turn, const struct kvg_stream *s);
void kvg_record_turn_end(struct kvg_turn_record *turn, const struct kvg_stream *s);
/* State of the store at the end of the cell. */
int kvg_record_end(struct kvg_record *r, const struct kvg_stream *s, struct kvg_err *err);
/* Which positions are kept, for the map. */
int kvg_record_kept(struct kvg_record *r, const struct kvg_stream *s, size_t turn,
                    struct kvg_err *err);
/* Adds the times of a call. */
void kvg_record_add_times(struct kvg_times *sum, const struct kvg_times *t);

/* Invariants of a store after a call: kvg_store_check, and the identity of a cache that keeps
 * everything in a plain form: payload = 2 x layers x KV heads x head size x bytes x tokens.
 * KVG_ECHECK. */
int kvg_record_check(const struct kvg_stream *s, struct kvg_err *err);

#endif
