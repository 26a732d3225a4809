/* The summary of a run: every metric of every slice, in long form, as rows in memory, as
 * summary.csv and as the readable tables of stdout. Reads files only. */
#ifndef KVG_RESULT_SUMMARY_H
#define KVG_RESULT_SUMMARY_H

#include "base/text.h"
#include "result/slice.h"

struct kvg_summary_value {
    const struct kvg_slice *slice;
    const struct kvg_metric *metric;
    const char *stat;
    double value, lo, hi; /* lo, hi: NaN = no interval */
    size_t n, n_items;
    const char *note; /* "" = none; several are separated by "; " */
};

struct kvg_summary {
    struct kvg_run run;
    struct kvg_slices slices;
    struct kvg_summary_value *v;
    size_t n, cap;
};

/* Loads the run folder and computes everything; without a finished cell there are no values.
 * Release also after a failure. */
int kvg_summary_open(struct kvg_summary *s, const char *run_dir, struct kvg_err *err);
void kvg_summary_release(struct kvg_summary *s);

/* NULL when there is no such value. `stat` NULL = the metric's first one. */
const struct kvg_summary_value *kvg_summary_find(const struct kvg_summary *s,
                                                 const struct kvg_slice *slice, const char *metric,
                                                 const char *stat);

/* Writes <run_dir>/summary.csv. */
int kvg_summary_make(const char *run_dir, struct kvg_err *err);

/* Appends the readable tables. */
int kvg_summary_print(const char *run_dir, struct kvg_str *out, struct kvg_err *err);

#endif
