/* Speed of prefill and decode by depth and strategy, through the same engine and contract as a
 * run. Fills rows of the bench table; printing is the caller's. */
#ifndef KVG_RUN_BENCH_H
#define KVG_RUN_BENCH_H

#include "base/err.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "result/csv.h"
#include "run/progress.h"

#include <stddef.h>

struct kvg_bench_cfg {
    const struct kvg_model *model;
    const struct kvg_kernels *kernels;
    const char *const *specs;
    size_t n_specs;
    const size_t *prompts, *gens, *depths, *threads; /* tokens; a test per prompt > 0, gen > 0 */
    size_t n_prompts, n_gens, n_depths, n_threads;
    size_t reps;
    uint64_t seed;
};

/* Called per finished test. */
typedef int (*kvg_bench_fn)(void *arg, const struct kvg_row *row, struct kvg_err *err);
/* progress may be NULL. KVG_EUSAGE for a bad spec or a depth beyond the model's context, found
 * before anything is measured. */
int kvg_bench_run(const struct kvg_bench_cfg *cfg, struct kvg_progress *pr, kvg_bench_fn fn,
                  void *arg, struct kvg_err *err);

#endif
