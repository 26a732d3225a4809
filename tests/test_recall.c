/* Tests the constructed recall model and the measurement on it: what an exact cache knows at any
 * length, and what strategies that drop the middle must lose. */
#include "base/fs.h"
#include "gen_engine.h"
#include "gen_tiny.h"
#include "model/induction.h"
#include "result/recall.h"
#include "result/report.h"
#include "result/summary.h"
#include "run/drift.h"
#include "run/recall.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_PAIRS = 24 };

/* A text of `length` tokens with pairs at regular depths, then every key once more. */
struct quiz {
    int32_t tokens[8400];
    int32_t key[N_PAIRS], value[N_PAIRS];
    size_t at[N_PAIRS], n, length;
};

/* Keys are the words 0..23, values 24..47; filler is any of the others. */
static void make_quiz(struct quiz *q, size_t length, uint64_t seed)
{
    struct kvg_rng r = {seed};
    size_t n_pairs = length / 4 < N_PAIRS ? length / 4 : N_PAIRS;
    q->length = length;
    q->n = n_pairs;
    q->tokens[0] = KVG_INDUCTION_BEGIN;
    for (size_t i = 1; i < length; i++)
        q->tokens[i] =
            (int32_t)(2 * N_PAIRS + kvg_rng_below(&r, KVG_INDUCTION_WORDS - 2 * N_PAIRS));
    for (size_t i = 0; i < n_pairs; i++) {
        q->key[i] = (int32_t)i;
        q->value[i] = (int32_t)(N_PAIRS + (i * 7) % N_PAIRS);
        q->at[i] = 1 + i * (length - 3) / n_pairs;
        q->tokens[q->at[i]] = q->key[i];
        q->tokens[q->at[i] + 1] = q->value[i];
    }
    for (size_t i = 0; i < n_pairs; i++)
        q->tokens[length + i] = q->key[i];
}

struct bench {
    struct kvg_model *m;
    struct gen_engine g;
    float *logits;
};

static void bench_open(struct bench *b, size_t n_ctx)
{
    struct kvg_err err = {0};
    if (kvg_induction_open(&b->m, n_ctx, &err))
        fail_msg("%s", err.msg);
    gen_engine_open(&b->g, b->m, "auto", 2, 0);
    b->logits = calloc(b->m->n_vocab, sizeof *b->logits);
    assert_non_null(b->logits);
}

static void bench_close(struct bench *b)
{
    free(b->logits);
    gen_engine_close(&b->g);
    kvg_model_close(b->m);
}

/* -log p of the answer; *token is the choice. */
static double score(struct bench *b, const float *hidden, int32_t target, int32_t *token)
{
    struct kvg_drift_base base;
    struct kvg_drift d;
    struct kvg_err err = {0};
    kvg_engine_logits(b->g.e, hidden, 1, b->logits);
    if (kvg_drift_base_init(&base, b->m->n_vocab, &err) ||
        kvg_drift_base_set(&base, b->logits, &err) ||
        kvg_drift_measure(&base, b->logits, target, &d, &err))
        fail_msg("%s", err.msg);
    kvg_drift_base_release(&base);
    *token = d.token;
    return d.nll;
}

static size_t n_wrong_in_prompt(struct bench *b, const struct quiz *q)
{
    struct gen_stream st;
    struct kvg_err err = {0};
    uint32_t want[N_PAIRS];
    size_t wrong = 0;
    float *hidden = calloc(N_PAIRS * b->m->n_embd, sizeof *hidden);
    assert_non_null(hidden);
    gen_stream_open(&st, &b->g, "full", 1);
    for (size_t i = 0; i < q->n; i++)
        want[i] = (uint32_t)(q->length + i);
    struct kvg_stream *s = &st.s;
    if (kvg_engine_prompt(b->g.e, &s, 1, q->tokens, q->length + q->n, 1, want, q->n, hidden, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < q->n; i++) {
        int32_t token;
        double nll = score(b, hidden + i * b->m->n_embd, q->value[i], &token);
        wrong += token != q->value[i] || !(nll < 1e-9);
    }
    gen_stream_close(&st);
    free(hidden);
    return wrong;
}

static void test_full_recalls_all(void **state)
{
    static const size_t lengths[] = {64, 512, 2048, 8000};
    (void)state;
    struct bench b;
    struct quiz *q = malloc(sizeof *q);
    assert_non_null(q);
    bench_open(&b, 8192);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (lengths[i] > 2048 && !getenv("KVGAUGE_LONG"))
            continue;
        make_quiz(q, lengths[i], lengths[i]);
        assert_int_equal(n_wrong_in_prompt(&b, q), 0);
    }
    bench_close(&b);
    free(q);
}

/* ---- the measurement ---- */

enum { ROWS_MAX = 1024, SPECS_MAX = 8 };

struct answers {
    struct kvg_recall counts;
    size_t n, n_skipped;
    struct {
        uint64_t pos, got, expected;
        double nll, kept;
    } v[ROWS_MAX];
};

static int take_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct answers *a = arg;
    if (strcmp(kvg_row_str(row, KVG_RECALL_status), "ok")) {
        a->n_skipped++;
    } else {
        assert_true(a->n < ROWS_MAX);
        a->v[a->n].pos = kvg_row_u64(row, KVG_RECALL_pos);
        a->v[a->n].got = kvg_row_u64(row, KVG_RECALL_got);
        a->v[a->n].expected = kvg_row_u64(row, KVG_RECALL_expected);
        a->v[a->n].nll = kvg_row_f64(row, KVG_RECALL_nll);
        a->v[a->n++].kept = kvg_row_f64(row, KVG_RECALL_kept_tokens_mean);
    }
    return kvg_recall_add(&a->counts, row, err);
}

static int measure(struct answers *a, const char *const *specs, size_t n_specs,
                   const size_t *lengths, size_t n_lengths, int skip_unfit, struct kvg_err *err)
{
    struct kvg_pool *pool;
    assert_int_equal(kvg_pool_open(&pool, 2, err), 0);
    const struct kvg_recall_cfg cfg = {.kernels = kvg_kernels_get("auto"),
                                       .pool = pool,
                                       .specs = specs,
                                       .n_specs = n_specs,
                                       .lengths = lengths,
                                       .n_lengths = n_lengths,
                                       .n_facts = 16,
                                       .seed = 7,
                                       .skip_unfit = skip_unfit};
    memset(a, 0, sizeof *a);
    kvg_recall_init(&a->counts);
    int rc = kvg_recall_run(&cfg, NULL, take_row, a, err);
    kvg_pool_close(pool);
    return rc;
}

static const struct kvg_recall_sum *sum_of(const struct answers *a, const char *strategy,
                                           const char *query, size_t length)
{
    for (size_t i = 0; i < a->counts.n; i++) {
        const struct kvg_recall_sum *s = &a->counts.v[i];
        if (!strcmp(s->strategy, strategy) && !strcmp(s->query, query) && s->length == length)
            return s;
    }
    fail_msg("no rows of '%s' %s %zu", strategy, query, length);
    return NULL;
}

/* What an exact cache, whole in any form, knows; what one that drops by position cannot; what one
 * that saw the questions can. Windows hold the last tokens, the questions of a seen prompt and
 * those asked so far among them. */
static void test_strategies(void **state)
{
    static const char *const specs[] = {
        "full", "f16", "window:budget=64", "sink:budget=64", "snapkv:budget=50%", "uncached"};
    static const size_t lengths[] = {200, 400};
    static struct answers a;
    struct kvg_err err = {0};
    (void)state;
    if (measure(&a, specs, 6, lengths, 2, 0, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(a.n, 6 * 2 * 2 * 16);
    for (size_t q = 0; kvg_recall_queries[q]; q++)
        for (size_t l = 0; l < 2; l++) {
            const char *query = kvg_recall_queries[q];
            assert_int_equal(sum_of(&a, "full", query, lengths[l])->all.asked, 16);
            assert_int_equal(sum_of(&a, "full", query, lengths[l])->all.recalled, 16);
            assert_int_equal(sum_of(&a, "f16", query, lengths[l])->all.recalled, 16);
            assert_int_equal(sum_of(&a, "uncached", query, lengths[l])->all.recalled, 16);
        }
    const struct kvg_recall_sum *w = sum_of(&a, "window:budget=64", "unseen", 400);
    assert_int_equal(w->third[0].recalled + w->third[1].recalled, 0);
    assert_in_range(w->all.recalled, 1, 3);
    w = sum_of(&a, "sink:budget=64", "unseen", 400);
    assert_in_range(w->all.recalled, 1, 4);
    w = sum_of(&a, "snapkv:budget=50%", "unseen", 400);
    assert_in_range(w->all.recalled, 0, 12);
    w = sum_of(&a, "snapkv:budget=50%", "seen", 400);
    assert_int_equal(w->all.recalled, 16);
    kvg_recall_release(&a.counts);
}

/* Every answer of a window is right exactly when the fact still lies in it. */
static void test_window_loses_what_it_dropped(void **state)
{
    static const char *const specs[] = {"window:budget=64"};
    static const size_t length = 512;
    static struct answers a;
    struct kvg_err err = {0};
    (void)state;
    if (measure(&a, specs, 1, &length, 1, 0, &err))
        fail_msg("%s", err.msg);
    size_t n_old = 0;
    for (size_t i = 0; i < 16; i++) { /* the first 16 rows: unseen */
        int old = a.v[i].pos + 1 < length - 64;
        n_old += (size_t)old;
        if (old)
            assert_int_not_equal(a.v[i].got, a.v[i].expected);
        if (a.v[i].pos + 1 > length + 16 - 64) /* in it until the last question */
            assert_int_equal(a.v[i].got, a.v[i].expected);
        assert_int_equal(a.v[i].kept, 64);
    }
    assert_in_range(n_old, 13, 15);
    kvg_recall_release(&a.counts);
}

static void test_deterministic(void **state)
{
    static const char *const specs[] = {"random:budget=50%", "h2o:budget=25%"};
    static const size_t length = 300;
    static struct answers a, b;
    struct kvg_err err = {0};
    (void)state;
    if (measure(&a, specs, 2, &length, 1, 0, &err) || measure(&b, specs, 2, &length, 1, 0, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
    kvg_recall_release(&a.counts);
    kvg_recall_release(&b.counts);
}

static void test_unfit(void **state)
{
    static const char *const specs[] = {"full", "nosuch:budget=3"};
    static const size_t length = 100, too_short = 48;
    static struct answers a;
    struct kvg_err err = {0};
    (void)state;
    assert_int_equal(measure(&a, specs, 2, &length, 1, 0, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "nosuch"));
    kvg_recall_release(&a.counts);
    assert_int_equal(measure(&a, specs, 2, &length, 1, 1, &err), 0);
    assert_int_equal(a.n_skipped, 2);
    assert_int_equal(sum_of(&a, "full", "unseen", 100)->all.recalled, 16);
    assert_non_null(sum_of(&a, "nosuch:budget=3", "seen", 100)->reason);
    kvg_recall_release(&a.counts);
    assert_int_equal(measure(&a, specs, 1, &too_short, 1, 1, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "16 facts need 49"));
    kvg_recall_release(&a.counts);
}

static void test_grid(void **state)
{
    static const char *const specs[] = {"full", "window:budget=64"};
    static const size_t lengths[] = {512, 100};
    static struct answers a;
    struct kvg_grid g;
    struct kvg_err err = {0};
    (void)state;
    if (measure(&a, specs, 2, lengths, 2, 0, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(kvg_recall_grid(&a.counts, "unseen", &g, &err), 0);
    assert_int_equal(g.n_rows, 2);
    assert_int_equal(g.n_columns, 7);
    assert_string_equal(g.heads[1], "100 tokens");
    assert_string_equal(g.heads[2], "512 tokens");
    assert_string_equal(g.text[0], "full");
    assert_string_equal(g.text[2], "16/16");
    assert_string_equal(g.text[3], "100");
    assert_string_equal(g.text[7 + 0], "window:budget=64");
    assert_string_equal(g.text[7 + 4], "0"); /* the first third of both lengths */
    kvg_recall_release(&a.counts);
    kvg_recall_init(&a.counts);
    assert_int_equal(kvg_recall_grid(&a.counts, "seen", &g, &err), 0);
    assert_int_equal(g.n_rows, 0);
    kvg_recall_release(&a.counts);
}

/* A whole run writes the file, the summary and the report show it. */
static void test_run(void **state)
{
    static const char *specs[] = {"full", "window:budget=50%", NULL};
    static const char *items[] = {"chat", NULL};
    static size_t lengths[] = {80};
    struct gen_tiny t;
    struct kvg_str text = {0};
    struct kvg_err err = {0};
    char path[KVG_RUN_DIR_CAP + 32], *html = NULL;
    size_t n;
    (void)state;
    gen_tiny_open(&t, 2);
    gen_tiny_choose(&t, specs, items);
    t.suite.recall = 1;
    t.suite.recall_lengths = lengths;
    t.suite.n_recall_lengths = 1;
    t.suite.recall_facts = 8;
    if (gen_tiny_run(&t, 0, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(gen_tiny_count(&t, &kvg_table_recall), 2 * 2 * 8);
    assert_int_equal(kvg_summary_print(t.dir, &text, &err), 0);
    assert_non_null(strstr(text.s, "8/8"));
    kvg_str_release(&text);
    assert_int_equal(kvg_summary_make(t.dir, &err), 0);
    gen_tiny_rows(&t, &kvg_table_summary, &text);
    assert_non_null(strstr(text.s, "recall-seen-80"));
    kvg_str_release(&text);
    assert_int_equal(kvg_report_make(t.dir, &err), 0);
    snprintf(path, sizeof path, "%s/report.html", t.dir);
    assert_int_equal(kvg_fs_read(path, 1 << 24, &html, &n, &err), 0);
    assert_non_null(strstr(html, "Recall on the constructed model"));
    free(html);
    gen_tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_recalls_all),
        cmocka_unit_test(test_strategies),
        cmocka_unit_test(test_window_loses_what_it_dropped),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_unfit),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
