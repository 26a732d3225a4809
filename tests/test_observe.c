/* What the engine shows strategies, against plain computations from stored rows and past queries:
 * every kind of observation over every window, in prompts and in steps that look back, queries and
 * their moments; reading named slots only; attention over rows however they lie. */
#include "gen_engine.h"
#include "gen_spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { W = 128, CTX = 512, D = 32, HEADS = 4, KV = 2, LAYERS = 2, GROUP = HEADS / KV, HELD = 100 };

static struct kvg_model *model;
static int32_t text[CTX];
static float hidden[CTX * W];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = CTX;
    model = gen_model(&c);
    gen_tokens(text, CTX, model->n_vocab, 77);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    kvg_model_close(model);
    return 0;
}

/* A stream of a spec with a strategy of the test's own at its end. */
static void open_with(struct gen_stream *st, struct gen_engine *g, const char *spec,
                      const struct kvg_strategy *own, const struct kvg_needs *needs)
{
    static char state_of_own[8];
    struct kvg_err err;
    kvg_arena_init(&st->arena);
    if (kvg_pipeline_open(&st->pipe, spec, &g->dims, &st->arena, &err))
        fail_msg("%s", err.msg);
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in =
        (struct kvg_inst){.s = own, .state = state_of_own, .first_obs = w->n_obs, .dims = g->dims};
    assert_true(w->n_obs + needs->n_obs <= KVG_OBS_N);
    for (size_t i = 0; i < needs->n_obs; i++)
        w->obs[w->n_obs++] = needs->obs[i];
    w->queries = needs->queries > w->queries ? needs->queries : w->queries;
    w->moments = needs->moments;
    w->across |= needs->across;
    w->moments_skip = needs->moments_skip;
    if (kvg_stream_open(&st->s, g->e, &st->pipe, &err))
        fail_msg("%s", err.msg);
    kvg_stream_reset(&st->s, 3);
}

/* ---- observations ---- */

static const struct kvg_obs *asked; /* [KVG_OBS_N] by index in the observer */
static size_t n_asked, n_wide;

static double weigh(enum kvg_obs_kind kind, double sum, double p, size_t m)
{
    switch (kind) {
    case KVG_OBS_SUM:
        return sum + p;
    case KVG_OBS_MAX:
        return p > sum ? p : sum;
    case KVG_OBS_WEIGHTED:
        return sum + p * (double)m;
    default:
        return sum + (p >= 1 / (double)m);
    }
}

/* Attention of one query over the slots at positions up to its own; how many those are. */
static size_t attend(const float *q, const float *k, const int32_t *pos, size_t n, int32_t own,
                     double *p)
{
    double max = -INFINITY, sum = 0;
    while (n > 0 && pos[n - 1] > own)
        n--;
    for (size_t j = 0; j < n; j++) {
        p[j] = 0;
        for (size_t c = 0; c < D; c++)
            p[j] += (double)q[c] * (double)k[j * D + c] / sqrt(D);
        max = p[j] > max ? p[j] : max;
    }
    for (size_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - max);
    for (size_t j = 0; j < n; j++)
        p[j] /= sum;
    return n;
}

static void check_obs(const struct kvg_view *v, size_t obs, size_t i, size_t rows)
{
    static float k[CTX * D];
    static int32_t pos[CTX];
    for (size_t g = 0; g < HEADS; g++) {
        size_t h = g / GROUP, n = kvg_view_slots(v, h);
        double want[CTX] = {0}, near[CTX] = {0}, p[CTX];
        kvg_store_positions(v->store, v->layer, h, pos);
        for (size_t from = 0; from < n; from += 64)
            kvg_view_keys(v, h, from, n - from < 64 ? n - from : 64, k + from * D);
        for (size_t r = v->n_queries - rows; r < v->n_queries; r++) {
            int32_t own = (int32_t)(v->n_logical - v->n_queries + r);
            size_t m = attend(v->queries + (r * HEADS + g) * D, k, pos, n, own, p);
            for (size_t j = 0; j < m; j++) {
                want[j] = weigh(asked[i].kind, want[j], p[j], m);
                near[j] += asked[i].kind == KVG_OBS_ABOVE && fabs(p[j] * (double)m - 1) < 1e-4;
            }
        }
        for (size_t j = 0; j < n; j++) {
            double got = (double)v->obs[obs][g * v->obs_ld + j];
            if (!(fabs(got - want[j]) <= 1e-4 * (1 + want[j]) + near[j]))
                fail_msg("kind %d, window %zu, phase %d: slot %zu of %zu has %g, not %g",
                         (int)asked[i].kind, asked[i].window, (int)v->phase, j, n, got, want[j]);
        }
    }
}

static size_t rows_of(const struct kvg_view *v, size_t window)
{
    size_t n = v->n_new, q = v->text->question;
    if (window == KVG_WINDOW_QUESTION)
        return q > (size_t)v->pos0 && q < v->n_logical ? v->n_logical - q : n;
    return window && window < n ? window : n;
}

static size_t due_every; /* steps look back at every so manyth one */

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    static size_t step;
    int step_due = 0;
    if (v->phase == KVG_PHASE_PROMPT)
        step = 0;
    else if (v->layer == 0)
        step++;
    step_due = v->phase == KVG_PHASE_DECODE && due_every && step % due_every == 0;
    for (size_t i = 0; i < n_asked; i++) {
        size_t rows = rows_of(v, asked[i].window), obs = in->first_obs + i;
        if (step_due && kvg_obs_looks_back(&asked[i])) {
            rows = asked[i].window < v->n_logical ? asked[i].window : v->n_logical;
            n_wide++;
        }
        assert_int_equal(v->obs_rows[obs], rows);
        check_obs(v, obs, i, rows);
    }
}

static const struct kvg_strategy observer = {
    .name = "observer", .kind = KVG_KIND_READ, .observe = observe};

static void run_observed(struct gen_engine *g, const char *spec, const struct kvg_obs *obs,
                         size_t n, size_t every)
{
    struct gen_stream st;
    struct kvg_needs needs = {.n_obs = n, .queries = HELD, .across = 1};
    memcpy(needs.obs, obs, n * sizeof *obs);
    asked = obs;
    n_asked = n;
    n_wide = 0;
    due_every = every;
    open_with(&st, g, spec, &observer, &needs);
    const int32_t *t = text;
    for (size_t turn = 0; turn < 3; turn++) {
        st.s.text.question = turn == 1 ? SIZE_MAX : st.s.n_tokens + 30;
        st.s.n_decode_steps = 0;
        gen_prompt(g, &st, t, 40, hidden);
        gen_steps(g, &st, t + 40, 9, hidden);
        t += 49;
    }
    assert_true((n_wide > 0) == (every > 0));
    gen_stream_close(&st);
}

static void test_kinds_and_windows(void **state)
{
    (void)state;
    static const struct kvg_obs sets[][3] = {
        {{KVG_OBS_SUM, 0, 0}, {KVG_OBS_MAX, 7, 0}, {KVG_OBS_WEIGHTED, 12, 0}},
        {{KVG_OBS_ABOVE, 0, 0}, {KVG_OBS_SUM, KVG_WINDOW_QUESTION, 0}, {KVG_OBS_MAX, 60, 0}},
        {{KVG_OBS_WEIGHTED, KVG_WINDOW_QUESTION, 0}, {KVG_OBS_SUM, 33, 0}, {KVG_OBS_ABOVE, 5, 0}},
        {{KVG_OBS_ABOVE, 40, 0}, {KVG_OBS_WEIGHTED, 1, 0}, {KVG_OBS_SUM, 11, 1}}};
    static const struct {
        const char *spec;
        size_t every;
    } pipes[] = {{"full", 0},
                 {"knorm:budget=30,schedule=every:3", 3},
                 {"h2o:budget=40%,schedule=every:1", 1},
                 {"knorm:budget=30,schedule=every:3+rerotate", 3},
                 {"knorm:budget=30,schedule=every:4+kivi:bits=4,group=8,residual=8", 4}};
    for (int ordered = 0; ordered < 2; ordered++) {
        struct gen_engine g;
        gen_engine_open(&g, model, "auto", 2, ordered);
        for (size_t i = 0; i < sizeof pipes / sizeof *pipes; i++)
            for (size_t k = 0; k < sizeof sets / sizeof *sets; k++)
                run_observed(&g, pipes[i].spec, sets[k], 3, pipes[i].every);
        gen_engine_close(&g);
    }
}

/* ---- queries and their moments ---- */

static struct {
    size_t skip, n;
    double sum[LAYERS][HEADS][D], cross[LAYERS][HEADS][D][D];
} plain;

/* Takes the rotation by a position back. */
static void turn_back(float *x, size_t pos)
{
    const float *c = model->rope_cos + pos * D / 2, *s = model->rope_sin + pos * D / 2;
    for (size_t i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2];
        x[i] = a * c[i] + b * s[i];
        x[i + D / 2] = b * c[i] - a * s[i];
    }
}

static void add_query(size_t layer, size_t g, const float *q, size_t pos)
{
    float x[D];
    memcpy(x, q, sizeof x);
    turn_back(x, pos);
    for (size_t i = 0; i < D; i++) {
        plain.sum[layer][g][i] += (double)x[i];
        for (size_t j = 0; j < D; j++)
            plain.cross[layer][g][i][j] += (double)x[i] * (double)x[j];
    }
}

static void see_moments(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)in;
    (void)columns;
    size_t first = v->n_logical - v->n_queries, n = v->n_logical - plain.skip;
    for (size_t r = v->n_queries - v->n_new; r < v->n_queries; r++)
        for (size_t g = 0; g < HEADS && first + r >= plain.skip; g++)
            add_query(v->layer, g, v->queries + (r * HEADS + g) * D, first + r);
    assert_int_equal(v->n_moments, n);
    for (size_t g = 0; g < HEADS; g++)
        for (size_t i = 0; i < D; i++) {
            double mean = plain.sum[v->layer][g][i] / (double)n;
            assert_true(fabs((double)v->q_mean[g * D + i] - mean) < 1e-5);
            for (size_t j = 0; j < D; j++) {
                double cov = plain.cross[v->layer][g][i][j] / (double)n -
                             mean * plain.sum[v->layer][g][j] / (double)n;
                assert_true(fabs((double)v->q_cov[(g * D + i) * D + j] - cov) < 1e-5);
            }
        }
    plain.n++;
}

static void forget(void)
{
    memset(&plain, 0, sizeof plain);
    plain.skip = 4;
}

static const struct kvg_strategy watcher = {
    .name = "watcher", .kind = KVG_KIND_READ, .observe = see_moments};

static void test_moments(void **state)
{
    (void)state;
    struct gen_engine g;
    struct gen_stream st;
    const struct kvg_needs needs = {.queries = HELD, .across = 1, .moments = 1, .moments_skip = 4};
    gen_engine_open(&g, model, "auto", 2, 0);
    open_with(&st, &g, "h2o:budget=30", &watcher, &needs);
    size_t held = kvg_stream_held_bytes(model, &st.pipe);
    assert_int_equal(st.s.store->held_bytes, held);
    assert_true(held >= LAYERS * HEADS * (HELD * D * 4 + D * (D + 1) * 8));
    for (int again = 0; again < 2; again++) {
        forget();
        gen_prompt(&g, &st, text, 50, hidden);
        gen_steps(&g, &st, text + 50, 12, hidden);
        gen_prompt(&g, &st, text + 62, 20, hidden);
        assert_int_equal(plain.n, LAYERS * 14);
        kvg_stream_reset(&st.s, 1);
    }
    /* what was fed and taken back counts no longer: the text is computed anew */
    forget();
    gen_prompt(&g, &st, text, 60, hidden);
    forget();
    assert_int_equal(kvg_stream_truncate(g.e, &st.s, 40, NULL), 0);
    gen_prompt(&g, &st, text + 100, 10, hidden);
    assert_int_equal(plain.n, LAYERS * 2);
    gen_stream_close(&st);
    gen_engine_close(&g);
}

/* ---- reading named slots ---- */

static size_t every_nth;

static void name_slots(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    (void)in;
    for (size_t h = 0; h < KV; h++) {
        size_t n = kvg_view_slots(v, h), m = 0;
        uint32_t *slots = kvg_plan_slots(plan, n);
        for (size_t j = 0; j < n; j++)
            if (j % every_nth == 0 || j + 1 == n)
                slots[m++] = (uint32_t)j;
        kvg_plan_list(plan, KVG_PLAN_READ, v->layer, h, slots, m);
    }
}

static void check_named(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    static float k[CTX * D], part[CTX * D];
    static int32_t pos[CTX];
    (void)columns;
    for (size_t g = 0; g < HEADS && v->phase == KVG_PHASE_DECODE; g++) {
        size_t n = kvg_view_slots(v, g / GROUP), m = 0, at = 0;
        const float *row = v->obs[in->first_obs] + g * v->obs_ld;
        double p[CTX];
        for (size_t from = 0; from < n; from += 64)
            kvg_view_keys(v, g / GROUP, from, n - from < 64 ? n - from : 64, k + from * D);
        for (size_t j = 0; j < n; j++)
            if (j % every_nth == 0 || j + 1 == n) {
                memcpy(part + m * D, k + j * D, D * sizeof *k);
                pos[m++] = (int32_t)j;
            }
        attend(v->q + g * D, part, pos, m, INT32_MAX, p);
        for (size_t j = 0; j < n; j++) {
            double want = at < m && pos[at] == (int32_t)j ? p[at++] : 0;
            assert_true(fabs((double)row[j] - want) < 2e-5);
        }
    }
}

static const struct kvg_strategy reader = {
    .name = "reader", .kind = KVG_KIND_READ, .before_attend = name_slots, .observe = check_named};

static void run_reader(struct gen_engine *g, const char *spec, size_t nth, float *out,
                       struct kvg_counters *work)
{
    struct gen_stream st;
    const struct kvg_needs needs = {.n_obs = 1, .obs = {{.kind = KVG_OBS_SUM, .window = 1}}};
    every_nth = nth;
    if (nth)
        open_with(&st, g, spec, &reader, &needs);
    else
        gen_stream_open(&st, g, spec, 3);
    gen_prompt(g, &st, text, 400, out);
    struct kvg_counters before = st.s.store->count;
    gen_steps(g, &st, text + 400, 10, out);
    *work = st.s.store->count;
    work->bytes_read -= before.bytes_read;
    work->n_macs -= before.n_macs;
    gen_stream_close(&st);
}

static void test_reading(void **state)
{
    (void)state;
    static const char *const specs[] = {"full",
                                        "full+f16",
                                        "full+q4_0:layout=ggml",
                                        "full+kivi:bits=2,group=8,residual=16",
                                        "sink:budget=350",
                                        "random:budget=300+q8_0"};
    static float whole[10 * W], named[10 * W], one[10 * W];
    struct kvg_counters all, few, same;
    struct gen_engine g, alone;
    gen_engine_open(&g, model, "auto", 2, 0);
    gen_engine_open(&alone, model, "auto", 1, 0);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        run_reader(&g, specs[i], 0, whole, &all);
        run_reader(&g, specs[i], 1, named, &few);
        assert_memory_equal(whole, named, sizeof whole);
        assert_int_equal(all.n_macs, few.n_macs);
        run_reader(&g, specs[i], 3, named, &few);
        run_reader(&alone, specs[i], 3, one, &same);
        assert_memory_equal(named, one, sizeof one);
        assert_int_equal(few.n_macs, same.n_macs);
        assert_true(memcmp(whole, named, sizeof whole) != 0);
        assert_true(few.n_macs < all.n_macs);
    }
    /* a third of the exact rows of K and V, and the last one; what check_named reads comes on top
     */
    run_reader(&g, "full", 3, named, &few);
    size_t read = 0, looked = 0;
    for (size_t n = 401; n <= 410; n++) {
        read += (n + 2) / 3 + ((n - 1) % 3 != 0);
        looked += n;
    }
    assert_int_equal(few.bytes_read, LAYERS * D * sizeof(float) * (KV * 2 * read + HEADS * looked));
    gen_engine_close(&g);
    gen_engine_close(&alone);
}

/* ---- rows however they lie ---- */

/* The rows of a store one after the other in a fresh stream of the same spec. */
static void lay_out(struct gen_stream *to, const struct kvg_store *from, size_t n_tokens)
{
    size_t width = KV * D, n = from->heads[0].n_slots;
    float k[KV * D], v[KV * D];
    for (size_t l = 0; l < LAYERS; l++)
        for (size_t j = 0; j < n; j++) {
            for (size_t h = 0; h < KV; h++) {
                assert_int_equal(kvg_store_head(from, l, h)->n_slots, n);
                kvg_store_read(from, l, h, KVG_COL_K, j, 1, k + h * D);
                kvg_store_read(from, l, h, KVG_COL_V, j, 1, v + h * D);
            }
            kvg_store_append(to->s.store, l, k, v, width, (int32_t)j, 1);
        }
    to->s.n_tokens = n_tokens;
}

static void check_layout(const char *level, const char *spec, const char *fresh, int ordered)
{
    static float a[64 * W], b[64 * W];
    struct gen_engine g;
    struct gen_stream torn, neat;
    gen_engine_open(&g, model, level, 2, ordered);
    gen_stream_open(&torn, &g, spec, 1);
    gen_stream_open(&neat, &g, fresh, 1);
    gen_prompt(&g, &torn, text, 330, a);
    gen_steps(&g, &torn, text + 330, 40, a);
    torn.s.bare = neat.s.bare = 1; /* from here on nothing goes */
    lay_out(&neat, torn.s.store, torn.s.n_tokens);
    gen_steps(&g, &torn, text + 370, 3, a);
    gen_steps(&g, &neat, text + 370, 3, b);
    if (memcmp(a, b, 3 * W * sizeof *a))
        fail_msg("%s, %s: steps depend on how rows lie", level, spec);
    gen_prompt(&g, &torn, text + 373, 40, a);
    gen_prompt(&g, &neat, text + 373, 40, b);
    if (memcmp(a, b, W * sizeof *a))
        fail_msg("%s, %s: a prompt depends on how rows lie", level, spec);
    gen_stream_close(&torn);
    gen_stream_close(&neat);
    gen_engine_close(&g);
}

static void test_layout(void **state)
{
    (void)state;
    static const char *const specs[][2] = {{"h2o:budget=300", "full"},
                                           {"random:budget=290", "paged:block=5"},
                                           {"h2o:budget=300+paged:block=16", "full"},
                                           {"sink:budget=280", "sink:budget=280"}};
    const char *const *levels = kvg_kernels_levels();
    for (size_t l = 0; levels[l]; l++)
        for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
            check_layout(levels[l], specs[i][0], specs[i][1], i % 2 == 0);
    check_layout("auto", specs[0][0], specs[0][1], 0);
    check_layout("auto", specs[2][0], specs[2][1], 0);
}

/* ---- the model as strategies see it ---- */

static void test_dims(void **state)
{
    (void)state;
    struct kvg_dims d = kvg_model_dims(model);
    int32_t ids[64], few[2] = {-1, -1};
    assert_int_equal(d.n_embd, W);
    assert_int_equal(d.slot_bytes, LAYERS * KV * D * 2 * sizeof(float));
    assert_true(d.rope_base > 1);
    size_t n = d.encode(d.tokenizer, "Repeat the text.", ids, 64);
    assert_in_range(n, 1, 16);
    assert_int_equal(d.encode(d.tokenizer, "Repeat the text.", few, 1), n);
    assert_int_equal(few[0], ids[0]);
    assert_int_equal(few[1], -1);
    for (size_t i = 0; i < n; i++)
        assert_false(kvg_tokenizer_is_control(model->tok, ids[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_and_windows),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_dims),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
