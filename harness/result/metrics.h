/* The table of metrics: what each number is, how it is computed and from which columns. `ls
 * metrics`, `explain`, the summary, the report and the gate read it; one row adds a metric. */
#ifndef KVG_RESULT_METRICS_H
#define KVG_RESULT_METRICS_H

#include "result/load.h"

#include <stddef.h>

enum kvg_metric_of {
    KVG_METRIC_OF_STEPS, /* values of steps, pooled over items */
    KVG_METRIC_OF_TURNS, /* values of turns, pooled over items */
    KVG_METRIC_OF_CELLS, /* one value per cell */
    KVG_METRIC_SURVIVAL, /* Kaplan-Meier of first_divergence */
    KVG_METRIC_FLOOR     /* from the floor's cells, see kvg_summary */
};

/* Steps whose logits come from the uncompressed prefill say nothing about a strategy's drift. */
enum kvg_metric_steps { KVG_STEPS_COMPRESSED, KVG_STEPS_UNCOMPRESSED, KVG_STEPS_ALL };

enum {
    KVG_STAT_MEAN = 1, /* sum of values / number of values, or / weights */
    KVG_STAT_P50 = 2,
    KVG_STAT_P90 = 4,
    KVG_STAT_P99 = 8,
    KVG_STAT_MAX = 16,
    KVG_STAT_SUM = 32,
    KVG_STAT_EXP_MEAN = 64, /* exp of the mean */
    KVG_STAT_MEDIAN = 128   /* of survival */
};

struct kvg_metric {
    const char *name, *title, *formula, *unit;
    int direction;       /* -1 lower is better, 1 higher is better, 0 neither */
    const char *sources; /* table.column, separated by spaces */
    const char *note;    /* how to read it; "" = none */
    const char *mode;    /* the cells it needs: forced, free or NULL = any */
    const char *lane;    /* drift, time or NULL = any */
    const char *target;  /* recorded, or NULL = any */
    enum kvg_metric_of of;
    int stats; /* KVG_STAT_... */
    enum kvg_metric_steps which;
    /* The value, NaN = leave out. For cells, value / weight are summed apart when weight is set. */
    double (*of_step)(const struct kvg_run_step *step);
    double (*of_turn)(const struct kvg_run_turn *turn);
    double (*of_cell)(const struct kvg_run *run, const struct kvg_row *cell);
    double (*weight)(const struct kvg_run *run, const struct kvg_row *cell);
};

extern const struct kvg_metric kvg_metrics[]; /* ends with name NULL */

const struct kvg_metric *kvg_metric_find(const char *name);
const char *kvg_stat_name(int stat); /* of one bit: "mean", "p50", ... */
/* Appends what `explain METRIC` shows; KVG_EUSAGE with the nearest name when there is none. */
struct kvg_str;
int kvg_metric_explain(const char *name, struct kvg_str *out, struct kvg_err *err);
/* Appends the list for `ls metrics`. */
void kvg_metric_list(struct kvg_str *out);

#endif
