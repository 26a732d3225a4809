/* Strategies that encode: exact bytes of every form through the pipeline, what they refuse, and the
 * drift of each through the engine, against exact rows and against each other. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_PROMPT = 40, N_STEPS = 12 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[N_PROMPT + N_STEPS];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 128;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, N_PROMPT + N_STEPS, model->n_vocab, 3);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

/* Spec, eighths of a bit per value of K and of V, bytes a row beside that; the largest relative
 * error of the hidden rows. */
static const struct {
    const char *spec;
    unsigned k, v, row_bytes;
    double most;
} forms[] = {
    {"f16", 128, 128, 0, 2e-3},
    {"bf16", 128, 128, 0, 1e-2},
    {"q8_0", 68, 68, 0, 2e-2},
    {"q8_0:layout=ggml", 68, 68, 0, 2e-2},
    {"q8_0:rotate=yes", 68, 68, 0, 2e-2},
    {"q8_0:layout=ggml,rotate=yes,prefill=stored", 68, 68, 0, 2e-2},
    {"q5_1", 48, 48, 0, 0.1},
    {"q5_0", 44, 44, 0, 0.1},
    {"q5_0:rotate=k", 44, 44, 0, 0.1},
    {"q4_1", 40, 40, 0, 0.2},
    {"q4_0", 36, 36, 0, 0.2},
    {"q4_0:rotate=yes", 36, 36, 0, 0.2},
    {"iq4_nl", 36, 36, 0, 0.2},
    {"iq4_nl:rotate=v", 36, 36, 0, 0.2},
    {"kv:k=q8_0,v=q4_1", 68, 40, 0, 0.2},
    {"kv:k=f16,v=iq4_nl,rotate=yes", 128, 36, 0, 0.2},
    {"kv:k=f32,v=bf16", 256, 128, 0, 1e-2},
    {"fp8", 64, 64, 0, 0.1},
    {"fp8:scale=row", 64, 64, 2, 0.1},
    {"fp8:format=e5m2", 64, 64, 0, 0.2},
    {"fp8:format=e5m2,scale=row", 64, 64, 2, 0.2},
    {"turboquant", 32, 32, 2, 0.2},
    {"turboquant:bits=3", 24, 24, 2, 0.4},
    {"turboquant:bits=3,k_bits=4,v_bits=2", 32, 16, 2, 0.6},
};
enum { FORMS = sizeof forms / sizeof *forms };

static void test_bytes(void **state)
{
    (void)state;
    static const size_t widths[] = {32, 64, 96, 128};
    for (size_t i = 0; i < FORMS; i++)
        for (size_t w = 0; w < 4; w++) {
            struct kvg_arena a;
            struct kvg_pipeline p;
            struct kvg_err err;
            struct kvg_dims dims = eng.dims;
            size_t d = dims.d_head = widths[w];
            kvg_arena_init(&a);
            if (kvg_pipeline_open(&p, forms[i].spec, &dims, &a, &err))
                fail_msg("%s", err.msg);
            size_t row = d * (forms[i].k + forms[i].v) / 64 + 2 * forms[i].row_bytes;
            assert_int_equal(p.dims.slot_bytes, dims.n_layers * dims.n_kv_heads * row);
            kvg_arena_release(&a);
        }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *says;
        size_t d;
    } bad[] = {{"q5_1", "blocks of 32", 48},
               {"iq4_nl:rotate=yes", "blocks of 32", 80},
               {"kv:k=f16,v=q4_1", "blocks of 32", 48},
               {"fp8", "multiple of 32", 48},
               {"turboquant", "multiple of 32", 80},
               {"kivi", "groups of 32", 48},
               {"q4_0:rotate=maybe", "rotate", 64},
               {"f16:rotate=yes", "rotate", 64},
               {"kivi:bits=5", "bits", 64},
               {"kivi:bits=16", "bits", 64},
               {"fp8:format=e3m4", "format", 64},
               {"turboquant:bits=5", "bits", 64},
               {"turboquant:bits=0", "bits", 64}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kvg_arena a;
        struct kvg_pipeline p;
        struct kvg_err err = {0};
        struct kvg_dims dims = eng.dims;
        dims.d_head = bad[i].d;
        kvg_arena_init(&a);
        int rc = kvg_pipeline_open(&p, bad[i].spec, &dims, &a, &err);
        if (rc != KVG_EUSAGE || !strstr(err.msg, bad[i].says))
            fail_msg("'%s': %d, %s", bad[i].spec, rc, rc ? err.msg : "accepted");
        kvg_arena_release(&a);
    }
}

static void run(const char *spec, float *out, struct kvg_bytes *bytes)
{
    struct gen_stream st;
    struct kvg_err err;
    gen_stream_open(&st, &eng, spec, 1);
    gen_prompt(&eng, &st, text, N_PROMPT, out);
    gen_steps(&eng, &st, text + N_PROMPT, N_STEPS, out + eng.dims.n_embd);
    if (kvg_store_check(st.s.store, &err))
        fail_msg("%s: %s", spec, err.msg);
    kvg_store_bytes(st.s.store, bytes);
    assert_int_equal(bytes->payload + bytes->scales,
                     st.pipe.dims.slot_bytes * (N_PROMPT + N_STEPS));
    gen_stream_close(&st);
}

/* Encoded rows are near exact ones, in every form, but never the same. */
static void test_drift(void **state)
{
    (void)state;
    size_t w = eng.dims.n_embd, n = (N_STEPS + 1) * w;
    float *exact = malloc(n * sizeof *exact), *got = malloc(n * sizeof *got);
    assert_true(exact && got);
    struct kvg_bytes bytes;
    run("full", exact, &bytes);
    for (size_t i = 0; i < FORMS; i++) {
        double error = 0, square = 0;
        run(forms[i].spec, got, &bytes);
        /* The prompt's own row is computed from exact rows unless prefill=stored. */
        for (size_t j = w; j < n; j++) {
            error += pow((double)got[j] - (double)exact[j], 2);
            square += pow((double)exact[j], 2);
        }
        if (!(error > 0 && sqrt(error / square) <= forms[i].most))
            fail_msg("%s: relative error %g", forms[i].spec, sqrt(error / square));
        int same = !memcmp(got, exact, w * sizeof *got);
        assert_int_equal(same, !strstr(forms[i].spec, "prefill=stored"));
    }
    free(exact);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_drift),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
