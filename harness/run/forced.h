/* Drift lane, forced mode: all strategies of an item replay the same tokens in lockstep and are
 * scored against the baseline at every step. Includes the floor arm: a strategy against itself at
 * another CPU level. */
#ifndef KVG_RUN_FORCED_H
#define KVG_RUN_FORCED_H

#include "run/rig.h"

/* Runs the cells of a group (kind DRIFT, mode forced) that are not done yet and writes their rows.
 * KVG_EINTR leaves the group's unfinished cells without rows. */
int kvg_forced_group(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err);

#endif
