/* recall.csv counted: facts recalled and asked by strategy, query and length, and by the third of
 * the text they stood in. Must not know how recall is measured. */
#ifndef KVG_RESULT_RECALL_H
#define KVG_RESULT_RECALL_H

#include "result/csv.h"
#include "result/table.h"

struct kvg_recall_count {
    size_t recalled, asked;
};

/* One strategy, query and length. */
struct kvg_recall_sum {
    const char *strategy, *role, *query;
    uint64_t length;
    struct kvg_recall_count all, third[3]; /* third: early, middle and late facts */
    const char *reason;                    /* why it was skipped; NULL = it was not */
};

struct kvg_recall {
    struct kvg_arena arena;   /* owns every text */
    struct kvg_recall_sum *v; /* in the order of the rows */
    size_t n, cap;
};

void kvg_recall_init(struct kvg_recall *r);
void kvg_recall_release(struct kvg_recall *r);
/* Counts one row of the recall table. KVG_ENOMEM. */
int kvg_recall_add(struct kvg_recall *r, const struct kvg_row *row, struct kvg_err *err);
/* Counts <run_dir>/recall.csv; nothing when there is no such file. */
int kvg_recall_load(struct kvg_recall *r, const char *run_dir, struct kvg_err *err);

/* The table of one query ("unseen", "seen"): strategies by lengths. n_rows 0 when nothing was
 * measured. In the arena of r. */
int kvg_recall_grid(struct kvg_recall *r, const char *query, struct kvg_grid *grid,
                    struct kvg_err *err);
/* The queries there are tables of, NULL-terminated. */
extern const char *const kvg_recall_queries[];

#endif
