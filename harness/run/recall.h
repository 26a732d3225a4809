/* Recall on the constructed model (model/induction.h): pairs of words are spread over filler, then
 * each first word is asked for its second. An exact cache answers all of them at any length, so
 * every wrong answer is the strategy's doing. Fills rows of the recall table; printing is the
 * caller's. */
#ifndef KVG_RUN_RECALL_H
#define KVG_RUN_RECALL_H

#include "base/err.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "result/csv.h"
#include "run/progress.h"

#include <stddef.h>
#include <stdint.h>

enum {
    KVG_RECALL_FACTS_MAX = 64,
    KVG_RECALL_LENGTH_MAX = 60000,
    KVG_RECALL_QUERIES = 2, /* each text is run with the questions seen and unseen */
    KVG_RECALL_GROUP = 16   /* strategies that share the computation of a prompt */
};

struct kvg_recall_cfg {
    const struct kvg_kernels *kernels;
    struct kvg_pool *pool;
    const char *const *specs;
    size_t n_specs;
    const size_t *lengths; /* tokens of a text, facts included, questions not */
    size_t n_lengths;
    size_t n_facts; /* per text, one per stratum of its length */
    uint64_t seed;  /* the same texts for every strategy */
    int skip_unfit; /* 1: a spec this model cannot run gives rows `skipped`; 0: KVG_EUSAGE */
};

/* Called per fact, or once per skipped strategy, query and length. */
typedef int (*kvg_recall_fn)(void *arg, const struct kvg_row *row, struct kvg_err *err);

/* KVG_EUSAGE for lengths that cannot hold the facts, before anything is measured. */
int kvg_recall_check(const size_t *lengths, size_t n_lengths, size_t n_facts, struct kvg_err *err);
/* progress may be NULL. */
int kvg_recall_run(const struct kvg_recall_cfg *cfg, struct kvg_progress *pr, kvg_recall_fn fn,
                   void *arg, struct kvg_err *err);

#endif
