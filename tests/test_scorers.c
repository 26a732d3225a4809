/* Strategies that score once per prompt against their definitions: scores computed plainly from
 * what the store held when the choice was made, turn after turn. */
#include "gen_record.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void by_difference(const struct gen_rec *r, double *out)
{
    double mean[D] = {0}, norm = 0;
    for (size_t j = 0; j < r->n; j++)
        for (size_t c = 0; c < D; c++)
            mean[c] += (double)r->k[j * D + c] / sqrt(gen_rec_square(r->k + j * D)) / (double)r->n;
    for (size_t c = 0; c < D; c++)
        norm += mean[c] * mean[c];
    for (size_t j = 0; j < r->n; j++) {
        out[j] = 0;
        for (size_t c = 0; c < D; c++)
            out[j] -= (double)r->k[j * D + c] * mean[c] / sqrt(gen_rec_square(r->k + j * D) * norm);
    }
}

static void by_observation(const struct gen_rec *r, double *out)
{
    for (size_t j = 0; j < r->n; j++)
        out[j] = r->sum[r->pos[j]] / (double)((int32_t)r->n_text - r->pos[j]);
}

/* cur:local=8,sinks=2 */
static void by_leverage(const struct gen_rec *r, double *out)
{
    for (size_t j = 0; j < r->n; j++) {
        double k = 0, v = 0;
        for (size_t i = j / 8 * 8; i < r->n && i < j / 8 * 8 + 8; i++) {
            k += gen_rec_square(r->k + i * D);
            v += gen_rec_square(r->v + i * D);
        }
        out[j] =
            j < 2 ? SURE : gen_rec_square(r->k + j * D) / k * (gen_rec_square(r->v + j * D) / v);
    }
}

/* Spreads of one stretch of 12 against the next one, as a softmax. */
static void lag_part(const float *x, double *out)
{
    double u[12], sum = 0;
    for (size_t j = 0; j < 12; j++) {
        double y[D], mean = 0, var = 0;
        for (size_t c = 0; c < D; c++) {
            double lo = INFINITY, hi = -INFINITY;
            for (size_t i = 12; i < 24; i++) {
                lo = fmin(lo, (double)x[i * D + c]);
                hi = fmax(hi, (double)x[i * D + c]);
            }
            y[c] = ((double)x[j * D + c] - lo) / (hi - lo);
            mean += y[c] / D;
        }
        for (size_t c = 0; c < D; c++)
            var += (y[c] - mean) * (y[c] - mean) / (D - 1);
        u[j] = exp(sqrt(var));
        sum += u[j];
    }
    for (size_t j = 0; j < 12; j++)
        out[j] += u[j] / sum / 2;
}

/* lagkv:lag=12,sinks=3 */
static void by_lag(const struct gen_rec *r, double *out)
{
    size_t n_parts = r->n >= 27 ? (r->n - 3) / 12 - 1 : 0;
    for (size_t j = 0; j < r->n; j++)
        out[j] = j < 3 ? SURE : n_parts ? 1 : (double)j;
    for (size_t p = 0; p < n_parts; p++) {
        double raw[12] = {0};
        size_t from = 3 + p * 12;
        lag_part(r->k + from * D, raw);
        lag_part(r->v + from * D, raw);
        for (size_t j = 0; j < 12; j++) {
            out[from + j] = 0;
            for (size_t i = 0; i < 12; i++)
                out[from + j] += raw[i] < raw[j] ? 1.0 / 12 : 0;
        }
    }
}

/* y = R x, R the mean rotation of the 40 positions behind the text (those in the context). */
static void turn(const struct gen_rec *r, const double *x, size_t stride, double *y)
{
    size_t end = r->n_text + 40 < CTX ? r->n_text + 40 : CTX;
    for (size_t c = 0; c < D; c++)
        y[c * stride] = 0;
    for (size_t p = r->n_text; p < end; p++)
        for (size_t i = 0; i < D / 2; i++) {
            double co = (double)r->cos[p * D / 2 + i], si = (double)r->sin[p * D / 2 + i];
            double a = x[i * stride], b = x[(i + D / 2) * stride], n = (double)(end - r->n_text);
            y[i * stride] += (a * co - b * si) / n;
            y[(i + D / 2) * stride] += (b * co + a * si) / n;
        }
}

/* expected-attention:future=40,sinks=4 */
static void by_expectation(const struct gen_rec *r, double *out)
{
    memset(out, 0, r->n * sizeof *out);
    for (size_t g = 0; g < GROUP; g++) {
        double mean[D], m[D], cov[D * D], a[D * D], s[D * D], z[CTX], sum = 0;
        for (size_t c = 0; c < D; c++)
            mean[c] = (double)r->mean[g * D + c];
        for (size_t c = 0; c < D * D; c++)
            cov[c] = (double)r->cov[g * D * D + c];
        turn(r, mean, 1, m);
        for (size_t c = 0; c < D; c++)
            turn(r, cov + c, D, a + c); /* columns: R S */
        for (size_t c = 0; c < D; c++)
            turn(r, a + c * D, 1, s + c * D); /* rows: R S R' */
        for (size_t j = 4; j < r->n; j++) {
            z[j] = 0;
            for (size_t c = 0; c < D; c++) {
                double k = (double)r->k[j * D + c];
                z[j] += k * m[c] / sqrt(D);
                for (size_t e = 0; e < D; e++)
                    z[j] += k * s[c * D + e] * (double)r->k[j * D + e] / (2 * D);
            }
            sum += exp(z[j]);
        }
        for (size_t j = 4; j < r->n; j++)
            out[j] += exp(z[j]) / sum * sqrt(gen_rec_square(r->v + j * D)) / GROUP;
    }
    for (size_t j = 0; j < 4 && j < r->n; j++)
        out[j] = SURE;
}

static void test_scores(void **state)
{
    (void)state;
    static struct gen_rec_case cases[] = {
        {"knorm:budget=40%", gen_rec_norms},
        {"keydiff:budget=40%", by_difference},
        {"observed-attention:budget=40%", by_observation},
        {"cur:budget=40%,local=8,sinks=2", by_leverage},
        {"lagkv:budget=40%,lag=12,sinks=3", by_lag},
        {"expected-attention:budget=40%,future=40,sinks=4", by_expectation},
        {"keydiff:budget=40%+rerotate", by_difference}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        gen_rec_run(cases[i].spec, gen_rec_check_best, &cases[i]);
}

/* ---- pyramidkv, simlayerkv ---- */

static void check_pyramid(const struct gen_stream *st, void *arg)
{
    double n = (double)st->s.n_tokens, mean = 0.4 * n, foot = 2 * mean - mean / 4, top = mean / 4;
    (void)arg;
    if (foot >= n - 4) {
        foot = n - 4;
        top = 2 * mean - foot;
    }
    assert_true(top >= 4); /* a pyramid it is, and one with two layers */
    for (size_t row = 0; row < ROWS; row++)
        assert_int_equal(st->s.store->heads[row].n_slots, nearbyint(row < KV ? foot : top));
}

static void test_pyramid(void **state)
{
    (void)state;
    gen_rec_run("pyramidkv:budget=40%,window=4,beta=4", check_pyramid, NULL);
    gen_rec_run("pyramidkv:budget=40%,window=4,beta=4+chunkkv:chunk=1", check_pyramid, NULL);
}

/* A lazy layer: positions 0 to 2 and the last 9 slots. */
static void check_lazy(const struct gen_stream *st, void *arg)
{
    size_t *n_lazy = arg;
    for (size_t l = 0; l < LAYERS; l++) {
        const struct gen_rec *r = &gen_recs[l * KV];
        double x = 0;
        for (size_t h = 0; h < KV; h++)
            for (size_t g = 0; g < GROUP; g++)
                for (size_t j = 0; j < r->n - 1; j++)
                    x += j < 3 || j + 1 + 10 >= r->n ? gen_recs[l * KV + h].row[g][j] : 0;
        int lazy = x / (KV * GROUP) > 0.217;
        *n_lazy += (size_t)lazy;
        for (size_t h = 0; h < KV; h++) {
            int stays[CTX];
            assert_int_equal(gen_rec_stayed(st, l * KV + h, stays), lazy ? 12 : r->n);
            for (size_t j = 0; j < r->n; j++)
                assert_int_equal(stays[j], !lazy || j < 3 || j + 9 >= r->n);
        }
    }
}

static void test_lazy_layers(void **state)
{
    (void)state;
    size_t n_lazy = 0;
    gen_rec_run("simlayerkv:threshold=0.217,sinks=3,recent=10", check_lazy, &n_lazy);
    assert_in_range(n_lazy, 1, LAYERS * TURNS - 1); /* both kinds were seen */
}

/* ---- finch ---- */

static double voted[ROWS][CTX];

/* Rows of single steps, weighted by how many slots they saw. */
static void vote(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    for (size_t h = 0; h < KV && v->phase == KVG_PHASE_DECODE; h++)
        for (size_t g = h * GROUP; g < (h + 1) * GROUP; g++)
            for (size_t j = 0, n = kvg_view_slots(v, h); j < n; j++)
                voted[v->layer * KV + h][j] +=
                    (double)v->obs[in->first_obs][g * v->obs_ld + j] * (double)n;
}
static const struct kvg_strategy voter = {.name = "vote", .kind = KVG_KIND_READ, .observe = vote};

/* The question's queries one by one on a full cache, then finch on the same text at once. */
static void test_finch(void **state)
{
    (void)state;
    enum { CONTEXT = 60, QUESTION = 9, STAY = 30 };
    static const char *const specs[] = {"finch:budget=30", "finch:budget=30,position=true"};
    struct gen_stream st;
    gen_stream_open(&st, &gen_rec_eng, "full", 1);
    struct kvg_needs *w = &st.pipe.needs;
    st.pipe.inst[st.pipe.n++] = (struct kvg_inst){.s = &voter, .dims = gen_rec_eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM};
    memset(voted, 0, sizeof voted);
    gen_prompt(&gen_rec_eng, &st, gen_rec_text, CONTEXT, gen_rec_hidden);
    gen_steps(&gen_rec_eng, &st, gen_rec_text + CONTEXT, QUESTION, gen_rec_hidden);
    gen_stream_close(&st);
    for (size_t i = 0; i < 2; i++) {
        gen_rec_stream(&st, specs[i]);
        st.s.text.question = CONTEXT;
        gen_prompt(&gen_rec_eng, &st, gen_rec_text, CONTEXT + QUESTION, gen_rec_hidden);
        for (size_t row = 0; row < ROWS; row++) {
            int stays[CTX];
            assert_int_equal(gen_rec_stayed(&st, row, stays), STAY);
            for (size_t j = CONTEXT; j < CONTEXT + QUESTION; j++)
                assert_true(stays[j]);
            gen_rec_check_order(specs[i], voted[row], stays, CONTEXT);
        }
        gen_stream_close(&st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_pyramid),
        cmocka_unit_test(test_lazy_layers),
        cmocka_unit_test(test_finch),
    };
    return cmocka_run_group_tests(tests, gen_rec_open, gen_rec_close);
}
