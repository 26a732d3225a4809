/* Tests of whole runs on a tiny model: what is measured, what is skipped, what fails, and that the
 * numbers hold together. */
#include "gen_tiny.h"
#include "result/manifest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *specs[] = {
    "uncached",       "full", "full+f16",        "sink:budget=20,sinks=2",     "random:budget=25%",
    "h2o:budget=25%", "q4_0", "window:budget=8", "snapkv:budget=30%,window=4", NULL};
static const char *all_items[] = {"chat", "edit", "open", "long", NULL};

static struct gen_tiny tiny;

static int setup(void **state)
{
    struct kvg_err err = {0};
    (void)state;
    gen_tiny_open(&tiny, 2);
    gen_tiny_choose(&tiny, specs, all_items);
    tiny.suite.modes[KVG_MODE_FREE] = 1;
    tiny.suite.kept_item = "chat";
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

static const struct kvg_row *forced(const char *strategy, const char *item)
{
    const struct kvg_row *r = gen_tiny_cell(&tiny, strategy, item, "forced", "drift", "main");
    assert_non_null(r);
    return r;
}

static void test_status_of_cells(void **state)
{
    (void)state;
    enum kvg_status status;
    const struct kvg_row *r = forced("uncached", "chat");
    assert_string_equal(kvg_row_str(r, KVG_CELLS_status), "skipped");
    assert_non_null(strstr(kvg_row_str(r, KVG_CELLS_reason), "baseline"));
    r = forced("full", "long");
    assert_string_equal(kvg_row_str(r, KVG_CELLS_status), "error");
    assert_memory_equal(kvg_row_str(r, KVG_CELLS_reason), "context: needs ", 15);
    assert_false(kvg_row_has(r, KVG_CELLS_logical_tokens));
    for (size_t i = 1; specs[i]; i++)
        for (size_t k = 0; k < 3; k++)
            assert_string_equal(kvg_row_str(forced(specs[i], all_items[k]), KVG_CELLS_status),
                                "ok");
    assert_int_equal(kvg_status_read(tiny.dir, &status, NULL), 0);
    assert_int_equal(status, KVG_STATUS_COMPLETE);
}

static void test_replies_that_are_missing_are_the_baselines_own(void **state)
{
    (void)state;
    assert_string_equal(kvg_row_str(forced("full", "chat"), KVG_CELLS_target), "recorded");
    assert_string_equal(kvg_row_str(forced("full", "open"), KVG_CELLS_target), "greedy");
    assert_true(kvg_row_u64(forced("full", "open"), KVG_CELLS_n_scored) > 0);
}

static void test_full_cache_is_exact_in_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *strategy;
        size_t bytes;
    } cases[] = {{"full", 4}, {"full+f16", 2}};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 3; k++) {
            const struct kvg_row *r = forced(cases[i].strategy, all_items[k]);
            uint64_t n = kvg_row_u64(r, KVG_CELLS_logical_tokens);
            assert_true(n > 30);
            assert_int_equal(kvg_row_u64(r, KVG_CELLS_payload_bytes),
                             2 * 2 * 2 * 32 * cases[i].bytes * n);
            assert_int_equal(kvg_row_u64(r, KVG_CELLS_kept_tokens_min), n);
        }
}

static void test_budgets_are_held(void **state)
{
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        assert_true(kvg_row_u64(forced("sink:budget=20,sinks=2", all_items[k]),
                                KVG_CELLS_kept_tokens_max) <= 20);
        assert_true(
            kvg_row_u64(forced("window:budget=8", all_items[k]), KVG_CELLS_kept_tokens_max) <= 8);
        const struct kvg_row *r = forced("h2o:budget=25%", all_items[k]);
        assert_true((double)kvg_row_u64(r, KVG_CELLS_kept_tokens_max) <=
                    0.25 * (double)kvg_row_u64(r, KVG_CELLS_logical_tokens) + 1);
        assert_string_equal(kvg_row_str(r, KVG_CELLS_budget), "25%");
        assert_true(kvg_row_u64(r, KVG_CELLS_n_evicted) > 0);
    }
}

struct drift {
    char cell[24];
    double kl_sum, first_gap;
    size_t n, n_first;
};

static int add_step(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct drift *d = arg;
    (void)err;
    if (strcmp(kvg_row_str(row, KVG_STEPS_cell_id), d->cell))
        return 0;
    double kl = kvg_row_f64(row, KVG_STEPS_kl), gap = kvg_row_f64(row, KVG_STEPS_gap);
    assert_true(kl >= 0 && gap >= 0);
    assert_int_equal(kvg_row_u64(row, KVG_STEPS_uncompressed),
                     kvg_row_u64(row, KVG_STEPS_step) == 0);
    d->n++;
    d->n_first += kvg_row_u64(row, KVG_STEPS_step) == 0;
    d->kl_sum += kl;
    return 0;
}

static struct drift drift_of(const struct kvg_row *cell)
{
    struct drift d = {0};
    char path[KVG_RUN_DIR_CAP + 32];
    assert_non_null(cell);
    snprintf(d.cell, sizeof d.cell, "%s", kvg_row_str(cell, KVG_CELLS_cell_id));
    snprintf(path, sizeof path, "%s/steps.csv", tiny.dir);
    assert_int_equal(kvg_csv_read(path, &kvg_table_steps, add_step, &d, NULL), 0);
    return d;
}

static void test_drift_is_the_floor_for_full_and_more_for_others(void **state)
{
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        const struct kvg_row *r = forced("full", all_items[k]);
        assert_string_equal(kvg_row_str(r, KVG_CELLS_role), "floor");
        uint64_t n = kvg_row_u64(r, KVG_CELLS_n_scored);
        struct drift full = drift_of(r);
        assert_int_equal(full.n, n);
        assert_true(n <= 24);
        assert_true(full.kl_sum / (double)full.n < 1e-9);
        struct drift q4 = drift_of(forced("q4_0", all_items[k]));
        struct drift f16 = drift_of(forced("full+f16", all_items[k]));
        struct drift window = drift_of(forced("window:budget=8", all_items[k]));
        assert_int_equal(q4.n, full.n);
        assert_true(full.kl_sum < f16.kl_sum);
        assert_true(f16.kl_sum < q4.kl_sum);
        assert_true(q4.kl_sum < window.kl_sum);
    }
}

/* Four turns, one taken back: 24 scored targets, one first step per turn. */
static void test_an_edited_conversation(void **state)
{
    (void)state;
    const struct kvg_row *r = forced("full", "edit");
    assert_int_equal(kvg_row_u64(r, KVG_CELLS_n_turns), 4);
    assert_int_equal(kvg_row_u64(r, KVG_CELLS_n_scored), 24);
    assert_int_equal(drift_of(r).n_first, 4);
}

static void test_the_floor_arm(void **state)
{
    (void)state;
    const struct kvg_row *r =
        gen_tiny_cell(&tiny, "h2o:budget=25%", "chat", "forced", "drift", "floor");
    assert_non_null(r);
    struct drift d = drift_of(r);
    assert_int_equal(d.n, 24);
    assert_true(d.kl_sum < drift_of(forced("h2o:budget=25%", "chat")).kl_sum);
    assert_null(gen_tiny_cell(&tiny, "full", "chat", "forced", "drift", "floor"));
}

static void test_free_mode(void **state)
{
    (void)state;
    size_t n_diverged = 0;
    for (size_t i = 1; specs[i]; i++)
        for (size_t k = 0; k < 3; k++) {
            const struct kvg_row *r =
                gen_tiny_cell(&tiny, specs[i], all_items[k], "free", "drift", "main");
            assert_non_null(r);
            int diverged = kvg_row_has(r, KVG_CELLS_first_divergence);
            uint64_t n = kvg_row_u64(r, KVG_CELLS_n_free_steps);
            n_diverged += diverged != 0;
            if (diverged) {
                assert_int_equal(kvg_row_u64(r, KVG_CELLS_first_divergence) + 1, n);
                assert_true(kvg_row_f64(r, KVG_CELLS_edit_distance) > 0 ||
                            kvg_row_u64(r, KVG_CELLS_n_steps) > 0);
            } else {
                assert_true(kvg_row_f64(r, KVG_CELLS_chrf2_baseline) > 99.999);
                assert_true(kvg_row_f64(r, KVG_CELLS_edit_distance) == 0);
                assert_int_equal(n, kvg_row_u64(r, KVG_CELLS_n_steps));
            }
            assert_int_equal(kvg_row_u64(r, KVG_CELLS_n_scored), n);
            assert_int_equal(kvg_row_u64(r, KVG_CELLS_answers_total), k == 0);
            assert_int_equal(drift_of(r).n, n);
        }
    assert_true(n_diverged > 0);
    const struct kvg_row *full = gen_tiny_cell(&tiny, "full", "chat", "free", "drift", "main");
    assert_false(kvg_row_has(full, KVG_CELLS_first_divergence));
    const struct kvg_row *window =
        gen_tiny_cell(&tiny, "window:budget=8", "chat", "free", "drift", "main");
    assert_true(kvg_row_has(window, KVG_CELLS_first_divergence));
}

struct kept {
    const char *strategy;
    size_t n, n_bad;
};

static int add_kept(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kept *k = arg;
    (void)err;
    if (strcmp(kvg_row_str(row, KVG_KEPT_strategy), k->strategy))
        return 0;
    k->n += (size_t)kvg_row_u64(row, KVG_KEPT_heads);
    k->n_bad += kvg_row_u64(row, KVG_KEPT_heads) > 2 || kvg_row_u64(row, KVG_KEPT_turn) != 2;
    return 0;
}

static void test_the_map_of_kept_tokens(void **state)
{
    (void)state;
    char path[KVG_RUN_DIR_CAP + 32];
    snprintf(path, sizeof path, "%s/kept.csv", tiny.dir);
    struct kept window = {.strategy = "window:budget=8"}, full = {.strategy = "full"};
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, add_kept, &window, NULL), 0);
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, add_kept, &full, NULL), 0);
    assert_int_equal(window.n, 2 * 2 * 8);
    assert_true(full.n > 2 * 2 * 100);
    assert_int_equal(window.n_bad + full.n_bad, 0);
}

static void test_nothing_measured(void **state)
{
    (void)state;
    static const char *only[] = {"full", NULL}, *item[] = {"long", NULL};
    struct gen_tiny t;
    struct kvg_err err = {0};
    gen_tiny_open(&t, 1);
    gen_tiny_choose(&t, only, item);
    assert_int_equal(gen_tiny_run(&t, 0, &err), KVG_ENONE);
    assert_non_null(strstr(err.msg, "nothing was measured"));
    gen_tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_of_cells),
        cmocka_unit_test(test_replies_that_are_missing_are_the_baselines_own),
        cmocka_unit_test(test_full_cache_is_exact_in_bytes),
        cmocka_unit_test(test_budgets_are_held),
        cmocka_unit_test(test_drift_is_the_floor_for_full_and_more_for_others),
        cmocka_unit_test(test_an_edited_conversation),
        cmocka_unit_test(test_the_floor_arm),
        cmocka_unit_test(test_free_mode),
        cmocka_unit_test(test_the_map_of_kept_tokens),
        cmocka_unit_test(test_nothing_measured),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
