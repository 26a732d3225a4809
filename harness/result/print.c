/* The summary as text for a terminal of 100 columns. Returns text; prints nothing. */
#include "result/equal.h"
#include "result/recall.h"
#include "result/table.h"

#include <math.h>
#include <string.h>

enum { TERMINAL_COLUMNS = 100, LABEL_LEAST = 16 };

static void pad(struct kvg_str *out, size_t n)
{
    while (n--)
        kvg_str_addc(out, ' ');
}

static size_t column_width(const struct kvg_grid *g, size_t c)
{
    size_t w = strlen(g->heads[c]);
    for (size_t r = 0; r < g->n_rows; r++) {
        size_t n = strlen(g->text[r * g->n_columns + c]);
        if (n > w)
            w = n;
    }
    return w;
}

static void put_numbers(struct kvg_str *out, const struct kvg_grid *g, const char **row, size_t gap)
{
    for (size_t c = 1; c < g->n_columns; c++) {
        size_t w = column_width(g, c), n = strlen(row[c]);
        pad(out, gap + w - n);
        kvg_str_add(out, row[c]);
    }
    kvg_str_addc(out, '\n');
}

/* Labels that do not fit stand on a line of their own. */
static void put_row(struct kvg_str *out, const struct kvg_grid *g, const char **row, char mark,
                    size_t label_width, size_t gap)
{
    size_t n = strlen(row[0]);
    kvg_str_addf(out, "%c %s", mark, row[0]);
    if (n > label_width) {
        kvg_str_addc(out, '\n');
        pad(out, 2 + label_width);
    } else {
        pad(out, label_width - n);
    }
    put_numbers(out, g, row, gap);
}

void kvg_grid_print(const struct kvg_grid *g, struct kvg_str *out)
{
    size_t numbers = 2, label = column_width(g, 0), gap = 2;
    for (size_t c = 1; c < g->n_columns; c++)
        numbers += gap + column_width(g, c);
    if (numbers + LABEL_LEAST > TERMINAL_COLUMNS) {
        gap = 1;
        numbers -= g->n_columns - 1;
    }
    size_t room =
        numbers + LABEL_LEAST < TERMINAL_COLUMNS ? TERMINAL_COLUMNS - numbers : LABEL_LEAST;
    if (label > room)
        label = room;
    kvg_str_addf(out, "\n%s\n", g->title);
    put_row(out, g, g->heads, ' ', label, gap);
    for (size_t r = 0; r < g->n_rows; r++)
        put_row(out, g, g->text + r * g->n_columns, kvg_role_mark(g->lines[r]->role), label, gap);
}

static void put_floor(struct kvg_str *out, const struct kvg_section *s)
{
    char number[KVG_HUMAN_CAP];
    size_t n = 0;
    if (!s->target[0])
        return;
    if (isnan(s->floor)) {
        kvg_str_add(out, "noise floor: not measured, so small drifts may be rounding\n");
        return;
    }
    kvg_human_number(number, s->floor);
    kvg_str_addf(out, "noise floor: KL %s nats (%zu steps%s)\n", number, s->n_floor,
                 kvg_stats_is_few(s->n_floor, 0.99) ? ", few" : "");
    for (size_t i = 0; i < s->n_lines; i++)
        if (s->lines[i].indistinct)
            kvg_str_addf(out, "%s%s", n++ ? ", " : "not distinguishable from the baseline: ",
                         s->lines[i].strategy);
    if (n)
        kvg_str_addc(out, '\n');
}

static void put_legend(struct kvg_str *out, size_t from)
{
    int has_few = strchr(out->s + from, '?') != NULL, has_less = strchr(out->s + from, '*') != NULL;
    int has_oracle = strstr(out->s + from, "\nO ") != NULL;
    int has_query = strstr(out->s + from, "seen)") || strstr(out->s + from, "(unseen, ");
    kvg_str_add(out, "\nB baseline  F floor  C control");
    if (has_oracle)
        kvg_str_add(out, "  O oracle, not deployable");
    if (has_few)
        kvg_str_add(out, "  ? few values beyond the percentile");
    if (has_less)
        kvg_str_add(out, "  * fewer items than others");
    kvg_str_add(out, "\nKL in nats over steps; [ ] 95 % bootstrap over items, n = items when under "
                     "20\n");
    if (has_query)
        kvg_str_add(out, "(unseen): compressed before the question came; (seen): with it\n");
}

static int put_equal(struct kvg_str *out, struct kvg_summary *s, const struct kvg_section *x,
                     struct kvg_err *err)
{
    double target = 0;
    for (;;) {
        struct kvg_grid g;
        int rc = kvg_equal_grid(s, x, target, &target, &g, err);
        if (rc || !g.n_rows)
            return rc;
        kvg_grid_print(&g, out);
    }
}

static int put_section(struct kvg_str *out, struct kvg_summary *s, const struct kvg_section *x,
                       struct kvg_err *err)
{
    int rc = KVG_OK;
    kvg_str_addf(out, "\n== %s%s%s%s%s: %zu items ==\n", kvg_workload_title(x->workload),
                 x->target[0] ? ", forced on " : "", x->target, x->target[0] ? " replies" : "",
                 kvg_question_title(x->question), x->n_items);
    for (int view = 0; view < KVG_N_VIEWS && !rc; view++) {
        struct kvg_grid g;
        rc = kvg_grid_make(s, x, (enum kvg_table_view)view, &g, err);
        if (!rc && g.n_rows)
            kvg_grid_print(&g, out);
        if (!rc && view == KVG_VIEW_MAIN)
            put_floor(out, x);
    }
    return rc ? rc : put_equal(out, s, x, err);
}

static void put_failures(struct kvg_str *out, const struct kvg_run *run)
{
    size_t n, at = kvg_failures_next(run, 0, &n);
    if (at < run->n_cells)
        kvg_str_add(out, "\nnot measured\n");
    for (; at < run->n_cells; at = kvg_failures_next(run, at + 1, &n))
        kvg_str_addf(out, "  %s  %s  (%zu cells)  %s\n", kvg_run_cell(run, at, KVG_CELLS_status),
                     kvg_run_cell(run, at, KVG_CELLS_strategy), n,
                     kvg_run_cell(run, at, KVG_CELLS_reason));
}

static void put_head(struct kvg_str *out, const struct kvg_run *run)
{
    const struct kvg_manifest_identity *id = &run->manifest.identity;
    size_t ok, skipped, errors;
    kvg_cells_count(run, &ok, &skipped, &errors);
    kvg_str_addf(out, "run %s  suite %s  model %s\n", run->id, id->suite, id->model_name);
    kvg_str_addf(out, "%s: %zu cells measured, %zu skipped, %zu failed\n",
                 kvg_status_name(run->status), ok, skipped, errors);
    if (run->n_orphans)
        kvg_str_addf(out, "%zu rows of unfinished cells left out\n", run->n_orphans);
}

static int put_recall(struct kvg_str *out, const char *run_dir, struct kvg_err *err)
{
    struct kvg_recall r;
    kvg_recall_init(&r);
    int rc = kvg_recall_load(&r, run_dir, err);
    for (size_t q = 0; kvg_recall_queries[q] && !rc; q++) {
        struct kvg_grid g;
        rc = kvg_recall_grid(&r, kvg_recall_queries[q], &g, err);
        if (!rc && g.n_rows)
            kvg_grid_print(&g, out);
    }
    kvg_recall_release(&r);
    return rc;
}

int kvg_summary_print(const char *run_dir, struct kvg_str *out, struct kvg_err *err)
{
    struct kvg_summary s;
    struct kvg_section *sections;
    size_t n = 0, from = out->len;
    int rc = kvg_summary_open(&s, run_dir, err);
    if (!rc)
        rc = kvg_sections_make(&s, &sections, &n, err);
    if (rc)
        goto out;
    put_head(out, &s.run);
    for (size_t i = 0; i < n && !rc; i++)
        rc = put_section(out, &s, &sections[i], err);
    if (!rc)
        rc = put_recall(out, run_dir, err);
    if (n && !rc && !out->failed)
        put_legend(out, from);
    put_failures(out, &s.run);
    if (!rc && out->failed)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while printing '%s'", run_dir);
out:
    kvg_summary_release(&s);
    return rc;
}
