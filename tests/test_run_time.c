/* Tests of the time lane, of the benchmark and of the model's remembered hash. Nothing here depends
 * on how fast the machine is. */
#include "base/fs.h"
#include "gen_tiny.h"
#include "run/bench.h"
#include "run/fingerprint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *specs[] = {"full", "q8_0", "window:budget=16", NULL};
static const char *items[] = {"chat", "open", NULL};

static struct gen_tiny tiny;

static int setup(void **state)
{
    struct kvg_err err = {0};
    (void)state;
    gen_tiny_open(&tiny, 2);
    gen_tiny_choose(&tiny, specs, items);
    tiny.suite.lanes[KVG_LANE_DRIFT] = 0;
    tiny.suite.lanes[KVG_LANE_TIME] = 1;
    if (!gen_tiny_run(&tiny, 0, &err))
        return 0;
    fprintf(stderr, "%s\n", err.msg);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    gen_tiny_close(&tiny);
    return 0;
}

static const struct kvg_row *timed(const char *strategy, const char *item, const char *arm)
{
    return gen_tiny_cell(&tiny, strategy, item, "forced", "time", arm);
}

static uint64_t sum_phases(const struct kvg_row *r)
{
    return kvg_row_u64(r, KVG_CELLS_observe_ns) + kvg_row_u64(r, KVG_CELLS_manage_ns) +
           kvg_row_u64(r, KVG_CELLS_append_ns) + kvg_row_u64(r, KVG_CELLS_attend_ns) +
           kvg_row_u64(r, KVG_CELLS_rest_ns) + kvg_row_u64(r, KVG_CELLS_logits_ns);
}

static void test_phases_add_up(void **state)
{
    (void)state;
    for (size_t i = 0; specs[i]; i++)
        for (size_t k = 0; items[k]; k++) {
            const struct kvg_row *r = timed(specs[i], items[k], "main");
            assert_non_null(r);
            assert_string_equal(kvg_row_str(r, KVG_CELLS_status), "ok");
            assert_true(kvg_row_u64(r, KVG_CELLS_total_ns) > 0);
            assert_int_equal(sum_phases(r), kvg_row_u64(r, KVG_CELLS_total_ns));
            assert_true(kvg_row_u64(r, KVG_CELLS_prefill_ns) < kvg_row_u64(r, KVG_CELLS_total_ns));
            assert_true(kvg_row_u64(r, KVG_CELLS_append_ns) > 0);
            assert_false(kvg_row_has(r, KVG_CELLS_n_scored));
        }
    assert_true(kvg_row_u64(timed("window:budget=16", "chat", "main"), KVG_CELLS_manage_ns) > 0);
}

/* 2 items x 2 rounds x (3 strategies + bare), and the baseline by depth. */
static void test_cells_of_the_lane(void **state)
{
    (void)state;
    assert_int_equal(gen_tiny_count(&tiny, &kvg_table_cells), 2 * 2 * 4 + 1);
    assert_true(kvg_row_has(timed("full", "chat", "main"), KVG_CELLS_overhead_ns));
    assert_false(kvg_row_has(timed("full", "chat", "bare"), KVG_CELLS_overhead_ns));
    assert_false(kvg_row_has(timed("q8_0", "chat", "main"), KVG_CELLS_overhead_ns));
    assert_string_equal(kvg_row_str(timed("full", "open", "main"), KVG_CELLS_target), "greedy");
}

struct depths {
    char cell[24];
    size_t n;
    uint64_t last;
};

static int add_depth(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct depths *d = arg;
    (void)err;
    if (strcmp(kvg_row_str(row, KVG_STEPS_cell_id), d->cell))
        return 0;
    d->n++;
    assert_true(kvg_row_u64(row, KVG_STEPS_pos) > d->last);
    assert_true(kvg_row_u64(row, KVG_STEPS_step_ns) > 0);
    assert_false(kvg_row_has(row, KVG_STEPS_kl));
    d->last = kvg_row_u64(row, KVG_STEPS_pos);
    return 0;
}

static void test_the_baseline_is_recomputed_by_depth(void **state)
{
    (void)state;
    struct depths d = {0};
    char path[KVG_RUN_DIR_CAP + 32];
    const struct kvg_row *r = timed("uncached", "chat", "main");
    assert_non_null(r);
    assert_int_equal(kvg_row_u64(r, KVG_CELLS_n_steps), 3);
    snprintf(d.cell, sizeof d.cell, "%s", kvg_row_str(r, KVG_CELLS_cell_id));
    snprintf(path, sizeof path, "%s/steps.csv", tiny.dir);
    assert_int_equal(kvg_csv_read(path, &kvg_table_steps, add_depth, &d, NULL), 0);
    assert_int_equal(d.n, 3);
    r = timed("uncached", "chat", "main");
    assert_int_equal(kvg_row_u64(r, KVG_CELLS_logical_tokens), d.last);
    assert_true(kvg_row_u64(r, KVG_CELLS_n_recomputed) > 64);
    assert_true(kvg_row_u64(r, KVG_CELLS_step_peak_bytes) > 0);
}

struct bench {
    size_t n;
    uint64_t kv_bytes[16], depth[16], n_prompt[16];
    char strategy[16][32];
};

static int take_bench(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct bench *b = arg;
    size_t i = b->n++;
    (void)err;
    assert_true(i < 16);
    b->kv_bytes[i] = kvg_row_u64(row, KVG_BENCH_kv_bytes);
    b->depth[i] = kvg_row_u64(row, KVG_BENCH_n_depth);
    b->n_prompt[i] = kvg_row_u64(row, KVG_BENCH_n_prompt);
    snprintf(b->strategy[i], sizeof b->strategy[i], "%s", kvg_row_str(row, KVG_BENCH_strategy));
    double ns = kvg_row_f64(row, KVG_BENCH_avg_ns), ts = kvg_row_f64(row, KVG_BENCH_avg_ts);
    assert_true(ns > 0 && ts > 0);
    assert_true(kvg_row_has(row, KVG_BENCH_stddev_ts));
    if (kvg_row_u64(row, KVG_BENCH_n_gen)) {
        double limit = kvg_row_f64(row, KVG_BENCH_limit_ts);
        assert_true(limit > 0);
        assert_true(fabs(kvg_row_f64(row, KVG_BENCH_limit_fraction) * limit / ts - 1) < 1e-9);
    }
    return 0;
}

static const size_t prompts[] = {24}, gens[] = {6}, depths[] = {96, 0, 32}, threads[] = {2};

static struct kvg_bench_cfg bench_cfg(const char *const *names, size_t n)
{
    return (struct kvg_bench_cfg){.model = tiny.model,
                                  .kernels = tiny.kernels,
                                  .specs = names,
                                  .n_specs = n,
                                  .prompts = prompts,
                                  .n_prompts = 1,
                                  .gens = gens,
                                  .n_gens = 1,
                                  .depths = depths,
                                  .n_depths = 3,
                                  .threads = threads,
                                  .n_threads = 1,
                                  .reps = 3,
                                  .seed = 1};
}

static void test_bench(void **state)
{
    (void)state;
    static const char *const names[] = {"full+f16", "h2o:budget=25%"};
    struct kvg_bench_cfg cfg = bench_cfg(names, 2);
    struct kvg_err err = {0};
    struct bench b = {0};
    assert_int_equal(kvg_bench_run(&cfg, NULL, take_bench, &b, &err), 0);
    assert_int_equal(b.n, 2 * 2 * 3);
    for (size_t i = 0; i < b.n; i++) {
        static const uint64_t want[] = {0, 32, 96};
        assert_int_equal(b.depth[i], want[i / 4]);
        assert_int_equal(b.n_prompt[i], i / 2 % 2 ? 0 : 24);
        assert_string_equal(b.strategy[i], names[i % 2]);
        /* A test leaves no trace: the store is as deep as it was filled, whatever ran before. The
         * rows are exact in bytes; positions may be shared between heads or not. */
        uint64_t rows = 2 * 2 * 2 * 32 * 2 * b.depth[i], kept = b.depth[i] / 4;
        if (i % 2 == 0) {
            assert_true(b.kv_bytes[i] >= rows);
            assert_true(b.kv_bytes[i] <= rows + 2 * 2 * 4 * b.depth[i]);
        } else {
            assert_true(b.kv_bytes[i] >= 2 * 2 * 2 * 32 * 4 * kept);
            assert_true(b.kv_bytes[i] <= 2 * 2 * (2 * 32 * 4 + 4 + 4) * kept);
        }
    }
}

static void test_bench_refuses(void **state)
{
    (void)state;
    static const char *const names[] = {"full"}, *const bad[] = {"ful"};
    static const size_t deep[] = {600};
    struct kvg_err err = {0};
    struct kvg_bench_cfg cfg = bench_cfg(bad, 1);
    assert_int_equal(kvg_bench_run(&cfg, NULL, take_bench, NULL, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "'full'"));
    cfg = bench_cfg(names, 1);
    cfg.depths = deep;
    cfg.n_depths = 1;
    assert_int_equal(kvg_bench_run(&cfg, NULL, take_bench, NULL, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "context"));
}

static void test_the_hash_of_a_model_is_remembered(void **state)
{
    (void)state;
    char path[600], cache[600], first[KVG_SHA256_HEX], again[KVG_SHA256_HEX];
    char *text;
    size_t n;
    snprintf(path, sizeof path, "%s/model.bin", tiny.folder);
    snprintf(cache, sizeof cache, "%s/kvgauge/sha256.tsv", tiny.folder);
    setenv("XDG_CACHE_HOME", tiny.folder, 1);
    assert_int_equal(kvg_fs_write_atomic(path, "abc", 3, NULL), 0);
    assert_int_equal(kvg_fingerprint_file(path, first, NULL), 0);
    assert_string_equal(first, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* The second answer comes from the cache: it says what is written there. */
    assert_int_equal(kvg_fs_read(cache, 10000, &text, &n, NULL), 0);
    text[0] = '0';
    assert_int_equal(kvg_fs_write_atomic(cache, text, n, NULL), 0);
    free(text);
    assert_int_equal(kvg_fingerprint_file(path, again, NULL), 0);
    assert_int_equal(again[0], '0');
    assert_string_equal(again + 1, first + 1);
    /* A changed file is hashed anew. */
    assert_int_equal(kvg_fs_write_atomic(path, "abcd", 4, NULL), 0);
    assert_int_equal(kvg_fingerprint_file(path, again, NULL), 0);
    assert_memory_equal(again, "88d4266fd4e6338d13b845fcf289579d", 32);
    assert_int_equal(kvg_fingerprint_file("/nonexistent", again, NULL), KVG_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phases_add_up),
        cmocka_unit_test(test_cells_of_the_lane),
        cmocka_unit_test(test_the_baseline_is_recomputed_by_depth),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_bench_refuses),
        cmocka_unit_test(test_the_hash_of_a_model_is_remembered),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
