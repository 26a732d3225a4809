/* Tests the constructed recall model and the measurement on it: what an exact cache knows at any
 * length, and what strategies that drop the middle must lose. */
#include "gen_engine.h"
#include "model/induction.h"
#include "run/drift.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_recalls_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
