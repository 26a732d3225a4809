/* The manifest of a run: what was measured on what. Must not know how the run goes. */
#ifndef KVG_RUN_DESCRIBE_H
#define KVG_RUN_DESCRIBE_H

#include "base/arena.h"
#include "result/manifest.h"
#include "run/execute.h"

/* Fills identity and context; texts live in `a` or with the plan. The clock and the read bandwidth
 * are measured here (some 50 ms). KVG_ENOMEM. */
int kvg_describe(struct kvg_manifest *m, const struct kvg_runplan *plan,
                 const struct kvg_run_options *opt, struct kvg_arena *a, struct kvg_err *err);
/* "yyyy-mm-ddThh:mm:ssZ" of now in the arena; NULL when memory is short. */
const char *kvg_describe_now(struct kvg_arena *a);

#endif
