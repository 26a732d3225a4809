/* Writes synthetic run folders: every kind of row, with numbers a test can recompute. */
#ifndef KVG_TESTS_GEN_RUN_H
#define KVG_TESTS_GEN_RUN_H

#include "base/err.h"

#include <stddef.h>

struct kvg_gen_run {
    size_t n_strategies; /* beside uncached and full; at most KVG_GEN_STRATEGIES; those beyond
                            24 are families at three targets of bytes, one of them an oracle */
    size_t n_items;      /* of each workload */
    size_t n_workloads;  /* 1 or 2 */
    size_t n_turns, n_steps;
    int with_floor;  /* the strategy `full`, which has role floor, is measured */
    int with_free;   /* free cells */
    int with_time;   /* time cells, three rounds */
    int with_bench;  /* bench.csv */
    int with_kept;   /* kept.csv */
    int with_broken; /* one skipped and one failed cell */
    int with_query;  /* strategy 3 seen and unseen (twice the KL), and its two questions after one
                        context (three and four times) */
};

enum { KVG_GEN_STRATEGIES = 24 + 3 * 60, KVG_GEN_TOKEN_BYTES = 23040 /* f16 bytes of a token */ };

/* A run of the size of a small suite. */
struct kvg_gen_run kvg_gen_run_default(void);
/* Writes into an existing empty folder. */
int kvg_gen_run_write(const struct kvg_gen_run *g, const char *dir, struct kvg_err *err);
/* KL of a strategy's step: what the generator writes. Strategy 0 is `uncached`, 1 `full`. */
double kvg_gen_run_kl(size_t strategy, size_t item, size_t turn, size_t step);
/* A fresh folder below $TMPDIR or /tmp, removed by kvg_gen_folder_remove. */
int kvg_gen_folder(char *path, size_t cap);
void kvg_gen_folder_remove(const char *path);

#endif
