/* Owns what --dry-run shows. Must not know how a plan is made. */
#include "run/runplan.h"

#include <string.h>

struct tally {
    size_t n_cells, n_todo, n_items;
    double seconds;
};

static void add_time(struct kvg_str *out, double s)
{
    if (s < 90)
        kvg_str_addf(out, "%.0f s", s);
    else
        kvg_str_addf(out, "%.1f min", s / 60);
}

static struct tally count(const struct kvg_runplan *p, enum kvg_group_kind kind, enum kvg_mode mode)
{
    struct tally t = {0};
    for (size_t i = 0; i < p->n_groups; i++) {
        const struct kvg_group *g = &p->groups[i];
        if (g->kind != kind || (kind == KVG_GROUP_DRIFT && g->mode != mode))
            continue;
        t.n_items += g->round == 0;
        t.seconds += g->est_seconds;
        t.n_cells += g->n;
        for (size_t c = g->first; c < g->first + g->n; c++)
            t.n_todo += p->cells[c].status == KVG_CELL_TODO;
    }
    return t;
}

static void add_lane(const struct kvg_runplan *p, enum kvg_group_kind kind, enum kvg_mode mode,
                     const char *name, struct kvg_str *out)
{
    struct tally t = count(p, kind, mode);
    if (t.n_cells == 0)
        return;
    kvg_str_addf(out, "  %-28s %6zu cells  %4zu items  ", name, t.n_cells, t.n_items);
    if (p->est_seconds > 0) {
        kvg_str_add(out, "about ");
        add_time(out, t.seconds);
    }
    if (t.n_todo < t.n_cells)
        kvg_str_addf(out, "  (%zu not run)", t.n_cells - t.n_todo);
    kvg_str_addc(out, '\n');
}

static void add_strategies(const struct kvg_runplan *p, struct kvg_str *out)
{
    kvg_str_addf(out, "strategies (store: largest the longest item may take)\n");
    for (size_t i = 0; i < p->n_strategies; i++) {
        const struct kvg_plan_strategy *s = &p->strategies[i];
        kvg_str_addf(out, "  %-28s %-8s  store %6.1f MB  %s\n", s->label,
                     kvg_role_name(s->pipe.role), (double)s->store_bytes / 1e6, s->resolved);
    }
}

/* Cells that are not run, those of one reason and strategy together. */
static void add_skipped(const struct kvg_runplan *p, struct kvg_str *out)
{
    for (size_t i = 0; i < p->n_cells; i++) {
        const struct kvg_cell *c = &p->cells[i];
        if (c->status == KVG_CELL_TODO)
            continue;
        size_t n = 0, first = i;
        for (size_t k = 0; k < p->n_cells; k++) {
            const struct kvg_cell *d = &p->cells[k];
            int same = d->status == c->status && d->strategy == c->strategy && d->lane == c->lane &&
                       d->mode == c->mode && !strcmp(d->reason, c->reason);
            first = same && k < first ? k : first;
            n += (size_t)same;
        }
        if (first == i)
            kvg_str_addf(out, "  %s %s %s, %zu cell%s: %s\n",
                         c->status == KVG_CELL_SKIPPED ? "skipped" : "error",
                         p->strategies[c->strategy].label, kvg_lane_name(c->lane), n,
                         n == 1 ? "" : "s", c->reason);
    }
}

void kvg_runplan_print(const struct kvg_runplan *p, struct kvg_str *out)
{
    kvg_str_addf(out, "suite %s, model %s (%s)\n", p->suite->name, p->model->name, p->model_file);
    for (size_t i = 0; i < p->n_workloads; i++) {
        const struct kvg_workload *w = &p->workloads[i].w;
        kvg_str_addf(out, "workload %s: %zu items in %s\n", w->name, w->n_items, w->path);
    }
    add_strategies(p, out);
    kvg_str_addf(out, "cells: %zu, of which %zu are run\n", p->n_cells, p->n_todo);
    add_lane(p, KVG_GROUP_DRIFT, KVG_MODE_FORCED, "drift, forced", out);
    add_lane(p, KVG_GROUP_DRIFT, KVG_MODE_FREE, "drift, free", out);
    add_lane(p, KVG_GROUP_TIME, KVG_MODE_FORCED, "time", out);
    add_lane(p, KVG_GROUP_UNCACHED, KVG_MODE_FORCED, "time, baseline by depth", out);
    if (p->est_bench_seconds > 0) {
        kvg_str_addf(out, "  %-28s %6zu depths             about ", "bench",
                     p->suite->n_bench_depths);
        add_time(out, p->est_bench_seconds);
        kvg_str_addc(out, '\n');
    }
    if (p->est_recall_seconds > 0) {
        kvg_str_addf(out, "  %-28s %6zu lengths            about ", "recall",
                     p->suite->n_recall_lengths);
        add_time(out, p->est_recall_seconds);
        kvg_str_addc(out, '\n');
    }
    add_skipped(p, out);
    if (p->est_seconds > 0) {
        kvg_str_add(out, "estimated time: ");
        add_time(out, p->est_seconds);
        kvg_str_add(out, ", from a short probe of the engine on this machine\n");
    }
    kvg_str_addf(out, "estimated memory: %.0f MB at most\n", (double)p->est_bytes / 1e6);
}
