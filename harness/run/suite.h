/* Suite files: what a run compares. Owns the YAML schema (through libcyaml) and the settings after
 * defaults and command-line flags. Must not know models, tokens or how anything is measured: names
 * are checked against the registry when the plan is made. */
#ifndef KVG_RUN_SUITE_H
#define KVG_RUN_SUITE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_mode { KVG_MODE_FORCED, KVG_MODE_FREE, KVG_MODE_N };
enum kvg_lane { KVG_LANE_DRIFT, KVG_LANE_TIME, KVG_LANE_N };
enum kvg_target { KVG_TARGET_RECORDED, KVG_TARGET_GREEDY };
/* Does compression see the question? SEEN: it is due at the prompt's end. UNSEEN: it is due before
 * the question, whose rows come on top. */
enum kvg_query { KVG_QUERY_SEEN, KVG_QUERY_UNSEEN, KVG_QUERY_N };
enum kvg_seeds_mode { KVG_SEEDS_ROTATE, KVG_SEEDS_ALL };

const char *kvg_mode_name(enum kvg_mode m);     /* "forced", "free" */
const char *kvg_lane_name(enum kvg_lane l);     /* "drift", "time" */
const char *kvg_target_name(enum kvg_target t); /* "recorded", "greedy" */
const char *kvg_query_name(enum kvg_query q);   /* "seen", "unseen" */

struct kvg_suite_workload {
    const char *source;       /* pack or path */
    struct kvg_strlist items; /* ids in this order; n 0 = all of the file */
};

/* Resolved settings. Everything lives in the arena given when it was made. */
struct kvg_suite {
    const char *name, *description;
    const char *path; /* of the file; NULL when made of flags alone */
    struct kvg_strlist strategies;
    struct kvg_suite_workload *workloads;
    size_t n_workloads;
    uint64_t seed;
    size_t n_seeds; /* of strategies of role control */
    enum kvg_seeds_mode seeds_mode;
    size_t max_items;    /* per workload; 0 = no limit */
    size_t *equal_bytes; /* targets, bytes per token at a prompt's end; n 0 = budgets as given */
    size_t n_equal_bytes;
    size_t max_turns; /* first turns of an item that are replayed; 0 = all */

    int lanes[KVG_LANE_N]; /* 1 = wanted */
    int modes[KVG_MODE_N]; /* of the drift lane */
    enum kvg_target target;
    int queries[KVG_QUERY_N];      /* 1 = wanted; the time lane takes the first of them */
    int second_question;           /* 1: forced drift of two questions after one context as well */
    size_t reply_tokens;           /* scored per item; 0 = all */
    struct kvg_strlist free_items; /* n 0 = all items */
    size_t free_tokens;            /* reply limit per turn */
    size_t floor_items;            /* per workload; 0 = none */
    const char *kept_item;         /* NULL = none */

    struct kvg_strlist time_items; /* n 0 = all items */
    size_t time_reply_tokens;      /* per item; 0 = all */
    size_t rounds;
    struct kvg_strlist time_strategies; /* n 0 = all */
    size_t uncached_depths;             /* 0 = `uncached` is not timed */

    int bench; /* 1 = the run folder gets a bench.csv */
    size_t *bench_depths;
    size_t n_bench_depths, bench_n_gen;
    struct kvg_strlist bench_strategies; /* n 0 = all of the suite */

    int recall; /* 1 = the run folder gets a recall.csv */
    size_t *recall_lengths;
    size_t n_recall_lengths, recall_facts;
    struct kvg_strlist recall_strategies; /* n 0 = all of the suite */
};

/* Defaults of a run made of flags alone: forced mode, drift lane. */
void kvg_suite_defaults(struct kvg_suite *s);
/* Reads and checks a suite file. KVG_EIO, KVG_EUSAGE with file, line and the nearest known key. */
int kvg_suite_read(struct kvg_suite *s, const char *path, struct kvg_arena *a, struct kvg_err *err);
/* Checks what flags may have spoiled: something to run, limits in range. KVG_EUSAGE. */
int kvg_suite_check(const struct kvg_suite *s, struct kvg_err *err);
/* Appends the resolved settings as YAML that kvg_suite_read takes back (suite.resolved.yaml). */
void kvg_suite_print(const struct kvg_suite *s, struct kvg_str *out);

#endif
