/* Drift lane, free mode: every strategy feeds on its own output from the first turn on. Compared
 * with the baseline's own replies: step by step until the first different token, as text after. */
#ifndef KVG_RUN_FREE_H
#define KVG_RUN_FREE_H

#include "run/rig.h"

/* Runs the cells of a group (kind DRIFT, mode free) that are not done yet and writes their rows. */
int kvg_free_group(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err);

#endif
