/* Owns what tests of strategies record of a store; must not know which strategy is tried. */
#include "gen_record.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct kvg_model *gen_rec_model;
struct gen_engine gen_rec_eng;
int32_t gen_rec_text[400];
float gen_rec_hidden[CTX * EMBD];
struct gen_rec gen_recs[ROWS];

int gen_rec_open(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = CTX;
    gen_rec_model = gen_model(&c);
    gen_engine_open(&gen_rec_eng, gen_rec_model, "auto", 1, 1);
    gen_tokens(gen_rec_text, 400, gen_rec_model->n_vocab, 77);
    return 0;
}

int gen_rec_close(void **state)
{
    (void)state;
    gen_engine_close(&gen_rec_eng);
    kvg_model_close(gen_rec_model);
    return 0;
}

static void record_head(const struct kvg_inst *in, const struct kvg_view *v, size_t h)
{
    struct gen_rec *r = &gen_recs[v->layer * KV + h];
    r->n = kvg_view_slots(v, h);
    r->n_text = v->n_logical;
    r->cos = v->rope_cos;
    r->sin = v->rope_sin;
    kvg_store_positions(v->store, v->layer, h, r->pos);
    for (size_t j = 0; j < r->n; j += 64) {
        size_t m = r->n - j < 64 ? r->n - j : 64;
        kvg_view_keys(v, h, j, m, r->k + j * D);
        kvg_view_values(v, h, j, m, r->v + j * D);
    }
    if (v->q_mean) {
        memcpy(r->mean, v->q_mean + h * GROUP * D, sizeof r->mean);
        memcpy(r->cov, v->q_cov + h * GROUP * D * D, sizeof r->cov);
    }
    for (size_t g = 0; g < GROUP; g++)
        for (size_t j = 0; j < r->n; j++) {
            size_t at = (h * GROUP + g) * v->obs_ld + j;
            r->row[g][j] = (double)v->obs[in->first_obs][at];
            r->sum[r->pos[j]] += (double)v->obs[in->first_obs + 1][at] / GROUP;
        }
}

static void record(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    for (size_t h = 0; h < KV; h++)
        record_head(in, v, h);
}
static const struct kvg_strategy recorder = {
    .name = "record", .kind = KVG_KIND_READ, .observe = record};

void gen_rec_stream(struct gen_stream *st, const char *spec)
{
    gen_stream_open(st, &gen_rec_eng, spec, 1);
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in = (struct kvg_inst){.s = &recorder, .first_obs = w->n_obs, .dims = gen_rec_eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM, .window = 1};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM};
    memset(gen_recs, 0, sizeof gen_recs);
}

/* 1 for every recorded slot that is still there, to stays; how many. */
size_t gen_rec_stayed(const struct gen_stream *st, size_t row, int *stays)
{
    int32_t pos[CTX];
    size_t n = st->s.store->heads[row].n_slots, at = 0;
    kvg_store_positions(st->s.store, row / KV, row % KV, pos);
    for (size_t j = 0; j < gen_recs[row].n; j++) {
        stays[j] = at < n && pos[at] == gen_recs[row].pos[j];
        at += (size_t)stays[j];
    }
    assert_int_equal(at, n);
    return n;
}

/* Nothing that went scores more than what stayed, rounding aside. */
void gen_rec_check_order(const char *spec, const double *score, const int *stays, size_t n)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        if (stays[j])
            least = fmin(least, score[j]);
        else
            most = fmax(most, score[j]);
    }
    if (!(most <= least + 2e-5 * fabs(least)))
        fail_msg("%s: what went scores %g, what stayed %g", spec, most, least);
}

/* Three turns; check() after every prompt. */
void gen_rec_run(const char *spec, void (*check)(const struct gen_stream *st, void *arg), void *arg)
{
    struct gen_stream st;
    const int32_t *t = gen_rec_text;
    gen_rec_stream(&st, spec);
    for (size_t turn_no = 0; turn_no < TURNS; turn_no++) {
        size_t n = turn_no ? PROMPT / 2 : PROMPT;
        gen_prompt(&gen_rec_eng, &st, t, n, gen_rec_hidden);
        check(&st, arg);
        gen_steps(&gen_rec_eng, &st, t + n, STEPS, gen_rec_hidden);
        assert_int_equal(kvg_engine_end_turn(gen_rec_eng.e, &st.s, NULL), 0);
        t += n + STEPS;
    }
    gen_stream_close(&st);
}

double gen_rec_square(const float *x)
{
    double sum = 0;
    for (size_t c = 0; c < D; c++)
        sum += (double)x[c] * (double)x[c];
    return sum;
}

void gen_rec_norms(const struct gen_rec *r, double *out)
{
    for (size_t j = 0; j < r->n; j++)
        out[j] = -sqrt(gen_rec_square(r->k + j * D));
}

void gen_rec_check_best(const struct gen_stream *st, void *arg)
{
    const struct gen_rec_case *c = arg;
    for (size_t row = 0; row < ROWS; row++) {
        double s[CTX];
        int stays[CTX];
        assert_int_equal(gen_rec_stayed(st, row, stays), (size_t)((double)st->s.n_tokens * 0.4));
        c->score(&gen_recs[row], s);
        gen_rec_check_order(c->spec, s, stays, gen_recs[row].n);
    }
}
