/* Which strategies make a table and in what order, and what was not measured. */
#include "result/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int role_rank(const char *role)
{
    static const char *const roles[] = {"baseline", "floor", "control", "strategy", "oracle"};
    for (int i = 0; i < 5; i++)
        if (!strcmp(role, roles[i]))
            return i;
    return 3;
}

char kvg_role_mark(const char *role)
{
    return "BFC O"[role_rank(role)];
}

const char *kvg_workload_title(const char *workload)
{
    return strcmp(workload, KVG_WORKLOAD_ALL) ? workload : "all workloads";
}

const char *kvg_question_title(const char *question)
{
    return !question[0]             ? ""
           : !strcmp(question, "1") ? ", the first question after a context"
                                    : ", a second question after the same context";
}

static int is(const char *a, const char *b)
{
    return !strcmp(a, b);
}

/* A slice is part of a section unless it is forced drift on another target. */
static int belongs(const struct kvg_slice *x, const struct kvg_section *section)
{
    if (strcmp(x->arm, "main") || !is(x->workload, section->workload) ||
        !is(x->question, section->question))
        return 0;
    return !(is(x->mode, "forced") && is(x->lane, "drift")) || is(x->target, section->target);
}

static void attach(struct kvg_line *line, const struct kvg_slice *x)
{
    if (is(x->lane, "time"))
        line->time = line->time ? line->time : x;
    else if (is(x->mode, "free"))
        line->free = line->free ? line->free : x;
    else
        line->drift = line->drift ? line->drift : x;
}

static double bytes_of(const struct kvg_summary *s, const struct kvg_line *line)
{
    const struct kvg_summary_value *v =
        line->bytes ? kvg_summary_find(s, line->bytes, "bytes_per_token", NULL) : NULL;
    return v ? v->value : 0;
}

static int before(const struct kvg_summary *s, const struct kvg_line *a, const struct kvg_line *b)
{
    int ra = role_rank(a->role), rb = role_rank(b->role);
    if (ra != rb)
        return ra < rb;
    double ba = bytes_of(s, a), bb = bytes_of(s, b);
    if (ba < bb || ba > bb)
        return ba > bb;
    return strcmp(a->strategy, b->strategy) < 0;
}

static void sort_lines(const struct kvg_summary *s, struct kvg_line *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && before(s, &v[j], &v[j - 1]); j--) {
            struct kvg_line t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
}

/* A strategy that only has forced cells on another target is not part of the section. */
static size_t drop_empty(struct kvg_line *v, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        v[i].bytes = v[i].drift ? v[i].drift : v[i].free ? v[i].free : v[i].time;
        if (v[i].bytes)
            v[kept++] = v[i];
    }
    return kept;
}

static int fill(struct kvg_summary *s, struct kvg_section *section, struct kvg_err *err)
{
    section->lines = kvg_arena_array(&s->run.arena, s->slices.n + 1, sizeof *section->lines);
    if (!section->lines)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
    for (size_t i = 0; i < s->slices.n; i++) {
        const struct kvg_slice *x = &s->slices.v[i];
        size_t at = 0;
        if (!belongs(x, section))
            continue;
        while (at < section->n_lines &&
               !(is(section->lines[at].key, x->key) && is(section->lines[at].query, x->query)))
            at++;
        if (at == section->n_lines)
            section->lines[section->n_lines++] = (struct kvg_line){
                .strategy = x->label, .role = x->role, .key = x->key, .query = x->query};
        attach(&section->lines[at], x);
        if (x->n_items > section->n_items)
            section->n_items = x->n_items;
    }
    section->n_lines = drop_empty(section->lines, section->n_lines);
    section->floor = (double)NAN;
    for (size_t i = 0; i < section->n_lines; i++) {
        struct kvg_line *line = &section->lines[i];
        const struct kvg_summary_value *kl =
            line->drift ? kvg_summary_find(s, line->drift, "kl_mean", NULL) : NULL;
        line->indistinct = kl && is(kl->note, "not distinguishable");
    }
    sort_lines(s, section->lines, section->n_lines);
    struct kvg_slice any = {.workload = section->workload,
                            .target = section->target,
                            .key = "",
                            .query = "",
                            .question = section->question};
    return kvg_slice_floor(&s->slices, &s->run, &any, &section->floor, &section->n_floor, err);
}

/* Adds the section unless it is already there. */
static void add(struct kvg_section *v, size_t *n, const char *workload, const char *target,
                const char *question)
{
    for (size_t i = 0; i < *n; i++)
        if (is(v[i].workload, workload) && is(v[i].target, target) && is(v[i].question, question))
            return;
    v[*n].question = question;
    v[*n].workload = workload;
    v[(*n)++].target = target;
}

static int has_forced(const struct kvg_summary *s, const char *workload)
{
    for (size_t i = 0; i < s->slices.n; i++) {
        const struct kvg_slice *x = &s->slices.v[i];
        if (is(x->workload, workload) && is(x->mode, "forced") && is(x->lane, "drift") &&
            !x->question[0])
            return 1;
    }
    return 0;
}

int kvg_sections_make(struct kvg_summary *s, struct kvg_section **sections, size_t *n,
                      struct kvg_err *err)
{
    int rc = KVG_OK;
    *n = 0;
    *sections = kvg_arena_array(&s->run.arena, s->slices.n + 1, sizeof **sections);
    if (!*sections)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
    for (size_t i = 0; i < s->slices.n; i++) {
        const struct kvg_slice *x = &s->slices.v[i];
        if (is(x->mode, "forced") && is(x->lane, "drift"))
            add(*sections, n, x->workload, x->target, x->question);
        else if (!has_forced(s, x->workload))
            add(*sections, n, x->workload, "", "");
    }
    for (size_t i = 0; i < *n && !rc; i++)
        rc = fill(s, &(*sections)[i], err);
    return rc;
}

void kvg_cells_count(const struct kvg_run *run, size_t *ok, size_t *skipped, size_t *errors)
{
    *ok = *skipped = *errors = 0;
    for (size_t i = 0; i < run->n_cells; i++)
        if (kvg_run_cell_is(run, i, KVG_CELLS_status, "ok"))
            ++*ok;
        else if (kvg_run_cell_is(run, i, KVG_CELLS_status, "skipped"))
            ++*skipped;
        else
            ++*errors;
}

static int same_failure(const struct kvg_run *run, size_t a, size_t b)
{
    return kvg_run_cell_is(run, a, KVG_CELLS_status, kvg_run_cell(run, b, KVG_CELLS_status)) &&
           kvg_run_cell_is(run, a, KVG_CELLS_strategy, kvg_run_cell(run, b, KVG_CELLS_strategy)) &&
           kvg_run_cell_is(run, a, KVG_CELLS_reason, kvg_run_cell(run, b, KVG_CELLS_reason));
}

size_t kvg_failures_next(const struct kvg_run *run, size_t from, size_t *n)
{
    for (size_t i = from; i < run->n_cells; i++) {
        size_t first = 0;
        if (kvg_run_cell_is(run, i, KVG_CELLS_status, "ok"))
            continue;
        while (first < i && !same_failure(run, first, i))
            first++;
        if (first < i)
            continue;
        *n = 0;
        for (size_t j = i; j < run->n_cells; j++)
            *n += (size_t)same_failure(run, j, i);
        return i;
    }
    return run->n_cells;
}
