/* Strategies that were fitted to the same bytes per token, side by side, best first. Those whose
 * bytes came out more than 2 % off are listed and not ranked. Must not know how a grid is drawn. */
#ifndef KVG_RESULT_EQUAL_H
#define KVG_RESULT_EQUAL_H

#include "result/table.h"

/* The table of the smallest target above `after` (0: of the first one), in the run's arena; n_rows
 * 0 when there is none. *target receives it. */
int kvg_equal_grid(struct kvg_summary *s, const struct kvg_section *section, double after,
                   double *target, struct kvg_grid *grid, struct kvg_err *err);

#endif
