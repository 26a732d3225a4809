/* The position audit: for every strategy, in every pass of ten turns, attention as it was observed
 * is what the stored rows give at the positions that the strategy's policy names. */
#include "gen_engine.h"
#include "gen_spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { W = 96, TURNS = 10, FIRST = 45, PROMPT = 13, REPLY = 4, CTX = 512, D = 32 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[CTX + 64];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = CTX;
    c.n_embd = W;
    c.n_ff = 32;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, CTX + 64, model->n_vocab, 21);
    gen_spec_open(model);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_spec_close();
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

static void rotate(float *x, size_t pos)
{
    size_t half = D / 2;
    const float *c = model->rope_cos + pos * half, *s = model->rope_sin + pos * half;
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * c[i] - b * s[i];
        x[i + half] = b * c[i] + a * s[i];
    }
}

static int n_probed;
static const char *probed; /* the spec */

/* Stored rows of one head with the rotation that the policy says. */
static size_t keys_of(const struct kvg_view *v, size_t h, float *k)
{
    int32_t pos[CTX];
    size_t n = kvg_view_slots(v, h);
    kvg_store_positions(v->store, v->layer, h, pos);
    kvg_store_read(v->store, v->layer, h, KVG_COL_K, 0, n, k);
    if (pos[n - 1] != (int32_t)v->n_logical - 1)
        fail_msg("%s: the last slot is not the last token", probed);
    for (size_t j = 0; j < n && v->store->cfg.raw_keys; j++)
        rotate(k + j * D, v->position == KVG_POSITION_SLOT ? j : (size_t)pos[j]);
    return n;
}

static void check_row(const float *q, const float *k, size_t n, const float *seen)
{
    double p[CTX], sum = 0, max = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        p[j] = 0;
        for (size_t c = 0; c < D; c++)
            p[j] += (double)q[c] * (double)k[j * D + c] / sqrt(D);
        max = p[j] > max ? p[j] : max;
    }
    for (size_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - max);
    for (size_t j = 0; j < n; j++)
        if (!(fabs(p[j] / sum - (double)seen[j]) < 2e-5))
            fail_msg("%s: attention to slot %zu of %zu is %g, not %g", probed, j, n,
                     (double)seen[j], p[j] / sum);
}

/* The last query's attention. */
static void probe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    size_t group = model->n_heads / model->n_kv_heads;
    float k[CTX * D];
    if (v->phase == KVG_PHASE_AUX)
        return;
    if (!v->n_queries)
        fail_msg("%s: no query is shown", probed);
    const float *q = v->queries + (v->n_queries - 1) * model->n_heads * D;
    if (v->q)
        assert_memory_equal(v->q, q, model->n_heads * D * sizeof *q);
    for (size_t h = 0; h < model->n_kv_heads; h++) {
        size_t n = keys_of(v, h, k);
        for (size_t g = h * group; g < (h + 1) * group; g++)
            check_row(q + g * D, k, n, v->obs[in->first_obs] + g * v->obs_ld);
    }
    n_probed++;
}

static const struct kvg_strategy prober = {
    .name = "probe", .kind = KVG_KIND_READ, .observe = probe};

/* A stream whose pipeline has the prober at its end. */
static void open_probed(struct gen_stream *st, const char *spec)
{
    struct kvg_err err;
    kvg_arena_init(&st->arena);
    if (kvg_pipeline_open(&st->pipe, spec, &eng.dims, &st->arena, &err))
        fail_msg("%s", err.msg);
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in = (struct kvg_inst){
        .s = &prober, .state = &n_probed, .first_obs = w->n_obs, .dims = eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM, .window = 1};
    w->queries = w->queries ? w->queries : 1;
    if (kvg_stream_open(&st->s, eng.e, &st->pipe, &err))
        fail_msg("%s", err.msg);
    kvg_stream_reset(&st->s, 3);
}

static void run_turns(struct gen_stream *st)
{
    static float rows[REPLY * W];
    const int32_t *t = text;
    for (size_t turn = 0; turn < TURNS; turn++) {
        size_t n = turn ? PROMPT : FIRST;
        gen_spec_text(&st->s, n, t + n, REPLY);
        gen_prompt(&eng, st, t, n, rows);
        gen_steps(&eng, st, t + n, REPLY, rows);
        t += n + REPLY;
        assert_int_equal(kvg_engine_end_turn(eng.e, &st->s, NULL), 0);
    }
}

static void audit(const char *spec)
{
    struct gen_stream st;
    probed = spec;
    n_probed = 0;
    open_probed(&st, spec);
    run_turns(&st);
    if (n_probed != TURNS * (REPLY + 1) * (int)model->n_layers)
        fail_msg("%s: %d layers of passes were seen", spec, n_probed);
    gen_stream_close(&st);
}

static void test_every_strategy(void **state)
{
    (void)state;
    static const char *const around[] = {"h2o:budget=30%", "snapkv:budget=40%,window=8",
                                         "sink:budget=20", "full"};
    static const char *const with[] = {"", "+f16", "+kivi:bits=2,group=8,residual=16"};
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t i = 0; i < n; i++) {
        const struct kvg_strategy *s = all[i];
        int inner = s->kind == KVG_KIND_WRAP || s->kind == KVG_KIND_ENCODE;
        if (s->kind == KVG_KIND_READ)
            continue; /* what is not read has no attention to compare */
        for (size_t k = 0; k < 3; k++) {
            char spec[GEN_SPEC_MAX] = "";
            /* a wrapper goes around what scores, an encoding behind any keeper */
            if (inner)
                strcpy(spec, around[s->kind == KVG_KIND_ENCODE ? k + 1 : k % 2]);
            gen_spec_add(spec, s, "35%");
            if (s->kind != KVG_KIND_ENCODE && !s->recompute)
                strcat(spec, with[k]);
            audit(spec);
        }
    }
}

static void test_policies(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        enum kvg_position position;
        int raw_keys;
    } cases[] = {{"full", KVG_POSITION_TRUE, 0},
                 {"window:budget=20", KVG_POSITION_TRUE, 0},
                 {"sink:budget=20", KVG_POSITION_SLOT, 1},
                 {"sink:budget=20,position=true", KVG_POSITION_TRUE, 0},
                 {"ctx-shift:budget=20", KVG_POSITION_SLOT, 1},
                 {"hybrid:budget=20,full=2", KVG_POSITION_TRUE, 0},
                 {"h2o:budget=40%", KVG_POSITION_TRUE, 0},
                 {"h2o:budget=40%+adakv", KVG_POSITION_TRUE, 0},
                 {"h2o:budget=40%+rerotate", KVG_POSITION_SLOT, 1},
                 {"snapkv:budget=40%,window=8+adakv+rerotate", KVG_POSITION_SLOT, 1},
                 {"finch:budget=40%", KVG_POSITION_SLOT, 1},
                 {"snapkv:budget=40%,window=8", KVG_POSITION_TRUE, 0},
                 {"random:budget=30%", KVG_POSITION_TRUE, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        open_probed(&st, cases[i].spec);
        assert_int_equal(st.pipe.position, cases[i].position);
        assert_int_equal(st.s.store->cfg.raw_keys, cases[i].raw_keys);
        gen_stream_close(&st);
        audit(cases[i].spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_every_strategy),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
