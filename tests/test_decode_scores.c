/* The two strategies whose choice while decoding takes arithmetic, against plain
 * re-implementations: scissorhands against counters over attention rows that are all written down,
 * r-kv against the whole matrix of cosines in double. A spy in the pipeline sees what they saw. */
#include "gen_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_LAYERS = 2, N_HEADS = 4, N_KV = 2, GROUP = N_HEADS / N_KV, D = 32, W = 128, MOST = 160 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[MOST];
static float hidden[MOST * W];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = MOST;
    model = gen_model(&c);
    assert_int_equal(model->n_layers, N_LAYERS);
    assert_int_equal(model->n_heads, N_HEADS);
    assert_int_equal(model->n_kv_heads, N_KV);
    assert_int_equal(model->d_head, D);
    /* in the order of rows: a prompt has the bits of its tokens fed one by one */
    gen_engine_open(&eng, model, "auto", 1, 1);
    gen_tokens(text, MOST, model->n_vocab, 5);
    for (size_t i = 13; i < MOST; i++)
        text[i] = text[i % 13]; /* the same tokens come again: keys that are alike */
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

/* Opens a stream with a spy at the end of its pipeline; a wrapper when it rescores. */
static void open_spied(struct gen_stream *st, const char *spec, const struct kvg_strategy *spy)
{
    struct kvg_err err;
    kvg_arena_init(&st->arena);
    if (kvg_pipeline_open(&st->pipe, spec, &eng.dims, &st->arena, &err))
        fail_msg("%s", err.msg);
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in = (struct kvg_inst){.s = spy, .state = in, .first_obs = w->n_obs, .dims = eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM, .window = 1};
    if (spy->rescore)
        st->pipe.wrap[st->pipe.n_wraps++] = in;
    if (kvg_stream_open(&st->s, eng.e, &st->pipe, &err))
        fail_msg("%s", err.msg);
    kvg_stream_reset(&st->s, 1);
}

/* Positions that every head ought to hold. */
struct expected {
    int32_t pos[MOST];
    size_t n;
};
static struct expected expected[N_LAYERS][N_KV];

static void check_kept(const struct gen_stream *st)
{
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < N_KV; h++) {
            const struct expected *e = &expected[l][h];
            int32_t pos[MOST];
            kvg_store_positions(st->s.store, l, h, pos);
            size_t n = kvg_store_head(st->s.store, l, h)->n_slots;
            if (n != e->n || memcmp(pos, e->pos, n * sizeof *pos))
                fail_msg("%s, %zu tokens, layer %zu, head %zu: %zu slots, expected %zu, or others",
                         st->pipe.label, st->s.n_tokens, l, h, n, e->n);
        }
}

/* The n_keep best stay; of equals the earlier ones, or, when just one goes, the later ones. */
static void keep_best(struct expected *e, const double *score, size_t n_keep)
{
    size_t n = e->n, m = 0;
    unsigned char stays[MOST];
    memset(stays, 1, n);
    for (size_t gone = 0; gone < n - n_keep; gone++) {
        size_t worst = n;
        for (size_t j = 0; j < n; j++)
            if (stays[j] && (worst == n || score[j] < score[worst] ||
                             (score[j] <= score[worst] && n_keep + 1 < n)))
                worst = j;
        stays[worst] = 0;
    }
    for (size_t j = 0; j < n; j++)
        if (stays[j])
            e->pos[m++] = e->pos[j];
    e->n = m;
}

/* ---- scissorhands ---- */

/* Whether query q of a head gave slot p at least the mean: [layer][head][p][q]. */
static unsigned char above[N_LAYERS][N_HEADS][MOST][MOST];

/* Streams under this spy are fed token by token. */
static void write_down(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    assert_int_equal(v->n_new, 1);
    for (size_t g = 0; g < N_HEADS; g++) {
        int32_t pos[MOST];
        size_t n = kvg_view_slots(v, g / GROUP);
        kvg_store_positions(v->store, v->layer, g / GROUP, pos);
        for (size_t j = 0; j < n; j++)
            above[v->layer][g][pos[j]][v->pos0] =
                v->obs[in->first_obs][g * v->obs_ld + j] >= 1.0f / (float)n;
    }
}

static const struct kvg_strategy writer = {
    .name = "writer", .kind = KVG_KIND_READ, .observe = write_down};

/* Steps of [from, to) in which slot p got the mean, its query heads reduced. */
static double count_above(size_t layer, size_t head, size_t p, size_t from, size_t to, int any)
{
    double sum = 0;
    for (size_t q = from > p ? from : p; q < to; q++) {
        double mean = 0, most = 0;
        for (size_t g = 0; g < GROUP; g++) {
            mean += above[layer][head * GROUP + g][p][q];
            most = fmax(most, above[layer][head * GROUP + g][p][q]);
        }
        sum += any ? most : mean / GROUP;
    }
    return sum;
}

struct scissors {
    const char *spec;
    size_t budget, half, recent, drop;
    int any, share;
};

static void expect_step(const struct scissors *c, size_t layer, size_t head, size_t n_tokens)
{
    struct expected *e = &expected[layer][head];
    size_t epoch = (n_tokens - 1) / c->half, from = epoch ? (epoch - 1) * c->half : 0;
    double score[MOST];
    e->pos[e->n++] = (int32_t)(n_tokens - 1);
    if (e->n <= c->budget)
        return;
    for (size_t j = 0; j < e->n; j++) {
        size_t p = (size_t)e->pos[j], first = from > p ? from : p;
        double high = count_above(layer, head, p, from, n_tokens, c->any);
        double seen = (double)(n_tokens - first);
        score[j] = c->share ? (double)((float)high / (float)seen) : high - seen;
        if (j + c->recent >= e->n)
            score[j] = INFINITY;
    }
    keep_best(e, score, e->n - c->drop);
}

static void test_scissorhands(void **state)
{
    (void)state;
    static const struct scissors cases[] = {
        {"scissorhands:budget=20,window=30,recent=4", 20, 15, 4, 10, 0, 0},
        {"scissorhands:budget=20,window=30,recent=4,reduce=any", 20, 15, 4, 10, 1, 0},
        {"scissorhands:budget=24,window=16,recent=6,drop=0,rank=share", 24, 8, 6, 1, 0, 1},
        {"scissorhands:budget=31,drop=0.25", 31, 200, 10, 7, 0, 0},
        {"scissorhands:budget=18,drop=0,reduce=any,rank=share", 18, 200, 10, 1, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        memset(expected, 0, sizeof expected);
        open_spied(&st, cases[i].spec, &writer);
        for (size_t n = 1; n <= 120; n++) {
            if (n == 1)
                gen_prompt(&eng, &st, text, 1, hidden);
            else
                gen_steps(&eng, &st, text + n - 1, 1, hidden);
            for (size_t l = 0; l < N_LAYERS; l++)
                for (size_t h = 0; h < N_KV; h++)
                    expect_step(&cases[i], l, h, n);
            check_kept(&st);
        }
        assert_true(st.s.store->count.n_evicted > 100);
        gen_stream_close(&st);
    }
}

static void check_counts(const struct gen_stream *st, size_t before0, size_t now0, size_t end)
{
    const struct kvg_inst *in = st->pipe.keep;
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < N_KV; h++) {
            float c[2 * MOST];
            assert_int_equal(kvg_store_head(st->s.store, l, h)->n_slots, end);
            kvg_store_side_get(st->s.store, l, h, in->first_side, c);
            for (size_t p = 0; p < end; p++) {
                double now = count_above(l, h, p, now0, end, 0);
                double before = count_above(l, h, p, before0, now0, 0);
                if (fabs((double)c[2 * p] - now) > 1e-6 ||
                    fabs((double)c[2 * p + 1] - before) > 1e-6)
                    fail_msg("%zu tokens, layer %zu, head %zu, slot %zu: %g and %g, expected %g "
                             "and %g",
                             end, l, h, p, (double)c[2 * p], (double)c[2 * p + 1], now, before);
            }
        }
}

/* Prompts of any length leave in the two halves what single steps would have; what was taken back
 * is forgotten. */
static void test_scissorhands_prompts(void **state)
{
    (void)state;
    static const struct {
        size_t n, before0, now0;
    } prompts[] = {{30, 0, 0}, {20, 0, 30}, {5, 0, 30}, {60, 55, 75}, {25, 75, 115}};
    struct gen_stream st;
    size_t end = 0;
    memset(above, 0, sizeof above);
    open_spied(&st, "full", &writer);
    gen_prompt(&eng, &st, text, 1, hidden);
    gen_steps(&eng, &st, text + 1, MOST - 1, hidden);
    gen_stream_close(&st);
    gen_stream_open(&st, &eng, "scissorhands:budget=100%,window=80", 1);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        gen_prompt(&eng, &st, text + end, prompts[i].n, hidden);
        end += prompts[i].n;
        check_counts(&st, prompts[i].before0, prompts[i].now0, end);
    }
    gen_steps(&eng, &st, text + end, 3, hidden);
    check_counts(&st, 75, 115, end + 3);
    assert_int_equal(kvg_stream_truncate(eng.e, &st.s, 100, NULL), 0);
    gen_steps(&eng, &st, text + 100, 2, hidden);
    check_counts(&st, 100, 100, 102);
    gen_stream_close(&st);
}

/* ---- r-kv ---- */

struct rkv {
    const char *spec;
    size_t window, kernel;
    double lambda, threshold;
};
static const struct rkv *rkv;
static size_t n_scored, n_alike;

static void softmax(double *x, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t j = 0; j < n; j++)
        max = fmax(max, x[j]);
    for (size_t j = 0; j < n; j++)
        sum += x[j] = exp(x[j] - max);
    for (size_t j = 0; j < n; j++)
        x[j] /= sum;
}

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (size_t c = 0; c < D; c++)
        sum += (double)a[c] * (double)b[c];
    return sum;
}

/* The matrix as the published code makes it: no diagonal; in every row the last column above the
 * threshold is zeroed, column 0 where there is none; mean of every column, softmax. */
static void direct_redundancy(const float *k, size_t n, double *out)
{
    static double cos[MOST][MOST];
    for (size_t i = 0; i < n; i++) {
        size_t last = 0;
        for (size_t j = 0; j < n; j++) {
            const float *a = k + i * D, *b = k + j * D;
            cos[i][j] =
                i == j ? 0 : dot(a, b) / (sqrt(dot(a, a)) + 1e-8) / (sqrt(dot(b, b)) + 1e-8);
            assert_true(fabs(cos[i][j] - rkv->threshold) > 1e-6);
            if (cos[i][j] > rkv->threshold)
                last = j;
        }
        n_alike += last > 0;
        cos[i][last] = 0;
    }
    for (size_t j = 0; j < n; j++) {
        out[j] = 0;
        for (size_t i = 0; i < n; i++)
            out[j] += cos[i][j] / (double)n;
    }
    softmax(out, n);
}

static void direct_attention(const struct kvg_view *v, size_t head, const float *k, size_t n_old,
                             double *out)
{
    double mean[MOST] = {0};
    for (size_t i = v->n_queries - rkv->window; i < v->n_queries; i++) {
        double p[MOST];
        for (size_t j = 0; j < n_old; j++) {
            p[j] = -INFINITY;
            for (size_t g = 0; g < GROUP; g++)
                p[j] =
                    fmax(p[j], dot(v->queries + (i * N_HEADS + head * GROUP + g) * D, k + j * D) /
                                   sqrt((double)D));
        }
        softmax(p, n_old);
        for (size_t j = 0; j < n_old; j++)
            mean[j] += p[j] / (double)rkv->window;
    }
    for (size_t j = 0; j < n_old; j++) {
        size_t half = rkv->kernel / 2;
        out[j] = 0;
        for (size_t i = j > half ? j - half : 0; i < n_old && i <= j + half; i++)
            out[j] = fmax(out[j], mean[i]);
    }
}

static void check_scores(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *s)
{
    (void)in;
    for (size_t h = 0; h < N_KV; h++) {
        struct expected *e = &expected[v->layer][h];
        size_t n = s->n[h], n_old = n - rkv->window;
        double score[MOST], red[MOST], attention[MOST];
        float k[MOST * D];
        assert_int_equal(v->n_queries, rkv->window);
        kvg_store_read(v->store, v->layer, h, KVG_COL_K, 0, n, k);
        direct_redundancy(k, n, red);
        direct_attention(v, h, k, n_old, attention);
        for (size_t j = 0; j < n; j++) {
            score[j] =
                j < n_old ? rkv->lambda * attention[j] - (1 - rkv->lambda) * red[j] : INFINITY;
            double got = (double)kvg_scores_head(s, h)[j];
            if (j < n_old && !(fabs(got - score[j]) < 1e-6))
                fail_msg("%s, layer %zu, head %zu, slot %zu of %zu: %g, directly %g", rkv->spec,
                         v->layer, h, j, n, got, score[j]);
        }
        e->n = n;
        kvg_store_positions(v->store, v->layer, h, e->pos);
        keep_best(e, score, s->n_keep[h]);
        n_scored++;
    }
}

static const struct kvg_strategy checker = {
    .name = "checker", .kind = KVG_KIND_WRAP, .rescore = check_scores};

static void test_rkv(void **state)
{
    (void)state;
    static const struct rkv cases[] = {
        {"r-kv:budget=24,schedule=every:10", 8, 7, 0.07, 0.5},
        {"r-kv:budget=33,schedule=every:6,lambda=0.5,window=3,kernel=3,threshold=0.2", 3, 3, 0.5,
         0.2},
        {"r-kv:budget=50%,schedule=every:16,lambda=0,window=5,threshold=-0.1", 5, 7, 0, -0.1},
        {"r-kv:budget=40,schedule=every:7,lambda=1,kernel=1", 8, 1, 1, 0.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        size_t due = (size_t)strtol(strstr(cases[i].spec, "every:") + 6, NULL, 10);
        rkv = &cases[i];
        n_scored = n_alike = 0;
        open_spied(&st, rkv->spec, &checker);
        gen_prompt(&eng, &st, text, 75, hidden);
        check_kept(&st);
        for (size_t n = 1; n <= 32; n++) {
            gen_steps(&eng, &st, text + 74 + n, 1, hidden);
            if (n % due == 0)
                check_kept(&st);
        }
        assert_int_equal(kvg_engine_end_turn(eng.e, &st.s, NULL), 0);
        gen_prompt(&eng, &st, text + 107, 40, hidden);
        check_kept(&st);
        assert_int_equal(n_scored, (2 + 32 / due) * N_LAYERS * N_KV);
        assert_true(n_alike > 100);
        gen_stream_close(&st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scissorhands),
        cmocka_unit_test(test_scissorhands_prompts),
        cmocka_unit_test(test_rkv),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
