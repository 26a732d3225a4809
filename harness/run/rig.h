/* The measuring rig of a run: the engine, one stream per strategy, scratch for rows of hidden
 * states and logits, and the way to the result files. Lanes and modes are built on it. Must not
 * know what is measured. */
#ifndef KVG_RUN_RIG_H
#define KVG_RUN_RIG_H

#include "base/arena.h"
#include "model/engine.h"
#include "run/drift.h"
#include "run/execute.h"
#include "run/record.h"
#include "run/replay.h"
#include "run/rows.h"

/* A stream with its own pipeline, and what is being measured on it. */
struct kvg_slot {
    struct kvg_arena arena; /* of the pipeline */
    struct kvg_pipeline pipe;
    struct kvg_stream stream;
    size_t strategy, copy; /* what it was opened for */
    int is_open;
    const struct kvg_cell *cell; /* NULL: helps another cell, nothing is written */
    struct kvg_record rec;
};

struct kvg_rig {
    struct kvg_runplan *plan;
    const struct kvg_run_options *opt;
    struct kvg_progress *pr;
    struct kvg_engine *engine;
    struct kvg_rows *rows;
    struct kvg_slot **slots;
    size_t n_slots;
    struct kvg_slot base, writer; /* role baseline: causal passes; role floor: writes replies */
    struct kvg_drift_base drift;
    struct kvg_arena arena; /* of a group of cells */
    size_t max_tokens, max_streams, n_embd, n_vocab;
    float *hidden;   /* [max_streams + 1, n_embd] */
    float *logits;   /* [max_streams + 1, n_vocab] */
    int32_t *tokens; /* [max_tokens + longest reply] a prompt and what will follow */
    size_t n_ties;   /* own replies of the baseline decided by rounding */
};

/* The engine is opened for the plan's widest group and longest conversation. Close also after a
 * failure. */
int kvg_rig_open(struct kvg_rig *rig, struct kvg_runplan *plan, const struct kvg_run_options *opt,
                 struct kvg_rows *rows, struct kvg_progress *pr, struct kvg_err *err);
void kvg_rig_close(struct kvg_rig *rig);

/* The slot of a strategy of the plan; `copy` tells apart several streams of the same one. Opened on
 * first use; its record is empty and its stream reset to `seed`. */
int kvg_rig_slot(struct kvg_rig *rig, const struct kvg_cell *cell, size_t copy,
                 struct kvg_slot **out, struct kvg_err *err);
/* Gives back the streams' memory. */
void kvg_rig_drop_slots(struct kvg_rig *rig);
/* The slot `base` or `writer`, opened on first use and reset. */
int kvg_rig_helper(struct kvg_rig *rig, struct kvg_slot *slot, enum kvg_role role,
                   struct kvg_err *err);

/* Takes a stream back to where a turn begins, when the turn says so. */
int kvg_rig_rewind(struct kvg_rig *rig, struct kvg_stream *s, const struct kvg_replay_turn *turn,
                   struct kvg_err *err);
/* Puts a turn's reply behind its prompt of n tokens in rig->tokens; returns its length. */
size_t kvg_rig_add_future(struct kvg_rig *rig, const struct kvg_replay *r, size_t turn, size_t n);

/* "context: needs N tokens, the model has M" in the group's arena. */
const char *kvg_rig_context_reason(struct kvg_rig *rig, size_t n);

/* Measures rows 0..n-1 of rig->hidden against `base` [n_embd]: drift[i] of row i with targets[i].
 * The threads of the pool share the rows. */
int kvg_rig_drift(struct kvg_rig *rig, const float *base, size_t n, const int32_t *targets,
                  struct kvg_drift *const *drift, struct kvg_err *err);

#endif
