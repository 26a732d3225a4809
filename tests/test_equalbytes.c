/* Budgets fitted to bytes, on a tiny model: what the search promises is what a stream then holds at
 * the prompt's end, for keepers of every form of positions and for encodings; what cannot be
 * reached is refused with the reason. */
#include "gen_engine.h"
#include "run/equalbytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { N = 200, MORE = 24 };

/* Chosen at the prompt's end, and before a question that comes on top. */
static const struct kvg_equal_at AT_END = {N, 0}, BEFORE = {N - MORE, MORE};

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[N];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, N, model->n_vocab, 21);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

static double held(const char *spec, struct kvg_equal_at at, const struct kvg_budget *budget)
{
    struct gen_stream st;
    struct kvg_bytes b;
    float x[128];
    gen_stream_open(&st, &eng, spec, 5);
    if (budget)
        *st.pipe.keep->budget = *budget;
    gen_prompt(&eng, &st, text, at.n_tokens, x);
    struct kvg_stream *stream = &st.s;
    if (at.n_more)
        assert_int_equal(kvg_engine_prompt(eng.e, &stream, 1, text + at.n_tokens, at.n_more, 0,
                                           NULL, 0, NULL, NULL),
                         0);
    kvg_store_bytes(st.s.store, &b);
    gen_stream_close(&st);
    return (double)b.logical / N;
}

static void test_promises(void **state)
{
    (void)state;
    static const char *const specs[] = {"window",
                                        "sink",
                                        "sink+f16",
                                        "h2o",
                                        "tova+f16",
                                        "snapkv:window=8",
                                        "snapkv:window=8+q8_0",
                                        "knorm+q4_0",
                                        "random+kivi:bits=2,group=8,residual=16"};
    for (size_t i = 0; i < 2 * (sizeof specs / sizeof *specs); i++) {
        struct kvg_arena a;
        struct kvg_equal *e;
        struct kvg_err err;
        kvg_arena_init(&a);
        if (kvg_equal_open(&e, specs[i / 2], model, N, &a, &err))
            fail_msg("%s: %s", specs[i / 2], err.msg);
        const struct kvg_equal_at at = i % 2 ? BEFORE : AT_END;
        double most = kvg_equal_bytes(e, at, &(struct kvg_budget){KVG_BUDGET_SHARE, 1});
        for (int part = 1; part <= 3; part++) {
            struct kvg_budget b = {0};
            double target = most * (part + 1) / 5;
            if (kvg_equal_find(e, at, target, &b, &err))
                fail_msg("%s: %s", specs[i / 2], err.msg);
            double says = kvg_equal_bytes(e, at, &b), is = held(specs[i / 2], at, &b);
            /* a sealed group of 8 is the coarsest step */
            if (!(fabs(says / target - 1) <= 0.04) || !(fabs(is / says - 1) <= 0.02))
                fail_msg("%s: %.1f wanted, %.1f promised, %.1f held", specs[i / 2], target, says,
                         is);
        }
        kvg_equal_close(e);
        kvg_arena_release(&a);
    }
}

static void test_out_of_reach(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        double factor; /* of what it holds at its most */
        const char *says;
    } cases[] = {{"q8_0", 0.5, "has no budget"},
                 {"snapkv:window=8+f16", 1.5, "takes less"},
                 {"snapkv:window=8+f16", 0.001, "one slot"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kvg_arena a;
        struct kvg_equal *e;
        struct kvg_err err = {0};
        struct kvg_budget b, all = {KVG_BUDGET_SHARE, 1};
        kvg_arena_init(&a);
        assert_int_equal(kvg_equal_open(&e, cases[i].spec, model, N, &a, &err), 0);
        double target = kvg_equal_bytes(e, AT_END, &all) * cases[i].factor;
        int rc = kvg_equal_find(e, AT_END, target, &b, &err);
        if (rc != KVG_ENONE || !strstr(err.msg, cases[i].says))
            fail_msg("%s at %.0f: %d, %s", cases[i].spec, target, rc, err.msg);
        kvg_equal_close(e);
        kvg_arena_release(&a);
    }
}

/* Without a budget to fit, what it holds anyway is met. */
static void test_as_it_is(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_equal *e;
    struct kvg_budget b;
    kvg_arena_init(&a);
    assert_int_equal(kvg_equal_open(&e, "full+f16", model, N, &a, NULL), 0);
    assert_true(fabs(kvg_equal_bytes(e, AT_END, NULL) - held("full+f16", AT_END, NULL)) < 1e-9);
    assert_int_equal(kvg_equal_find(e, AT_END, held("full+f16", AT_END, NULL) * 1.01, &b, NULL), 0);
    kvg_equal_close(e);
    kvg_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_promises),
        cmocka_unit_test(test_out_of_reach),
        cmocka_unit_test(test_as_it_is),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
