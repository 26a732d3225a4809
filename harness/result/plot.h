/* Plots of a run, made from its files: for each a <name>.dat (with a header), a complete <name>.gp
 * (`gnuplot <name>.gp` inside the folder makes the pictures again), an .svg and a .png. The scripts
 * are those of plots/, data by column name. */
#ifndef KVG_RESULT_PLOT_H
#define KVG_RESULT_PLOT_H

#include "base/text.h"
#include "result/table.h"

#include <stddef.h>

/* Writes <run_dir>/plots/. `scripts` is the folder of the scripts; NULL looks beside the program
 * (../share/kvgauge/plots, plots, ../plots, ../../plots) and in the current folder. Appends one
 * line per plot to `log` (may be NULL): made, or left out and why. KVG_EUNSUP when gnuplot is not
 * installed, KVG_EIO when it fails. */
int kvg_plot_make(const char *run_dir, const char *scripts, struct kvg_str *log,
                  struct kvg_err *err);

/* The names of all plots in the order of the report, NULL-terminated, and what each shows. */
struct kvg_plot_info {
    const char *name, *title, *text;
};
extern const struct kvg_plot_info kvg_plots[];

#endif
