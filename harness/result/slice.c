/* Groups cells into slices and takes samples from them. */
#include "result/slice.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* `seed` may be anywhere in "name:opt=v,seed=1+name2:seed=2": a dropped option takes its comma or,
 * as the only one, its colon along. */
const char *kvg_spec_without_seed(const char *spec, struct kvg_arena *a)
{
    char *out = kvg_arena_strdup(a, spec), *w = out;
    if (!out)
        return NULL;
    int owes_colon = 0;
    for (const char *p = spec; *p;) {
        if ((*p == ':' || *p == ',') && !strncmp(p + 1, "seed=", 5)) {
            owes_colon |= *p == ':';
            p += 6 + strcspn(p + 6, ",+");
            continue;
        }
        if (*p == '+')
            owes_colon = 0;
        *w++ = owes_colon && *p == ',' ? ':' : *p;
        if (*p++ == ',')
            owes_colon = 0;
    }
    *w = 0;
    return out;
}

static int same(const char *a, const char *b)
{
    return !strcmp(a, b);
}

static struct kvg_slice *new_slice(struct kvg_slices *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        struct kvg_slice *v = realloc(s->v, cap * sizeof *v);
        if (!v)
            return NULL;
        s->v = v;
        s->cap = cap;
    }
    memset(&s->v[s->n], 0, sizeof s->v[s->n]);
    return &s->v[s->n++];
}

static const char *question_of(const struct kvg_run *run, size_t cell)
{
    const struct kvg_row *row = &run->cells[cell];
    if (!kvg_row_has(row, KVG_CELLS_question_index))
        return "";
    return kvg_row_u64(row, KVG_CELLS_question_index) == 1 ? "1" : "2";
}

/* Two slices differ by their workload at most. */
static int is_like(const struct kvg_slice *x, const struct kvg_slice *y)
{
    return same(x->key, y->key) && same(x->mode, y->mode) && same(x->target, y->target) &&
           same(x->lane, y->lane) && same(x->arm, y->arm) && same(x->query, y->query) &&
           same(x->question, y->question);
}

/* The slice a cell belongs to, made when it is the first of its kind. */
static struct kvg_slice *slice_of(struct kvg_slices *s, struct kvg_run *run, size_t cell,
                                  const char *workload)
{
    struct kvg_slice like = {.strategy = kvg_run_cell(run, cell, KVG_CELLS_strategy),
                             .role = kvg_run_cell(run, cell, KVG_CELLS_role),
                             .workload = workload,
                             .mode = kvg_run_cell(run, cell, KVG_CELLS_mode),
                             .target = kvg_run_cell(run, cell, KVG_CELLS_target),
                             .lane = kvg_run_cell(run, cell, KVG_CELLS_lane),
                             .query = kvg_run_cell(run, cell, KVG_CELLS_query),
                             .question = question_of(run, cell),
                             .arm = kvg_run_cell(run, cell, KVG_CELLS_arm)};
    like.key = kvg_spec_without_seed(kvg_run_cell(run, cell, KVG_CELLS_spec), &run->arena);
    if (!like.key)
        return NULL;
    for (size_t i = 0; i < s->n; i++)
        if (same(s->v[i].workload, workload) && is_like(&s->v[i], &like))
            return &s->v[i];
    struct kvg_slice *x = new_slice(s);
    if (x)
        *x = like;
    return x;
}

static int same_item(const struct kvg_run *run, size_t a, size_t b)
{
    return same(kvg_run_cell(run, a, KVG_CELLS_item), kvg_run_cell(run, b, KVG_CELLS_item)) &&
           same(kvg_run_cell(run, a, KVG_CELLS_workload), kvg_run_cell(run, b, KVG_CELLS_workload));
}

static int add_cell(struct kvg_slice *x, const struct kvg_run *run, size_t cell)
{
    uint32_t item = (uint32_t)x->n_items;
    size_t n_same = 1;
    if (x->n_cells == x->cap_cells) {
        size_t cap = x->cap_cells ? 2 * x->cap_cells : 32;
        size_t *cells = realloc(x->cells, cap * sizeof *cells);
        if (cells)
            x->cells = cells;
        uint32_t *items = realloc(x->items, cap * sizeof *items);
        if (items)
            x->items = items;
        if (!cells || !items)
            return KVG_ENOMEM;
        x->cap_cells = cap;
    }
    for (size_t i = 0; i < x->n_cells; i++) {
        if (same_item(run, x->cells[i], cell)) {
            item = x->items[i];
            n_same++;
        }
    }
    if (n_same > x->n_seeds)
        x->n_seeds = same(x->lane, "time") ? 1 : n_same;
    x->n_items += item == x->n_items;
    x->cells[x->n_cells] = cell;
    x->items[x->n_cells++] = item;
    return KVG_OK;
}

static int note_workload(struct kvg_slices *s, const char *name)
{
    for (size_t i = 0; i < s->n_workloads; i++)
        if (same(s->workloads[i], name))
            return KVG_OK;
    const char **v = realloc(s->workloads, (s->n_workloads + 1) * sizeof *v);
    if (!v)
        return KVG_ENOMEM;
    s->workloads = v;
    v[s->n_workloads++] = name;
    return KVG_OK;
}

/* How many workloads have a slice like this one. */
static size_t n_like(const struct kvg_slices *s, const struct kvg_slice *x)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += (size_t)is_like(x, &s->v[i]);
    return n;
}

/* Pools what ran on every workload. */
static int add_overall(struct kvg_slices *s, struct kvg_run *run)
{
    size_t n = s->n;
    int rc = KVG_OK;
    unsigned char *everywhere = calloc(n + 1, 1);
    if (!everywhere)
        return KVG_ENOMEM;
    for (size_t i = 0; i < n; i++)
        everywhere[i] = n_like(s, &s->v[i]) == s->n_workloads;
    for (size_t i = 0; i < n && !rc; i++)
        for (size_t c = 0; everywhere[i] && c < s->v[i].n_cells && !rc; c++) {
            size_t cell = s->v[i].cells[c];
            struct kvg_slice *x = slice_of(s, run, cell, KVG_WORKLOAD_ALL);
            rc = x ? add_cell(x, run, cell) : KVG_ENOMEM;
        }
    free(everywhere);
    return rc;
}

/* "(seen)" is said only where the same strategy was measured otherwise too. */
static int query_matters(const struct kvg_slices *s, const struct kvg_slice *x)
{
    if (!same(x->query, "seen"))
        return x->query[0] != 0;
    for (size_t i = 0; i < s->n; i++)
        if (same(s->v[i].key, x->key) && !same(s->v[i].query, x->query))
            return 1;
    return 0;
}

static int set_label(const struct kvg_slices *s, struct kvg_slice *x, struct kvg_arena *a)
{
    const char *query = query_matters(s, x) ? x->query : "";
    const char *oracle = same(x->role, "oracle") ? "not deployable" : "";
    x->label = x->strategy;
    if (query[0] || oracle[0])
        x->label = kvg_arena_printf(a, "%s (%s%s%s)", x->strategy, query,
                                    query[0] && oracle[0] ? ", " : "", oracle);
    return x->label ? KVG_OK : KVG_ENOMEM;
}

int kvg_slices_build(struct kvg_slices *s, struct kvg_run *run, struct kvg_err *err)
{
    int rc = KVG_OK;
    memset(s, 0, sizeof *s);
    for (size_t cell = 0; cell < run->n_cells && !rc; cell++) {
        if (!kvg_run_cell_is(run, cell, KVG_CELLS_status, "ok"))
            continue;
        const char *workload = kvg_run_cell(run, cell, KVG_CELLS_workload);
        struct kvg_slice *x = slice_of(s, run, cell, workload);
        rc = x ? add_cell(x, run, cell) : KVG_ENOMEM;
        if (!rc)
            rc = note_workload(s, workload);
    }
    if (!rc && s->n_workloads > 1)
        rc = add_overall(s, run);
    for (size_t i = 0; i < s->n && !rc; i++)
        if (s->v[i].n_seeds > 1 &&
            !(s->v[i].strategy = kvg_spec_without_seed(s->v[i].strategy, &run->arena)))
            rc = KVG_ENOMEM;
    for (size_t i = 0; i < s->n && !rc; i++)
        rc = set_label(s, &s->v[i], &run->arena);
    return rc ? KVG_FAIL(err, rc, "out of memory while grouping cells of '%s'", run->dir) : rc;
}

void kvg_slices_release(struct kvg_slices *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->v[i].cells);
        free(s->v[i].items);
    }
    free(s->v);
    free(s->workloads);
    memset(s, 0, sizeof *s);
}

int kvg_slice_has(const struct kvg_slice *s, const struct kvg_metric *m)
{
    return (!m->mode || same(m->mode, s->mode)) && (!m->lane || same(m->lane, s->lane)) &&
           (!m->target || same(m->target, s->target));
}
