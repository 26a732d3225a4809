/* The time lane: one stream at a time, forced tokens, the engine's clock on. Nothing but time and
 * bytes is measured here: drift would disturb what the timer sees. */
#ifndef KVG_RUN_TIMING_H
#define KVG_RUN_TIMING_H

#include "run/rig.h"

/* Runs the cells of a group of kind TIME (in the plan's random order) or UNCACHED that are not done
 * yet and writes their rows. */
int kvg_timing_group(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err);
/* Runs a little of the group's first cell and throws it away: caches, clocks, page tables. */
int kvg_timing_warm_up(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err);

#endif
