/* Strategies that use extra passes, narrow what is read, or change values, against plain
 * computations made beside them: from the rows of a `full` stream, from attention seen step by
 * step, from the store as it lies. */
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

/* ---- attention by position, gathered from a stream fed token by token ---- */

static struct {
    int from;                              /* queries before this position do not count */
    size_t n_rows;                         /* [layer 0] queries that count */
    double sum[ROWS][CTX], max[ROWS][CTX]; /* over query heads and queries */
} seen;

static void gather(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    if (v->phase != KVG_PHASE_DECODE || (int)v->n_logical - 1 < seen.from)
        return;
    seen.n_rows += v->layer == 0;
    for (size_t g = 0; g < KV * GROUP; g++) {
        size_t r = v->layer * KV + g / GROUP;
        const float *p = v->obs[in->first_obs] + g * v->obs_ld;
        for (size_t j = 0; j < kvg_view_slots(v, g / GROUP); j++) {
            seen.sum[r][j] += (double)p[j];
            seen.max[r][j] = (double)p[j] > seen.max[r][j] ? (double)p[j] : seen.max[r][j];
        }
    }
}
static const struct kvg_strategy gatherer = {
    .name = "gather", .kind = KVG_KIND_READ, .observe = gather};

/* Attention that queries n.. of t pay to all before them, under a full cache. */
static void see(const int32_t *t, size_t n, size_t n_all)
{
    struct gen_stream full;
    memset(&seen, 0, sizeof seen);
    seen.from = (int)n;
    gen_stream_open(&full, &eng, "full", 1);
    add_spy(&full, &gatherer);
    gen_prompt(&eng, &full, t, n, rows);
    gen_steps(&eng, &full, t + n, n_all - n, rows);
    assert_int_equal(seen.n_rows, n_all - n);
    gen_stream_close(&full);
}

/* The slots of some heads [r0, r1) are the `keep` best by score[row][position], up to rounding. */
static void check_best(const struct gen_stream *st, const char *spec, size_t r0, size_t r1,
                       size_t n, size_t keep, double score[ROWS][CTX])
{
    double worst_in = INFINITY, best_out = -INFINITY;
    size_t total = 0;
    for (size_t r = r0; r < r1; r++) {
        int32_t pos[CTX];
        size_t slots = st->s.store->heads[r].n_slots, k = 0;
        kvg_store_positions(st->s.store, r / KV, r % KV, pos);
        total += slots;
        for (size_t j = 0; j < n; j++) {
            int in = k < slots && pos[k] == (int32_t)j;
            k += (size_t)in;
            if (in)
                worst_in = score[r][j] < worst_in ? score[r][j] : worst_in;
            else
                best_out = score[r][j] > best_out ? score[r][j] : best_out;
        }
        assert_int_equal(k, slots);
    }
    if (total != keep)
        fail_msg("%s: %zu slots of heads %zu..%zu instead of %zu", spec, total, r0, r1, keep);
    if (!(worst_in >= best_out - 1e-6))
        fail_msg("%s: keeps a score of %g and drops %g", spec, worst_in, best_out);
}

/* ---- kvzip ---- */

static size_t words(const char *s, int32_t *out)
{
    return eng.dims.encode(eng.dims.tokenizer, s, out, CTX);
}

/* What the model is asked to repeat, as the definition says; index of the chunk, its length. */
static size_t repeat_tokens(const int32_t *t, size_t n, size_t chunk, size_t i, int32_t *out)
{
    size_t m = words(i ? "\n\nRepeat the part of the previous context exactly, starting with"
                       : "\n\nRepeat the previous context exactly.",
                     out);
    for (size_t k = 0; i && k < 8; k++)
        out[m++] = t[i * chunk - 8 + k];
    m += words("\n", out + m);
    for (size_t k = i * chunk; k < n && k < (i + 1) * chunk; k++)
        out[m++] = t[k];
    return m;
}

static void see_repeats(const int32_t *t, size_t n, size_t chunk, double score[ROWS][CTX])
{
    int32_t all[CTX];
    memset(score, 0, sizeof(double[ROWS][CTX]));
    memcpy(all, t, n * sizeof *all);
    for (size_t i = 0; i * chunk < n; i++) {
        size_t m = repeat_tokens(t, n, chunk, i, all + n);
        see(all, n, n + m);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = 0; j < n; j++)
                score[r][j] = j < 4                          ? 2
                              : seen.max[r][j] > score[r][j] ? seen.max[r][j]
                                                             : score[r][j];
    }
}

static void test_kvzip(void **state)
{
    (void)state;
    enum { N = 60 };
    static double score[2][ROWS][CTX];
    static const struct {
        const char *spec;
        int chunked, layerwise;
        size_t keep; /* of all heads, or of a layer's */
    } cases[] = {{"kvzip:budget=50%", 0, 0, 120},
                 {"kvzip:budget=30%", 0, 0, 72},
                 {"kvzip:budget=20", 0, 0, 80},
                 {"kvzip:budget=512B", 0, 0, 120},
                 {"kvzip:budget=25%,chunk=25", 1, 0, 60},
                 {"kvzip:budget=41%,layerwise=yes", 0, 1, 50},
                 {"kvzip:budget=17,chunk=25,layerwise=yes", 1, 1, 34}};
    see_repeats(text, N, N, score[0]);
    see_repeats(text, N, 25, score[1]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        size_t layers = cases[i].layerwise ? 1 : LAYERS;
        gen_stream_open(&st, &eng, cases[i].spec, 1);
        gen_prompt(&eng, &st, text, N, rows);
        for (size_t l = 0; l < LAYERS; l += layers)
            check_best(&st, cases[i].spec, l * KV, (l + layers) * KV, N, cases[i].keep,
                       score[cases[i].chunked]);
        assert_int_equal(st.s.n_tokens, N);
        assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
        gen_stream_close(&st);
    }
}

static size_t all_slots(const struct gen_stream *st)
{
    size_t n = 0;
    for (size_t r = 0; r < ROWS; r++)
        n += st->s.store->heads[r].n_slots;
    return n;
}

/* A second turn counts from the whole text; every head keeps its first position in any case. */
static void test_kvzip_turns(void **state)
{
    (void)state;
    struct gen_stream st;
    int32_t pos[CTX];
    gen_stream_open(&st, &eng, "kvzip:budget=40%", 1);
    gen_prompt(&eng, &st, text, 40, rows);
    assert_int_equal(all_slots(&st), 4 * 40 - 96);
    gen_steps(&eng, &st, text + 40, 7, rows);
    assert_int_equal(all_slots(&st), 4 * 40 - 96 + 4 * 7);
    gen_prompt(&eng, &st, text + 47, 30, rows);
    assert_int_equal(all_slots(&st), 4 * 77 - 184);
    gen_stream_close(&st);
    gen_stream_open(&st, &eng, "kvzip:budget=1", 1);
    gen_prompt(&eng, &st, text, 40, rows);
    for (size_t r = 0; r < ROWS; r++) {
        assert_int_equal(st.s.store->heads[r].n_slots, 1);
        kvg_store_positions(st.s.store, r / KV, r % KV, pos);
        assert_int_equal(pos[0], 0);
    }
    gen_stream_close(&st);
}

/* A model without words cannot be asked, a full context has no room to ask in, and looking while
 * decoding would need passes that only a prompt's end has. */
static void test_refusals(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_pipeline p;
    struct kvg_err err;
    struct kvg_dims dims = eng.dims;
    struct gen_stream st;
    dims.encode = NULL;
    kvg_arena_init(&a);
    assert_int_equal(kvg_pipeline_open(&p, "kvzip", &dims, &a, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "tokenizer"));
    static const char *const often[] = {"kvzip:schedule=every:8", "oracle:schedule=every:8"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kvg_pipeline_open(&p, often[i], &eng.dims, &a, &err), KVG_EUSAGE);
        assert_non_null(strstr(err.msg, "schedule"));
    }
    kvg_arena_release(&a);
    gen_stream_open(&st, &eng, "kvzip:budget=50%", 1);
    struct kvg_stream *s = &st.s;
    assert_int_equal(kvg_engine_prompt(eng.e, &s, 1, text, 220, 1, NULL, 0, NULL, &err),
                     KVG_ELIMIT);
    gen_stream_close(&st);
}

/* ---- oracle ---- */

static void test_oracle(void **state)
{
    (void)state;
    enum { N = 50, FUTURE = 40 };
    static const struct {
        const char *spec;
        size_t horizon, keep;
    } cases[] = {{"oracle:budget=12", FUTURE, 12},
                 {"oracle:budget=50%", FUTURE, 25},
                 {"oracle:budget=20,horizon=7", 7, 20}};
    struct gen_stream st;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        see(text, N, N + cases[i].horizon);
        gen_stream_open(&st, &eng, cases[i].spec, 1);
        st.s.text.future = text + N;
        st.s.text.n_future = FUTURE;
        gen_prompt(&eng, &st, text, N, rows);
        for (size_t r = 0; r < ROWS; r++)
            check_best(&st, cases[i].spec, r, r + 1, N, cases[i].keep, seen.sum);
        assert_int_equal(st.pipe.role, KVG_ROLE_ORACLE);
        gen_stream_close(&st);
    }
    gen_stream_open(&st, &eng, "oracle:budget=12", 1);
    gen_prompt(&eng, &st, text, N, rows);
    assert_int_equal(all_slots(&st), ROWS * N);
    gen_stream_close(&st);
}

/* ---- window-recompute ---- */

static void check_near(const float *a, const float *b)
{
    for (size_t i = 0; i < W; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-4f);
}

/* The row of a stream that was never fed anything but t[n - w .. n). */
static void fresh_row(const int32_t *t, size_t n, size_t w, float *out)
{
    struct gen_stream st;
    gen_stream_open(&st, &eng, "full", 1);
    gen_prompt(&eng, &st, t + n - w, w, out);
    gen_stream_close(&st);
}

static void test_window_recompute(void **state)
{
    (void)state;
    enum { WIN = 24 };
    struct gen_stream st;
    float want[W];
    gen_stream_open(&st, &eng, "window-recompute:budget=24", 1);
    gen_prompt(&eng, &st, text, 20, rows);
    gen_steps(&eng, &st, text + 20, 4, rows); /* the window covers everything */
    assert_int_equal(st.s.store->count.n_recomputed, 0);
    for (size_t n = 25; n < 40; n++) {
        gen_steps(&eng, &st, text + n - 1, 1, rows);
        fresh_row(text, n, WIN, want);
        check_near(rows, want);
        assert_int_equal(all_slots(&st), ROWS * WIN);
        assert_int_equal(st.s.store->count.n_recomputed, (n - 24) * (WIN - 1));
    }
    gen_prompt(&eng, &st, text + 39, 10, rows); /* 14 again and 10 new ones */
    fresh_row(text, 49, WIN, want);
    check_near(rows, want);
    gen_prompt(&eng, &st, text + 49, 30, rows); /* longer than the window: seen whole */
    fresh_row(text, 79, 30, want);
    check_near(rows, want);
    assert_int_equal(all_slots(&st), ROWS * WIN);
    assert_int_equal(kvg_stream_truncate(eng.e, &st.s, 15, NULL), 0);
    gen_steps(&eng, &st, text + 15, 1, rows); /* nothing of the text is missing now */
    fresh_row(text, 16, 16, want);
    check_near(rows, want);
    uint64_t again = st.s.store->count.n_recomputed;
    gen_steps(&eng, &st, text + 16, 1, rows);
    assert_int_equal(st.s.store->count.n_recomputed, again);
    gen_stream_close(&st);
}

/* ---- merge ---- */

static struct {
    size_t n[ROWS];
    int32_t pos[ROWS][CTX];
    float v[ROWS][CTX * D];
    double acc[ROWS][CTX]; /* by position */
} before;

/* Attention received so far, and the store as it is when the choice is made. */
static void record(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    for (size_t h = 0; h < KV; h++) {
        size_t r = v->layer * KV + h, n = kvg_view_slots(v, h);
        before.n[r] = n;
        kvg_store_positions(columns, v->layer, h, before.pos[r]);
        kvg_store_read(columns, v->layer, h, KVG_COL_V, 0, n, before.v[r]);
        for (size_t g = h * GROUP; g < (h + 1) * GROUP; g++)
            for (size_t j = 0; j < n; j++)
                before.acc[r][before.pos[r][j]] +=
                    (double)v->obs[in->first_obs][g * v->obs_ld + j] / GROUP;
    }
}
static const struct kvg_strategy recorder = {
    .name = "record", .kind = KVG_KIND_READ, .observe = record};

/* Values of one head by hand: what went is spread over its successors among what stayed. */
static size_t check_values(const struct gen_stream *st, size_t r, size_t into, int against_max,
                           struct kvg_rng *rng)
{
    int32_t pos[CTX];
    float got[CTX * D];
    double want[CTX * D];
    size_t m = st->s.store->heads[r].n_slots, k = 0, merged = 0;
    double most = 0;
    kvg_store_positions(st->s.store, r / KV, r % KV, pos);
    for (size_t i = 0; i < m; i++)
        most = fmax(most, before.acc[r][pos[i]]);
    kvg_store_read(st->s.store, r / KV, r % KV, KVG_COL_V, 0, m, got);
    for (size_t j = 0; j < before.n[r]; j++)
        if (k < m && pos[k] == before.pos[r][j]) {
            for (size_t c = 0; c < D; c++)
                want[k * D + c] = (double)before.v[r][j * D + c];
            k++;
        }
    assert_int_equal(k, m);
    k = 0;
    for (size_t j = 0; j < before.n[r]; j++) {
        if (k < m && pos[k] == before.pos[r][j]) {
            k++;
            continue;
        }
        size_t n = m - k < into ? m - k : into;
        double mean = 0, draw = kvg_rng_unit(rng);
        for (size_t i = 0; i < n; i++)
            mean += before.acc[r][pos[k + i]] / (double)n;
        if (n == 0 || draw >= before.acc[r][before.pos[r][j]] / (against_max ? most : mean))
            continue;
        merged++;
        for (size_t i = 0; i < n * D; i++)
            want[k * D + i] += (double)before.v[r][j * D + i % D] / (double)n;
    }
    for (size_t i = 0; i < m * D; i++)
        assert_true(fabs((double)got[i] - want[i]) <= 1e-5 * (1 + fabs(want[i])));
    return merged;
}

static void test_merge(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *plain;
        size_t into, into_at_prompt;
        int against_max;
    } cases[] = {
        {"merge:budget=24,against=mean", "h2o:budget=24", 32, 0, 0},
        {"merge:budget=24,into=3,prompt=merge,against=mean", "h2o:budget=24", 3, 3, 0},
        {"merge:budget=30%,recent=0.2,into=8,prompt=merge,against=mean", "h2o:budget=30%,recent=0.2", 8, 8, 0},
        {"merge:budget=16,recent=0,prompt=merge,against=mean", "h2o:budget=16,recent=0", 32, 32, 0},
        {"merge:budget=24,prompt=merge", "h2o:budget=24", 32, 32, 1}};
    size_t total = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st, plain;
        struct kvg_rng rng = {7};
        size_t merged = 0;
        memset(&before, 0, sizeof before);
        gen_stream_open(&st, &eng, cases[i].spec, 7);
        add_spy(&st, &recorder);
        gen_prompt(&eng, &st, text, 50, rows);
        for (size_t r = 0; r < ROWS; r++)
            merged += check_values(&st, r, cases[i].into_at_prompt, cases[i].against_max, &rng);
        assert_true((merged > 0) == (i > 0));
        /* without recent ones, what goes has less than what stays, and is not always merged */
        assert_true(i < 3 || merged < st.s.store->count.n_evicted);
        gen_stream_open(&plain, &eng, cases[i].plain, 7); /* the prompt's choice is the same */
        gen_prompt(&eng, &plain, text, 50, rows);
        for (size_t r = 0; r < ROWS; r++) {
            int32_t a[CTX], b[CTX];
            size_t n = plain.s.store->heads[r].n_slots;
            assert_int_equal(st.s.store->heads[r].n_slots, n);
            kvg_store_positions(st.s.store, r / KV, r % KV, a);
            kvg_store_positions(plain.s.store, r / KV, r % KV, b);
            assert_memory_equal(a, b, n * sizeof *a);
        }
        gen_stream_close(&plain);
        merged = 0;
        for (size_t k = 0; k < 12; k++) {
            gen_steps(&eng, &st, text + 50 + k, 1, rows);
            for (size_t r = 0; r < ROWS; r++)
                merged += check_values(&st, r, cases[i].into, cases[i].against_max, &rng);
            assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
        }
        total += merged;
        gen_stream_close(&st);
    }
    assert_true(total > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_recompute), cmocka_unit_test(test_kvzip),
        cmocka_unit_test(test_kvzip_turns),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_oracle),           cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
