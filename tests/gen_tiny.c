/* Owns tiny whole runs for tests. Must not know what the tests look for. */
#include "gen_tiny.h"

#include "base/fs.h"
#include "gen_gguf.h"
#include "gen_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "tiny run: %s failed\n", what);
    abort();
}

static const char *const items[] = {
    "{\"id\":\"chat\",\"messages\":["
    "{\"role\":\"user\",\"content\":\"Name three rivers.\"},"
    "{\"role\":\"assistant\",\"content\":\"Ebro, Tagus and Duero.\"},"
    "{\"role\":\"user\",\"content\":\"And one lake?\"},"
    "{\"role\":\"assistant\",\"content\":\"Lake Garda.\"},"
    "{\"role\":\"user\",\"content\":\"Which river came first?\"},"
    "{\"role\":\"assistant\",\"content\":\"The Ebro.\"}],"
    "\"meta\":{\"family\":\"recall\",\"lang\":\"en\",\"checks\":[{\"turn\":2,\"any\":[\"Ebro\"]}]}"
    "}",
    "{\"id\":\"edit\",\"messages\":["
    "{\"role\":\"user\",\"content\":\"Write a line about rain.\"},"
    "{\"role\":\"assistant\",\"content\":\"Rain taps on tin.\"},"
    "{\"role\":\"user\",\"content\":\"Make it longer.\"},"
    "{\"role\":\"assistant\",\"content\":\"Rain taps on tin all night.\"},"
    "{\"role\":\"user\",\"content\":\"Make it sadder.\",\"replaces\":2},"
    "{\"role\":\"assistant\",\"content\":\"Rain taps, nobody answers.\"},"
    "{\"role\":\"user\",\"content\":\"Thanks!\"},"
    "{\"role\":\"assistant\",\"content\":\"Gladly.\"}],"
    "\"meta\":{\"family\":\"edit\",\"lang\":\"en\"}}",
    "{\"id\":\"open\",\"messages\":["
    "{\"role\":\"user\",\"content\":\"Say anything at all.\"},"
    "{\"role\":\"user\",\"content\":\"Once more.\"}],"
    "\"meta\":{\"family\":\"open\",\"lang\":\"en\"}}",
    "{\"id\":\"paste\",\"messages\":["
    "{\"role\":\"user\",\"content\":\"Tide table.\\nMon 04:10 3.1 m, Tue 05:02 3.4 m, Wed 05:55 "
    "3.6 m.\\n\\nWhich day is highest?\",\"question\":\"Which day is highest?\"},"
    "{\"role\":\"assistant\",\"content\":\"Wednesday.\"},"
    "{\"role\":\"user\",\"content\":\"And lowest?\"},"
    "{\"role\":\"assistant\",\"content\":\"Monday, 3.1 m.\"}],"
    "\"meta\":{\"family\":\"paste\",\"lang\":\"en\"}}",
    NULL};

static void write_workload(const char *path)
{
    struct kvg_str s = {0};
    for (size_t i = 0; items[i]; i++)
        kvg_str_addf(&s, "%s\n", items[i]);
    kvg_str_add(&s, "{\"id\":\"long\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 600; i++)
        kvg_str_addc(&s, (char)('a' + i * 7 % 26));
    kvg_str_add(&s, "\"},{\"role\":\"assistant\",\"content\":\"Too long.\"}]}\n");
    must(!s.failed && !kvg_fs_write_atomic(path, s.s, s.len, NULL), "writing the workload");
    kvg_str_release(&s);
}

void gen_tiny_open(struct gen_tiny *t, int n_threads)
{
    char path[600];
    struct kvg_err err = {0};
    struct gen_llama cfg = gen_llama_default();
    memset(t, 0, sizeof *t);
    must(!kvg_gen_folder(t->folder, sizeof t->folder), "making a folder");
    snprintf(path, sizeof path, "%s/tiny.gguf", t->folder);
    must(!gen_llama_write(&cfg, path), "writing the model");
    if (kvg_model_open(&t->model, path, KVG_MODEL_FULL, &err))
        fprintf(stderr, "%s\n", err.msg);
    must(t->model != NULL, "opening the model");
    must(!kvg_pool_open(&t->pool, n_threads, &err), "opening the pool");
    t->kernels = kvg_kernels_get("auto");
    snprintf(path, sizeof path, "%s/tiny.jsonl", t->folder);
    write_workload(path);
    kvg_suite_defaults(&t->suite);
    t->suite.name = "tiny";
    t->workload.source = strdup(path);
    t->suite.workloads = &t->workload;
    t->suite.n_workloads = 1;
    t->suite.reply_tokens = 24;
    t->suite.free_tokens = 10;
    t->suite.floor_items = 1;
    t->suite.uncached_depths = 3;
    t->suite.rounds = 2;
    t->suite.time_reply_tokens = 9;
}

void gen_tiny_close(struct gen_tiny *t)
{
    kvg_model_close(t->model);
    kvg_pool_close(t->pool);
    free((char *)t->workload.source);
    kvg_gen_folder_remove(t->folder);
}

static struct kvg_strlist list_of(const char **v)
{
    struct kvg_strlist l = {.v = v};
    while (v[l.n])
        l.n++;
    return l;
}

void gen_tiny_choose(struct gen_tiny *t, const char **specs, const char **names)
{
    t->suite.strategies = list_of(specs);
    t->workload.items = list_of(names);
}

int gen_tiny_run(struct gen_tiny *t, int resume, struct kvg_err *err)
{
    struct kvg_runplan plan = {0};
    struct kvg_progress pr;
    char out[600];
    snprintf(out, sizeof out, "%s/results", t->folder);
    struct kvg_run_options opt = {
        .out = out, .resume = resume, .command = "test", .pool = t->pool, .kernels = t->kernels};
    char sha[65] = "0000000000000000000000000000000000000000000000000000000000000000";
    int rc = kvg_runplan_make(&plan, &t->suite, t->model, sha, err);
    kvg_progress_open(&pr, KVG_PROGRESS_NONE, stderr, plan.n_cells, 1);
    if (!rc)
        rc = kvg_run_execute(&plan, &opt, &pr, t->dir, err);
    kvg_progress_close(&pr);
    kvg_runplan_release(&plan);
    return rc;
}

static int may_differ(const char *column)
{
    size_t n = strlen(column);
    return !strcmp(column, "run_id") || !strcmp(column, "rss_bytes") ||
           (n > 3 && !strcmp(column + n - 3, "_ns"));
}

static int add_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kvg_str *out = arg;
    (void)err;
    for (size_t c = 0; c < row->table->n_columns; c++) {
        char number[40];
        if (!kvg_row_has(row, (int)c) || may_differ(row->table->columns[c].name))
            continue;
        if (row->table->columns[c].type == KVG_COL_STR) {
            kvg_str_addf(out, "%s=%s ", row->table->columns[c].name, kvg_row_str(row, (int)c));
            continue;
        }
        kvg_text_put_double(number, sizeof number, kvg_row_f64(row, (int)c));
        kvg_str_addf(out, "%s=%s ", row->table->columns[c].name, number);
    }
    kvg_str_addc(out, '\n');
    return 0;
}

static void read_table(const struct gen_tiny *t, const struct kvg_table *table, kvg_csv_fn fn,
                       void *arg)
{
    char path[KVG_RUN_DIR_CAP + 32];
    struct kvg_err err = {0};
    snprintf(path, sizeof path, "%s/%s.csv", t->dir, table->name);
    int rc = kvg_csv_read(path, table, fn, arg, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.msg);
    must(!rc, "reading a table");
}

void gen_tiny_rows(const struct gen_tiny *t, const struct kvg_table *table, struct kvg_str *out)
{
    read_table(t, table, add_row, out);
}

static int count_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    (void)row;
    (void)err;
    ++*(size_t *)arg;
    return 0;
}

size_t gen_tiny_count(const struct gen_tiny *t, const struct kvg_table *table)
{
    size_t n = 0;
    read_table(t, table, count_row, &n);
    return n;
}

struct wanted {
    const char *strategy, *item, *mode, *lane, *arm;
    const char *query; /* NULL = any */
    int question;      /* -1 = any */
    struct kvg_row *row;
    struct kvg_arena *arena;
    int found;
};

static int question_of(const struct kvg_row *row)
{
    return kvg_row_has(row, KVG_CELLS_question_index)
               ? (int)kvg_row_u64(row, KVG_CELLS_question_index)
               : 0;
}

static int take_cell(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct wanted *w = arg;
    (void)err;
    if (w->found || strcmp(kvg_row_str(row, KVG_CELLS_strategy), w->strategy) ||
        strcmp(kvg_row_str(row, KVG_CELLS_item), w->item) ||
        strcmp(kvg_row_str(row, KVG_CELLS_mode), w->mode) ||
        strcmp(kvg_row_str(row, KVG_CELLS_lane), w->lane) ||
        strcmp(kvg_row_str(row, KVG_CELLS_arm), w->arm))
        return 0;
    if ((w->query && strcmp(kvg_row_str(row, KVG_CELLS_query), w->query)) ||
        (w->question >= 0 && question_of(row) != w->question))
        return 0;
    *w->row = *row;
    for (size_t c = 0; c < row->table->n_columns; c++)
        if (row->is_set[c] && row->table->columns[c].type == KVG_COL_STR)
            w->row->v[c].str = kvg_arena_strdup(w->arena, row->v[c].str);
    w->found = 1;
    return 0;
}

static const struct kvg_row *find(const struct gen_tiny *t, struct wanted w)
{
    static struct kvg_row row;
    static struct kvg_arena arena;
    w.row = &row;
    w.arena = &arena;
    kvg_arena_release(&arena);
    kvg_arena_init(&arena);
    read_table(t, &kvg_table_cells, take_cell, &w);
    return w.found ? &row : NULL;
}

const struct kvg_row *gen_tiny_cell(const struct gen_tiny *t, const char *strategy,
                                    const char *item, const char *mode, const char *lane,
                                    const char *arm)
{
    return find(t, (struct wanted){.strategy = strategy,
                                   .item = item,
                                   .mode = mode,
                                   .lane = lane,
                                   .arm = arm,
                                   .question = -1});
}

const struct kvg_row *gen_tiny_asked(const struct gen_tiny *t, const char *strategy,
                                     const char *item, const char *mode, const char *query,
                                     int question)
{
    return find(t, (struct wanted){.strategy = strategy,
                                   .item = item,
                                   .mode = mode,
                                   .lane = "drift",
                                   .arm = "main",
                                   .query = query,
                                   .question = question});
}
