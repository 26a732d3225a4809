/* The engine on tiny random models: the cache changes no bit, company changes no bit, threads
 * change no bit, and what is taken back or forked goes on as if nothing had been. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { W_MAX = 256, STEPS = 8, SHAPES = 5 };

static struct gen_llama shape(size_t i)
{
    struct gen_llama c = gen_llama_default();
    static const uint32_t dims[SHAPES][5] = {/* n_embd, n_heads, n_kv_heads, d_head, tied */
                                             {128, 4, 2, 32, 1},
                                             {64, 1, 1, 64, 0},
                                             {96, 3, 1, 32, 1},
                                             {160, 2, 2, 64, 0},
                                             {72, 6, 2, 32, 1}};
    c.n_embd = dims[i][0];
    c.n_heads = dims[i][1];
    c.n_kv_heads = dims[i][2];
    c.d_head = dims[i][3];
    c.tied = (int)dims[i][4];
    c.n_ctx = 256;
    c.seed = 40 + i;
    return c;
}

static int same(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        most = !(d <= most) ? d : most;
    }
    return most;
}

/* `full` after a prompt and STEPS steps, against `uncached`: really recomputed at every step. */
static void check_uncached(struct gen_engine *g, double tolerance)
{
    struct gen_stream full, plain;
    int32_t t[70 + STEPS];
    float a[STEPS + 1][W_MAX], b[STEPS + 1][W_MAX];
    gen_tokens(t, 70 + STEPS, g->m->n_vocab, 5);
    gen_stream_open(&full, g, "full", 1);
    gen_stream_open(&plain, g, "uncached", 1);
    gen_prompt(g, &full, t, 70, a[0]);
    gen_prompt(g, &plain, t, 70, b[0]);
    for (size_t i = 0; i <= STEPS; i++) {
        if (i) {
            gen_steps(g, &full, t + 69 + i, 1, a[i]);
            gen_steps(g, &plain, t + 69 + i, 1, b[i]);
            assert_int_equal(plain.s.store->count.n_recomputed, i * 69 + i * (i + 1) / 2);
        }
        if (tolerance == 0)
            assert_true(same(a[i], b[i], g->m->n_embd));
        else
            assert_true(largest_difference(a[i], b[i], g->m->n_embd) <= tolerance);
    }
    assert_true(largest_difference(a[STEPS], a[0], g->m->n_embd) > 1e-3);
    gen_stream_close(&full);
    gen_stream_close(&plain);
}

/* One pass and token by token. */
static void check_prompt_forms(struct gen_engine *g)
{
    struct gen_stream one, many;
    int32_t t[140];
    float a[W_MAX], *b = malloc(140 * W_MAX * sizeof *b);
    assert_non_null(b);
    gen_tokens(t, 140, g->m->n_vocab, 9);
    gen_stream_open(&one, g, "full", 1);
    gen_stream_open(&many, g, "full", 1);
    gen_prompt(g, &one, t, 140, a);
    gen_prompt(g, &many, t, 1, b);
    gen_steps(g, &many, t + 1, 139, b + g->m->n_embd);
    assert_true(same(a, b + 139 * g->m->n_embd, g->m->n_embd));
    assert_true(gen_store_hash(one.s.store) == gen_store_hash(many.s.store));
    gen_stream_close(&one);
    gen_stream_close(&many);
    free(b);
}

static void test_cache_changes_nothing(void **state)
{
    (void)state;
    const char *const *levels = kvg_kernels_levels();
    for (size_t i = 0; i < SHAPES; i++) {
        struct gen_llama c = shape(i);
        struct kvg_model *m = gen_model(&c);
        for (size_t l = 0; levels[l]; l++) {
            struct gen_engine g;
            gen_engine_open(&g, m, levels[l], 2, 1);
            check_uncached(&g, 0);
            if (i < 2)
                check_prompt_forms(&g);
            kvg_engine_set_row_ordered(g.e, 0);
            check_uncached(&g, 1e-5);
            gen_engine_close(&g);
        }
        kvg_model_close(m);
    }
}

static const char *const specs[] = {"full",
                                    "window:budget=24",
                                    "sink:budget=24,sinks=4",
                                    "sink:budget=24,sinks=4,position=true",
                                    "h2o:budget=40%",
                                    "tova:budget=40%+f16",
                                    "snapkv:budget=50%,window=8+kivi:bits=2,group=8,residual=16",
                                    "random:budget=50%+q8_0",
                                    "knorm:budget=50%+q4_0:layout=ggml",
                                    "q8_0:prefill=stored",
                                    "uncached",
                                    "window:budget=24,prefill_chunk=16",
                                    "snapkv:budget=40%,window=8,schedule=every:3",
                                    "r-kv:budget=40,schedule=every:2",
                                    "kvzip:budget=50%",
                                    "quest:budget=32,page=8"};
enum { SPECS = sizeof specs / sizeof *specs };

/* What a stream went through: rows of the prompt's end and of every step, and what is stored. */
struct trace {
    float rows[STEPS + 2][W_MAX];
    uint64_t hash;
    struct kvg_counters count;
};

static void open_all(struct gen_stream *st, struct gen_engine *g)
{
    for (size_t i = 0; i < SPECS; i++)
        gen_stream_open(&st[i], g, specs[i], 100 + i);
}

static void close_all(struct gen_stream *st)
{
    for (size_t i = 0; i < SPECS; i++)
        gen_stream_close(&st[i]);
}

/* A prompt in two parts, steps, a second turn; n streams in company. */
static void run_together(struct gen_engine *g, struct gen_stream *st, size_t n, struct trace *out)
{
    struct kvg_stream *s[SPECS];
    int32_t t[160], fed[SPECS];
    static float rows[SPECS * W_MAX];
    const size_t w = g->m->n_embd;
    const uint32_t want = 19;
    gen_tokens(t, 160, g->m->n_vocab, 77);
    for (size_t i = 0; i < n; i++)
        s[i] = &st[i].s;
    assert_int_equal(kvg_engine_prompt(g->e, s, n, t, 50, 0, NULL, 0, NULL, NULL), 0);
    for (size_t part = 0; part < 2; part++) {
        assert_int_equal(
            kvg_engine_prompt(g->e, s, n, t + 50 + part * 40, 20, 1, &want, 1, rows, NULL), 0);
        for (size_t i = 0; i < n; i++)
            memcpy(out[i].rows[STEPS + part], rows + i * w, w * sizeof *rows);
        for (size_t k = 0; k < STEPS / 2; k++) {
            for (size_t i = 0; i < n; i++)
                fed[i] = t[100 + part * 20 + k];
            assert_int_equal(kvg_engine_step(g->e, s, n, fed, rows, NULL), 0);
            for (size_t i = 0; i < n; i++)
                memcpy(out[i].rows[part * STEPS / 2 + k], rows + i * w, w * sizeof *rows);
        }
        for (size_t i = 0; i < n; i++)
            assert_int_equal(kvg_engine_end_turn(g->e, s[i], NULL), 0);
    }
    for (size_t i = 0; i < n; i++) {
        out[i].hash = gen_store_hash(s[i]->store);
        out[i].count = s[i]->store->count;
        assert_int_equal(kvg_store_check(s[i]->store, NULL), 0);
    }
}

static void compare(const struct trace *a, const struct trace *b, size_t w)
{
    for (size_t i = 0; i < SPECS; i++) {
        for (size_t k = 0; k < STEPS + 2; k++)
            if (!same(a[i].rows[k], b[i].rows[k], w))
                fail_msg("%s: other bits in row %zu", specs[i], k);
        if (a[i].hash != b[i].hash)
            fail_msg("%s: other rows in the store", specs[i]);
        if (memcmp(&a[i].count, &b[i].count, sizeof a[i].count))
            fail_msg("%s: other counters", specs[i]);
    }
}

/* Lockstep and shared prompts against every stream alone; 1, 2 and 3 threads. */
static void test_company_changes_nothing(void **state)
{
    (void)state;
    static struct trace first[SPECS], now[SPECS];
    struct gen_stream st[SPECS];
    struct gen_llama c = shape(0);
    struct kvg_model *m = gen_model(&c);
    for (int ordered = 0; ordered < 2; ordered++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct gen_engine g;
            memset(now, 0, sizeof now);
            gen_engine_open(&g, m, "auto", threads, ordered);
            open_all(st, &g);
            run_together(&g, st, SPECS, threads == 1 ? first : now);
            if (threads > 1)
                compare(first, now, m->n_embd);
            close_all(st);
            if (threads == 2) {
                gen_engine_close(&g);
                continue;
            }
            open_all(st, &g);
            for (size_t i = 0; i < SPECS; i++)
                run_together(&g, &st[i], 1, &now[i]);
            compare(first, now, m->n_embd);
            close_all(st);
            gen_engine_close(&g);
        }
    }
    kvg_model_close(m);
}

/* A fork goes on as the original does, and neither sees what the other is fed meanwhile. */
static void test_fork(void **state)
{
    (void)state;
    struct gen_llama c = shape(0);
    struct kvg_model *m = gen_model(&c);
    struct gen_engine g;
    int32_t t[120], other[20];
    float a[20 * W_MAX], b[20 * W_MAX], x[20 * W_MAX];
    gen_engine_open(&g, m, "auto", 2, 0);
    gen_tokens(t, 120, m->n_vocab, 3);
    gen_tokens(other, 20, m->n_vocab, 4);
    for (size_t i = 0; i < SPECS; i++) {
        struct gen_stream st, fork;
        gen_stream_open(&st, &g, specs[i], 6);
        gen_prompt(&g, &st, t, 70, a);
        gen_steps(&g, &st, t + 70, 10, a);
        gen_stream_fork(&fork, &g, &st);
        uint64_t before = gen_store_hash(st.s.store);
        gen_steps(&g, &fork, other, 7, x);
        assert_true(gen_store_hash(st.s.store) == before);
        gen_stream_close(&fork);
        gen_stream_fork(&fork, &g, &st);
        for (size_t k = 0; k < 10; k++) {
            gen_steps(&g, &st, t + 80 + k, 1, a);
            gen_steps(&g, &fork, t + 80 + k, 1, b);
            if (!same(a, b, m->n_embd))
                fail_msg("%s: the fork goes another way at step %zu", specs[i], k);
        }
        gen_prompt(&g, &st, t + 90, 20, a);
        gen_prompt(&g, &fork, t + 90, 20, b);
        assert_true(same(a, b, m->n_embd));
        assert_true(gen_store_hash(st.s.store) == gen_store_hash(fork.s.store));
        assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
        gen_stream_close(&st);
        assert_int_equal(kvg_store_check(fork.s.store, NULL), 0);
        gen_stream_close(&fork);
    }
    gen_engine_close(&g);
    kvg_model_close(m);
}

/* Taken back and fed again: as if it had never been fed. */
static void test_truncate(void **state)
{
    (void)state;
    static const char *const spec[] = {"full", "f16", "window:budget=20", "sink:budget=20",
                                       "sink:budget=20,prefill_chunk=16"};
    struct gen_llama c = shape(0);
    struct kvg_model *m = gen_model(&c);
    struct gen_engine g;
    int32_t t[100];
    float a[W_MAX], b[W_MAX];
    gen_engine_open(&g, m, "auto", 2, 1);
    gen_tokens(t, 100, m->n_vocab, 8);
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++) {
        static const size_t cuts[] = {0, 1, 64, 79};
        for (size_t k = 0; k < 4; k++) {
            struct gen_stream st, fresh;
            gen_stream_open(&st, &g, spec[i], 1);
            gen_stream_open(&fresh, &g, spec[i], 1);
            gen_prompt(&g, &st, t, 80, a);
            assert_int_equal(kvg_stream_truncate(g.e, &st.s, cuts[k], NULL), 0);
            assert_int_equal(st.s.n_tokens, cuts[k]);
            if (cuts[k])
                gen_prompt(&g, &fresh, t, cuts[k], b);
            gen_prompt(&g, &st, t + 80, 9, a);
            gen_prompt(&g, &fresh, t + 80, 9, b);
            gen_steps(&g, &st, t + 90, 1, a);
            gen_steps(&g, &fresh, t + 90, 1, b);
            if (!same(a, b, m->n_embd) ||
                gen_store_hash(st.s.store) != gen_store_hash(fresh.s.store))
                fail_msg("%s: truncated to %zu it is not what it was", spec[i], cuts[k]);
            assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
            gen_stream_close(&st);
            gen_stream_close(&fresh);
        }
    }
    gen_engine_close(&g);
    kvg_model_close(m);
}

static void test_limits(void **state)
{
    (void)state;
    struct gen_llama c = shape(1);
    struct kvg_model *m = gen_model(&c);
    struct gen_engine g;
    struct gen_stream st, two;
    struct kvg_err err;
    int32_t t[260], bad[] = {(int32_t)m->n_vocab, -1, INT32_MAX};
    float a[2 * W_MAX], b[W_MAX];
    gen_engine_open(&g, m, "ref", 1, 1);
    gen_tokens(t, 260, m->n_vocab, 2);
    gen_stream_open(&st, &g, "full", 1);
    gen_stream_open(&two, &g, "uncached", 1);
    struct kvg_stream *both[] = {&two.s, &st.s}, *s = &st.s;
    assert_int_equal(kvg_engine_prompt(g.e, &s, 1, t, 0, 1, NULL, 0, NULL, &err), KVG_EUSAGE);
    assert_int_equal(kvg_engine_prompt(g.e, &s, 1, t, 257, 1, NULL, 0, NULL, &err), KVG_ELIMIT);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(kvg_engine_prompt(g.e, &s, 1, bad + i, 1, 1, NULL, 0, NULL, &err),
                         KVG_EUSAGE);
        assert_int_equal(kvg_engine_step(g.e, &s, 1, bad + i, a, &err), KVG_EUSAGE);
    }
    assert_int_equal(st.s.n_tokens, 0);
    gen_prompt(&g, &st, t, 255, a);
    gen_prompt(&g, &two, t, 30, b);
    gen_steps(&g, &st, t + 255, 1, a); /* the last place */
    int32_t next[2] = {1, 1};
    assert_int_equal(kvg_engine_step(g.e, both, 2, next, a, &err), KVG_ELIMIT);
    assert_int_equal(two.s.n_tokens, 30); /* nothing was fed to the other one either */
    assert_int_equal(kvg_stream_truncate(g.e, &st.s, 200, &err), 0);
    for (size_t i = 200; i < 256; i++)
        gen_steps(&g, &st, t + i, 1, a);
    assert_int_equal(kvg_engine_step(g.e, &s, 1, next, a, &err), KVG_ELIMIT);
    gen_stream_close(&st);
    gen_stream_close(&two);
    gen_engine_close(&g);
    kvg_model_close(m);
}

/* Prompts of more than one chunk of rows. */
static void test_long_prompt(void **state)
{
    (void)state;
    struct gen_llama c = shape(2);
    struct gen_engine g;
    struct gen_stream one, two;
    enum { N = 1100 };
    int32_t *t = malloc(N * sizeof *t);
    float a[W_MAX], b[W_MAX];
    c.n_ctx = 2048;
    c.n_layers = 1;
    struct kvg_model *m = gen_model(&c);
    gen_engine_open(&g, m, "auto", 2, 1);
    gen_tokens(t, N, m->n_vocab, 12);
    gen_stream_open(&one, &g, "snapkv:budget=10%,window=40", 1);
    gen_stream_open(&two, &g, "full", 1);
    gen_prompt(&g, &one, t, N, a);
    gen_prompt(&g, &two, t, 700, b);
    gen_prompt(&g, &two, t + 700, N - 700, b);
    assert_true(same(a, b, m->n_embd));
    /* the window of 40 queries spans both chunks' boundary in neither case, but its sums must be
     * of the last 40 rows of the whole prompt: the window itself stays */
    int32_t pos[110];
    assert_int_equal(kvg_store_head(one.s.store, 0, 0)->n_slots, 110);
    kvg_store_positions(one.s.store, 0, 0, pos);
    for (int32_t i = 0; i < 40; i++)
        assert_int_equal(pos[70 + i], N - 40 + i);
    gen_stream_close(&one);
    gen_stream_close(&two);
    gen_engine_close(&g);
    kvg_model_close(m);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_changes_nothing),
        cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_long_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
