/* Private to suite files: their keys as read. A key that is absent stays NULL (or n 0) and so keeps
 * its default. */
#ifndef KVG_RUN_SUITE_IMPL_H
#define KVG_RUN_SUITE_IMPL_H

#include "run/suite.h"

struct kvg_raw_workload {
    const char *source;
    const char **items;
    size_t n_items;
};

struct kvg_raw_drift {
    int *modes;
    size_t n_modes;
    int *target;
    const char *reply_tokens, *free_tokens, *floor_items;
    const char **free_items;
    size_t n_free_items;
    const char *kept_item;
};

struct kvg_raw_time {
    const char **items, **strategies;
    size_t n_items, n_strategies;
    const char *reply_tokens, *rounds, *uncached_depths;
};

struct kvg_raw_bench {
    const char **depths;
    size_t n_depths;
    const char *n_gen;
    const char **strategies;
    size_t n_strategies;
};

struct kvg_raw_recall {
    const char **lengths;
    size_t n_lengths;
    const char *facts;
    const char **strategies;
    size_t n_strategies;
};

struct kvg_raw_suite {
    const char *name, *description;
    const char **strategies, **equal_bytes;
    size_t n_strategies, n_equal_bytes;
    struct kvg_raw_workload *workloads;
    size_t n_workloads;
    const char *seed, *seeds, *max_items, *max_turns;
    int *seeds_mode;
    int *query;
    size_t n_query;
    int *second_question;
    struct kvg_raw_drift *drift;
    struct kvg_raw_time *time;
    struct kvg_raw_bench *bench;
    struct kvg_raw_recall *recall;
};

/* Where they come from. */
struct kvg_raw_source {
    const char *path;
    struct kvg_arena *a;
    struct kvg_err *err;
};

/* suite_take.c: from the keys to the settings. */
int kvg_suite_take(const struct kvg_raw_source *t, struct kvg_suite *s,
                   const struct kvg_raw_suite *r);

#endif
