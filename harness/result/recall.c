/* Owns the counting of recall rows and the table made of it. */
#include "result/recall.h"

#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kvg_recall_queries[] = {"unseen", "seen", NULL};

void kvg_recall_init(struct kvg_recall *r)
{
    memset(r, 0, sizeof *r);
    kvg_arena_init(&r->arena);
}

void kvg_recall_release(struct kvg_recall *r)
{
    kvg_arena_release(&r->arena);
    free(r->v);
    memset(r, 0, sizeof *r);
}

static int no_memory(struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory while counting recall");
}

static struct kvg_recall_sum *find(struct kvg_recall *r, const char *strategy, const char *query,
                                   uint64_t length)
{
    for (size_t i = r->n; i-- > 0;)
        if (r->v[i].length == length && !strcmp(r->v[i].strategy, strategy) &&
            !strcmp(r->v[i].query, query))
            return &r->v[i];
    return NULL;
}

static struct kvg_recall_sum *append(struct kvg_recall *r, const struct kvg_row *row)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        struct kvg_recall_sum *v = realloc(r->v, cap * sizeof *v);
        if (!v)
            return NULL;
        r->v = v;
        r->cap = cap;
    }
    struct kvg_recall_sum *s = &r->v[r->n];
    *s = (struct kvg_recall_sum){
        .strategy = kvg_arena_strdup(&r->arena, kvg_row_str(row, KVG_RECALL_strategy)),
        .role = kvg_arena_strdup(&r->arena, kvg_row_str(row, KVG_RECALL_role)),
        .query = kvg_arena_strdup(&r->arena, kvg_row_str(row, KVG_RECALL_query)),
        .length = kvg_row_u64(row, KVG_RECALL_length)};
    if (!s->strategy || !s->role || !s->query)
        return NULL;
    r->n++;
    return s;
}

int kvg_recall_add(struct kvg_recall *r, const struct kvg_row *row, struct kvg_err *err)
{
    uint64_t length = kvg_row_u64(row, KVG_RECALL_length), pos = kvg_row_u64(row, KVG_RECALL_pos);
    struct kvg_recall_sum *s =
        find(r, kvg_row_str(row, KVG_RECALL_strategy), kvg_row_str(row, KVG_RECALL_query), length);
    if (!s && !(s = append(r, row)))
        return no_memory(err);
    if (strcmp(kvg_row_str(row, KVG_RECALL_status), "ok")) {
        s->reason = kvg_arena_strdup(&r->arena, kvg_row_str(row, KVG_RECALL_reason));
        return s->reason ? KVG_OK : no_memory(err);
    }
    size_t third = length ? (size_t)(3 * pos / length) : 0;
    struct kvg_recall_count *counts[2] = {&s->all, &s->third[third < 3 ? third : 2]};
    for (size_t i = 0; i < 2; i++) {
        counts[i]->asked++;
        counts[i]->recalled += kvg_row_u64(row, KVG_RECALL_recalled) != 0;
    }
    return KVG_OK;
}

static int add_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    return kvg_recall_add(arg, row, err);
}

int kvg_recall_load(struct kvg_recall *r, const char *run_dir, struct kvg_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/recall.csv", run_dir);
    return kvg_fs_exists(path) ? kvg_csv_read(path, &kvg_table_recall, add_row, r, err) : KVG_OK;
}

/* ---- the table ---- */

enum { LENGTHS_MAX = 8, SHARES = 4 };

/* What a table shows: the measured sums of one query. */
struct view {
    struct kvg_recall *r;
    const char *query;
    uint64_t lengths[LENGTHS_MAX]; /* ascending */
    size_t n_lengths;
};

static int shows(const struct view *v, const struct kvg_recall_sum *s)
{
    return !strcmp(s->query, v->query) && s->all.asked > 0;
}

static void take_lengths(struct view *v)
{
    for (size_t i = 0; i < v->r->n; i++) {
        uint64_t length = v->r->v[i].length;
        size_t at = 0;
        while (at < v->n_lengths && v->lengths[at] < length)
            at++;
        if (!shows(v, &v->r->v[i]) || v->n_lengths == LENGTHS_MAX ||
            (at < v->n_lengths && v->lengths[at] == length))
            continue;
        memmove(v->lengths + at + 1, v->lengths + at, (v->n_lengths - at) * sizeof *v->lengths);
        v->lengths[at] = length;
        v->n_lengths++;
    }
}

static const char *put_share(struct kvg_arena *a, const struct kvg_recall_count *c)
{
    return c->asked ? kvg_arena_printf(a, "%.0f", 100.0 * (double)c->recalled / (double)c->asked)
                    : "";
}

/* One strategy's line: recalled/asked by length, then shares over all lengths: all facts, and those
 * of each third of the text. */
static int fill_line(const struct view *v, const struct kvg_recall_sum *of, const char **text)
{
    struct kvg_arena *a = &v->r->arena;
    struct kvg_recall_count total[SHARES] = {{0, 0}};
    for (size_t k = 0; k < v->n_lengths; k++) {
        const struct kvg_recall_sum *s = find(v->r, of->strategy, v->query, v->lengths[k]);
        int there = s && shows(v, s);
        text[1 + k] = there ? kvg_arena_printf(a, "%zu/%zu", s->all.recalled, s->all.asked) : "";
        for (size_t i = 0; there && i < SHARES; i++) {
            const struct kvg_recall_count *c = i ? &s->third[i - 1] : &s->all;
            total[i].recalled += c->recalled;
            total[i].asked += c->asked;
        }
    }
    text[0] = of->strategy;
    for (size_t i = 0; i < SHARES; i++)
        text[1 + v->n_lengths + i] = put_share(a, &total[i]);
    for (size_t c = 0; c < 1 + v->n_lengths + SHARES; c++)
        if (!text[c])
            return -1;
    return 0;
}

static int is_first(const struct view *v, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (shows(v, &v->r->v[i]) && !strcmp(v->r->v[i].strategy, v->r->v[at].strategy))
            return 0;
    return 1;
}

static int fill_heads(const struct view *v, struct kvg_grid *g)
{
    static const char *const shares[SHARES] = {"all %", "early %", "middle %", "late %"};
    g->heads[0] = "strategy";
    for (size_t c = 1; c < g->n_columns; c++) {
        g->heads[c] = c <= v->n_lengths ? kvg_arena_printf(&v->r->arena, "%llu tokens",
                                                           (unsigned long long)v->lengths[c - 1])
                                        : shares[c - 1 - v->n_lengths];
        if (!g->heads[c])
            return -1;
    }
    for (size_t c = 0; c < g->n_columns; c++)
        g->metrics[c] = "";
    return 0;
}

int kvg_recall_grid(struct kvg_recall *r, const char *query, struct kvg_grid *g,
                    struct kvg_err *err)
{
    struct view v = {.r = r, .query = query};
    struct kvg_arena *a = &r->arena;
    take_lengths(&v);
    *g = (struct kvg_grid){.n_columns = 1 + v.n_lengths + SHARES};
    g->title = !strcmp(query, "seen")
                   ? "recall of facts, questions known when the cache is compressed"
                   : "recall of facts, questions not known when the cache is compressed";
    g->heads = kvg_arena_array(a, g->n_columns, sizeof *g->heads);
    g->metrics = kvg_arena_array(a, g->n_columns, sizeof *g->metrics);
    g->text = kvg_arena_array(a, (r->n + 1) * g->n_columns, sizeof *g->text);
    g->lines = kvg_arena_array(a, r->n + 1, sizeof *g->lines);
    struct kvg_line *lines = kvg_arena_array(a, r->n + 1, sizeof *lines);
    if (!g->heads || !g->metrics || !g->text || !g->lines || !lines || fill_heads(&v, g))
        return no_memory(err);
    for (size_t i = 0; i < r->n; i++) {
        const struct kvg_recall_sum *s = &r->v[i];
        if (!shows(&v, s) || !is_first(&v, i))
            continue;
        if (fill_line(&v, s, g->text + g->n_rows * g->n_columns))
            return no_memory(err);
        lines[g->n_rows] = (struct kvg_line){.strategy = s->strategy, .role = s->role, .key = ""};
        g->lines[g->n_rows] = &lines[g->n_rows];
        g->n_rows++;
    }
    return KVG_OK;
}
