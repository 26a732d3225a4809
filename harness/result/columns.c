/* The column tables of columns.h as data. Owns nothing else. */
#include "result/columns.h"

#include <string.h>

#define COUNT(T, name, type, required, unit, help) +1
#define ROW(T, name, type, required, unit, help) {#name, KVG_COL_##type, required, unit, help},

/* One table: its columns, the check of KVG_COLUMNS_MAX, the descriptor. */
#define TABLE(lower, LIST, text)                                                                   \
    static const struct kvg_column lower##_columns[] = {LIST(ROW)};                                \
    _Static_assert(0 LIST(COUNT) <= KVG_COLUMNS_MAX, "raise KVG_COLUMNS_MAX");                     \
    const struct kvg_table kvg_table_##lower = {#lower, text, lower##_columns, 0 LIST(COUNT)}

TABLE(cells, KVG_CELLS_COLUMNS, "one row per cell; in the time lane one per round");
TABLE(turns, KVG_TURNS_COLUMNS, "one row per turn of a cell");
TABLE(steps, KVG_STEPS_COLUMNS, "one row per step of a reply: drift, or time by phase");
TABLE(kept, KVG_KEPT_COLUMNS, "which positions each layer keeps, for one item");
TABLE(bench, KVG_BENCH_COLUMNS, "speed at a depth, in the vocabulary of llama-bench");
TABLE(recall, KVG_RECALL_COLUMNS, "facts asked back on the constructed recall model, one a row");
TABLE(summary, KVG_SUMMARY_COLUMNS, "every number of the summary, one a row");

const struct kvg_table *const kvg_tables[] = {
    &kvg_table_cells,
    &kvg_table_turns,
    &kvg_table_steps,
    &kvg_table_kept,
    &kvg_table_bench,
    &kvg_table_recall,
    &kvg_table_summary,
    NULL,
};

const struct kvg_table *kvg_table_find(const char *name)
{
    for (size_t i = 0; kvg_tables[i]; i++)
        if (!strcmp(kvg_tables[i]->name, name))
            return kvg_tables[i];
    return NULL;
}

int kvg_table_column(const struct kvg_table *table, const char *name)
{
    for (size_t i = 0; i < table->n_columns; i++)
        if (!strcmp(table->columns[i].name, name))
            return (int)i;
    return -1;
}
