/* Tests of runs that compress with and without the question, and that ask twice after one context,
 * on a tiny model of one token a byte. */
#include "gen_tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SNAP "snapkv:budget=20,window=4"
#define ONCE "snapkv:budget=20,window=4,schedule=prompt"

static const char *specs[] = {"full",
                              "q4_0",
                              SNAP,
                              ONCE,
                              "finch:budget=40%",
                              "oracle:budget=20",
                              "window:budget=20",
                              "random:budget=25%",
                              NULL};
static const char *items[] = {"chat", "paste", NULL};
enum { SECOND_ASK = sizeof "And lowest?" - 1 };

static struct gen_tiny tiny;

static int setup(void **state)
{
    struct kvg_err err = {0};
    (void)state;
    gen_tiny_open(&tiny, 2);
    gen_tiny_choose(&tiny, specs, items);
    tiny.suite.modes[KVG_MODE_FREE] = 1;
    tiny.suite.queries[KVG_QUERY_UNSEEN] = 1;
    tiny.suite.second_question = 1;
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

static struct kvg_row asked(const char *strategy, const char *item, const char *mode,
                            const char *query, int question)
{
    const struct kvg_row *r = gen_tiny_asked(&tiny, strategy, item, mode, query, question);
    if (!r)
        fail_msg("no %s cell of '%s' on '%s', query '%s', question %d", mode, strategy, item, query,
                 question);
    return *r;
}

static void assert_status(const struct kvg_row *r, const char *status, const char *reason)
{
    assert_string_equal(kvg_row_str(r, KVG_CELLS_status), status);
    assert_non_null(strstr(kvg_row_str(r, KVG_CELLS_reason), reason));
}

/* What chooses runs under both choices, what does not once. */
static void test_each_choice_has_cells(void **state)
{
    (void)state;
    static const struct {
        const char *strategy, *seen; /* what the column says when the question is part of it */
    } cases[] = {{"full", ""},
                 {"q4_0", ""},
                 {SNAP, "seen"},
                 {ONCE, "mixed"},
                 {"window:budget=20", "seen"},
                 {"random:budget=25%", "seen"}};
    static const char *const modes[] = {"forced", "free"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t m = 0; m < 2; m++) {
            const char *name = cases[i].strategy;
            struct kvg_row r = asked(name, "chat", modes[m], cases[i].seen, 0);
            assert_status(&r, "ok", "");
            assert_false(kvg_row_has(&r, KVG_CELLS_question_index));
            const struct kvg_row *u = gen_tiny_asked(&tiny, name, "chat", modes[m], "unseen", 0);
            assert_int_equal(u != NULL, cases[i].seen[0] != 0);
        }
}

static void test_what_makes_no_sense_is_skipped(void **state)
{
    (void)state;
    struct kvg_row r = asked("finch:budget=40%", "chat", "forced", "seen", 0);
    assert_status(&r, "ok", "");
    r = asked("finch:budget=40%", "chat", "forced", "unseen", 0);
    assert_status(&r, "skipped", "query: ");
    r = asked("oracle:budget=20", "chat", "forced", "unseen", 0);
    assert_status(&r, "ok", "");
    assert_string_equal(kvg_row_str(&r, KVG_CELLS_role), "oracle");
    r = asked("oracle:budget=20", "chat", "free", "seen", 0);
    assert_status(&r, "skipped", "mode: ");
}

/* The question's rows come on top of what was left of the text before it. */
static void test_the_question_stays_on_top(void **state)
{
    (void)state;
    static const char asks[] = "Which river came first?", closes[] = "<|im_end|>";
    struct kvg_row seen = asked(SNAP, "chat", "forced", "seen", 0);
    uint64_t with = kvg_row_u64(&seen, KVG_CELLS_kept_tokens_max);
    uint64_t length = kvg_row_u64(&seen, KVG_CELLS_logical_tokens);
    struct kvg_row unseen = asked(SNAP, "chat", "forced", "unseen", 0);
    assert_int_equal(kvg_row_u64(&unseen, KVG_CELLS_logical_tokens), length);
    assert_true(kvg_row_u64(&unseen, KVG_CELLS_kept_tokens_min) >= with + sizeof asks - 1);
    assert_true(kvg_row_u64(&unseen, KVG_CELLS_kept_tokens_max) <=
                with + sizeof asks + 4 * sizeof closes + 24);
}

struct first_steps {
    const char *cell;
    size_t n, n_flagged;
};

static int add_first(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct first_steps *f = arg;
    (void)err;
    if (strcmp(kvg_row_str(row, KVG_STEPS_cell_id), f->cell) || kvg_row_u64(row, KVG_STEPS_step))
        return 0;
    f->n++;
    f->n_flagged += kvg_row_u64(row, KVG_STEPS_uncompressed) != 0;
    return 0;
}

static struct first_steps first_steps(const struct kvg_row *cell)
{
    char path[KVG_RUN_DIR_CAP + 32], id[24];
    struct first_steps f = {.cell = id};
    snprintf(id, sizeof id, "%s", kvg_row_str(cell, KVG_CELLS_cell_id));
    snprintf(path, sizeof path, "%s/steps.csv", tiny.dir);
    assert_int_equal(kvg_csv_read(path, &kvg_table_steps, add_first, &f, NULL), 0);
    f.cell = NULL;
    return f;
}

static void test_first_steps_behind_compression_count(void **state)
{
    (void)state;
    struct kvg_row r = asked(SNAP, "chat", "forced", "seen", 0);
    struct first_steps f = first_steps(&r);
    assert_true(f.n == 3 && f.n_flagged == 3);
    r = asked(SNAP, "chat", "forced", "unseen", 0);
    f = first_steps(&r);
    assert_true(f.n == 3 && f.n_flagged == 0);
    r = asked(SNAP, "paste", "forced", "seen", 1);
    f = first_steps(&r);
    assert_true(f.n == 1 && f.n_flagged == 1);
    r = asked(SNAP, "paste", "forced", "seen", 2);
    f = first_steps(&r);
    assert_true(f.n == 1 && f.n_flagged == 0);
}

static int add_kl(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct first_steps *f = arg;
    (void)err;
    if (strcmp(kvg_row_str(row, KVG_STEPS_cell_id), f->cell))
        return 0;
    f->n++;
    f->n_flagged += !(kvg_row_f64(row, KVG_STEPS_kl) < 1e-9);
    return 0;
}

/* The exact cache shows that strategy and baseline read the same tokens after the cut. */
static void test_two_questions_after_one_context(void **state)
{
    (void)state;
    char path[KVG_RUN_DIR_CAP + 32];
    snprintf(path, sizeof path, "%s/steps.csv", tiny.dir);
    for (int k = 1; k <= 2; k++) {
        struct kvg_row full = asked("full", "paste", "forced", "", k);
        struct first_steps f = {.cell = kvg_row_str(&full, KVG_CELLS_cell_id)};
        assert_status(&full, "ok", "");
        assert_int_equal(kvg_row_u64(&full, KVG_CELLS_question_index), k);
        assert_int_equal(kvg_row_u64(&full, KVG_CELLS_n_turns), k);
        assert_int_equal(kvg_csv_read(path, &kvg_table_steps, add_kl, &f, NULL), 0);
        assert_true(f.n > 5 && f.n_flagged == 0);
        assert_null(gen_tiny_asked(&tiny, "full", "chat", "forced", "", k)); /* has no context */
        assert_null(gen_tiny_asked(&tiny, "full", "paste", "free", "", k));
    }
    struct kvg_row first = asked("full", "paste", "forced", "", 1);
    uint64_t n =
        kvg_row_u64(&first, KVG_CELLS_logical_tokens) - kvg_row_u64(&first, KVG_CELLS_n_scored);
    struct kvg_row second = asked("full", "paste", "forced", "", 2);
    uint64_t m =
        kvg_row_u64(&second, KVG_CELLS_logical_tokens) - kvg_row_u64(&second, KVG_CELLS_n_scored);
    assert_int_equal(n - m, sizeof "Which day is highest?" - 1 - SECOND_ASK);
}

/* What the first question left of the context is all that the second finds: nothing is computed
 * again, whatever the strategy does with turns that are taken back. */
static void test_what_was_thrown_away_stays_away(void **state)
{
    (void)state;
    static const struct {
        const char *strategy, *query;
        uint64_t budget;
    } cases[] = {{SNAP, "unseen", 20}, {ONCE, "unseen", 20}, {ONCE, "mixed", 20}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kvg_row full = asked("full", "paste", "forced", "", 2);
        uint64_t length = kvg_row_u64(&full, KVG_CELLS_logical_tokens);
        struct kvg_row r = asked(cases[i].strategy, "paste", "forced", cases[i].query, 2);
        uint64_t kept = kvg_row_u64(&r, KVG_CELLS_kept_tokens_max);
        uint64_t on_top = kvg_row_u64(&r, KVG_CELLS_n_scored) - 1 + SECOND_ASK;
        assert_int_equal(kvg_row_u64(&r, KVG_CELLS_logical_tokens), length);
        assert_int_equal(kvg_row_u64(&r, KVG_CELLS_n_recomputed), 0);
        assert_true(kept > on_top && kept < length);
        if (!strcmp(cases[i].query, "unseen"))
            assert_true(kvg_row_u64(&r, KVG_CELLS_kept_tokens_min) == kept);
        assert_true(kept <= cases[i].budget + on_top + 32);
    }
    struct kvg_row window = asked("window:budget=20", "paste", "forced", "seen", 2);
    assert_int_equal(kvg_row_u64(&window, KVG_CELLS_n_recomputed), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_choice_has_cells),
        cmocka_unit_test(test_what_makes_no_sense_is_skipped),
        cmocka_unit_test(test_the_question_stays_on_top),
        cmocka_unit_test(test_first_steps_behind_compression_count),
        cmocka_unit_test(test_two_questions_after_one_context),
        cmocka_unit_test(test_what_was_thrown_away_stays_away),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
