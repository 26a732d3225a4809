/* Shared by the plot files: a plot being written, and label placing. Not for other layers. */
#ifndef KVG_RESULT_PLOT_IMPL_H
#define KVG_RESULT_PLOT_IMPL_H

#include "result/plot.h"

/* The data file and the settings put before the script. */
struct kvg_plot {
    struct kvg_summary *summary;
    const struct kvg_section *sections;
    size_t n_sections;
    struct kvg_str dat;  /* the data, or empty: nothing to plot */
    struct kvg_str vars; /* gnuplot assignments */
    const char *why_not; /* set when there is nothing to plot */
    struct kvg_err *err;
};

/* Each fills dat and vars, or why_not. */
typedef int (*kvg_plot_fn)(struct kvg_plot *p);
int kvg_plot_drift_bytes(struct kvg_plot *p);
int kvg_plot_latency_context(struct kvg_plot *p);
int kvg_plot_bytes_turns(struct kvg_plot *p);
int kvg_plot_drift_turn(struct kvg_plot *p);
int kvg_plot_survival(struct kvg_plot *p);
int kvg_plot_kept_map(struct kvg_plot *p);

/* The picture in pixels and its text, as plots/style.gp has them. */
enum { PLOT_WIDTH = 1000, PLOT_HEIGHT = 600, PLOT_CHAR = 8, PLOT_LINE = 19 };

/* The overall section when there is one, else the one with most items; NULL = none. with_drift:
 * only sections with forced drift. */
const struct kvg_section *kvg_plot_section(const struct kvg_plot *p, int with_drift);

/* Texts for gnuplot: quotes doubled, at most `most` characters (the middle is left out). */
void kvg_plot_quote(struct kvg_str *out, const char *s, size_t most);
/* A text of a data file: in double quotes, those inside become single ones. */
void kvg_plot_put_text(struct kvg_str *out, const char *s, size_t most);

/* A line of a chart with its label at the right margin. */
struct kvg_series {
    const char *name;
    size_t index; /* block of the data file, and colour */
    double end;   /* where it ends, in the same unit as the axis (log10 for a log axis) */
    double label; /* where its label goes */
};
/* Spreads labels so that none overlap: at least `gap` apart within [lo, hi], order kept. Sorts. */
void kvg_plot_spread(struct kvg_series *v, size_t n, double gap, double lo, double hi);

/* Assigns n_<prefix>, <prefix>_text[], _y[] (axis units), _series[] and <prefix>_margin (screen).
 * `log`: the axis is logarithmic; lo, hi and end are log10. height_px: of the plot area. */
void kvg_plot_put_series(struct kvg_plot *p, const char *prefix, struct kvg_series *v, size_t n,
                         double lo, double hi, int log, double height_px);

#endif
