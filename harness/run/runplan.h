/* The plan of a run: every name resolved, every spec parsed, every item tokenised, every cell with
 * its key. All user errors end here, before anything is measured. Reads the model's header only
 * (dims, tokenizer, template). Must not know how a cell is measured. */
#ifndef KVG_RUN_RUNPLAN_H
#define KVG_RUN_RUNPLAN_H

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "model/model.h"
#include "run/suite.h"
#include "run/tokens.h"
#include "strategies/strategy.h"
#include "workloads/workload.h"

#include <stddef.h>
#include <stdint.h>

/* MAIN: the strategy. FLOOR: the same cell again at another CPU level (same group as its MAIN cell,
 * behind all MAIN cells). BARE: strategy calls left out, to time the harness itself. */
enum kvg_arm { KVG_ARM_MAIN, KVG_ARM_FLOOR, KVG_ARM_BARE };
const char *kvg_arm_name(enum kvg_arm a); /* "main", "floor", "bare" */

enum kvg_cell_status { KVG_CELL_TODO, KVG_CELL_SKIPPED, KVG_CELL_ERROR };

/* The budget that meets a target of bytes for one item and lane, or why there is none. */
struct kvg_fit {
    int is_set; /* 0: the strategy has no budget; it meets the target as it is unless `reason` */
    struct kvg_budget budget;
    const char *reason;
};

/* What a budget of an item is for: a lane, or one of two questions after one context. */
enum { KVG_FIT_QUESTION = KVG_LANE_N, KVG_FIT_N = KVG_FIT_QUESTION + 2 };
static inline size_t kvg_fit_index(size_t item, size_t use, int unseen)
{
    return (item * KVG_FIT_N + use) * 2 + (size_t)unseen;
}

/* A spec of the suite, parsed for the model. */
struct kvg_plan_strategy {
    const char *label; /* as the user wrote it; with a target `spec@4000B` */
    const char *spec, *resolved;
    double target_bytes;             /* per token of logical length at a prompt's end; 0 = none */
    struct kvg_fit *fits;            /* at kvg_fit_index, with a target */
    struct kvg_pipeline pipe;        /* opened; the executor's streams may borrow it */
    int timed;                       /* wanted in the time lane */
    int takes_seed;                  /* draws random numbers */
    int chooses;                     /* something is thrown away: the choice of 'query' matters */
    size_t store_bytes;              /* largest store at the longest item of the plan */
    const struct kvg_budget *budget; /* of its KEEP part; NULL = keeps everything */
};

struct kvg_cell {
    char id[17];             /* 16 hex */
    uint32_t strategy, item; /* indices into the plan's arrays */
    enum kvg_mode mode;
    enum kvg_target target; /* forced */
    enum kvg_lane lane;
    enum kvg_arm arm;
    size_t round, seed_index;
    int unseen;        /* 1: compression is due before the question */
    const char *query; /* "" nothing is chosen, "seen", "unseen"; "mixed": the question of the first
                          turn was seen, those of later turns were not there yet */
    size_t question_index; /* 0 = an ordinary replay; 1, 2 = of two questions after one context */
    uint64_t seed;         /* of this cell, already split */
    enum kvg_cell_status status; /* SKIPPED, ERROR: write the row with `reason`, measure nothing */
    const char *reason;          /* NULL for TODO */
    const struct kvg_fit *fit;   /* its budget at a target of bytes; NULL = as the spec says */
    size_t n_prompt_tokens;      /* estimates: tokens fed in prompts, decode steps, */
    size_t n_steps;
    size_t store_bytes; /* store at its largest, */
    double est_seconds; /* and time (shared work split evenly over a group) */
};

/* Cells that are run together, in this order. DRIFT: all strategies of one item and mode, in
 * lockstep. TIME: one item and round, cells already in their random order. UNCACHED: one cell,
 * strategy `uncached`, timed at plan->depths over the item (one step row per depth). */
enum kvg_group_kind { KVG_GROUP_DRIFT, KVG_GROUP_TIME, KVG_GROUP_UNCACHED };
struct kvg_group {
    enum kvg_group_kind kind;
    uint32_t item;
    enum kvg_mode mode;
    size_t round;
    int unseen;            /* DRIFT: of all its cells */
    size_t question_index; /* of all its cells */
    size_t first, n;       /* cells */
    double est_seconds;    /* the whole group, baseline included */
};

/* An item of the plan and what it is used for. */
struct kvg_plan_item {
    struct kvg_item_tokens tokens;
    struct kvg_item_tokens *second; /* [2] of kvg_item_second; NULL = not asked for, or the item
                                       has no such questions */
    uint32_t workload;              /* in plan->workloads */
    unsigned char drift, free, timed, floor, kept; /* 1 = yes */
    enum kvg_target target; /* greedy too when the item has turns without a recorded reply */
};

struct kvg_plan_workload {
    struct kvg_workload w;
};

struct kvg_runplan {
    struct kvg_arena arena;
    const struct kvg_suite *suite;
    const struct kvg_model *model;
    char model_sha256[KVG_SHA256_HEX];
    const char *model_file; /* file name without folder */
    struct kvg_template chat;
    struct kvg_dims dims;                 /* of the model; slot_bytes of an f32 slot */
    struct kvg_plan_strategy *strategies; /* those of the suite, then baseline and floor where
                                             they are needed and were not listed */
    size_t n_strategies, n_listed;
    struct kvg_plan_workload *workloads;
    size_t n_workloads;
    size_t baseline, floor; /* in strategies: role baseline and role floor; SIZE_MAX = not needed */
    struct kvg_plan_item *items; /* of all workloads, in order of execution */
    size_t n_items;
    struct kvg_group *groups; /* drift groups first, then time */
    size_t n_groups;
    struct kvg_cell *cells;
    size_t n_cells, n_todo;
    size_t *depths; /* of UNCACHED, ascending */
    size_t n_depths;
    size_t max_tokens; /* longest logical length of any cell that is run */
    double est_seconds, est_bench_seconds, est_recall_seconds; /* all, and those alone */
    size_t est_bytes; /* weights, stores of the widest group, scratch */
};

/* What a cell or group replays of an item: question_index as there. */
static inline const struct kvg_item_tokens *kvg_plan_tokens(const struct kvg_plan_item *it,
                                                            size_t question_index)
{
    return question_index ? &it->second[question_index - 1] : &it->tokens;
}

/* Slots per KV head a strategy holds at a length, about. */
size_t kvg_plan_kept(const struct kvg_plan_strategy *s, size_t n_logical);

/* What a second is worth on this machine, from a short probe of the engine (runcost.c). */
struct kvg_run_cost {
    double prompt_token_s; /* one prompt token, dense part shared by a group */
    double prompt_pair_s;  /* one query-key pair of prefill attention (per stream) */
    double step_s;         /* one decode step, weights read once */
    double step_stream_s;  /* each further stream of the same step */
    double step_slot_s;    /* per stored slot read in a step and stream */
    double logits_s;       /* one row of logits with its drift numbers */
};

/* Opens workloads, parses specs, tokenises, makes cells. `model` and `suite` must outlive the plan.
 * KVG_EUSAGE, KVG_EIO, KVG_EFORMAT, KVG_ENOMEM. Release also after a failure. */
int kvg_runplan_make(struct kvg_runplan *p, const struct kvg_suite *suite,
                     const struct kvg_model *model, const char *model_sha256, struct kvg_err *err);
void kvg_runplan_release(struct kvg_runplan *p);
/* Fills the time estimates. */
void kvg_runplan_estimate(struct kvg_runplan *p, const struct kvg_run_cost *cost);
/* Appends what --dry-run shows. */
void kvg_runplan_print(const struct kvg_runplan *p, struct kvg_str *out);

#endif
