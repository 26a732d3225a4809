/* Synthetic run folders. Numbers follow plain formulas with a seeded jitter; they imitate the shape
 * of real runs, not any result. */
#include "gen_run.h"

#include "base/rng.h"
#include "result/csv.h"
#include "result/manifest.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kind {
    const char *label, *spec, *role;
    double share; /* of the full cache's bytes */
    double kl;
};
enum { N_NAMED = 26 };
static const struct kind named[N_NAMED] = {
    {"uncached", "uncached", "baseline", 0, 0},
    {"full", "full:type=f32", "floor", 2, 2e-12},
    {"kivi:bits=4", "kivi:bits=4,group=32", "strategy", 0.29, 4e-4},
    {"window:budget=25%", "window:budget=25%,sink=4", "strategy", 0.25, 0.31},
    {"snapkv:budget=25%,window=32+kivi:bits=2", "snapkv:budget=25%,window=32+kivi:bits=2,group=32",
     "strategy", 0.06, 0.12},
    {"h2o:budget=50%", "h2o:budget=50%,recent=0.5", "strategy", 0.5, 0.021},
    {"q8:group=32", "q8:group=32", "strategy", 0.53, 2.1e-6},
    {"random:budget=25%,seed=1", "random:budget=25%,seed=1", "control", 0.25, 0.8},
    {"random:budget=25%,seed=2", "random:budget=25%,seed=2", "control", 0.25, 0.8},
    {"f16", "f16", "strategy", 1, 3e-13},
    {"snapkv:budget=50%", "snapkv:budget=50%,window=32", "strategy", 0.5, 0.012},
    {"kivi:bits=2", "kivi:bits=2,group=32", "strategy", 0.16, 0.031},
    {"quest:page=16", "quest:page=16,top=25%", "strategy", 1.1, 0.004},
    {"tova:budget=25%", "tova:budget=25%", "strategy", 0.25, 0.17},
    {"keydiff:budget=25%", "keydiff:budget=25%", "strategy", 0.26, 0.19},
    {"pyramid:budget=25%", "pyramid:budget=25%", "strategy", 0.25, 0.15},
    {"ada:budget=25%", "ada:budget=25%", "strategy", 0.255, 0.11},
    {"q4:group=32", "q4:group=32", "strategy", 0.28, 9e-4},
    {"merge:budget=25%", "merge:budget=25%", "strategy", 0.25, 0.25},
    {"streaming:sink=4,budget=512", "streaming:sink=4,budget=512", "strategy", 0.4, 0.09},
    {"expected:budget=50%", "expected:budget=50%", "strategy", 0.5, 0.015},
    {"knorm:budget=50%", "knorm:budget=50%", "strategy", 0.5, 0.07},
    {"palu:rank=50%", "palu:rank=50%", "strategy", 0.51, 0.05},
    {"think:keep=50%", "think:keep=50%", "strategy", 0.75, 0.008},
    {"minicache:start=50%", "minicache:start=50%", "strategy", 0.74, 0.4},
    {"h2o:budget=25%", "h2o:budget=25%,recent=0.5", "strategy", 0.25, 0.13},
};

/* Family f at 2000, 4000 or 8000 bytes per token. */
static void make_family(struct kind *k, size_t family, size_t target, char label[64])
{
    static const char *const parts[] = {"snapkv",   "pyramidkv", "keydiff", "lagkv", "criticalkv",
                                        "expected", "oracle",    "tova",    "cur",   "h2o"};
    double bytes = 2000.0 * (double)(1 << target);
    snprintf(label, 64, "%s%s:variant=%zu@%.0fB", parts[family % 10], family % 3 ? "+adakv" : "",
             family / 10, bytes);
    *k = (struct kind){
        .label = label,
        .spec = label,
        .role = family == 6 ? "oracle" : "strategy",
        .share = bytes / KVG_GEN_TOKEN_BYTES * (1 + 0.2 * sin((double)family * 7 + (double)target)),
        .kl = 0.02 * (0.2 + 0.9 * fabs(sin((double)family * 1.7))) / pow(3, (double)target)};
}

static const struct kind *kind_of(size_t strategy)
{
    static struct kind made[KVG_GEN_STRATEGIES + 2 - N_NAMED];
    static char labels[KVG_GEN_STRATEGIES + 2 - N_NAMED][64];
    if (strategy < N_NAMED)
        return &named[strategy];
    size_t i = strategy - N_NAMED;
    if (!made[i].label)
        make_family(&made[i], i / 3, i % 3, labels[i]);
    return &made[i];
}

struct writer {
    const struct kvg_gen_run *g;
    struct kvg_csv *cells, *turns, *steps;
    struct kvg_rng rng;
    struct kvg_err *err;
    uint64_t order;
};

struct cell {
    size_t strategy, workload, item, round;
    const char *mode, *target, *lane, *query;
    int question;
    double factor; /* of the KL */
    char id[96], item_name[32];
};

static const char *const workload_names[] = {"chat", "translate"};

static double jitter(size_t strategy, size_t item, size_t turn, size_t step)
{
    struct kvg_rng r = {kvg_rng_split(strategy * 1000 + item, turn * 1000 + step)};
    return 0.25 + 1.5 * kvg_rng_unit(&r);
}

double kvg_gen_run_kl(size_t strategy, size_t item, size_t turn, size_t step)
{
    return kind_of(strategy)->kl * jitter(strategy, item, turn, step) * (1 + 0.3 * (double)turn);
}

static double tokens_after(size_t turn)
{
    return 120.0 * (double)(turn + 1);
}

static uint64_t bytes_after(size_t strategy, size_t turn)
{
    double share = kind_of(strategy)->share;
    return strategy ? (uint64_t)((share * KVG_GEN_TOKEN_BYTES + 5) * tokens_after(turn)) : 0;
}

static double step_ms(size_t strategy, double tokens)
{
    double share = kind_of(strategy)->share;
    return strategy == 0 ? 0.9 * tokens + 12 : 12 + 0.004 * tokens * (0.4 + share) + share;
}

static int is_drift(const struct cell *c)
{
    return !strcmp(c->mode, "forced") && !strcmp(c->lane, "drift");
}

static int write_step(struct writer *w, const struct cell *c, size_t turn, size_t step)
{
    struct kvg_row row;
    double kl = c->factor * kvg_gen_run_kl(c->strategy, c->item, turn, step);
    double tokens = tokens_after(turn) - (double)w->g->n_steps + (double)step;
    kvg_row_init(&row, &kvg_table_steps);
    kvg_row_set_str(&row, KVG_STEPS_cell_id, c->id);
    kvg_row_set_u64(&row, KVG_STEPS_round, c->round);
    kvg_row_set_u64(&row, KVG_STEPS_turn, turn);
    kvg_row_set_u64(&row, KVG_STEPS_step, step);
    kvg_row_set_u64(&row, KVG_STEPS_pos, (uint64_t)tokens);
    kvg_row_set_u64(&row, KVG_STEPS_uncompressed, step == 0);
    if (is_drift(c)) {
        kvg_row_set_f64(&row, KVG_STEPS_kl, step == 0 ? 0 : kl);
        kvg_row_set_u64(&row, KVG_STEPS_top1, step == 0 || kvg_rng_unit(&w->rng) > sqrt(kl));
        kvg_row_set_f64(&row, KVG_STEPS_top10, 1 / (1 + sqrt(kl)));
        kvg_row_set_f64(&row, KVG_STEPS_nll_base, 2);
        kvg_row_set_f64(&row, KVG_STEPS_nll, 2 + kl);
        kvg_row_set_f64(&row, KVG_STEPS_dprob, -kl / 8);
    } else {
        double ns = 1e6 * step_ms(c->strategy, tokens) * (0.98 + 0.05 * kvg_rng_unit(&w->rng));
        kvg_row_set_u64(&row, KVG_STEPS_step_ns, (uint64_t)ns);
        kvg_row_set_u64(&row, KVG_STEPS_attend_ns, (uint64_t)(ns / 4));
    }
    return kvg_csv_write(w->steps, &row, w->err);
}

static int write_turn(struct writer *w, const struct cell *c, size_t turn)
{
    struct kvg_row row;
    kvg_row_init(&row, &kvg_table_turns);
    kvg_row_set_str(&row, KVG_TURNS_cell_id, c->id);
    kvg_row_set_u64(&row, KVG_TURNS_round, c->round);
    kvg_row_set_u64(&row, KVG_TURNS_turn, turn);
    kvg_row_set_u64(&row, KVG_TURNS_n_prompt_tokens, 120 - w->g->n_steps);
    kvg_row_set_u64(&row, KVG_TURNS_n_reply_tokens, w->g->n_steps);
    kvg_row_set_u64(&row, KVG_TURNS_logical_tokens, (uint64_t)tokens_after(turn));
    kvg_row_set_u64(&row, KVG_TURNS_logical_bytes, bytes_after(c->strategy, turn));
    kvg_row_set_u64(&row, KVG_TURNS_alloc_bytes, bytes_after(c->strategy, turn) * 21 / 20);
    if (!strcmp(c->lane, "time"))
        kvg_row_set_u64(&row, KVG_TURNS_ttft_ns,
                        (uint64_t)(1e6 * (300 + 40 * kvg_rng_unit(&w->rng))));
    int rc = kvg_csv_write(w->turns, &row, w->err);
    for (size_t step = 0; step < w->g->n_steps && !rc; step++)
        if (strcmp(c->mode, "free"))
            rc = write_step(w, c, turn, step);
    return rc;
}

static void fill_names(struct kvg_row *row, const struct cell *c)
{
    kvg_row_set_str(row, KVG_CELLS_run_id, "20260101T000000Z-00000000");
    kvg_row_set_str(row, KVG_CELLS_cell_id, c->id);
    kvg_row_set_str(row, KVG_CELLS_model, "tiny");
    kvg_row_set_str(row, KVG_CELLS_strategy, kind_of(c->strategy)->label);
    kvg_row_set_str(row, KVG_CELLS_spec, kind_of(c->strategy)->spec);
    kvg_row_set_str(row, KVG_CELLS_role, kind_of(c->strategy)->role);
    kvg_row_set_str(row, KVG_CELLS_workload, workload_names[c->workload]);
    kvg_row_set_str(row, KVG_CELLS_item, c->item_name);
    kvg_row_set_str(row, KVG_CELLS_mode, c->mode);
    kvg_row_set_str(row, KVG_CELLS_target, c->target);
    kvg_row_set_str(row, KVG_CELLS_lane, c->lane);
    kvg_row_set_str(row, KVG_CELLS_arm, "main");
    kvg_row_set_u64(row, KVG_CELLS_round, c->round);
    kvg_row_set_str(row, KVG_CELLS_query, c->query);
    if (c->question)
        kvg_row_set_u64(row, KVG_CELLS_question_index, (uint64_t)c->question);
}

static void fill_free(struct kvg_row *row, const struct cell *c, struct kvg_rng *rng)
{
    double kl = kind_of(c->strategy)->kl;
    int same = kvg_rng_unit(rng) > 3 * kl + (kl > 1e-5 ? 0.1 : 0);
    uint64_t at = kvg_rng_below(rng, 60);
    if (!same)
        kvg_row_set_u64(row, KVG_CELLS_first_divergence, at);
    kvg_row_set_u64(row, KVG_CELLS_n_free_steps, same ? 60 : at);
    kvg_row_set_f64(row, KVG_CELLS_chrf2_baseline, same ? 100 : 100 / (1 + 2 * kl));
    kvg_row_set_f64(row, KVG_CELLS_edit_distance, same ? 0 : kl / (1 + kl));
    kvg_row_set_u64(row, KVG_CELLS_answers_total, 3);
    kvg_row_set_u64(row, KVG_CELLS_answers_lost, !same && kl > 0.1);
    kvg_row_set_u64(row, KVG_CELLS_answers_gained, !same && kl > 0.3);
}

static int write_cell(struct writer *w, struct cell *c)
{
    struct kvg_row row;
    int rc = KVG_OK;
    size_t last = w->g->n_turns - 1;
    snprintf(c->item_name, sizeof c->item_name, "%s-%03zu", workload_names[c->workload], c->item);
    snprintf(c->id, sizeof c->id, "%s-%zu-%s-%s-%s%s%d", c->item_name, c->strategy, c->mode,
             c->target, c->lane, c->query, c->question);
    kvg_row_init(&row, &kvg_table_cells);
    fill_names(&row, c);
    kvg_row_set_u64(&row, KVG_CELLS_order, w->order++);
    int broken = w->g->with_broken && c->strategy == 2 && c->item < 2 && is_drift(c);
    if (broken) {
        kvg_row_set_str(&row, KVG_CELLS_status, c->item ? "skipped" : "error");
        kvg_row_set_str(&row, KVG_CELLS_reason,
                        c->item ? "kivi needs groups of 32, \"group\" is 8"
                                : "the model's context limit is reached");
        return kvg_csv_write(w->cells, &row, w->err);
    }
    kvg_row_set_str(&row, KVG_CELLS_status, "ok");
    kvg_row_set_u64(&row, KVG_CELLS_n_turns, w->g->n_turns);
    if (!strcmp(c->lane, "time")) /* the prompt of a turn is a pass too, without a row in steps */
        kvg_row_set_u64(&row, KVG_CELLS_n_steps, w->g->n_turns * (w->g->n_steps + 1));
    else
        kvg_row_set_u64(&row, KVG_CELLS_n_scored, is_drift(c) ? w->g->n_turns * w->g->n_steps : 0);
    kvg_row_set_u64(&row, KVG_CELLS_n_prompt_tokens, w->g->n_turns * (120 - w->g->n_steps));
    kvg_row_set_u64(&row, KVG_CELLS_logical_tokens, (uint64_t)tokens_after(last));
    if (c->strategy) {
        uint64_t bytes = bytes_after(c->strategy, last);
        kvg_row_set_u64(&row, KVG_CELLS_logical_bytes, bytes);
        kvg_row_set_u64(&row, KVG_CELLS_alloc_bytes, bytes * 21 / 20);
        kvg_row_set_u64(&row, KVG_CELLS_step_peak_bytes, bytes * 5 / 4);
        kvg_row_set_f64(&row, KVG_CELLS_bytes_per_token, (double)bytes / tokens_after(last));
    } else {
        kvg_row_set_u64(&row, KVG_CELLS_n_recomputed, 1000);
    }
    kvg_row_set_u64(&row, KVG_CELLS_rss_bytes, 240000000);
    if (!strcmp(c->lane, "time"))
        kvg_row_set_u64(&row, KVG_CELLS_prefill_ns, 310000000 * w->g->n_turns);
    if (!strcmp(c->mode, "free"))
        fill_free(&row, c, &w->rng);
    for (size_t turn = 0; turn < w->g->n_turns && !rc; turn++)
        rc = write_turn(w, c, turn);
    return rc ? rc : kvg_csv_write(w->cells, &row, w->err);
}

/* The forced cells that strategy 3 has beside the usual one. */
static int write_asked(struct writer *w, struct cell c)
{
    int rc = KVG_OK;
    for (int k = 0; k < 3 && !rc; k++) {
        c.query = k ? "seen" : "unseen";
        c.question = k;
        c.factor = 2 + k;
        rc = write_cell(w, &c);
    }
    return rc;
}

static int write_item(struct writer *w, size_t workload, size_t item)
{
    int rc = KVG_OK;
    for (size_t s = 0; s < w->g->n_strategies + 2 && !rc; s++) {
        int asks = w->g->with_query && s == 3;
        struct cell c = {.strategy = s, .workload = workload, .item = item, .factor = 1};
        c.query = asks ? "seen" : "";
        c.mode = "forced";
        c.target = "recorded";
        c.lane = "drift";
        if (s == 1 && !w->g->with_floor)
            continue;
        if (s)
            rc = write_cell(w, &c);
        if (!rc && asks)
            rc = write_asked(w, c);
        c.lane = "time";
        for (c.round = 0; c.round < 3 && w->g->with_time && !rc && item < 4; c.round++)
            rc = write_cell(w, &c);
        c.round = 0;
        c.mode = "free";
        c.target = "none";
        c.lane = "drift";
        if (w->g->with_free && s && !rc)
            rc = write_cell(w, &c);
    }
    return rc;
}

static int write_kept(const struct kvg_gen_run *g, const char *dir, struct kvg_err *err)
{
    char path[4096];
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_rng rng = {7};
    snprintf(path, sizeof path, "%s/kept.csv", dir);
    int rc = kvg_csv_open_append(&csv, path, &kvg_table_kept, err);
    for (size_t s = 2; s < g->n_strategies + 2 && !rc; s++)
        for (size_t layer = 0; layer < 30 && !rc; layer++)
            for (size_t pos = 0; pos < 480 && !rc; pos++) {
                double keep = pos < 4 || pos > 440 ? 1 : kind_of(s)->share * 0.6;
                uint64_t heads = 0;
                for (int h = 0; h < 3; h++)
                    heads += kvg_rng_unit(&rng) < keep;
                if (!heads)
                    continue;
                kvg_row_init(&row, &kvg_table_kept);
                kvg_row_set_str(&row, KVG_KEPT_cell_id, "kept");
                kvg_row_set_str(&row, KVG_KEPT_strategy, kind_of(s)->label);
                kvg_row_set_u64(&row, KVG_KEPT_turn, 3);
                kvg_row_set_u64(&row, KVG_KEPT_layer, layer);
                kvg_row_set_u64(&row, KVG_KEPT_pos, pos);
                kvg_row_set_u64(&row, KVG_KEPT_heads, heads);
                rc = kvg_csv_write(csv, &row, err);
            }
    int rc2 = kvg_csv_close(csv, rc ? NULL : err);
    return rc ? rc : rc2;
}

static int write_bench(const struct kvg_gen_run *g, const char *dir, struct kvg_err *err)
{
    char path[4096];
    struct kvg_csv *csv;
    struct kvg_row row;
    snprintf(path, sizeof path, "%s/bench.csv", dir);
    int rc = kvg_csv_open_append(&csv, path, &kvg_table_bench, err);
    for (size_t s = 0; s < g->n_strategies + 2 && !rc; s++)
        for (uint64_t depth = 128; depth <= 8192 && !rc; depth *= 2) {
            double ms = step_ms(s, (double)depth);
            kvg_row_init(&row, &kvg_table_bench);
            kvg_row_set_str(&row, KVG_BENCH_strategy, kind_of(s)->label);
            kvg_row_set_u64(&row, KVG_BENCH_n_prompt, 0);
            kvg_row_set_u64(&row, KVG_BENCH_n_gen, 16);
            kvg_row_set_u64(&row, KVG_BENCH_n_depth, depth);
            kvg_row_set_f64(&row, KVG_BENCH_avg_ns, 16e6 * ms);
            kvg_row_set_f64(&row, KVG_BENCH_stddev_ns, 16e4 * ms);
            kvg_row_set_f64(&row, KVG_BENCH_avg_ts, 1000 / ms);
            rc = kvg_csv_write(csv, &row, err);
        }
    int rc2 = kvg_csv_close(csv, rc ? NULL : err);
    return rc ? rc : rc2;
}

static int write_manifest(const char *dir, struct kvg_err *err)
{
    struct kvg_manifest m;
    struct kvg_manifest_workload w[] = {
        {"chat", "workloads/chat.jsonl", "00ff", "CC0-1.0", "made by a generator"},
        {"translate", "workloads/translate.jsonl", "ff00", "CC-BY-4.0", "a parallel corpus"}};
    struct kvg_manifest_spec specs[] = {{"full", "full:type=f32", "floor"}};
    struct kvg_manifest_pair settings[] = {{"rounds", "3"}, {"reply_limit", "60"}};
    kvg_manifest_init(&m);
    m.identity.suite = "synthetic";
    m.identity.model_name = "tiny <model> & co";
    m.identity.model_sha256 = "abc123";
    m.identity.kv_f16_token_bytes = KVG_GEN_TOKEN_BYTES;
    m.identity.workloads = w;
    m.identity.n_workloads = 2;
    m.identity.specs = specs;
    m.identity.n_specs = 1;
    m.identity.settings = settings;
    m.identity.n_settings = 2;
    m.identity.seed = 42;
    m.context.version = "0.1.0";
    m.context.cpu = "a processor";
    m.context.n_threads = 2;
    m.context.memory_bytes = 8000000000;
    m.context.start = "2026-01-01T00:00:00Z";
    m.context.end = "2026-01-01T00:10:00Z";
    m.context.command = "kvgauge run suites/synthetic.yaml";
    int rc = kvg_manifest_write(dir, &m, err);
    return rc ? rc : kvg_status_write(dir, KVG_STATUS_COMPLETE, err);
}

struct kvg_gen_run kvg_gen_run_default(void)
{
    return (struct kvg_gen_run){.n_strategies = 8,
                                .n_items = 24,
                                .n_workloads = 1,
                                .n_turns = 4,
                                .n_steps = 12,
                                .with_floor = 1,
                                .with_free = 1,
                                .with_time = 1,
                                .with_bench = 1,
                                .with_kept = 1,
                                .with_broken = 1};
}

int kvg_gen_run_write(const struct kvg_gen_run *g, const char *dir, struct kvg_err *err)
{
    char path[4096];
    struct writer w = {.g = g, .rng = {11}, .err = err};
    int rc = write_manifest(dir, err), rc2 = 0;
    snprintf(path, sizeof path, "%s/cells.csv", dir);
    rc = rc ? rc : kvg_csv_open_append(&w.cells, path, &kvg_table_cells, err);
    snprintf(path, sizeof path, "%s/turns.csv", dir);
    rc = rc ? rc : kvg_csv_open_append(&w.turns, path, &kvg_table_turns, err);
    snprintf(path, sizeof path, "%s/steps.csv", dir);
    rc = rc ? rc : kvg_csv_open_append(&w.steps, path, &kvg_table_steps, err);
    for (size_t workload = 0; workload < g->n_workloads && !rc; workload++)
        for (size_t item = 0; item < g->n_items && !rc; item++)
            rc = write_item(&w, workload, item);
    rc2 |= kvg_csv_close(w.cells, rc ? NULL : err);
    rc2 |= kvg_csv_close(w.turns, rc ? NULL : err);
    rc2 |= kvg_csv_close(w.steps, rc ? NULL : err);
    rc = rc ? rc : rc2;
    if (!rc && g->with_kept)
        rc = write_kept(g, dir, err);
    if (!rc && g->with_bench)
        rc = write_bench(g, dir, err);
    return rc;
}

int kvg_gen_folder(char *path, size_t cap)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(path, cap, "%s/kvgauge-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(path) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void kvg_gen_folder_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
