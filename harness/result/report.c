/* Puts the report together. Every number comes from the summary, every explanation from the table
 * of metrics. */
#include "result/report.h"

#include "base/fs.h"
#include "result/plot.h"
#include "result/equal.h"
#include "result/recall.h"
#include "result/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SVG_MOST = 64 << 20 };

static const char style[] =
    ":root{color-scheme:light}*{box-sizing:border-box}"
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:0 auto;"
    "padding:1rem;max-width:70rem;overflow-wrap:break-word}"
    "h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.25rem;margin-top:2.5rem;"
    "border-bottom:1px solid #ccc}h3{font-size:1.05rem;margin-top:1.5rem}"
    ".scroll{overflow-x:auto;border:1px solid #ddd;border-radius:4px}"
    "table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;"
    "min-width:100%}"
    "th,td{padding:.3rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #eee}"
    "th{background:#f5f5f5;font-weight:600}tr:last-child td{border-bottom:0}"
    "th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff;"
    "white-space:normal;min-width:8.5rem;max-width:16rem;overflow-wrap:anywhere;"
    "border-right:1px solid #ddd}"
    "th:first-child{background:#f5f5f5}.text td,.text th{text-align:left;white-space:normal;"
    "overflow-wrap:break-word;min-width:4.5rem;vertical-align:top;position:static}"
    "code{overflow-wrap:anywhere}"
    ".tag{font-size:.75rem;color:#555;border:1px solid #bbb;border-radius:3px;padding:0 .25rem}"
    ".same{color:#555;font-style:italic}.warn{background:#fff4e0;border-left:4px solid #E69F00;"
    "padding:.5rem .8rem}figure{margin:1rem 0}figure svg{width:100%;height:auto;display:block;"
    "border:1px solid #eee}figcaption{font-size:.9rem;color:#444}"
    "dl{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.2rem 1rem}"
    "dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}"
    "pre{background:#f5f5f5;padding:.6rem;overflow-x:auto}a{color:#0058a0}"
    "@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}"
    "figure .wide{overflow-x:auto}figure .wide svg{width:44rem}}"
    "@media print{body{max-width:none;font-size:10pt}.scroll{overflow:visible;border:0}"
    "table{font-size:7.5pt}th,td{padding:.1rem .25rem}th:first-child,td:first-child"
    "{position:static;min-width:0}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}";

static void put_head(struct kvg_str *o, const struct kvg_run *run)
{
    kvg_str_add(o, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                   "<title>kvgauge: ");
    kvg_html_text(o, run->manifest.identity.suite);
    kvg_str_addc(o, ' ');
    kvg_html_text(o, run->id);
    kvg_str_addf(o,
                 "</title>\n<style>%s</style></head>\n<body>\n<h1>What these KV-cache strategies "
                 "cost and what they break</h1>\n",
                 style);
}

static void put_pair(struct kvg_str *o, const char *key, const char *value)
{
    if (!value || !*value)
        return;
    kvg_str_add(o, "<dt>");
    kvg_html_text(o, key);
    kvg_str_add(o, "</dt><dd>");
    kvg_html_text(o, value);
    kvg_str_add(o, "</dd>\n");
}

static void put_what(struct kvg_str *o, const struct kvg_run *run)
{
    const struct kvg_manifest_identity *id = &run->manifest.identity;
    const struct kvg_manifest_context *c = &run->manifest.context;
    size_t ok, skipped, errors;
    char text[160];
    kvg_cells_count(run, &ok, &skipped, &errors);
    if (run->status != KVG_STATUS_COMPLETE)
        kvg_str_addf(o,
                     "<p class=\"warn\">This run is %s: the numbers cover what was finished.</p>\n",
                     kvg_status_name(run->status));
    kvg_str_add(o, "<dl>\n");
    put_pair(o, "run", run->id);
    put_pair(o, "suite", id->suite);
    put_pair(o, "model", id->model_name);
    put_pair(o, "processor", c->cpu);
    put_pair(o, "started", c->start);
    snprintf(text, sizeof text, "%zu measured, %zu skipped, %zu failed", ok, skipped, errors);
    put_pair(o, "cells", text);
    kvg_str_add(o, "</dl>\n<p>One sequence at a time (batch 1). Every strategy replays the same "
                   "items; drift is measured against the baseline, which recomputes full attention "
                   "without a cache.</p>\n");
}

static void put_strategy(struct kvg_str *o, const struct kvg_line *line)
{
    kvg_html_text(o, line->strategy);
    if (strcmp(line->role, "strategy")) {
        kvg_str_add(o, " <span class=\"tag\">");
        kvg_html_text(o, line->role);
        kvg_str_add(o, "</span>");
    }
    if (line->indistinct)
        kvg_str_add(o, " <span class=\"same\">not distinguishable</span>");
}

static void put_header(struct kvg_str *o, const struct kvg_grid *g)
{
    kvg_str_add(o, "<thead><tr>");
    for (size_t c = 0; c < g->n_columns; c++) {
        kvg_str_add(o, "<th scope=\"col\">");
        int linked = g->metrics[c] && g->metrics[c][0];
        if (linked)
            kvg_str_addf(o, "<a href=\"#m-%s\">", g->metrics[c]);
        kvg_html_text(o, g->heads[c]);
        kvg_str_add(o, linked ? "</a></th>" : "</th>");
    }
    kvg_str_add(o, "</tr></thead>\n<tbody>\n");
}

static void put_grid(struct kvg_str *o, const struct kvg_grid *g)
{
    kvg_str_addf(o, "<h3>%s</h3>\n<div class=\"scroll\" tabindex=\"0\"><table>", g->title);
    put_header(o, g);
    for (size_t r = 0; r < g->n_rows; r++) {
        kvg_str_add(o, "<tr><td>");
        put_strategy(o, g->lines[r]);
        kvg_str_add(o, "</td>");
        for (size_t c = 1; c < g->n_columns; c++) {
            kvg_str_add(o, "<td>");
            kvg_html_text(o, g->text[r * g->n_columns + c]);
            kvg_str_add(o, "</td>");
        }
        kvg_str_add(o, "</tr>\n");
    }
    kvg_str_add(o, "</tbody></table></div>\n");
}

static void put_floor(struct kvg_str *o, const struct kvg_section *s)
{
    char number[KVG_HUMAN_CAP];
    if (!s->target[0])
        return;
    if (isnan(s->floor)) {
        kvg_str_add(o, "<p class=\"warn\">The noise floor was not measured: small drifts may be "
                       "rounding.</p>\n");
        return;
    }
    kvg_human_number(number, s->floor);
    kvg_str_addf(o,
                 "<p>Noise floor: KL %s nats (%zu steps%s). A mean KL at or under it is marked "
                 "<span class=\"same\">not distinguishable</span> and is not a win.</p>\n",
                 number, s->n_floor, kvg_stats_is_few(s->n_floor, 0.99) ? ", few" : "");
}

static int put_section(struct kvg_str *o, struct kvg_summary *s, const struct kvg_section *x,
                       struct kvg_err *err)
{
    int rc = KVG_OK;
    kvg_str_add(o, "<h2>");
    kvg_html_text(o, kvg_workload_title(x->workload));
    if (x->target[0]) {
        kvg_str_add(o, ", forced on ");
        kvg_html_text(o, x->target);
        kvg_str_add(o, " replies");
    }
    kvg_html_text(o, kvg_question_title(x->question));
    kvg_str_addf(o, ": %zu items</h2>\n", x->n_items);
    for (int view = 0; view < KVG_N_VIEWS && !rc; view++) {
        struct kvg_grid g;
        rc = kvg_grid_make(s, x, (enum kvg_table_view)view, &g, err);
        if (!rc && g.n_rows)
            put_grid(o, &g);
        if (!rc && view == KVG_VIEW_MAIN)
            put_floor(o, x);
    }
    for (double target = 0; !rc;) {
        struct kvg_grid g;
        rc = kvg_equal_grid(s, x, target, &target, &g, err);
        if (rc || !g.n_rows)
            break;
        put_grid(o, &g);
    }
    return rc;
}

static int put_recall(struct kvg_str *o, const struct kvg_run *run, struct kvg_err *err)
{
    struct kvg_recall r;
    kvg_recall_init(&r);
    int rc = kvg_recall_load(&r, run->dir, err);
    if (!rc && r.n)
        kvg_str_add(o, "<h2>Recall on the constructed model</h2>\n<p>A model with hand-set weights "
                       "that recalls every fact from an exact cache: what is wrong here the cache "
                       "has lost. Columns count facts recalled of those asked by length of the "
                       "text, then shares over all lengths: all facts, and those of the first, "
                       "second and last third of the text.</p>\n");
    for (size_t q = 0; kvg_recall_queries[q] && !rc; q++) {
        struct kvg_grid g;
        rc = kvg_recall_grid(&r, kvg_recall_queries[q], &g, err);
        if (!rc && g.n_rows)
            put_grid(o, &g);
    }
    kvg_recall_release(&r);
    return rc;
}

static void put_plots(struct kvg_str *o, const struct kvg_run *run)
{
    int any = 0;
    for (const struct kvg_plot_info *p = kvg_plots; p->name; p++) {
        char path[4200], prefix[64], *svg = NULL;
        size_t n = 0;
        snprintf(path, sizeof path, "%s/plots/%s.svg", run->dir, p->name);
        if (!kvg_fs_exists(path) || kvg_fs_read(path, SVG_MOST, &svg, &n, NULL))
            continue;
        if (!any++)
            kvg_str_add(o, "<h2>Plots</h2>\n");
        snprintf(prefix, sizeof prefix, "%s-", p->name);
        kvg_str_addf(o, "<figure role=\"img\" aria-label=\"%s\"><div class=\"wide\">", p->title);
        kvg_html_svg(o, svg, prefix);
        kvg_str_addf(o, "</div><figcaption><b>%s.</b> %s</figcaption></figure>\n", p->title,
                     p->text);
        free(svg);
    }
}

static void put_failures(struct kvg_str *o, const struct kvg_run *run)
{
    size_t n, at = kvg_failures_next(run, 0, &n);
    if (at == run->n_cells)
        return;
    kvg_str_add(o, "<h2>Not measured</h2>\n<div class=\"scroll\" tabindex=\"0\"><table "
                   "class=\"text\"><thead><tr><th>strategy</th><th>cells</th><th>status</th>"
                   "<th>reason</th></tr></thead><tbody>\n");
    for (; at < run->n_cells; at = kvg_failures_next(run, at + 1, &n)) {
        kvg_str_add(o, "<tr><td>");
        kvg_html_text(o, kvg_run_cell(run, at, KVG_CELLS_strategy));
        kvg_str_addf(o, "</td><td>%zu</td><td>", n);
        kvg_html_text(o, kvg_run_cell(run, at, KVG_CELLS_status));
        kvg_str_add(o, "</td><td>");
        kvg_html_text(o, kvg_run_cell(run, at, KVG_CELLS_reason));
        kvg_str_add(o, "</td></tr>\n");
    }
    kvg_str_add(o, "</tbody></table></div>\n");
}

static int is_measured(const struct kvg_summary *s, const struct kvg_metric *m)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].metric == m)
            return 1;
    return 0;
}

static void put_metrics(struct kvg_str *o, const struct kvg_summary *s)
{
    static const char *const better[] = {"lower is better", "", "higher is better"};
    kvg_str_add(o,
                "<h2>What the numbers mean</h2>\n<p>[ ] is a 95 % interval: bootstrap over items "
                "(2000 resamples), none under 20 items. ? marks a percentile with fewer than 10 "
                "values beyond it. * marks a number from fewer items than others in its column, "
                "not to be compared with them.</p>\n<dl>\n");
    for (const struct kvg_metric *m = kvg_metrics; m->name; m++) {
        if (!is_measured(s, m))
            continue;
        kvg_str_addf(o, "<dt id=\"m-%s\">", m->name);
        kvg_html_text(o, m->title);
        kvg_str_add(o, "</dt><dd>");
        kvg_html_text(o, m->formula);
        if (m->unit[0] && strcmp(m->unit, "x") && strcmp(m->unit, "share")) {
            kvg_str_add(o, ", in ");
            kvg_html_text(o, m->unit);
        }
        kvg_str_addf(o, "%s%s. ", m->direction ? "; " : "", better[m->direction + 1]);
        kvg_html_text(o, m->note);
        kvg_str_add(o, "</dd>\n");
    }
    kvg_str_add(o, "</dl>\n");
}

static void put_workloads(struct kvg_str *o, const struct kvg_manifest_identity *id)
{
    if (!id->n_workloads)
        return;
    kvg_str_add(o, "<h2>Workloads and their licences</h2>\n<div class=\"scroll\" tabindex=\"0\">"
                   "<table class=\"text\"><thead><tr><th>workload</th><th>licence</th>"
                   "<th>source</th><th>file, SHA-256</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < id->n_workloads; i++) {
        const struct kvg_manifest_workload *w = &id->workloads[i];
        kvg_str_add(o, "<tr><td>");
        kvg_html_text(o, w->name);
        kvg_str_add(o, "</td><td>");
        kvg_html_text(o, w->licence[0] ? w->licence : "not stated");
        kvg_str_add(o, "</td><td>");
        kvg_html_text(o, w->source);
        kvg_str_add(o, "</td><td>");
        kvg_html_text(o, w->path);
        kvg_str_add(o, "<br><code>");
        kvg_html_text(o, w->sha256);
        kvg_str_add(o, "</code></td></tr>\n");
    }
    kvg_str_add(o, "</tbody></table></div>\n");
}

static int put_manifest(struct kvg_str *o, const struct kvg_run *run, struct kvg_err *err)
{
    char path[4200], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/manifest.json", run->dir);
    int rc = kvg_fs_read(path, (size_t)1 << 26, &text, &n, err);
    if (rc)
        return rc;
    kvg_str_add(o, "<h2>How to make it again</h2>\n");
    if (run->manifest.context.command[0]) {
        kvg_str_add(o, "<pre>");
        kvg_html_text(o, run->manifest.context.command);
        kvg_str_add(o, "</pre>\n");
    }
    kvg_str_add(o, "<p>The same identity (below) gives the same drift, bytes and counters; times "
                   "depend on the context. Every plot can be made again with <code>gnuplot "
                   "NAME.gp</code> in the folder <code>plots</code>.</p>\n"
                   "<details><summary>manifest.json</summary><pre>");
    kvg_html_text(o, text);
    kvg_str_add(o, "</pre></details>\n");
    free(text);
    return KVG_OK;
}

static int write_report(struct kvg_str *o, struct kvg_summary *s, struct kvg_err *err)
{
    struct kvg_section *sections;
    char path[4200];
    size_t n = 0;
    int rc = kvg_sections_make(s, &sections, &n, err);
    put_head(o, &s->run);
    put_what(o, &s->run);
    for (size_t i = 0; i < n && !rc; i++)
        rc = put_section(o, s, &sections[i], err);
    if (!n)
        kvg_str_add(o, "<p class=\"warn\">Nothing was measured.</p>\n");
    rc = rc ? rc : put_recall(o, &s->run, err);
    put_plots(o, &s->run);
    put_failures(o, &s->run);
    put_metrics(o, s);
    put_workloads(o, &s->run.manifest.identity);
    rc = rc ? rc : put_manifest(o, &s->run, err);
    kvg_str_add(o, "</body></html>\n");
    snprintf(path, sizeof path, "%s/report.html", s->run.dir);
    if (!rc && o->failed)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while writing '%s'", path);
    return rc ? rc : kvg_fs_write_atomic(path, o->s, o->len, err);
}

int kvg_report_make(const char *run_dir, struct kvg_err *err)
{
    struct kvg_summary s;
    struct kvg_str o = {0};
    int rc = kvg_summary_open(&s, run_dir, err);
    if (!rc)
        rc = write_report(&o, &s, err);
    kvg_str_release(&o);
    kvg_summary_release(&s);
    return rc;
}
