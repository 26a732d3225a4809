/* The example of CONTRIBUTING.md, compiled from the page: it keeps what it says. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

extern const struct kvg_strategy kvg_vnorm;

enum { N = 90, KEPT = 45 };

static double length_of(const struct kvg_store *s, size_t head, size_t slot)
{
    float row[256];
    double sum = 0;
    kvg_store_read(s, 0, head, KVG_COL_V, slot, 1, row);
    for (size_t c = 0; c < s->cfg.d_head; c++)
        sum += fabs((double)row[c]);
    return sum;
}

static void test_example(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 128;
    struct kvg_model *model = gen_model(&c);
    struct gen_engine eng;
    struct gen_stream full, st;
    int32_t text[N];
    float x[128];
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, N, model->n_vocab, 3);
    gen_stream_open(&full, &eng, "full", 1);
    gen_stream_open(&st, &eng, "knorm:budget=50%", 1);
    assert_string_equal(kvg_vnorm.opts[0].name, st.pipe.keep->s->opts[0].name);
    st.pipe.keep->s = &kvg_vnorm; /* the same option table; not in the registry */
    gen_prompt(&eng, &full, text, N, x);
    gen_prompt(&eng, &st, text, N, x);
    for (size_t h = 0; h < model->n_kv_heads; h++) {
        int32_t pos[N];
        double least = INFINITY, most = 0;
        int kept[N] = {0};
        assert_int_equal(kvg_store_head(st.s.store, 0, h)->n_slots, KEPT);
        kvg_store_positions(st.s.store, 0, h, pos);
        for (size_t i = 0; i < KEPT; i++)
            kept[pos[i]] = 1;
        for (size_t j = 0; j < N; j++) {
            double len = length_of(full.s.store, h, j);
            if (kept[j])
                least = fmin(least, len);
            else
                most = fmax(most, len);
        }
        assert_true(least >= most - 1e-5);
    }
    gen_stream_close(&st);
    gen_stream_close(&full);
    gen_engine_close(&eng);
    kvg_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_example)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
