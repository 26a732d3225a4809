/* What is particular to single encoding strategies: errors that add up where a cache is encoded
 * again and again, and a cache in small blocks that gives the numbers of a whole one. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { W = 128, PROMPT = 50, STEPS = 120 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[PROMPT + STEPS];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, PROMPT + STEPS, model->n_vocab, 33);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

/* Keys of the first prompt token in the last head of every layer. */
static void first_keys(const struct gen_stream *st, float *out)
{
    for (size_t l = 0; l < model->n_layers; l++)
        kvg_store_read(st->s.store, l, model->n_kv_heads - 1, KVG_COL_K, 0, 1,
                       out + l * model->d_head);
}

static double distance(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

/* Error of those keys after the prompt and after the last step; n_flushes: how often it changed. */
static void measure(const char *spec, double *first, double *last, size_t *n_flushes)
{
    struct gen_stream full, st;
    float want[256], got[256], x[W];
    size_t n = model->n_layers * model->d_head;
    gen_stream_open(&full, &eng, "full", 1);
    gen_stream_open(&st, &eng, spec, 1);
    gen_prompt(&eng, &full, text, PROMPT, x);
    gen_prompt(&eng, &st, text, PROMPT, x);
    first_keys(&full, want);
    first_keys(&st, got);
    *last = *first = distance(want, got, n);
    *n_flushes = 0;
    for (size_t i = 0; i < STEPS; i++) {
        uint64_t encoded = st.s.store->count.n_encoded;
        gen_steps(&eng, &st, text + PROMPT + i, 1, x);
        *n_flushes += st.s.store->count.n_encoded > encoded;
        assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
    }
    first_keys(&st, got);
    *last = distance(want, got, n);
    gen_stream_close(&full);
    gen_stream_close(&st);
}

/* What is encoded again drifts away where group borders move; what is sealed once stays. */
static void test_errors_add_up(void **state)
{
    (void)state;
    double first, few, many, last;
    size_t n, m;
    measure("requant:bits=4,group=32,residual=30", &first, &few, &n);
    assert_int_equal(n, STEPS / 30);
    assert_true(first > 0 && few > 1.4 * first);
    measure("requant:bits=4,group=32,residual=3", &first, &many, &m);
    assert_int_equal(m, STEPS / 3);
    assert_true(many > 1.4 * few);
    measure("requant:bits=2,group=32,residual=8,axis=token", &first, &last, &m);
    assert_int_equal(m, STEPS / 8);
    assert_true(last < 1.1 * first);
    measure("kivi:bits=2,group=8,residual=8", &first, &last, &n);
    assert_true(n >= STEPS / 8);
    assert_true(first > 0 && last == first);
}

/* Every flush decodes what was encoded and encodes all, in every head. */
static void test_requant_is_billed(void **state)
{
    (void)state;
    struct gen_stream st;
    float x[W];
    size_t rows = 2 * model->n_layers * model->n_kv_heads;
    gen_stream_open(&st, &eng, "requant:residual=10", 1);
    gen_prompt(&eng, &st, text, PROMPT, x);
    assert_int_equal(st.s.store->count.n_encoded, rows * PROMPT);
    assert_int_equal(st.s.store->count.n_decoded, 0);
    for (size_t i = 0; i < 20; i++)
        gen_steps(&eng, &st, text + PROMPT + i, 1, x);
    assert_int_equal(st.s.store->count.n_encoded, rows * (3 * PROMPT + 30));
    assert_int_equal(st.s.store->count.n_decoded, rows * (2 * PROMPT + 10));
    gen_stream_close(&st);
}

static uint32_t expected[4][4]; /* masks by layer and KV head */

/* Channels by their definition, before anything is encoded: the 16 of 32 with the most energy in
 * the last queries times the most in the keys. */
static void expect_masks(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    size_t d = 32, n = kvg_view_slots(v, 0), group = model->n_heads / model->n_kv_heads;
    float k[PROMPT * 32];
    (void)in;
    (void)columns;
    if (v->phase != KVG_PHASE_PROMPT || n != PROMPT)
        return;
    assert_non_null(v->queries);
    assert_int_equal(v->n_queries, 8);
    for (size_t h = 0; h < model->n_kv_heads; h++) {
        double score[32];
        uint32_t mask = 0;
        kvg_store_read(v->store, v->layer, h, KVG_COL_K, 0, n, k);
        for (size_t c = 0; c < d; c++) {
            double of_q = 0, of_k = 0;
            for (size_t i = 0; i < 8 * group; i++) {
                float q =
                    v->queries[((i / group) * model->n_heads + h * group + i % group) * d + c];
                of_q += (double)q * (double)q / (8 * (double)group);
            }
            for (size_t j = 0; j < n; j++)
                of_k += (double)k[j * d + c] * (double)k[j * d + c] / (double)n;
            score[c] = of_q * of_k;
        }
        for (int left = 16; left > 0; left--) {
            size_t best = 0;
            for (size_t c = 1; c < d; c++)
                best = score[c] > score[best] ? c : best;
            score[best] = -1;
            mask |= 1u << best;
        }
        expected[v->layer][h] = mask;
    }
}

static const struct kvg_strategy watcher = {
    .name = "watch", .kind = KVG_KIND_READ, .observe = expect_masks};

/* The right channels stay, the bytes of the others are gone, and values and late keys are whole. */
static void test_think(void **state)
{
    (void)state;
    struct gen_stream st;
    struct kvg_bytes b;
    float x[W], k[PROMPT * 32];
    size_t heads = model->n_layers * model->n_kv_heads;
    assert_int_equal(model->d_head, 32);
    gen_stream_open(&st, &eng, "think:channels=50%,window=8,recent=4", 1);
    st.pipe.inst[st.pipe.n++] = (struct kvg_inst){.s = &watcher, .dims = eng.dims};
    gen_prompt(&eng, &st, text, PROMPT, x);
    kvg_store_bytes(st.s.store, &b);
    assert_int_equal(b.payload, heads * 4 * ((PROMPT - 4) * 16 + 4 * 32 + PROMPT * 32));
    assert_int_equal(b.scales, heads * 4);
    for (size_t l = 0; l < model->n_layers; l++)
        for (size_t h = 0; h < model->n_kv_heads; h++) {
            kvg_store_read(st.s.store, l, h, KVG_COL_K, 0, PROMPT, k);
            assert_int_equal(kvg_store_exact_slots(st.s.store, l, h, KVG_COL_K), 4);
            assert_int_equal(kvg_store_exact_slots(st.s.store, l, h, KVG_COL_V), PROMPT);
            for (size_t j = 0; j < PROMPT; j++)
                for (size_t c = 0; c < 32; c++)
                    assert_true((k[j * 32 + c] != 0) ==
                                (j >= PROMPT - 4 || (expected[l][h] >> c & 1)));
        }
    gen_steps(&eng, &st, text + PROMPT, 1, x);
    assert_int_equal(kvg_store_exact_slots(st.s.store, 0, 0, KVG_COL_K), 5);
    gen_stream_close(&st);
}

/* Turn after turn, alone and below what evicts: never more than one short group in a list. */
static void test_think_turns(void **state)
{
    (void)state;
    static const char *const specs[] = {"think:recent=0,window=4,form=f16",
                                        "snapkv:budget=60%,window=8+think:recent=3",
                                        "sink:budget=70,position=slot+think:window=8"};
    for (size_t i = 0; i < 3; i++) {
        struct gen_stream st;
        struct kvg_err err;
        float x[W];
        gen_stream_open(&st, &eng, specs[i], 1);
        for (size_t turn = 0; turn < 6; turn++) {
            gen_prompt(&eng, &st, text + turn * 10, turn ? 23 : PROMPT, x);
            for (size_t s = 0; s < 5; s++)
                gen_steps(&eng, &st, text + s, 1, x);
            if (kvg_store_check(st.s.store, &err))
                fail_msg("%s: %s", specs[i], err.msg);
            for (size_t h = 0; h < model->n_layers * model->n_kv_heads; h++) {
                const struct kvg_list *l = &st.s.store->heads[h].cols[KVG_COL_K];
                size_t n_short = 0;
                for (uint32_t k = 0; k < l->n_segs; k++)
                    n_short += l->segs[k].codec && l->segs[k].n < 64;
                assert_true(n_short <= 1);
            }
            assert_int_equal(kvg_engine_end_turn(eng.e, &st.s, NULL), 0);
        }
        assert_true(st.s.store->count.n_encoded > 0);
        gen_stream_close(&st);
    }
}

/* Small blocks change no bit, alone and below what evicts; less of them is empty. */
static void test_paged(void **state)
{
    (void)state;
    static const char *const below[] = {"full", "h2o:budget=30", "sink:budget=24"};
    static const char *const pages[] = {"paged", "paged:block=1", "paged:block=5"};
    static float want[STEPS * W], got[STEPS * W];
    for (size_t i = 0; i < 3; i++) {
        struct gen_stream a, b;
        struct kvg_bytes whole, paged;
        char spec[64];
        float x[W], y[W];
        gen_stream_open(&a, &eng, below[i], 2);
        gen_prompt(&eng, &a, text, PROMPT, x);
        gen_steps(&eng, &a, text + PROMPT, STEPS, want);
        kvg_store_bytes(a.s.store, &whole);
        for (size_t k = 0; k < 3; k++) {
            snprintf(spec, sizeof spec, "%s+%s", below[i], pages[k]);
            gen_stream_open(&b, &eng, spec, 2);
            gen_prompt(&eng, &b, text, PROMPT, y);
            gen_steps(&eng, &b, text + PROMPT, STEPS, got);
            assert_memory_equal(x, y, sizeof x);
            assert_memory_equal(want, got, sizeof want);
            assert_int_equal(kvg_store_check(b.s.store, NULL), 0);
            kvg_store_bytes(b.s.store, &paged);
            assert_int_equal(paged.payload, whole.payload);
            assert_true(paged.frag < whole.frag);
            gen_stream_close(&b);
        }
        gen_stream_close(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_add_up), cmocka_unit_test(test_requant_is_billed),
        cmocka_unit_test(test_think),         cmocka_unit_test(test_think_turns),
        cmocka_unit_test(test_paged),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
