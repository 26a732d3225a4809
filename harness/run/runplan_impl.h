/* Private to the plan: what its files share. */
#ifndef KVG_RUN_RUNPLAN_IMPL_H
#define KVG_RUN_RUNPLAN_IMPL_H

#include "run/runplan.h"

/* runcells.c: cells and groups of a plan whose strategies and items are known. */
int kvg_runplan_add_cells(struct kvg_runplan *p, struct kvg_err *err);
/* Length of the conversation that a lane and mode feed of an item, at most. */
size_t kvg_plan_item_length(const struct kvg_runplan *p, const struct kvg_plan_item *it,
                            enum kvg_lane lane, enum kvg_mode mode);

#endif
