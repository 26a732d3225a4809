/* Strategies that evict while decoding, and the guards around them, against plain
 * re-implementations and cases computed by hand: which positions every head keeps after every step.
 */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_LAYERS = 6, N_TEXT = 200, W = 128 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[N_TEXT];
static float hidden[N_TEXT * W];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    c.n_layers = N_LAYERS;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 1);
    gen_tokens(text, N_TEXT, model->n_vocab, 77);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

static size_t positions_of(const struct gen_stream *st, size_t layer, size_t head, int32_t *pos)
{
    kvg_store_positions(st->s.store, layer, head, pos);
    return kvg_store_head(st->s.store, layer, head)->n_slots;
}

static void check_head(const struct gen_stream *st, size_t layer, size_t head, const int32_t *want,
                       size_t n)
{
    int32_t pos[N_TEXT];
    size_t got = positions_of(st, layer, head, pos);
    if (got != n)
        fail_msg("%s, %zu tokens, layer %zu, head %zu: %zu slots, not %zu", st->pipe.label,
                 st->s.n_tokens, layer, head, got, n);
    for (size_t j = 0; j < n; j++)
        if (pos[j] != want[j])
            fail_msg("%s, %zu tokens, layer %zu, head %zu: slot %zu holds position %d, not %d",
                     st->pipe.label, st->s.n_tokens, layer, head, j, pos[j], want[j]);
}

static void check_all(const struct gen_stream *st, const int32_t *want, size_t n)
{
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < model->n_kv_heads; h++)
            check_head(st, l, h, want, n);
}

/* ---- ctx-shift ---- */

/* A list of positions that is cut as llama.cpp cuts its cache. */
static void test_ctx_shift(void **state)
{
    (void)state;
    enum { BUDGET = 20, KEEP = 3, PROMPT = 30 };
    struct gen_stream st;
    int32_t pos[BUDGET + 1];
    size_t n = 0, n_shifts = 0;
    gen_stream_open(&st, &eng, "ctx-shift:budget=20,keep=3", 1);
    gen_prompt(&eng, &st, text, PROMPT, hidden);
    for (int32_t p = 0; p < PROMPT; p++)
        if (p < KEEP || p >= PROMPT - (BUDGET - KEEP))
            pos[n++] = p;
    check_all(&st, pos, n);
    for (int32_t p = PROMPT; p < PROMPT + 40; p++) {
        gen_steps(&eng, &st, text + p, 1, hidden);
        if (n == BUDGET) { /* full: the first half of what is not kept goes */
            size_t n_discard = (n - KEEP) / 2;
            memmove(pos + KEEP, pos + KEEP + n_discard, (n - KEEP - n_discard) * sizeof *pos);
            n -= n_discard;
            n_shifts++;
        }
        pos[n++] = p;
        check_all(&st, pos, n);
    }
    assert_int_equal(n_shifts, 5);
    gen_stream_close(&st);
}

/* ---- hybrid ---- */

static void check_hybrid(const char *spec, size_t full, size_t window)
{
    struct gen_stream st;
    gen_stream_open(&st, &eng, spec, 1);
    for (size_t n = 40; n <= 50; n++) {
        int32_t all[64];
        if (n == 40)
            gen_prompt(&eng, &st, text, n, hidden);
        else
            gen_steps(&eng, &st, text + n, 1, hidden);
        for (size_t i = 0; i < n; i++)
            all[i] = (int32_t)i;
        for (size_t l = 0; l < N_LAYERS; l++)
            for (size_t h = 0; h < model->n_kv_heads; h++) {
                size_t stay = (l + 1) % full ? window : n;
                check_head(&st, l, h, all + n - stay, stay);
            }
    }
    gen_stream_close(&st);
}

static void test_hybrid(void **state)
{
    (void)state;
    check_hybrid("hybrid:budget=12,full=3", 3, 12);
    check_hybrid("hybrid:budget=12,full=6", 6, 12);
    check_hybrid("hybrid:budget=12,full=7", 7, 12); /* six layers: none is full */
}

/* Bytes are of all layers: what the full ones leave goes to the windows. */
static void test_hybrid_bytes(void **state)
{
    (void)state;
    struct gen_stream st;
    struct kvg_bytes b;
    size_t slot = N_LAYERS * model->n_kv_heads * 2 * model->d_head * sizeof(float);
    char spec[64];
    snprintf(spec, sizeof spec, "hybrid:budget=%zuB,full=3", slot / 2);
    gen_stream_open(&st, &eng, spec, 1);
    gen_prompt(&eng, &st, text, 60, hidden);
    /* 6 layers, 30 slots each on average; 2 full ones take 120 of the 180 */
    assert_int_equal(kvg_store_head(st.s.store, 0, 0)->n_slots, 15);
    assert_int_equal(kvg_store_head(st.s.store, 2, 0)->n_slots, 60);
    kvg_store_bytes(st.s.store, &b);
    assert_int_equal(b.payload, 60 * slot / 2);
    gen_stream_close(&st);
}

/* ---- interval ---- */

static void test_interval(void **state)
{
    (void)state;
    static const char *const keepers[] = {"knorm:budget=16", "h2o:budget=16", "window:budget=16",
                                          "snapkv:budget=16,window=4"};
    for (size_t k = 0; k < sizeof keepers / sizeof *keepers; k++) {
        struct gen_stream st;
        char spec[80];
        snprintf(spec, sizeof spec, "%s+interval:every=5", keepers[k]);
        gen_stream_open(&st, &eng, spec, 1);
        gen_prompt(&eng, &st, text, 40, hidden);
        for (size_t i = 1; i <= 23; i++) {
            gen_steps(&eng, &st, text + 40 + i, 1, hidden);
            for (size_t h = 0; h < N_LAYERS * model->n_kv_heads; h++)
                assert_int_equal(st.s.store->heads[h].n_slots, 16 + i % 5);
        }
        gen_stream_close(&st);
    }
}

/* ---- protect ---- */

static const struct kvg_span spans[] = {{2, 6, KVG_SPAN_SYSTEM},
                                        {6, 12, KVG_SPAN_USER},
                                        {12, 15, KVG_SPAN_TOOL},
                                        {33, 35, KVG_SPAN_GLOSSARY},
                                        {36, 90, KVG_SPAN_USER}};

static void set_spans(struct gen_stream *st, const struct kvg_span *s, size_t n)
{
    st->s.text.spans = s;
    st->s.text.n_spans = n;
}

/* Protected positions below n and the latest others, `budget` in all but never fewer than the
 * protected ones and the last. */
static size_t protected_list(unsigned kinds, size_t n, size_t budget, int32_t *out)
{
    unsigned char stays[N_TEXT] = {0};
    size_t left = budget, m = 0;
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        for (size_t p = spans[i].begin; p < spans[i].end && p < n; p++)
            stays[p] = stays[p] || (kinds >> spans[i].kind & 1);
    stays[n - 1] = 1;
    for (size_t p = 0; p < n; p++)
        left -= stays[p] && left;
    for (size_t p = n; p-- > 0 && left;)
        if (!stays[p]) {
            stays[p] = 1;
            left--;
        }
    for (size_t p = 0; p < n; p++)
        if (stays[p])
            out[m++] = (int32_t)p;
    return m;
}

static void test_protect(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        unsigned kinds;
        size_t budget;
    } cases[] = {{"window:budget=20+protect",
                  1 << KVG_SPAN_SYSTEM | 1 << KVG_SPAN_TOOL | 1 << KVG_SPAN_GLOSSARY, 20},
                 {"window:budget=20+protect:spans=tool", 1 << KVG_SPAN_TOOL, 20},
                 {"window:budget=20+protect:spans=glossary/system",
                  1 << KVG_SPAN_SYSTEM | 1 << KVG_SPAN_GLOSSARY, 20},
                 {"window:budget=5+protect:spans=system/tool",
                  1 << KVG_SPAN_SYSTEM | 1 << KVG_SPAN_TOOL, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        int32_t want[N_TEXT];
        gen_stream_open(&st, &eng, cases[i].spec, 1);
        assert_int_equal(st.pipe.needs.spans, 1);
        set_spans(&st, spans, sizeof spans / sizeof *spans);
        gen_prompt(&eng, &st, text, 40, hidden);
        check_all(&st, want, protected_list(cases[i].kinds, 40, cases[i].budget, want));
        for (size_t n = 41; n < 60; n++) {
            gen_steps(&eng, &st, text + n, 1, hidden);
            check_all(&st, want, protected_list(cases[i].kinds, n, cases[i].budget, want));
        }
        gen_stream_close(&st);
    }
}

/* Any scorer, sinks that must stay included: what is protected is always there. */
static void test_protect_scorers(void **state)
{
    (void)state;
    static const char *const specs[] = {"sink:budget=10+protect",
                                        "sink:budget=6+protect",
                                        "h2o:budget=14+protect",
                                        "knorm:budget=25%+protect",
                                        "tova:budget=9+protect",
                                        "random:budget=12+protect",
                                        "h2o:budget=14+fair+protect",
                                        "h2o:budget=14+protect+fair",
                                        "snapkv:budget=14,window=4+protect+interval:every=3"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct gen_stream st;
        gen_stream_open(&st, &eng, specs[i], 1);
        set_spans(&st, spans, sizeof spans / sizeof *spans);
        gen_prompt(&eng, &st, text, 40, hidden);
        for (size_t n = 41; n < 60; n++) {
            gen_steps(&eng, &st, text + n, 1, hidden);
            for (size_t h = 0; h < N_LAYERS * model->n_kv_heads; h++) {
                int32_t pos[N_TEXT];
                size_t slots = positions_of(&st, h / model->n_kv_heads, h % model->n_kv_heads, pos);
                size_t n_system = 0, n_tool = 0, n_glossary = 0;
                for (size_t j = 0; j < slots; j++) {
                    n_system += pos[j] >= 2 && pos[j] < 6;
                    n_tool += pos[j] >= 12 && pos[j] < 15;
                    n_glossary += pos[j] >= 33 && pos[j] < 35;
                }
                if (n_system != 4 || n_tool != 3 || n_glossary != 2)
                    fail_msg("%s, %zu tokens: %zu, %zu and %zu of 4, 3 and 2", specs[i], n,
                             n_system, n_tool, n_glossary);
            }
        }
        gen_stream_close(&st);
    }
}

/* ---- fair ---- */

static const struct kvg_span laws[] = {{0, 12, KVG_SPAN_SYSTEM},
                                       {12, 16, KVG_SPAN_SYSTEM},
                                       {16, 20, KVG_SPAN_USER},
                                       {20, 28, KVG_SPAN_TOOL}};

/* 40 tokens, 10 stay: the newest, and of the other 9 the classes of 12, 4, 8 and 16 tokens are owed
 * 2.7, 0.9, 1.8 and 3.6: rounded by largest remainder 3, 1, 2, 3. `window` prefers the latest. */
static void test_fair_by_hand(void **state)
{
    (void)state;
    static const int32_t want[] = {9, 10, 11, 15, 26, 27, 36, 37, 38, 39};
    struct gen_stream st;
    gen_stream_open(&st, &eng, "window:budget=10+fair", 1);
    set_spans(&st, laws, sizeof laws / sizeof *laws);
    gen_prompt(&eng, &st, text, 40, hidden);
    check_all(&st, want, 10);
    gen_stream_close(&st);
}

/* A class that has fewer slots than it is owed, because turn one took the others, leaves the rest
 * to the other classes. */
static void test_fair_uneven(void **state)
{
    (void)state;
    static const struct kvg_span two[] = {{0, 8, KVG_SPAN_SYSTEM}, {50, 60, KVG_SPAN_SYSTEM}};
    /* turn 1: 20 tokens, budget 8: newest; of 7, 2.8 and 4.2: the law keeps 3, the outside 4 + 1.
     * turn 2: 60 tokens, budget 24: newest (in the second law); of 23, the classes of 8, 10 and 42
     * are owed 3.07, 3.83, 16.1. The first has 3 and takes them; of 20 the others, 10 and 42, are
     * owed 3.85 and 16.15: 4 and 16. */
    static const int32_t first[] = {5, 6, 7, 15, 16, 17, 18, 19};
    static const int32_t second[] = {5,  6,  7,  34, 35, 36, 37, 38, 39, 40, 41, 42,
                                     43, 44, 45, 46, 47, 48, 49, 55, 56, 57, 58, 59};
    struct gen_stream st;
    gen_stream_open(&st, &eng, "window:budget=40%,schedule=turn+fair:spans=system", 1);
    set_spans(&st, two, 1);
    gen_prompt(&eng, &st, text, 20, hidden);
    check_all(&st, first, 8);
    assert_int_equal(kvg_engine_end_turn(eng.e, &st.s, NULL), 0);
    set_spans(&st, two, 2);
    gen_prompt(&eng, &st, text + 20, 40, hidden);
    check_all(&st, second, 24);
    gen_stream_close(&st);
}

/* With any scorer every class keeps its share, give or take one for rounding and one for the newest
 * token, and the budget is met exactly. */
static void test_fair_scorers(void **state)
{
    (void)state;
    static const char *const specs[] = {"knorm:budget=16+fair", "h2o:budget=16+fair",
                                        "random:budget=16+fair", "tova:budget=16+fair",
                                        "snapkv:budget=16,window=4+fair"};
    static const size_t lengths[] = {12, 4, 8};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct gen_stream st;
        gen_stream_open(&st, &eng, specs[i], 1);
        set_spans(&st, laws, sizeof laws / sizeof *laws);
        gen_prompt(&eng, &st, text, 40, hidden);
        for (size_t h = 0; h < N_LAYERS * model->n_kv_heads; h++) {
            int32_t pos[N_TEXT];
            size_t got[3] = {0};
            size_t n = positions_of(&st, h / model->n_kv_heads, h % model->n_kv_heads, pos);
            assert_int_equal(n, 16);
            for (size_t j = 0; j < n; j++) {
                got[0] += pos[j] < 12;
                got[1] += pos[j] >= 12 && pos[j] < 16;
                got[2] += pos[j] >= 20 && pos[j] < 28;
            }
            for (size_t k = 0; k < 3; k++)
                if (fabs((double)got[k] - 15.0 * (double)lengths[k] / 40) >= 1)
                    fail_msg("%s: %zu of a class of %zu tokens", specs[i], got[k], lengths[k]);
        }
        gen_stream_close(&st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ctx_shift),    cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_hybrid_bytes), cmocka_unit_test(test_interval),
        cmocka_unit_test(test_protect),      cmocka_unit_test(test_protect_scorers),
        cmocka_unit_test(test_fair_by_hand), cmocka_unit_test(test_fair_uneven),
        cmocka_unit_test(test_fair_scorers),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
