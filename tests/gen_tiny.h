/* A whole run on a tiny generated model, in a temporary folder: model, workload, suite, plan,
 * execution, and the rows it wrote. */
#ifndef KVG_TESTS_GEN_TINY_H
#define KVG_TESTS_GEN_TINY_H

#include "base/pool.h"
#include "base/text.h"
#include "result/csv.h"
#include "run/execute.h"

struct gen_tiny {
    char folder[512];
    struct kvg_suite suite; /* free to change before a run */
    struct kvg_suite_workload workload;
    struct kvg_model *model;
    struct kvg_pool *pool;
    const struct kvg_kernels *kernels;
    char dir[KVG_RUN_DIR_CAP]; /* of the last run */
};

/* Items of the workload: "chat" 3 turns with recorded replies and a check, "edit" whose third turn
 * replaces the second, "open" without recorded replies, "paste" with a context before its question
 * and a second one, "long" beyond the model's context. */
void gen_tiny_open(struct gen_tiny *t, int n_threads);
void gen_tiny_close(struct gen_tiny *t);
/* Chooses strategies and items by name, NULL-terminated; the arrays must live on. */
void gen_tiny_choose(struct gen_tiny *t, const char **specs, const char **items);
/* Plans and executes; returns what the execution returned. t->dir is its folder. */
int gen_tiny_run(struct gen_tiny *t, int resume, struct kvg_err *err);

/* Appends a table of the last run as text, one line a row, without what may differ between equal
 * runs: times, the run's name, the resident set. */
void gen_tiny_rows(const struct gen_tiny *t, const struct kvg_table *table, struct kvg_str *out);
/* The first row of cells.csv with this strategy, item, mode, lane and arm; NULL when there is none.
 * Texts are borrowed until the next call. */
const struct kvg_row *gen_tiny_cell(const struct gen_tiny *t, const char *strategy,
                                    const char *item, const char *mode, const char *lane,
                                    const char *arm);
/* The same in the drift lane by query, and by question index (0 = an ordinary replay). */
const struct kvg_row *gen_tiny_asked(const struct gen_tiny *t, const char *strategy,
                                     const char *item, const char *mode, const char *query,
                                     int question);
size_t gen_tiny_count(const struct gen_tiny *t, const struct kvg_table *table);

#endif
