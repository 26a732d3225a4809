/* What a run will take: a short probe of the engine on this machine, and the counts of a plan
 * turned into seconds with it. Must not know what is measured for its own sake. */
#ifndef KVG_RUN_RUNCOST_H
#define KVG_RUN_RUNCOST_H

#include "base/pool.h"
#include "kernel/kernel.h"
#include "run/runplan.h"

/* Runs two prompts and a few steps of the plan's floor strategy (about a second). The model must be
 * open in full. */
int kvg_run_cost_probe(struct kvg_run_cost *cost, struct kvg_runplan *p, struct kvg_pool *pool,
                       const struct kvg_kernels *kernels, struct kvg_err *err);

#endif
