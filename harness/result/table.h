/* Readable tables of a summary as grids of text, for stdout and for the report alike: which
 * strategies make a table, in what order, which columns it has and how numbers are written. Must
 * not know how a grid is drawn. */
#ifndef KVG_RESULT_TABLE_H
#define KVG_RESULT_TABLE_H

#include "result/summary.h"

/* One strategy on one workload. A slice is NULL when that was not measured. */
struct kvg_line {
    const char *strategy, *role; /* strategy: the slices' label */
    const char *key, *query;
    const struct kvg_slice *drift, *free, *time;
    const struct kvg_slice *bytes; /* where its bytes are read from: drift, else free, else time */
    int indistinct;                /* its mean KL is not above the noise floor */
};

/* One workload and, when its forced cells have several, one kind of target. Two questions after one
 * context make sections of their own. */
struct kvg_section {
    const char *workload, *target; /* target "" = no forced cells */
    const char *question;          /* as in a slice */
    struct kvg_line *lines; /* baseline, floor, controls, strategies, oracles; each by falling
                               bytes */
    size_t n_lines;
    size_t n_items; /* most items behind any line */
    double floor;   /* of KL, nats; NaN = not measured */
    size_t n_floor; /* steps behind it */
};

/* Sections live in the run's arena. */
int kvg_sections_make(struct kvg_summary *s, struct kvg_section **sections, size_t *n,
                      struct kvg_err *err);

enum kvg_table_view { KVG_VIEW_MAIN, KVG_VIEW_TAILS, KVG_VIEW_FREE, KVG_N_VIEWS };

/* text[row * n_columns + column]; columns without any number are left out; column 0 is the
 * strategy. In the run's arena. */
struct kvg_grid {
    const char *title;
    size_t n_columns, n_rows;
    const char **heads;
    const char **metrics; /* the metric a column shows, "" for column 0 */
    const char **text;
    const struct kvg_line **lines; /* [n_rows] */
};
/* n_rows = 0 when the view has nothing to show. */
int kvg_grid_make(struct kvg_summary *s, const struct kvg_section *section,
                  enum kvg_table_view view, struct kvg_grid *grid, struct kvg_err *err);

/* A grid as text for a terminal of 100 columns (print.c). */
void kvg_grid_print(const struct kvg_grid *grid, struct kvg_str *out);

/* The marks before a label: 'B' baseline, 'F' floor, 'C' control, 'O' oracle, ' ' strategy. */
char kvg_role_mark(const char *role);

/* "all workloads" for the slice over every one. */
const char *kvg_workload_title(const char *workload);

/* What a section's cells are, to follow the workload's title: "" for ordinary replays. */
const char *kvg_question_title(const char *question);

/* Cells of a run by status. */
void kvg_cells_count(const struct kvg_run *run, size_t *ok, size_t *skipped, size_t *errors);
/* The next cell from `from` on that starts a new kind of failure (status, strategy, reason), and
 * how many cells are of that kind; n_cells when there is none. */
size_t kvg_failures_next(const struct kvg_run *run, size_t from, size_t *n);

/* Numbers for people: 12.3 kB, 1.23e-05. In a static-size buffer of the caller. */
enum { KVG_HUMAN_CAP = 48 };
void kvg_human_bytes(char out[KVG_HUMAN_CAP], double bytes);
void kvg_human_number(char out[KVG_HUMAN_CAP], double v); /* three significant digits */
/* A mean with its interval, or with the number of items when they are too few for one. */
void kvg_human_kl(char out[KVG_HUMAN_CAP], const struct kvg_summary_value *v);

#endif
