/* Strategies that narrow what a step reads, against plain computations from the store as it lies:
 * what has weight after attention is what was read. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { W = 128, LAYERS = 2, KV = 2, GROUP = 2, D = 32, CTX = 256, ROWS = LAYERS * KV };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[400];
static float rows[CTX * W];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = CTX;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 1);
    gen_tokens(text, 400, model->n_vocab, 33);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

/* Adds a strategy that looks at every attention row to an open stream. */
static void add_spy(struct gen_stream *st, const struct kvg_strategy *spy)
{
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in = (struct kvg_inst){.s = spy, .first_obs = w->n_obs, .dims = eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM};
}

/* ---- reading ---- */

struct reading {
    size_t budget, page; /* page 0: topk */
    int mean;
    size_t n_checked, n_narrow;
};
static struct reading reading;

static double dot(const float *a, const float *b)
{
    double s = 0;
    for (size_t c = 0; c < D; c++)
        s += (double)a[c] * (double)b[c];
    return s;
}

/* Scores of what may be read: bounds of pages from their keys, or sums of attention of slots. */
static size_t plain_scores(const struct kvg_view *v, size_t h, const float *k, size_t n,
                           double *out)
{
    size_t unit = reading.page ? reading.page : 1, units = (n + unit - 1) / unit;
    for (size_t u = 0; u < units; u++)
        out[u] = reading.mean || !reading.page ? 0 : -INFINITY;
    for (size_t g = h * GROUP; g < (h + 1) * GROUP; g++) {
        const float *q = v->q + g * D;
        double e[CTX], total = 0, top = -INFINITY;
        for (size_t j = 0; j < n; j++) {
            e[j] = dot(q, k + j * D) / sqrt(D);
            top = e[j] > top ? e[j] : top;
        }
        for (size_t j = 0; j < n; j++)
            total += exp(e[j] - top);
        for (size_t u = 0; u < units; u++) {
            double b = 0;
            for (size_t c = 0; c < D && reading.page; c++) {
                double most = -INFINITY;
                for (size_t j = u * unit; j < n && j < (u + 1) * unit; j++) {
                    double x = (double)q[c] * (double)k[j * D + c];
                    most = x > most ? x : most;
                }
                b += most;
            }
            for (size_t j = u * unit; reading.page && j < n && j < (u + 1) * unit; j++)
                assert_true(b >= dot(q, k + j * D) - 1e-5); /* that is what a bound is */
            if (!reading.page)
                b = exp(e[u] - top) / total;
            if (reading.mean)
                out[u] += b;
            else
                out[u] = b > out[u] ? b : out[u];
        }
    }
    out[units - 1] = INFINITY;
    return units;
}

/* What has weight after attention is what was read: the best units by the plain scores. */
static void check_reading(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    size_t unit = reading.page ? reading.page : 1, most = reading.budget / unit;
    float k[CTX * D];
    if (v->phase != KVG_PHASE_DECODE)
        return;
    for (size_t h = 0; h < KV; h++) {
        double score[CTX], worst_in = INFINITY, best_out = -INFINITY;
        size_t n = kvg_view_slots(v, h), n_in = 0;
        kvg_store_read(v->store, v->layer, h, KVG_COL_K, 0, n, k);
        size_t units = plain_scores(v, h, k, n, score);
        for (size_t u = 0; u < units; u++) {
            size_t some = 0, all = 0;
            for (size_t j = u * unit; j < n && j < (u + 1) * unit; j++, all++)
                some += v->obs[in->first_obs][h * GROUP * v->obs_ld + j] > 0;
            assert_true(some == 0 || some == all);
            n_in += some > 0;
            if (some)
                worst_in = score[u] < worst_in ? score[u] : worst_in;
            else
                best_out = score[u] > best_out ? score[u] : best_out;
        }
        assert_int_equal(n_in, units < most ? units : most);
        assert_true(worst_in >= best_out - 1e-5);
        reading.n_narrow += n_in < units;
    }
    reading.n_checked++;
}
static const struct kvg_strategy reader = {
    .name = "reader", .kind = KVG_KIND_READ, .observe = check_reading};

static void test_reading(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        struct reading r;
    } cases[] = {
        {"quest:budget=16,page=4,least=1,dense=0", {.budget = 16, .page = 4}},
        {"quest:budget=10,page=4,least=3,dense=0", {.budget = 12, .page = 4}},
        {"quest:budget=20,page=5,dense=0,gqa=mean", {.budget = 20, .page = 5, .mean = 1}},
        {"quest:budget=4,page=4,least=1,dense=0", {.budget = 4, .page = 4}},
        {"h2o:budget=24+quest:budget=12,page=4,least=1,dense=0", {.budget = 12, .page = 4}},
        {"tova:budget=30+quest:budget=8,page=2,least=1,dense=0", {.budget = 8, .page = 2}},
        {"topk:budget=13", {.budget = 13, .mean = 1}},
        {"topk:budget=9,reduce=max", {.budget = 9}},
        {"topk:budget=1", {.budget = 1, .mean = 1}},
        {"h2o:budget=24+topk:budget=7", {.budget = 7, .mean = 1}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        reading = cases[i].r;
        gen_stream_open(&st, &eng, cases[i].spec, 1);
        add_spy(&st, &reader);
        gen_prompt(&eng, &st, text, 43, rows);
        gen_steps(&eng, &st, text + 43, 20, rows);
        gen_prompt(&eng, &st, text + 63, 11, rows);
        gen_steps(&eng, &st, text + 74, 9, rows);
        assert_int_equal(reading.n_checked, 29 * LAYERS);
        assert_int_equal(reading.n_narrow, 29 * ROWS);
        assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
        gen_stream_close(&st);
    }
}

/* Summaries hold the channels' ranges, survive what goes behind them, and are built again. */
static void check_pages(const struct gen_stream *st, size_t page)
{
    for (size_t r = 0; r < ROWS; r++) {
        size_t full = st->s.store->heads[r].n_slots / page;
        assert_int_equal(kvg_store_page_rows(st->s.store, r / KV, r % KV, 0), full);
        for (size_t p = 0; p < full; p++) {
            float k[CTX * D];
            const float *range = kvg_store_page(st->s.store, r / KV, r % KV, 0, p);
            kvg_store_read(st->s.store, r / KV, r % KV, KVG_COL_K, p * page, page, k);
            for (size_t c = 0; c < D; c++) {
                float low = k[c], high = k[c];
                for (size_t j = 1; j < page; j++) {
                    low = fminf(low, k[j * D + c]);
                    high = fmaxf(high, k[j * D + c]);
                }
                assert_true(range[c] == low && range[D + c] == high);
            }
        }
    }
}

static void test_pages(void **state)
{
    (void)state;
    struct gen_stream st;
    struct kvg_bytes before, after;
    gen_stream_open(&st, &eng, "quest:budget=16,page=4,dense=0", 1);
    gen_prompt(&eng, &st, text, 43, rows);
    check_pages(&st, 4);
    kvg_store_bytes(st.s.store, &before);
    assert_int_equal(before.state, ROWS * 10 * 2 * D * sizeof(float));
    gen_steps(&eng, &st, text + 43, 1, rows);
    kvg_store_bytes(st.s.store, &after);
    assert_int_equal(after.state, before.state + ROWS * 2 * D * sizeof(float));
    gen_steps(&eng, &st, text + 44, 9, rows);
    check_pages(&st, 4);
    assert_int_equal(kvg_stream_truncate(eng.e, &st.s, 22, NULL), 0);
    check_pages(&st, 4);
    gen_steps(&eng, &st, text + 100, 9, rows);
    check_pages(&st, 4);
    gen_stream_close(&st);
    gen_stream_open(&st, &eng, "quest:budget=16,page=4,dense=1", 1);
    gen_prompt(&eng, &st, text, 43, rows);
    assert_int_equal(kvg_store_page_rows(st.s.store, 0, 0, 0), 0);
    assert_int_equal(kvg_store_page_rows(st.s.store, 1, 0, 0), 10);
    gen_stream_close(&st);
}

/* Everything may be read: the rows of `full`, bit for bit, and no row more is read. */
static void test_reading_everything(void **state)
{
    (void)state;
    static const char *const specs[] = {"full",
                                        "topk:budget=256",
                                        "topk:budget=100%",
                                        "quest:budget=100%,page=4,dense=0",
                                        "quest:budget=4",
                                        "quest:budget=64,page=4,least=1"};
    static float want[40 * W];
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct gen_stream st;
        gen_stream_open(&st, &eng, specs[i], 1);
        gen_prompt(&eng, &st, text, 20, rows);
        uint64_t before = st.s.store->count.bytes_read;
        gen_steps(&eng, &st, text + 20, 28, rows);
        if (i == 0) {
            bytes = st.s.store->count.bytes_read - before;
            memcpy(want, rows, 28 * W * sizeof *want);
        }
        if (memcmp(want, rows, 28 * W * sizeof *want))
            fail_msg("%s: not the rows of full", specs[i]);
        assert_true(strncmp(specs[i], "topk", 4) || st.s.store->count.bytes_read - before == bytes);
        gen_stream_close(&st);
    }
}

/* Scoring every key is paid for: K once, and K and V of what is read. */
static void test_topk_bill(void **state)
{
    (void)state;
    struct gen_stream st;
    gen_stream_open(&st, &eng, "topk:budget=8", 1);
    gen_prompt(&eng, &st, text, 40, rows);
    uint64_t before = st.s.store->count.bytes_read;
    gen_steps(&eng, &st, text + 40, 1, rows);
    assert_int_equal(st.s.store->count.bytes_read - before,
                     ROWS * (41 + 2 * 8) * D * sizeof(float));
    gen_stream_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_reading_everything),
        cmocka_unit_test(test_topk_bill),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
