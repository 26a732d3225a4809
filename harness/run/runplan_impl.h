/* Private to the plan: what its files share. */
#ifndef KVG_RUN_RUNPLAN_IMPL_H
#define KVG_RUN_RUNPLAN_IMPL_H

#include "run/runplan.h"

/* runcells.c: cells and groups of a plan whose strategies and items are known. */
int kvg_runplan_add_cells(struct kvg_runplan *p, struct kvg_err *err);
/* Length of the conversation that a lane and mode feed of an item, at most. */
size_t kvg_plan_item_length(const struct kvg_runplan *p, const struct kvg_item_tokens *t,
                            enum kvg_lane lane, enum kvg_mode mode);

/* runfit.c: label of a spec at a target, and the budgets of all strategies that have one. */
const char *kvg_fit_label(const char *spec, const char *keeper, double target,
                          struct kvg_arena *a);
/* A resolved spec whose budget is fitted item by item. */
const char *kvg_fit_resolved(const char *resolved, const char *keeper, double target,
                             struct kvg_arena *a);
int kvg_runplan_fit(struct kvg_runplan *p, struct kvg_err *err);

#endif
